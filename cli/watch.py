"""`etude watch`: follows a run until it ends."""

from argparse import ArgumentParser, Namespace

from .common import open_run, problem


def arguments(parser: ArgumentParser) -> None:
    """Adds the arguments of `etude watch` to its parser."""
    parser.add_argument("folder", metavar="FOLDER")
    parser.add_argument("--json", action="store_true", help="print the run's events as JSON lines")


def run(args: Namespace) -> int:
    return follow(args.folder, json_lines=args.json)


def follow(folder: str, *, json_lines: bool = False) -> int:
    """Follows the run in a folder; returns the exit code."""
    from ..runtime.errors import RunError
    from .status_watch import watch

    opened = open_run(folder)
    if opened is None:
        return 1
    try:
        return watch(*opened, json_lines=json_lines)
    except RunError as reason:
        problem(reason.message, reason.help)
        return reason.exit_code
