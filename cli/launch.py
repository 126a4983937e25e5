"""`etude launch`: submits a run to Slurm, Kubernetes or SkyPilot."""

import json
import re
import sys
from argparse import ArgumentParser, Namespace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from . import options
from .common import ALL, compile_file, findings, is_plan, part_of, problem, show
from .screen import say

if TYPE_CHECKING:
    from ..compiler.plan.plan import Plan
    from ..runtime.launchers.engine import Engine, Request

ENGINES = {
    "slurm": ("slurm", "Slurm"),
    "kubernetes": ("remote", "Kubernetes"),
    "skypilot": ("remote", "Skypilot"),
}
"""The module and the class of each engine, in `runtime/launchers`."""


_CODED = re.compile(r"[A-Za-z0-9+/=]{400,}")
"""Base64, as manifests have the plan in it."""


def arguments(parser: ArgumentParser) -> None:
    """Adds the arguments of `etude launch` to its parser."""
    parser.add_argument("file", nargs="?", metavar="SPEC_OR_PLAN")
    parser.add_argument("--on", choices=tuple(ENGINES), help="where to run it")
    parser.add_argument(
        "--site", metavar="SITE", help="a site file with your account's settings, or its name"
    )
    how = parser.add_mutually_exclusive_group()
    how.add_argument(
        "--dry-run", action="store_true", help="print what would be queued (the default)"
    )
    how.add_argument("--submit", action="store_true", help="write it to the run folder, and queue")
    parser.add_argument("--folder", metavar="FOLDER", help="the run folder (default: runs/RECIPE)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options.part(parser)
    options.miniature(parser)
    options.changes(parser)


def run(args: Namespace) -> int:
    from ..compiler.plan.plan_schema import PlanError
    from ..runtime.errors import RunError

    if args.file is None or args.on is None:
        problem(
            "what is to run, and where?", f"etude launch SPEC --on {' | '.join(ENGINES)} --dry-run"
        )
        return 2
    try:
        if args.variant == ALL and not is_plan(Path(args.file)):
            from .launch_several import launch_variants

            return launch_variants(args)
        plan = _plan(args)
        return plan if isinstance(plan, int) else _launch(plan, args)
    except PlanError as reason:
        problem(reason.message, reason.help)
        return 1
    except RunError as reason:
        from .work import failed

        return failed(reason, as_json=args.json)


def _plan(args: Namespace) -> "Plan | int":
    """The plan to run; or the exit code, after a message, if there is none.

    Raises: PlanError: the file of a plan cannot be read.
    """
    if is_plan(Path(args.file)):
        from ..compiler.plan.plan_schema import read_plan

        for option in ("variant", "set", "miniature"):
            if getattr(args, option):
                problem(f"a plan is run unchanged: use --{option} with `etude plan`")
                return 2
        return part_of(read_plan(Path(args.file)), args) or 2
    plan, report = compile_file(
        args.file, None, variant=args.variant, sets=args.set, miniature=args.miniature
    )
    if plan is None or report.errors:
        print(findings([report])) if args.json else show(report)
        return 1
    show(report)
    return part_of(plan, args) or 2


def _launch(plan: "Plan", args: Namespace) -> int:
    """Raises: RunError"""
    from ..runtime.launchers import sites
    from ..runtime.preparation.counting import require_exact

    require_exact(plan)
    engine = engine_of(args.on)
    request = requested(engine, plan, args, sites.find(args.site))
    if args.submit:
        return _submit(engine, request, args)
    pieces = engine.pieces(request)
    if args.json:
        print(json.dumps({piece.name: piece.text for piece in pieces}, indent=1))
        return 0
    for number, piece in enumerate(pieces):
        text = _readable(piece.text) if sys.stdout.isatty() else piece.text
        print(f"{chr(10) if number else ''}==> {piece.name} <==\n{text}", end="")
    if not pieces:
        print(f"nothing is left to do: {request.address} has all results")
    return 0


def _readable(text: str) -> str:
    """The text of a manifest for someone at a terminal: what is coded for machines, cut short."""
    return _CODED.sub(lambda m: f"{m[0][:40]}… ({len(m[0]):,} characters, whole in a pipe)", text)


def engine_of(name: str) -> "Engine":
    """The engine of a name in `ENGINES`."""
    module, of = ENGINES[name]
    return getattr(import_module(f"..runtime.launchers.{module}", __package__), of)()


def requested(engine: "Engine", plan: "Plan", args: Namespace, site: Path | None) -> "Request":
    """What an engine is asked to run, in the folder that was named or the engine's own.

    Raises: RunError: the folder cannot be used, or the site file is wrong.
    """
    from ..runtime.launchers.engine import folder_name

    if args.folder and "://" in args.folder:
        return _in_store(engine, plan, args, site)
    folder = Path(args.folder) if args.folder else engine.folder(folder_name(plan), site)
    return _request(plan, _own_folder(plan, folder, args), args, site)


def _own_folder(plan: "Plan", folder: Path, args: Namespace) -> Path:
    """The run folder of a plan's variant; created if the run is submitted."""
    from ..runtime.run_folder.homes import VARIANTS
    from ..runtime.run_folder.variant_folders import variant_folder

    if not plan.variant:
        return folder
    return variant_folder(folder, plan.variant) if args.submit else folder / VARIANTS / plan.variant


def _request(
    plan: "Plan", folder: Path, args: Namespace, site: Path | None, url: str = ""
) -> "Request":
    from ..runtime.launchers.engine import Request

    return Request(plan, folder.resolve(), Path(args.file).parent.resolve(), site, url)


def _in_store(engine: "Engine", plan: "Plan", args: Namespace, site: Path | None) -> "Request":
    """The request of a run whose folder is in a store, with a local folder that shows it. To show
    manifests, which do not depend on what is done, the store is not asked.

    Raises: RunError: the URL is not of a store, or the store cannot be reached.
    """
    from ..runtime.run_folder.variant_folders import variant_folder
    from ..runtime.stores import places, views

    url = args.folder.rstrip("/")
    if args.submit or engine.shares_folder:
        views.seen(url)
    folder = places.viewing(url).home
    own = variant_folder(folder, plan.variant) if plan.variant else folder
    return _request(plan, own, args, site, url)


def require_ready(engine: "Engine", request: "Request", told: set[str] | None = None) -> None:
    """Checks everything that can be known before a run is queued; shows warnings.

    Args:
        told: the warnings that were shown, of which none is shown again.

    Raises: RunError
    """
    from ..runtime.gang import require_runnable
    from ..runtime.run_folder.store import Store

    shown = set() if told is None else told

    def tell(event: dict) -> None:
        if event["event"] == "warning" and event["message"] not in shown:
            shown.add(event["message"])
            say(f"warning: {event['message']}", rest="  ", to=sys.stderr)

    engine.ready(request)
    store = Store(request.folder)
    elsewhere = not (engine.shares_folder or request.url)
    require_runnable(request.plan, store, request.root, tell, elsewhere=elsewhere)


def _submit(engine: "Engine", request: "Request", args: Namespace) -> int:
    """Raises: RunError"""
    require_ready(engine, request)
    lines = engine.submit(request)
    if args.json:
        print(json.dumps({"folder": request.address, "queued": lines}))
        return 0
    for line in lines:
        print(line)
    say(f"etude status {request.address} shows its progress", rest="  ")
    return 0
