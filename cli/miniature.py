"""The table of differences at the beginning of `plan` and `run --miniature`."""

import json
from pathlib import Path

from ..compiler.plan.plan import Plan
from .common import problem
from .tables import Column, Row, drawn, show

FILE = "miniature.txt"
"""The table's file in the run folder."""
_ELSEWHERE = ("ranks", "why", "deep")


def refused(args: object) -> bool:
    """Whether an option was given that a miniature does not have; reports it."""
    for option in _ELSEWHERE:
        if getattr(args, option, None):
            problem(
                f"--{option} cannot be combined with --miniature",
                "a miniature always runs in one process"
                if option == "ranks"
                else f"remove --miniature to see --{option} of the recipe itself",
            )
            return True
    return False


def table(plan: Plan) -> None:
    """Prints the table."""
    show(*_table(plan))


def begin(plan: Plan, folder: Path, *, json_lines: bool) -> None:
    """Shows the table, or an event with its content, and saves it in the run folder.

    Raises: RunError: the folder belongs to another recipe's run, or cannot be written.
    """
    from ..runtime.disk import disk, write
    from ..runtime.errors import RunError

    try:
        there = json.loads((folder / "plan.json").read_text(encoding="utf-8"))["recipe"]
    except (OSError, ValueError, KeyError, TypeError):
        there = plan.recipe
    if there != plan.recipe:
        raise RunError(
            f"{folder} is the run folder of `{there}`",
            f"a miniature needs a separate folder: remove --folder to use runs/{plan.recipe}",
        )
    with disk(folder / FILE):
        folder.mkdir(parents=True, exist_ok=True)
        lines = drawn(*_table(plan), room=None)
        write(folder / FILE, "\n".join(lines) + "\n")
    if json_lines:
        rows = [vars(each) for each in plan.miniature or []]
        print(json.dumps({"event": "miniature", "mapping": rows}), flush=True)
    else:
        table(plan)


def _table(plan: Plan) -> tuple[list[Column], list[list[Row]]]:
    rows = []
    block = None
    for each in plan.miniature or []:
        shown = "" if each.block == block else each.block
        block = each.block
        rows.append(Row((shown, each.attribute, each.full, each.miniature)))
    return [Column(name) for name in ("miniature", "attribute", "of the recipe", "here")], [rows]
