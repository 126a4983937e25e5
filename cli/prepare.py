"""`etude prepare`: tokenizers and data sets, on one machine or in parts on many."""

import functools
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from . import run as running
from .common import problem
from .work import work

if TYPE_CHECKING:
    from ..compiler.plan.plan import Plan
    from ..runtime.preparation.units import Part
    from ..runtime.run_folder.recorder import OnEvent


def arguments(parser: ArgumentParser) -> None:
    """Adds the arguments of `etude prepare` to its parser."""
    running.arguments(parser)
    parser.add_argument(
        "--part",
        nargs=3,
        metavar=("I", "of", "N"),
        help="tokenize the I-th of N parts of the data, as in --part 1 of 8",
    )


def run(args: Namespace) -> int:
    if not args.part:
        return work(args, _all, _prepared)
    part = _part(args.part)
    if part is None:
        problem(
            f"`--part {' '.join(args.part)}` is not a part",
            "write it like --part 1 of 8, with numbers from 1 on",
        )
        return 2
    return work(args, functools.partial(_some, part), functools.partial(_tokenized, part))


def _part(words: list[str]) -> "Part | None":
    from ..runtime.preparation.units import Part

    number, of, parts = words
    if of != "of" or not (number.isdecimal() and parts.isdecimal()):
        return None
    return Part(int(number), int(parts)) if 1 <= int(number) <= int(parts) else None


def _all(plan: "Plan", folder: Path, root: Path, on_event: "OnEvent") -> None:
    from ..runtime.gang import execute

    execute(plan, folder, root, on_event, prepare=True)


def _some(part: "Part", plan: "Plan", folder: Path, root: Path, on_event: "OnEvent") -> None:
    from ..runtime.prepare_part import prepare_part

    prepare_part(plan, folder, root, on_event, part)


def _prepared(plan: "Plan", folder: Path) -> str:
    from ..runtime.run_folder.store import Store

    return f"prepared: {Store(folder).name} has the data; `etude run` trains on them"


def _tokenized(part: "Part", plan: "Plan", folder: Path) -> str:
    from ..runtime.run_folder.store import Store

    return (
        f"part {part.number} of {part.of} is tokenized, in {Store(folder).name}/work; once all "
        "parts are, `etude prepare` or `etude run` joins them"
    )
