"""`etude plan --deep`: has torchtitan build the plan."""

import itertools
import json
import sys
from argparse import Namespace
from collections.abc import Callable
from typing import TYPE_CHECKING

from ..compiler.pipelines import DEFAULT
from ..spec.findings.diagnostics import Report
from ..spec.quantity import counted
from .common import analyse_file, findings, problem, show

if TYPE_CHECKING:
    from ..runtime.rehearsal import Built, Configuration


def run(args: Namespace) -> int:
    from ..compiler.driver import compile
    from ..compiler.plan.fitting import misfits
    from ..compiler.torchtitan.verdict import differs, misfit, rejected
    from ..runtime.errors import RunError
    from ..runtime.rehearsal import build, configurations

    analysis = analyse_file(args.file, ranks=args.ranks, variant=args.variant, sets=args.set)
    compiled = compile(analysis)
    if compiled is None:
        print(findings([analysis.report])) if args.json else show(analysis.report)
        return 1
    show(analysis.report)
    program = compiled.program
    requested = configurations(compiled.plan)
    _aside(f"torchtitan builds {counted(len(requested), 'configurations')}")
    try:
        results = build(requested, _progress(len(requested)))
    except RunError as reason:
        problem(reason.message, reason.help)
        return 1
    found = Report()
    for job in misfits(compiled.plan):
        misfit(program, job, found)
    for built in results:
        stage = built.configuration.job.stage or ""
        if built.rejected:
            rejected(program, stage, built.rejected, found)
        for difference in built.differences:
            differs(program, stage, difference, found)
    _print(results, found, as_json=args.json)
    return 1 if found.errors else 0


def _aside(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _progress(total: int) -> "Callable[[Built], None]":
    """Returns a function that reports each configuration after it is built."""
    count = itertools.count(1)

    def tell(built: "Built") -> None:
        if built.rejected or built.differences:
            verdict = "refused" if built.rejected else "differs"
        else:
            verdict = "taken"
        of = f"[{next(count)}/{total}] {name(built.configuration)}"
        _aside(f"{of}: {verdict}, {built.seconds:.1f} s")

    return tell


def _print(results: "list[Built]", found: Report, *, as_json: bool) -> None:
    """Prints what was built, and what is wrong with it."""
    if as_json:
        shown = {
            "configurations": [_shown(built) for built in results],
            "diagnostics": [each.to_dict() for each in found.ordered()],
        }
        print(json.dumps(shown, indent=2, ensure_ascii=False))
        return
    for built in results:
        print(f"{name(built.configuration)}: {', '.join(built.configuration.jobs)}")
        for rank, (part, held) in built.ranks.items():
            print(f"  rank {rank}, pipeline stage {part}: {held:,} parameters")
    show(found)


def name(configuration: "Configuration") -> str:
    """A configuration in words."""
    job, mesh = configuration.job, configuration.job.resources
    degrees = {
        "replicate": mesh.replicate,
        "shard": mesh.shard,
        "tensor": mesh.tensor,
        "context": mesh.context,
        "pipeline": mesh.pipeline,
        "interleave": mesh.interleave,
        "expert": mesh.expert,
    }
    placed = " × ".join(f"{what} {degree}" for what, degree in degrees.items() if degree > 1)
    if mesh.schedule != DEFAULT:
        placed += f", schedule {mesh.schedule}"
    return (
        f"{job.model.family} {job.model.size or ''}".strip()
        + f", {job.seq_len} tokens × {job.torchtitan['training']['local_batch_size']}, "
        + f"{mesh.world_size} ranks"
        + (f": {placed}" if placed else "")
    )


def _shown(built: "Built") -> dict:
    job = built.configuration.job
    return {
        "jobs": list(built.configuration.jobs),
        "stage": job.stage,
        "model": job.model.as_dict(),
        "resources": job.resources.as_dict(),
        "seq_len": job.seq_len,
        "micro_batch": job.torchtitan["training"]["local_batch_size"],
        "recompute": (job.torchtitan["activation_checkpoint"] or {}).get("mode", "none"),
        "rejected": built.rejected,
        "differences": built.differences,
        "ranks": [
            {"rank": rank, "pipeline_stage": stage, "parameters": held}
            for rank, (stage, held) in built.ranks.items()
        ],
        "seconds": built.seconds,
    }
