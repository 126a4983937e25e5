"""A plan as a table for people."""

import sys
from collections.abc import Iterator
from fractions import Fraction
from itertools import groupby
from typing import Any

from ..compiler.plan import (
    AnyJob,
    AverageJob,
    BestJob,
    Cost,
    DatasetJob,
    EvaluateJob,
    Plan,
    ReferenceJob,
    SampleJob,
    ScoreJob,
    TokenizerJob,
    TrainJob,
    WeightsJob,
)
from ..compiler.values import Claim, LrPiece
from ..spec.quantity import amount, counted, measured, short, singular
from .common import colors
from .plan_stages import at_most, show_stages


def table(plan: Plan) -> None:
    """Stages and segments on standard output: a table on a terminal, plain text in a pipe."""
    from rich import box
    from rich.console import Console

    terminal = sys.stdout.isatty()
    # In a pipe a line is never broken, however long it is.
    console = Console(
        width=None if terminal else 10_000,
        color_system="auto" if colors(sys.stdout) else None,
        highlight=False,
        emoji=False,
    )
    console.print(_title(plan))
    lines = box.SIMPLE_HEAD if terminal else box.ASCII2
    trained = [job for job in plan.jobs if isinstance(job, TrainJob) and not job.extends]
    if trained:
        console.print(_lengths(trained, lines))
        console.print(_settings(trained, lines))
    for line in _roundings(plan):
        console.print(line)
    _costs(plan, console, lines)
    others = list(_others(plan))
    if others:
        console.print(_also(others, lines))
    show_stages(plan, console)
    if trained:
        console.print(f"\n{_totals(trained)}")
    if not any(isinstance(job, TokenizerJob) for job in plan.jobs):
        console.print("no tokenizer is declared: this plan can be shown, not run")
    if plan.variants and not plan.variant:
        console.print(f"variants: {', '.join(plan.variants)} (shown by --variant NAME)")
    for claim in plan.claims:
        console.print(_claim(claim))


def _title(plan: Plan) -> str:
    """The recipe, its source and what was changed of it, in rich's markup."""
    from rich.markup import escape

    cite = f"  ({escape(plan.cite)})" if plan.cite else ""
    changes = "".join(f", {escape(change)}" for change in _changes(plan))
    return f"[bold]{escape(plan.title)}[/bold]{cite}{changes}"


def _roundings(plan: Plan) -> Iterator[str]:
    """Where boundaries fall that lay between two steps, a line each."""
    for job in plan.jobs:
        for rounding in job.roundings if isinstance(job, TrainJob) else ():
            yield (
                f"{job.stage}: {rounding.what} was requested at {rounding.wished_tokens} "
                f"tokens and falls on step {rounding.step:,}, {rounding.tokens:,} tokens"
            )


def _totals(jobs: list[TrainJob]) -> str:
    """Parameters, tokens, steps and FLOPs of all jobs that train, at least one."""
    flops = sum(job.cost.flops for job in jobs)
    scores = sum(job.cost.attention_flops_per_token * job.tokens for job in jobs)
    return (
        f"{_parameters(jobs[0].cost)}, "
        f"{at_most(*(job.objective.name for job in jobs))}"
        f"{short(sum(job.tokens for job in jobs))} tokens, "
        f"{counted(sum(job.steps for job in jobs), 'steps')}, {flops:.4g} FLOPs "
        f"(+ {scores:.3g} for attention scores)"
    )


def _claim(claim: Claim) -> str:
    """A claim and what was computed, in rich's markup."""
    from rich.markup import escape

    return (
        f"claim {claim.what} = {amount(claim.claimed)} within {claim.tolerance:.2%}: computed "
        f"{amount(claim.computed)}"
        + (f"; contradicted: {escape(claim.contradicted)}" if claim.contradicted else "")
        + (f"; because {escape(claim.because)}" if claim.because else "")
        + (f", {escape(claim.cite)}" if claim.cite else "")
    )


def _lengths(jobs: list[TrainJob], lines: Any) -> Any:
    """The segments of all stages: how long they are, and how fast they learn."""
    from rich.table import Table

    shape = Table(box=lines, pad_edge=False)
    shape.add_column("segment", overflow="fold")
    for name in ("tokens", "steps", "length"):
        shape.add_column(name, justify="right", no_wrap=True)
    for name in ("batch", "learning rate"):
        shape.add_column(name, overflow="fold")
    for _, of_stage in groupby(jobs, key=lambda job: job.stage):
        for job in of_stage:
            shape.add_row(
                job.id,
                at_most(job.objective.name) + short(job.tokens),
                f"{job.steps:,}",
                f"{job.seq_len:,}",
                _batches(job),
                _rates(job.schedule.lr),
            )
        shape.add_section()
    return shape


def _settings(jobs: list[TrainJob], lines: Any) -> Any:
    """What segments train on, and where; those that follow each other with the same as one row."""
    from rich.markup import escape
    from rich.table import Table

    shape = Table(box=lines, pad_edge=False)
    for name in ("segment", "mixture", "epochs", "mesh"):
        shape.add_column(name, overflow="fold")
    for _, of_stage in groupby(jobs, key=lambda job: job.stage):
        for cells, alike in groupby(of_stage, key=lambda j: (_mixture(j), _epochs(j), _mesh(j))):
            first, *others = alike
            last = f" to {others[-1].id.rpartition('.')[2]}" if others else ""
            shape.add_row(first.id + last, *map(escape, cells))
        shape.add_section()
    return shape


def _costs(plan: Plan, console: Any, lines: Any) -> None:
    """What the jobs that train are estimated to take, where their GPUs are known."""
    from rich.table import Table

    shape = Table(box=lines, pad_edge=False)
    shape.add_column("estimated", overflow="fold")
    for name in ("memory", "of", "step", "tokens/s/GPU", "MFU", "hours", "GPU-hours", "price"):
        shape.add_column(name, justify="right")
    known = False
    for job in plan.jobs:
        cost = job.cost if isinstance(job, TrainJob) and not job.extends else None
        if cost is None or cost.memory is None or cost.step_seconds is None:
            continue
        known = True
        shape.add_row(
            job.id,
            f"{sum(cost.memory.values()) / 2**30:.1f} GiB",
            f"{(cost.gpu_memory or 0) / 2**30:.0f}",
            f"{measured(sum(cost.step_seconds.values()))} s",
            f"{cost.tokens_per_second:,.0f}",
            f"{cost.mfu:.1%}",
            _hours((cost.seconds or 0) / 3600),
            _hours(cost.gpu_hours),
            _money(cost.price),
        )
    total = plan.totals
    if known and total:
        hours = None if total.seconds is None else total.seconds / 3600
        shape.add_section()
        shape.add_row(
            "all", "", "", "", "", "", _hours(hours), _hours(total.gpu_hours), _money(total.price)
        )
        console.print(shape)


def _also(rows: list[tuple[str, str, str, str]], lines: Any) -> Any:
    """The jobs that neither prepare nor train."""
    from rich.markup import escape
    from rich.table import Table

    shape = Table(box=lines, pad_edge=False)
    for name in ("also, in this order", "kind", "of", "what"):
        shape.add_column(name, overflow="fold")
    for row in rows:
        shape.add_row(*map(escape, row))
    return shape


def _hours(hours: float | None) -> str:
    return "" if hours is None else measured(hours)


def _money(price: float | None) -> str:
    return "" if price is None else f"{price:,.0f}"


def _changes(plan: Plan) -> list[str]:
    """The variant, and what was changed on the command line."""
    variant = [f"variant {plan.variant}"] if plan.variant else []
    return variant + [f"--set {change}" for change in plan.changes]


def _parameters(cost: Cost) -> str:
    shown = f"{short(cost.parameters)} parameters"
    if cost.active_parameters < cost.parameters:
        shown += f" ({short(float(f'{cost.active_parameters:.4g}'))} active)"
    return shown


def _others(plan: Plan) -> Iterator[tuple[str, str, str, str]]:
    """Name, kind, source and content of the jobs that neither prepare nor train, and of pauses."""
    stages = {job.key: _result(job) for job in plan.jobs if job.stage}
    waited: set[str] = set()
    for job in plan.jobs:
        if job.extends:
            continue
        takes = {role: stages.get(key) or "" for role, key in job.inputs.items()}
        of = takes.get("model", "")
        if isinstance(job, DatasetJob) and job.awaited:
            new = [file for file in job.source["files"] if file not in waited]
            waited.update(new)
            if not new:
                continue
            what = "waits for " + " and ".join(new)
            if takes.get("candidates"):
                what += f", with the draws of {takes['candidates']} to label"
            yield job.name, "pause", "", what
        elif isinstance(job, WeightsJob):
            source = job.source
            where = source.get("folder") or f"{source['hub']}, revision {source['revision']}"
            yield job.id, job.kind, "", where
        elif isinstance(job, SampleJob):
            kept = f", {job.keep or 'all'} kept"
            judge = f" by {takes['judge']}" if "judge" in takes else ""
            yield (
                job.id,
                job.kind,
                of,
                f"{counted(job.draws, 'draws')} of each of {job.prompts}{kept}{judge}",
            )
        elif isinstance(job, ScoreJob | ReferenceJob):
            yield job.id, job.kind, of, job.source
        elif isinstance(job, AverageJob):
            names = [takes[f"of.{n}"] for n in range(len(job.weights))]
            shares = [f"{_share(w)} {n}" for w, n in zip(job.weights, names, strict=True)]
            yield job.id, job.kind, "", ", ".join(shares)
        elif isinstance(job, BestJob):
            more = "highest" if job.higher else "lowest"
            yield job.id, job.kind, ", ".join(job.of), f"the {more} {job.measure.name}"
        elif isinstance(job, EvaluateJob):
            yield job.id, job.kind, of, ", ".join(measure.name for measure in job.measures)


def _result(job: AnyJob) -> str | None:
    """What a job's result is called: its stage, or how far that is."""
    if isinstance(job, TrainJob) and job.segment < job.segments - 1:
        return f"{job.stage} after {counted(job.first_step + job.steps, 'steps')}"
    return job.stage


def _share(weight: str) -> str:
    return f"{float(Fraction(weight)):.4g} ×"


def _batches(job: TrainJob) -> str:
    shown = [f"{piece.sequences:,}" for piece in job.schedule.batch]
    if len(shown) > 4:
        shown = [*shown[:2], f"… {len(shown) - 3} more …", shown[-1]]
    nouns = "pairs" if at_most(job.objective.name) else "seqs"
    return " → ".join(shown) + f" {singular(nouns) if shown == ['1'] else nouns}"


def _rates(pieces: list[LrPiece]) -> str:
    shown = []
    for piece in pieces:
        if piece.shape == "hold":
            shown.append(f"{piece.start:.4g}")
        else:
            shown.append(f"{piece.start:.4g} → {piece.end:.4g} {piece.shape}")
    return ", ".join(shown)


def _mixture(job: TrainJob) -> str:
    def show(weights: dict[str, int]) -> str:
        total = sum(weights.values())
        return ", ".join(f"{n} {100 * w / total:.4g}%" for n, w in weights.items())

    shown = [show(piece.weights) for piece in job.schedule.mixture]
    if len(shown) > 3:
        return f"{shown[0]} → {shown[-1]} in {len(shown)} levels"
    return " → ".join(shown)


def _epochs(job: TrainJob) -> str:
    known = {n: w.epochs for n, w in job.data.items() if w.epochs is not None}
    return ", ".join(f"{n} {measured(e)}" for n, e in known.items()) or "undeclared"


def _mesh(job: TrainJob) -> str:
    r = job.resources
    degrees = {
        "replicate": r.replicate,
        "shard": r.shard,
        "tensor": r.tensor,
        "context": r.context,
        "pipeline": r.pipeline,
        "interleave": r.interleave,
        "expert": r.expert,
    }
    shown = [f"{name} {degree}" for name, degree in degrees.items() if degree > 1]
    return f"{r.world_size:,} × {r.device}" + (f": {', '.join(shown)}" if shown else "")
