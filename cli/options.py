"""Options of several commands."""

from argparse import ArgumentParser, ArgumentTypeError


def positive(text: str) -> int:
    """A whole number of at least 1.

    Raises: ValueError, ArgumentTypeError: it is not one; argparse reports it.
    """
    number = int(text)
    if number < 1:
        raise ArgumentTypeError("at least 1")
    return number


def ranks(parser: ArgumentParser) -> None:
    """Adds `--ranks N`."""
    parser.add_argument(
        "--ranks",
        type=positive,
        metavar="N",
        help="run every stage on N CPU processes of this machine instead of its cluster",
    )


def miniature(parser: ArgumentParser) -> None:
    """Adds `--miniature`."""
    parser.add_argument(
        "--miniature",
        action="store_true",
        help="the recipe's miniature: the same graph and changes, small enough for a laptop",
    )


def changes(parser: ArgumentParser) -> None:
    """Adds `--variant NAME` and `--set PATH=VALUE`."""
    parser.add_argument("--variant", metavar="NAME", help="a variant of the recipe")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="PATH=VALUE",
        help="change a value, as in --set pretrain.lr=3e-4; may be repeated",
    )


def part(parser: ArgumentParser) -> None:
    """Adds `--until STAGE`, `--from STAGE` and `--only STAGE`."""
    parser.add_argument(
        "--until", metavar="STAGE", help="the plan up to a stage, such as sft or align.2"
    )
    parser.add_argument(
        "--from",
        dest="since",
        metavar="STAGE",
        help="the plan from a stage on; the results that it starts from must exist",
    )
    parser.add_argument(
        "--only", metavar="STAGE", help="one stage; the results that it starts from must exist"
    )


def detailed_exitcode(parser: ArgumentParser) -> None:
    """Adds `--detailed-exitcode`."""
    parser.add_argument(
        "--detailed-exitcode",
        action="store_true",
        help="exit with 0 if nothing differs, 1 on errors, 2 if something differs",
    )


def replacing(parser: ArgumentParser) -> None:
    """Adds `--force`, for commands that write a new file."""
    parser.add_argument("--force", action="store_true", help="replace an existing file")


def after(parser: ArgumentParser) -> None:
    """Adds `--after SPEC`."""
    parser.add_argument(
        "--after", metavar="SPEC", help="a spec that trains the model to continue from"
    )
