"""Prints a plan as a table."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby

from ..compiler.as_written import at_most
from ..compiler.ids import SegmentId
from ..compiler.pipelines import DEFAULT, layers_of_stages
from ..compiler.plan.describe import described
from ..compiler.plan.plan import Cost, ForwardJob, Part, Plan, TokenizerJob, TrainJob, WritingJob
from ..compiler.values import Claim, LrPiece, Phase, Resources
from ..spec.quantity import amount, counted, measured, short, singular
from .plan_stages import show_stages
from .screen import Ink, clean, say
from .tables import Column, Row, show


def table(plan: Plan) -> None:
    """Prints stages and segments: as wide as the terminal, or plain text in a pipe."""
    say(_title(plan), rest="  ", painted=True)
    trained = plan.trained()
    if trained:
        _lengths(trained)
        _settings(trained)
    for line in _roundings(plan):
        say(line, rest="  ")
    _costs(plan)
    if others := [Row(tuple(row)) for row in described(plan)]:
        show([Column(name) for name in ("also, in this order", "kind", "of", "what")], [others])
    _phases(plan)
    _writing(plan)
    _reading(plan)
    show_stages(plan)
    if trained:
        print()
        say(_totals(trained), rest="  ")
    if not any(isinstance(job, TokenizerJob) for job in plan.jobs):
        say("no tokenizer is declared: this plan can be shown, but not run", rest="  ")
    if plan.variants and not plan.variant:
        say(f"variants: {', '.join(plan.variants)} (shown by --variant NAME)", rest="  ")
    for claim in plan.claims:
        say(_claim(claim), rest="  ")
    if plan.part:
        say(_part(plan.part), rest="  ")


def _part(part: Part) -> str:
    """What is left out of the plan, or must exist already."""
    said = [f"{counted(len(part.left_out), 'jobs')} of the plan left out"] if part.left_out else []
    said += [f"{counted(len(part.aside), 'jobs')} must exist already"] if part.aside else []
    return "a part of the plan: " + ", ".join(said or ["all of it"])


def _title(plan: Plan) -> str:
    """The recipe, its source and the changes to it."""
    cite = f"  ({clean(plan.cite)})" if plan.cite else ""
    changes = "".join(f", {clean(change)}" for change in _changes(plan))
    return f"{Ink()(clean(plan.title), 'bold')}{cite}{changes}"


def _roundings(plan: Plan) -> Iterator[str]:
    """Where boundaries between two steps were rounded to, one line each."""
    for job in (each for each in plan.jobs if not plan.aside(each)):
        for rounding in job.roundings if isinstance(job, TrainJob) else ():
            yield (
                f"{job.stage}: {rounding.what} was requested at {rounding.wished_tokens} tokens "
                f"and falls on step {rounding.step:,}, {rounding.tokens:,} tokens"
            )


def _totals(jobs: list[TrainJob]) -> str:
    """Parameters, tokens, steps and FLOPs of all train jobs, at least one."""
    flops = sum(job.cost.flops for job in jobs)
    scores = sum(job.cost.attention_flops_per_token * job.tokens for job in jobs)
    return (
        f"{_parameters(jobs[0].cost)}, "
        f"{max(map(_bound, jobs))}{short(sum(job.tokens for job in jobs))} tokens, "
        f"{'≤ ' if any(job.may_end_early for job in jobs) else ''}"
        f"{counted(sum(job.steps for job in jobs), 'steps')}, {flops:.4g} FLOPs "
        f"(+ {scores:.3g} for attention scores)"
    )


def _claim(claim: Claim) -> str:
    """A claim and the computed value."""
    return (
        f"claim {claim.what} = {amount(claim.claimed)} within {claim.tolerance:.2%}: computed "
        f"{amount(claim.computed)}"
        + (f"; contradicted: {clean(claim.contradicted)}" if claim.contradicted else "")
        + (f"; because {clean(claim.because)}" if claim.because else "")
        + (f", {clean(claim.cite)}" if claim.cite else "")
    )


def _lengths(jobs: list[TrainJob]) -> None:
    """The segments of all stages: their lengths and learning rates."""
    numbers = (Column(name, right=True) for name in ("tokens", "steps", "length"))
    sections = [
        _alike(of_stage, _length, least=TURNS)
        for _, of_stage in groupby(jobs, key=lambda job: job.stage)
    ]
    show([Column("segment"), *numbers, Column("batch"), Column("learning rate")], sections)


def _length(job: TrainJob) -> tuple[str, ...]:
    return (
        _bound(job) + short(job.tokens),
        f"{'≤ ' if job.may_end_early else ''}{job.steps:,}",
        f"{job.seq_len:,}",
        _batches(job),
        _rates(job.schedule.lr),
    )


def _bound(job: TrainJob) -> str:
    """`≤ ` if a job may have fewer tokens."""
    return "≤ " if job.may_end_early else at_most(job.rows)


TURNS = 4
"""Segments in a row from which on those with equal figures, each of them, share a row; and the
phases of turns of a policy, two rows."""


def _alike(
    jobs: Iterable[TrainJob], texts: Callable[[TrainJob], tuple[str, ...]], *, least: int = 2
) -> list[Row]:
    """Rows of segments; consecutive ones with equal texts, at least so many, share one."""
    shown: list[Row] = []
    for said, alike in groupby(jobs, key=texts):
        found = list(alike)
        if len(found) < least:
            shown += [Row((job.id, *said)) for job in found]
            continue
        last = SegmentId.parse(found[-1].id)
        each = " each" if texts in (_length, _estimated) else ""
        shown.append(Row((f"{found[0].id} to {last.place if last else ''}{each}", *said)))
    return shown


def _settings(jobs: list[TrainJob]) -> None:
    """What segments train on, and where; consecutive segments with equal settings share a row."""
    sections = [
        _alike(of_stage, lambda job: (_mixture(job), _epochs(job), _mesh(job)))
        for _, of_stage in groupby(jobs, key=lambda job: job.stage)
    ]
    show([Column(name) for name in ("segment", "mixture", "epochs", "mesh")], sections)


def _costs(plan: Plan) -> None:
    """Estimated costs of the train jobs, if their GPUs are known."""
    known = [job for job in plan.trained() if job.cost.memory and job.cost.step_seconds]
    rows = [tuple(row.texts) for row in _alike(known, _estimated, least=TURNS)]
    total = plan.totals
    if not rows or not total:
        return
    hours = None if total.seconds is None else total.seconds / 3600
    sums = ("all", "", "", "", "", "", _hours(hours), _hours(total.gpu_hours), _money(total.price))
    names = ("memory", "of", "step", "tokens/s/GPU", "MFU", "hours", "GPU-hours", "price")
    columns = [Column("estimated"), *(Column(name, right=True) for name in names)]
    last: list[tuple[str, ...]] = [sums]
    if total.seconds and total.expected_seconds:
        share = total.seconds / total.expected_seconds
        label = f"with failures, {share:.1%} training"
        last.append((label, "", "", "", "", "", _hours(total.expected_seconds / 3600), "", ""))
    if not any(row[-1] for row in [*rows, sums]):  # no price per GPU-hour is given
        columns, rows = columns[:-1], [row[:-1] for row in rows]
        last = [row[:-1] for row in last]
    show(columns, [[Row(row) for row in rows], [Row(row) for row in last]])


def _estimated(job: TrainJob) -> tuple[str, ...]:
    cost = job.cost
    assert cost.memory
    assert cost.step_seconds
    return (
        f"{sum(cost.memory.values()) / 2**30:.1f} GiB",
        f"{(cost.gpu_memory or 0) / 2**30:.0f}",
        f"{measured(sum(cost.step_seconds.values()))} s",
        f"{cost.tokens_per_second:,.0f}",
        f"{cost.mfu:.1%}",
        _hours((cost.seconds or 0) / 3600),
        _hours(cost.gpu_hours),
        _money(cost.price),
    )


def _phases(plan: Plan) -> None:
    """The phases, if there are several: machines, jobs and estimated hours."""
    if len(plan.phases) < 2:
        return
    rows = [
        Row(
            (
                _ends([phase.name for phase in phases]),
                machines(phases[0]),
                _ends([job for phase in phases for job in phase.jobs]),
                _all_hours(phases),
            )
        )
        for phases in _turns(plan.phases)
    ]
    columns = (Column("phase"), Column("machines"), Column("jobs"), Column("hours", right=True))
    show(columns, [rows])


def _turns(phases: Sequence[Phase]) -> list[list[Phase]]:
    """Phases one by one, but together those of `TURNS` turns or more in which a policy writes on
    some machines and learns on others."""
    found: list[list[Phase]] = []
    place = 0
    while place < len(phases):
        end = place + 2
        while end < len(phases) and machines(phases[end]) == machines(phases[end - 2]):
            end += 1
        kinds = [phase.kind for phase in phases[place : place + 2]]
        if end - place >= 2 * TURNS and kinds == ["generate", "gang"]:
            found += [list(phases[place:end:2]), list(phases[place + 1 : end : 2])]
            place = end
        else:
            found.append([phases[place]])
            place += 1
    return found


def _all_hours(phases: Sequence[Phase]) -> str:
    seconds = [phase.seconds for phase in phases if phase.seconds is not None]
    return measured(sum(seconds) / 3600) if seconds else ""


def _writing(plan: Plan) -> None:
    """For models that generate on GPUs: how many there are, the memory of each GPU, how many
    sequences of a model fit, and how long all take."""
    rows: dict[tuple[str, ...], list[str]] = {}
    for job in plan.jobs:
        of = job.generation if isinstance(job, WritingJob) and not job.extends else None
        if of is not None and not plan.aside(job):
            name = f"{of.replicas:,} × {of.pipeline} × {of.tensor}"
            parts = [f"{of.memory[part] / 1e9:.1f} GB" for part in ("weights", "sequence")]
            room = f"{of.share * of.gpu_memory / 1e9:.1f} GB"
            held = f"{of.at_a_time}" if of.fits else "none: does not fit"
            time = "" if of.seconds is None else f"{measured(of.seconds)} s"
            row = (name, f"{of.context:,}", *parts, room, held, time)
            rows.setdefault(row, []).append(job.id)
    names = ("models × nodes × GPUs", "tokens", "weights", "cache", "room", "at a time")
    names += ("time, at least",)
    columns = [Column("writes"), *(Column(name, right=True) for name in names)]
    if rows:
        show(columns, [[Row((_ends(jobs), *row)) for row, jobs in rows.items()]])


def _reading(plan: Plan) -> None:
    """Of models that only read on GPUs: what is on the fullest of them, and how long it takes."""
    rows: dict[tuple[str, ...], list[str]] = {}
    for job in plan.jobs:
        if not isinstance(job, ForwardJob) or job.extends or plan.aside(job):
            continue
        of = job.reading
        if of is None:
            continue
        parts = (of.memory["parameters"] + of.memory["buffers"], of.memory["activations"])
        sizes = [f"{size / 1e9:.1f} GB" for size in (*parts, of.least, of.gpu_memory)]
        time = "" if of.seconds is None else f"{measured(of.seconds)} s"
        last = time if of.fits else "does not fit"
        row = (f"{job.resources.world_size:,}", f"{job.seq_len:,}", *sizes, last)
        rows.setdefault(row, []).append(job.id)
    names = ("GPUs", "tokens", "weights", "activations", "memory", "of", "time, at most")
    columns = [Column("reads"), *(Column(name, right=True) for name in names)]
    if rows:
        show(columns, [[Row((_ends(jobs), *row)) for row, jobs in rows.items()]])


def _ends(jobs: Sequence[str]) -> str:
    return jobs[0] if len(jobs) == 1 else f"{jobs[0]} … {jobs[-1]}"


def machines(phase: Phase) -> str:
    """The machines for a phase: `256 nodes × 8 × H100 80GB`."""
    if phase.kind not in ("gang", "generate") or not (phase.devices or phase.kind == "gang"):
        return f"1 node: {phase.devices} × {phase.device}" if phase.devices else "one process"
    if phase.kind == "generate" and phase.nodes == 1:
        return f"1 node: {phase.devices} × {phase.device}"
    each = f"{phase.ranks} × {phase.device}"
    return f"{phase.nodes:,} nodes × {each}" if phase.nodes > 1 else f"1 node: {each}"


def _hours(hours: float | None) -> str:
    return "" if hours is None else measured(hours)


def _money(price: float | None) -> str:
    return "" if price is None else f"{price:,.0f}"


def _changes(plan: Plan) -> list[str]:
    """The variant, and the changes on the command line."""
    variant = [f"variant {plan.variant}"] if plan.variant else []
    return variant + [f"--set {change}" for change in plan.changes]


def _parameters(cost: Cost) -> str:
    shown = f"{short(cost.parameters)} parameters"
    if cost.active_parameters < cost.parameters:
        shown += f" ({short(float(f'{cost.active_parameters:.4g}'))} active)"
    if cost.mtp_parameters:
        shown += f" and {short(float(f'{cost.mtp_parameters:.4g}'))} for further tokens"
    return shown


def _batches(job: TrainJob) -> str:
    shown = [f"{piece.sequences:,}" for piece in job.schedule.batch]
    if len(shown) > 4:
        shown = [*shown[:2], f"… {len(shown) - 3} more …", shown[-1]]
    nouns = job.rows.replace("sequences", "seqs")
    return " → ".join(shown) + f" {singular(nouns) if shown == ['1'] else nouns}"


def _rates(pieces: list[LrPiece]) -> str:
    shown = []
    for piece in pieces:
        if piece.shape == "hold":
            shown.append(f"{piece.start:.4g}")
        else:
            shown.append(f"{piece.start:.4g} → {piece.end:.4g} {piece.shape}")
    return ", ".join(_turns_of(shown))


def _turns_of(texts: list[str]) -> Iterator[str]:
    """The texts; what comes several times in a row, once: `4 × (0.001, 0.001 → 0 cosine)`."""
    place = 0
    while place < len(texts):
        size, times = 1, 1
        for of in range(1, (len(texts) - place) // 2 + 1):
            one, count = texts[place : place + of], 1
            while texts[place + count * of : place + (count + 1) * of] == one:
                count += 1
            if count > 1:
                size, times = of, count
                break
        shown = ", ".join(texts[place : place + size])
        yield f"{times} × ({shown})" if times > 1 else shown
        place += size * times


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
    if r.schedule != DEFAULT:
        shown.append(f"schedule {r.schedule}")
    if r.pipeline > 1:
        shown.append(f"layers of stages {_layers(job.model.layers, r)}")
    return f"{r.world_size:,} × {r.device}" + (f": {', '.join(shown)}" if shown else "")


def _layers(layers: int, mesh: Resources) -> str:
    """The layers of each stage of a pipeline, equal ones together: `7 + 14 × 8 + 7`."""
    alike = [(count, len([*of])) for count, of in groupby(layers_of_stages(layers, mesh))]
    return " + ".join(
        f"{stages} × {count}" if stages > 1 else f"{count}" for count, stages in alike
    )
