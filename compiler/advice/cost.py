"""Advice on placements that do not fit into GPU memory, and on unknown GPUs."""

from collections.abc import Iterator
from math import fsum, isinf

from ...spec.findings.diagnostics import did_you_mean
from ...spec.quantity import counted, short
from ...spec.record import replace
from ..costs.failures import best_interval
from ..costs.hardware import GIB, GPUS, Gpu, gpu
from ..costs.jobs import Work, expected, segment_batch, segment_estimate
from ..families.architectures import parameters
from ..program import Scheduled, ScheduledStage, Segment
from . import Found, rule

LARGE = 1e9
"""Parameters above which nobody means to train a model on a CPU."""
NOTED = 0.01
"""The share of the time that must be saved for another checkpoint interval to be worth it."""
STATE = ("parameters", "gradients", "optimizer")


def _fullest(stage: ScheduledStage, known: Gpu, parts: tuple[str, ...] = ()) -> Iterator[tuple]:
    """The segment that takes most memory, its bytes by part, and the sum over `parts` or all."""
    found = []
    for segment in stage.segments:
        batch = max(b.sequences for b in segment_batch(stage, segment))
        estimate = segment_estimate(stage, segment, batch)
        if estimate:
            total = fsum(estimate.memory[part] for part in parts or estimate.memory)
            found.append((total, segment, batch, estimate.memory))
    for total, segment, batch, memory in sorted(found, key=lambda each: -each[0])[:1]:
        if total > known.memory:
            yield segment, batch, memory, total


@rule("W662")
def state_does_not_fit(stage: ScheduledStage, program: Scheduled) -> Iterator[Found]:
    known = gpu(stage.hardware.device)
    if known is None:
        return
    for segment, _, _, total in _fullest(stage, known, STATE):
        r = segment.resources
        ways = r.shard * r.context * r.tensor * r.pipeline
        more = -(-int(total) * ways // known.memory)
        yield Found(
            f"weights, gradients and moments take {total / GIB:.0f} GiB on each GPU, but "
            f"{known.name} has {known.memory / GIB:.0f}",
            stage.spec.at("parallel") or stage.spec.at(),
            f"they are spread over {ways} GPUs: shard them over at least {more}",
        )


@rule("W661")
def memory_does_not_fit(stage: ScheduledStage, program: Scheduled) -> Iterator[Found]:
    known = gpu(stage.hardware.device)
    if known is None:
        return
    for segment, batch, memory, total in _fullest(stage, known):
        if any(True for _ in _fullest(stage, known, STATE)):  # W662
            return
        most = max(memory, key=lambda part: memory[part])
        yield Found(
            f"the estimated memory is {total / GIB:.0f} GiB a GPU, but {known.name} has "
            f"{known.memory / GIB:.0f}: {memory[most] / GIB:.0f} GiB are {most}",
            stage.spec.at("parallel") or stage.spec.at(),
            _way_out(stage, segment, batch, known),
            label=f"where sequences have {counted(segment.seq_len, 'tokens')}",
        )


def _way_out(stage: ScheduledStage, segment: Segment, batch: int, known: Gpu) -> str:
    """The first of several changes, cheapest first, with which the segment fits."""
    ways = [
        ("recompute = selective", {"recompute": "selective"}, {}),
        ("recompute = full", {"recompute": "full"}, {}),
    ]
    if segment.resources.pipeline == 1:
        for micro in (segment.micro_batch // 2, 1):
            if 0 < micro < segment.micro_batch:
                ways.append((f"micro_batch {micro}", {}, {"micro_batch": micro}))
                ways.append(
                    (
                        f"micro_batch {micro} and recompute = full",
                        {"recompute": "full"},
                        {"micro_batch": micro},
                    )
                )
    for shown, of_stage, of_segment in ways:
        changed = replace(stage, **of_stage)
        found = segment_estimate(changed, replace(segment, **of_segment), batch)
        if found and found.memory_total <= known.memory:
            return f"write `{shown}`: {found.memory_total / GIB:.0f} GiB"
    return _placement_that_fits(stage, segment, batch)


def _placement_that_fits(stage: ScheduledStage, segment: Segment, batch: int) -> str:
    """The fastest placement on the same GPUs that fits with full recomputation."""
    from ..schedule.auto import Stretch, search  # most recipes fit

    stretch = Stretch(seq_len=segment.seq_len, sequences=(batch,))
    found = search(Work.of(stage), stretch, ("full",), without=stage.spec.unplaceable)
    for candidate in found:
        if candidate.fits:
            return (
                f"write `parallel = {candidate.shown()}` and `recompute = full`: "
                f"{candidate.memory / GIB:.0f} GiB"
            )
    if not found:
        return "use more GPUs, or shorter sequences"
    least = min(candidate.memory for candidate in found)
    return (
        f"no placement on {stage.hardware.world_size:,} GPUs fits; the smallest takes "
        f"{least / GIB:.0f} GiB of each: use more GPUs"
    )


@rule("N661")
def unknown_gpu(stage: ScheduledStage, program: Scheduled) -> Iterator[Found]:
    device = stage.hardware.device
    if device == "cpu" or gpu(device) or stage.parent:
        return
    clusters = [
        each for each in program.recipe.clusters.values() if each.gpus and each.gpus[1] == device
    ]
    yield Found(
        f"etude does not know the GPU `{device}`, so memory, time and cost are not estimated",
        clusters[0].at("gpus") if clusters else None,
        did_you_mean(device, GPUS) or f"known GPUs: {', '.join(GPUS)}",
    )


UNPRICED = {
    "training": ("enable_cpu_offload", "disable_cuda_graphs"),
    "parallelism": ("enable_fsdp_symm_mem", "enable_sequence_parallel"),
    "compile": ("enable", "enable_async_tensor_parallel"),
}
"""Fields of torchtitan that change memory or time but that the cost model ignores."""


@rule("N662")
def unpriced_fields(stage: ScheduledStage, program: Scheduled) -> Iterator[Found]:
    if stage.hardware.device == "cpu":
        return
    of_cluster = None if stage.parent else stage.hardware.torchtitan  # reported once
    for told in (of_cluster, stage.spec.torchtitan):
        names = [
            f"{section}.{name}"
            for section, fields in (told.given() if told else {}).items()
            for name in fields
            if name in UNPRICED.get(section, ())
        ]
        if told and names:
            # Of what the host keeps, the memory is known, but not how long it takes.
            time = "time is" if names == ["training.enable_cpu_offload"] else "memory and time are"
            yield Found(
                f"{time} estimated without {' and '.join(names)}",
                told.at(),
                "measure a few steps before you rely on the estimates",
            )


@rule("N663")
def better_interval(stage: ScheduledStage, program: Scheduled) -> Iterator[Found]:
    """Checkpoints so rare, or so frequent, that a run with failures takes longer than necessary."""
    where = stage.hardware
    last = stage.segments[-1]
    step = segment_estimate(stage, last, segment_batch(stage, last)[-1].sequences)
    if step is None or where.mtbf is None:
        return
    best = max(best_interval(where.save or 0.0, where.mtbf), step.seconds)
    day = 24 * 3600.0
    now, then = (expected(stage, day, step.seconds, between) for between in (None, best))
    assert now is not None
    assert then is not None
    if isinf(now):
        yield Found(
            f"with a failure every {_interval(where.mtbf)}, training never gets from one "
            "checkpoint to the next",
            stage.spec.at("checkpoint"),
            "save more often, or correct `mtbf`, which is of the whole cluster, and `restart`",
        )
    elif where.save and 1 - then / now > NOTED:
        yield Found(
            f"with these failures, another interval of checkpoints would save {1 - then / now:.1%} "
            "of the time",
            stage.spec.at("checkpoint"),
            f"write `checkpoint every {_interval(best)}`",
        )


def _interval(seconds: float) -> str:
    """A time as specs write it, rounded to about a tenth."""
    unit, size = next(
        of for of in (("h", 3600), ("min", 60), ("s", 1)) if seconds >= of[1] or of[1] == 1
    )
    return f"{float(f'{seconds / size:.2g}'):g} {unit}"


@rule("W649", needs="cluster")
def large_model_without_a_cluster(stage: ScheduledStage, program: Scheduled) -> Iterator[Found]:
    """A large model on a single CPU process, because no cluster is declared."""
    size = parameters(stage.model)
    if program.recipe.clusters or program.ranks is not None or size < LARGE or _later(stage):
        return
    yield Found(
        f"no cluster is declared, so {short(size)} parameters are trained in one CPU process",
        stage.spec.at(),
        'declare the machines: `cluster box { gpus = 8 of "H100 80GB" }`',
    )


def _later(stage: ScheduledStage) -> bool:
    """Whether the stage continues from one with the same hardware."""
    return stage.parent is not None and not stage.spec.cluster
