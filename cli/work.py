"""Shared by `etude run` and `etude prepare`: the plan, its run folder, and the outcome."""

import json
import sys
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..spec.findings.diagnostics import Report
from .common import compile_file, findings, is_plan, problem, show
from .screen import say

if TYPE_CHECKING:
    from ..compiler.plan.plan import Plan
    from ..runtime.errors import RunError
    from ..runtime.run_folder.recorder import OnEvent

    Do = Callable[[Plan, Path, Path, OnEvent], object]


def done(plan: "Plan", folder: Path) -> str:
    from ..runtime.run_folder.store import Store

    store = Store(folder)
    if not plan.outputs or store.remote:
        return f"done: {store.name} has the results; `etude export` writes the model of a stage"
    return f"done: {folder}/models/ has {', '.join(plan.outputs)}"


def work(args: Namespace, do: "Do", done: Callable[["Plan", Path], str]) -> int:
    """Plans what a command line names, and processes the plan in its run folder.

    Args:
        args: from `arguments`.
        do: called with the plan, its run folder, the spec's folder and the display of events.
        done: returns the final message.

    Returns: the exit code.
    """
    from ..compiler.plan.plan_schema import PlanError
    from ..runtime.errors import RunError
    from ..runtime.stopping import listening

    if args.miniature:
        from .miniature import refused

        if refused(args):
            return 2
    try:
        with listening(last=args.alone):
            plan = plan_of(args)
            if not isinstance(plan, int) and plan.counts:
                from .counting import counted

                plan = counted(
                    plan,
                    args,
                    prepared=lambda plan, do: execute(plan, args, do),
                    again=lambda: plan_of(args, quiet=True),
                )
            if isinstance(plan, int):
                return plan
            folder = execute(plan, args, do)
    except PlanError as reason:
        problem(reason.message, reason.help)
        return 1
    except RunError as reason:
        return failed(reason, as_json=args.json, again=command(args))
    except KeyboardInterrupt:
        problem("interrupted", f"run again to continue: {command(args)}")
        return 130
    if not args.json:
        print(done(plan, folder))
    sys.stdout.flush()
    return 0


def plan_of(args: Namespace, ranks: int | None = None, *, quiet: bool = False) -> "Plan | int":
    """The plan to run; or the exit code, after a message, if there is none.

    Args:
        ranks: of the gang that this process leads; None: there is none yet.
        quiet: whether findings about a plan that can be run have been shown.

    Raises: PlanError: the file of a plan cannot be read.
    """
    from ..compiler.plan.plan_schema import read_plan

    source = Path(args.file)
    if is_plan(source):
        for option in ("ranks", "variant", "set", "miniature"):
            if getattr(args, option):
                problem(f"a plan is run unchanged: use --{option} with `etude plan`")
                return 2
        return _part(read_plan(source), args)
    plan, report = _compiled(args, ranks)
    if plan is None:
        print(findings([report])) if args.json else show(report)
        return 1
    if report.errors or not quiet:
        show(report)
    return 1 if report.errors else _part(plan, args)  # claims do not hold


def _part(plan: "Plan", args: Namespace) -> "Plan | int":
    """The requested part of a plan; or the exit code, after a message, if there is none."""
    from .common import part_of

    return part_of(plan, args) or 2


def execute(plan: "Plan", args: Namespace, do: "Do") -> Path:
    """Processes a plan and shows the progress; returns the run folder.

    Args:
        do: called with the plan, its run folder, the spec's folder and the display of events.

    Raises: RunError, Stopped.
    """
    from ..runtime.run_folder.variant_folders import variant_folder
    from ..runtime.stopping import telling
    from .aside import aside
    from .progress import display

    folder = _folder(args.folder) if args.folder else Path("runs") / plan.recipe
    if plan.variant:
        folder = variant_folder(folder, plan.variant)
    if plan.miniature is not None:
        from .miniature import begin

        begin(plan, folder, json_lines=args.json)
    with (
        aside(folder) as (terminal, settle),
        display(plan, terminal, json_lines=args.json) as shown,
        telling(lambda name: shown({"event": "stopping", "signal": name})),
    ):

        def on_event(event: dict[str, Any]) -> None:
            settle()
            # Miniature rows are short, so records of stand-in data that do not fit are expected.
            if plan.miniature is None or args.json or event["event"] != "bad_line":
                shown(event)

        if args.command == "run":
            _tell_start(plan, folder, shown)
        do(plan, folder, Path(args.file).parent, on_event)
    return folder


def _tell_start(plan: "Plan", folder: Path, shown: "OnEvent") -> None:
    """Tells what a run continues with, if it has begun before."""
    from ..runtime.errors import RunError
    from ..runtime.run_folder.progress import progress
    from ..runtime.run_folder.store import Store
    from .way import resumed

    store = Store(folder)
    try:
        found = progress(plan, store) if store.exists() else None
    except RunError:
        return  # a damaged journal, which the run reports
    message = found and resumed(plan, found)
    if found and message:
        told = {"job": found.job, "finished": found.finished, "of": found.jobs}
        shown({"event": "continuing", **told, "message": message})


def _folder(name: str) -> Path:
    """The run folder of a name; for one in a store, the local folder in which jobs work.

    Raises: RunError: the URL is not of a store, or the store cannot be reached.
    """
    if "://" not in name:
        return Path(name)
    from ..runtime.stores.places import working

    remote = working(name)
    remote.look()
    return remote.home


def failed(reason: "RunError", *, as_json: bool, again: str = "") -> int:
    """Reports what stopped a run, or everything that it lacks; returns the exit code.

    Args:
        again: the command that continues it.
    """
    from ..runtime.errors import Interrupted
    from ..runtime.preflight.preflight import Unready

    for each in reason.problems if isinstance(reason, Unready) else [reason]:
        more = f": {again}" if again and isinstance(each, Interrupted) else ""
        help = each.help + more
        if as_json:
            event = {"event": "error", "message": each.message, "help": help}
            print(json.dumps(event | {"exit_code": reason.exit_code}))
        problem(each.message, help)
    return reason.exit_code


def _compiled(args: Namespace, ranks: int | None) -> tuple["Plan | None", Report]:
    """The plan; uses this machine's GPUs, if any, unless the recipe names a cluster.

    It uses as many GPUs as divide the recipe's batches, or all if no number does; in a gang, one
    per rank, of this machine's type.
    """
    given: Any = {"variant": args.variant, "sets": args.set, "added": getattr(args, "added", "")}
    plan, report = compile_file(args.file, args.ranks, miniature=args.miniature, **given)
    clustered = plan is None or any(name.startswith("cluster.") for name in plan.values)
    if clustered or args.ranks or args.miniature:
        return plan, report
    from ..runtime.preflight.machine import gpus

    found = gpus()
    if ranks is not None:
        cluster = _cluster(ranks, found[0] if found else "cpu")
        return compile_file(args.file, None, cluster=cluster, **given)
    if not found:
        return plan, report
    tried = [
        (count, *compile_file(args.file, None, cluster=_cluster(count, found[0]), **given))
        for count in range(len(found), 0, -1)
        if len(found) % count == 0
    ]
    count, plan, report = next((each for each in tried if each[1]), tried[0])
    if plan:
        idle = f" ({len(found) - count} stay idle: the batches do not divide among them)"
        say(
            f"no cluster is declared: training on {count} × {found[0]} of this "
            f"machine{idle if count < len(found) else ''}; --ranks 1 trains on the CPU",
            rest="  ",
            to=sys.stderr,
        )
    return plan, report


def _cluster(count: int, name: str) -> str:
    return f"cluster this_machine {{ gpus = {count} of {json.dumps(name)} }}"


def command(args: Namespace) -> str:
    """The command line that would start this again."""
    import shlex

    said = ["etude", args.command, args.file]
    said += ["--part", *args.part] if getattr(args, "part", None) else []
    said += ["--folder", args.folder] if args.folder else []
    said += ["--ranks", str(args.ranks)] if args.ranks else []
    for option, stage in (("--from", "since"), ("--until", "until"), ("--only", "only")):
        said += [option, getattr(args, stage)] if getattr(args, stage) else []
    said += ["--miniature"] if args.miniature else []
    said += ["--variant", args.variant] if args.variant else []
    for change in args.set:
        said += ["--set", change]
    return shlex.join(said)
