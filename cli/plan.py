"""`etude plan`: what would run."""

import sys
from argparse import Namespace
from pathlib import Path

from ..compiler.plan import GateJob, Plan, TokenizerJob, TrainJob
from ..compiler.values import BatchPiece, LrPiece
from ..spec.quantity import short
from .common import colors, compile_file, findings, problem, show


def run(arguments: Namespace) -> int:
    plan, report = compile_file(arguments.file, arguments.ranks)
    if plan is None:
        if arguments.json:
            print(findings([report]))
        else:
            show(report)
        return 1
    show(report)
    if arguments.output:
        try:
            Path(arguments.output).write_text(plan.to_json() + "\n")
        except OSError as reason:
            problem(f"{arguments.output} cannot be written: {(reason.strerror or '').lower()}")
            return 1
    if arguments.json:
        print(plan.to_json())
    elif not arguments.output:
        table(plan)
    return 0


def table(plan: Plan) -> None:
    """Stages and segments on standard output: a table on a terminal, plain text in a pipe."""
    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    fancy = colors(sys.stdout)
    width = None if sys.stdout.isatty() else 150
    console = Console(width=width, no_color=not fancy, highlight=False, emoji=False)
    console.print(
        f"[bold]{escape(plan.title)}[/bold]" + (f"  ({escape(plan.cite)})" if plan.cite else "")
    )
    shape = Table(box=box.SIMPLE_HEAD if sys.stdout.isatty() else box.ASCII2, pad_edge=False)
    for name in ("segment", "tokens", "steps", "length", "batch", "learning rate", "mixture",
                 "epochs", "mesh"):  # fmt: skip
        shape.add_column(name, justify="right" if name in ("tokens", "steps", "length") else "left",
                         overflow="fold")  # fmt: skip
    stage = None
    gates = [job for job in plan.jobs if isinstance(job, GateJob) and not job.attempt]
    for job in plan.jobs:
        if not isinstance(job, TrainJob) or job.extends:
            continue
        if stage not in (None, job.stage):
            shape.add_section()
        stage = job.stage
        shape.add_row(
            job.id, short(job.tokens), f"{job.steps:,}", short(job.seq_len),
            _batches(job.schedule.batch), _rates(job.schedule.lr), _mixture(job), _epochs(job),
            escape(_mesh(job)),
        )  # fmt: skip
    console.print(shape)
    for job in plan.jobs:
        if isinstance(job, TrainJob):
            for rounding in job.roundings:
                console.print(
                    f"{job.stage}: {rounding.what} was wished at {rounding.wished_tokens} tokens "
                    f"and falls on step {rounding.step:,}, {rounding.tokens:,} tokens"
                )
    for name, summary in plan.stages.items():
        if summary.kind == "train":
            console.print(
                f"\n[bold]{name}[/bold]: {summary.tokens:,} tokens, {summary.steps:,} steps"
            )
            for attribute, value in summary.values.items():
                console.print(f"  {attribute:<11} {value.value}  [dim]({value.origin})[/dim]")
            for gate in gates:
                if gate.stage == name:
                    console.print(f"  gate        {_gate(gate)}")
        else:
            console.print(f"\n[bold]{name}[/bold]: {summary.kind} of {summary.goes_on_from or ''}"
                          + "".join(v.value for v in summary.values.values()))  # fmt: skip
    trained = [job for job in plan.jobs if isinstance(job, TrainJob) and not job.extends]
    if trained:
        flops = sum(job.cost.flops for job in trained)
        scores = sum(job.cost.attention_flops_per_token * job.tokens for job in trained)
        console.print(
            f"\n{short(trained[0].cost.parameters)} parameters, "
            f"{short(sum(j.tokens for j in trained))} tokens, "
            f"{sum(j.steps for j in trained):,} steps, {flops:.4g} FLOPs "
            f"(+ {scores:.3g} for attention scores)"
        )
    if not any(isinstance(job, TokenizerJob) for job in plan.jobs):
        console.print("no tokenizer is declared: this plan can be shown, not run")
    for claim in plan.claims:
        console.print(
            f"claim {claim.what} = {claim.claimed:.6g} within {claim.tolerance:.2%}: computed "
            f"{claim.computed:.6g}" + (f", {escape(claim.cite)}" if claim.cite else "")
        )


def _batches(pieces: list[BatchPiece]) -> str:
    shown = [f"{piece.sequences:,}" for piece in pieces]
    if len(shown) > 4:
        shown = [*shown[:2], f"… {len(shown) - 3} more …", shown[-1]]
    return " → ".join(shown) + " seqs"


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

    first, last = job.schedule.mixture[0].weights, job.schedule.mixture[-1].weights
    if len(job.schedule.mixture) == 1:
        return show(first)
    return f"{show(first)} → {show(last)} in {len(job.schedule.mixture)} levels"


def _epochs(job: TrainJob) -> str:
    known = {n: w.epochs for n, w in job.data.items() if w.epochs is not None}
    return ", ".join(f"{n} {e:.3g}" for n, e in known.items()) or "undeclared"


def _mesh(job: TrainJob) -> str:
    r = job.resources
    degrees = {"replicate": r.replicate, "shard": r.shard, "tensor": r.tensor,
               "context": r.context, "pipeline": r.pipeline}  # fmt: skip
    shown = [f"{name} {degree}" for name, degree in degrees.items() if degree > 1]
    return f"{r.world_size} × {r.device}" + (f": {', '.join(shown)}" if shown else "")


def _gate(gate: GateJob) -> str:
    parts = [
        f"{q.measure} {q.op} " + (f"{q.value:.4g} × start" if q.of_start else f"{q.value:.4g}")
        for q in gate.requirements
    ]
    return f"after {gate.what}: {' and '.join(parts)}, extended up to {gate.attempts} times"
