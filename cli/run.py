"""`etude run`: runs a spec or a plan, or the rest of it."""

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from . import options
from .common import ALL, is_plan
from .work import done, failed, work

if TYPE_CHECKING:
    from ..compiler.plan.plan import Plan
    from ..runtime.run_folder.recorder import OnEvent


def arguments(parser: ArgumentParser) -> None:
    """Adds the arguments of `etude run` to its parser."""
    parser.add_argument("file", metavar="SPEC_OR_PLAN")
    parser.add_argument("--folder", metavar="FOLDER", help="the run folder (default: runs/RECIPE)")
    parser.add_argument("--json", action="store_true", help="events as JSON lines")
    options.ranks(parser)
    options.part(parser)
    options.miniature(parser)
    options.changes(parser)


def run(args: Namespace) -> int:
    from ..runtime.errors import RunError
    from ..runtime.launchers.allocation import here
    from ..runtime.stopping import listening

    if args.variant == ALL and not is_plan(Path(args.file)):
        from .several import run_variants

        return _ended(run_variants(args), args)
    try:
        place = here()
    except RunError as reason:
        return failed(reason, as_json=args.json)
    if place is not None and place.world_size > 1:
        from .run_rank import run as run_rank

        with listening(last=args.alone):
            return run_rank(args, place)
    return _ended(work(args, _run, done), args)


def _ended(code: int, args: Namespace) -> int:
    """The exit code; ends the process with it at once if torch is still being imported."""
    from ..runtime.imports import leave

    if code and args.alone:
        leave(code)
    return code


def _run(plan: "Plan", folder: Path, root: Path, on_event: "OnEvent") -> None:
    from ..runtime.gang import execute

    execute(plan, folder, root, on_event)
