"""`etude launch`: submits a run to Slurm, Kubernetes or SkyPilot."""

import json
import re
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from . import options
from .common import ALL, compile_file, findings, is_plan, part_of, problem, show
from .queueing import ENGINES, engine_of, requested, require_ready
from .screen import say

if TYPE_CHECKING:
    from ..compiler.plan.plan import Plan
    from ..runtime.launchers.engine import Engine, Request

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
