"""The segments of a stage: stretches with constant shapes, each of them one train job."""

from fractions import Fraction
from itertools import pairwise
from math import gcd
from typing import Any

from ...spec.findings.diagnostics import Report
from ...spec.quantity import counted, plain
from ...spec.record import replace
from ...spec.schema import recipe as r
from ..pipelines import pipelining
from ..placement import (
    CPU_MICRO_BATCH_TOKENS,
    Degrees,
    data_parallel,
    micro_batch,
    rounds,
    sequence_divisor,
)
from ..program import Segment
from ..values import Resources
from .clock import Clock
from .course import at

Meshes = dict[tuple[tuple[str, int | str], ...], Resources]
"""Frozen degrees of parallelism → their mesh."""


def frozen(degrees: Degrees) -> tuple[tuple[str, int | str], ...]:
    """Degrees as a key of `Meshes`."""
    return tuple(sorted(degrees.items()))


def cut(
    spec: r.Training,
    clock: Clock,
    thetas: list[tuple[int, Any]],
    places: list[tuple[int, Degrees]],
    meshes: Meshes,
    checkpoints: list[int],
    report: Report,
) -> list[Segment]:
    """Splits a stage into segments; reports batches and lengths that do not fit their mesh.

    Args:
        thetas, places: steps, and the RoPE base and the degrees in force from there.
        checkpoints: steps at which a segment has to end.
    """
    found: list[Segment] = []
    ends = frozenset(checkpoints)
    lengths = [(start, seq_len) for start, _, seq_len in clock.lengths]
    for start, stop in pairwise(_cuts(clock, thetas, places, meshes, checkpoints)):
        seq_len, theta, degrees = (at(changes, start) for changes in (lengths, thetas, places))
        resources = meshes[frozen(degrees)]
        batches = [b.sequences for b in clock.batches if b.from_step < stop and b.to_step > start]
        given = int(degrees.get("micro_batch", 0))
        micro = micro_batch(resources, given or None, seq_len, batches, CPU_MICRO_BATCH_TOKENS)
        uneven = _uneven_rounds(resources, micro) or _uneven_batch(
            spec, clock, batches, resources, given or 1, seq_len
        )
        _divisible(spec, uneven, resources, seq_len, report)
        if not uneven and (empty := _not_full(resources, micro)):
            report.add("E485", empty[0], spec.at("batch"), help=empty[1])
        segment = Segment(
            from_step=start,
            to_step=stop,
            seq_len=seq_len,
            rope_theta=float(theta),
            resources=resources,
            micro_batch=micro,
        )
        previous = found[-1] if found else None
        same = previous and replace(previous, from_step=start, to_step=stop) == segment
        if previous and same and start not in ends:
            found[-1] = replace(previous, to_step=stop)
        else:
            found.append(segment)
    return found


def _cuts(
    clock: Clock,
    thetas: list[tuple[int, Any]],
    places: list[tuple[int, Degrees]],
    meshes: Meshes,
    checkpoints: list[int],
) -> list[int]:
    """Steps at which segments may begin, and the stage's end."""
    lengths = [start for start, _, _ in clock.lengths]
    changes = {*lengths, *(step for knob in (thetas, places) for step, _ in knob)}
    # A pipeline fills and drains once per step only if it takes the whole batch at a time.
    changes |= {
        step
        for step in (*clock.begins["batch"], *clock.levels)
        if meshes[frozen(at(places, step))].pipeline > 1
    }
    cuts = sorted(changes | set(checkpoints))
    return [*(cut for cut in cuts if cut < clock.steps), clock.steps]


def _divisible(
    spec: r.Training,
    uneven: tuple[str, str] | None,
    resources: Resources,
    seq_len: int,
    report: Report,
) -> None:
    """Reports a batch that the ranks cannot divide, or else a length that they cannot split."""
    if uneven:
        report.add("E451", uneven[0], spec.at("batch"), help=uneven[1])
        return
    divisor = sequence_divisor(resources)
    if seq_len % divisor:
        report.add(
            "E452",
            f"a sequence of {counted(seq_len, 'tokens')} is not a multiple of the {divisor} "
            f"that tensor {resources.tensor} and context {resources.context} need",
            spec.at("seq_len"),
            help=f"the nearest is {max(round(seq_len / divisor), 1) * divisor}",
        )


def _not_full(resources: Resources, micro: int) -> tuple[str, str] | None:
    """What is wrong with a pipeline that a rank's sequences do not fill, and the way out (torch
    2.14, `ScheduleDualPipeV`)."""
    stages = resources.pipeline * resources.interleave
    if not pipelining(resources).full or micro >= stages:
        return None
    return (
        f"`schedule {resources.schedule}` needs a sequence for each of its {stages} stages, but a "
        f"data-parallel rank has {micro} at a time",
        f"the nearest batch is {counted(stages * data_parallel(resources), 'sequences')}; with "
        "this one, write `schedule zero_bubble_v`",
    )


def _uneven_rounds(resources: Resources, micro: int) -> tuple[str, str] | None:
    """What is wrong with the sequences of an interleaved pipeline, and the way out."""
    if resources.interleave == 1 or not pipelining(resources).rounds:
        return None
    if rounds(resources, micro) is not None:
        return None
    low = micro // resources.pipeline * resources.pipeline
    high = low + resources.pipeline
    ranks = data_parallel(resources)
    return (
        f"{micro} sequences per data-parallel rank do not divide into equal rounds of an "
        f"interleaved pipeline of {resources.pipeline} ranks",
        f"the nearest are {low} and {high}: batches of {low * ranks} and {high * ranks} sequences",
    )


def _uneven_batch(
    spec: r.Training,
    clock: Clock,
    batches: list[int],
    resources: Resources,
    micro: int,
    seq_len: int,
) -> tuple[str, str] | None:
    """What is wrong with the first batch that does not divide, and the way out.

    Args:
        batches: of the segment.
        micro: the micro-batch in the spec; 1 if it sets none.
    """
    ranks = data_parallel(resources)
    granule = ranks * micro
    uneven = next((sequences for sequences in batches if sequences % granule), None)
    if uneven is None:
        return None
    noun = spec.counts
    low = uneven // granule * granule
    near = [_batch(n, noun, seq_len) for n in ([low, low + granule] if low else [granule])]
    message = f"a batch of {counted(uneven, noun)} does not divide "
    if uneven % ranks:
        message += f"among {ranks} data-parallel ranks"
        message += f" × micro-batches of {micro}" if micro > 1 else ""
    else:
        shared = f", {uneven // ranks} on each of {ranks} data-parallel ranks," if ranks > 1 else ""
        message = f"a batch of {counted(uneven, noun)}{shared} does not divide into "
        message += f"micro-batches of {micro}"
    ways = [f"the nearest {'are' if len(near) > 1 else 'is'} {' and '.join(near)}"]
    # The levels of a ramp depend on the ranks; at the start of a segment, the batch is as written.
    begins = clock.begins["batch"]
    written = [b.sequences for b in clock.batches if b.from_step in begins]
    every = gcd(uneven, *written)
    if resources.device == "cpu" and ranks > 1 and every % micro == 0:
        ways.append(f"or run it on {_fitting(every // micro, resources)}")
    if micro > 1:
        ways.append(f"or change `micro_batch {micro}`")
    return message, "; ".join(ways)


def _batch(sequences: int, noun: str, seq_len: int) -> str:
    """A batch for people; without its tokens if rows may have any length."""
    shown = counted(sequences, noun)
    return (
        shown
        if noun != r.Training.rows
        else f"{shown} ({plain(Fraction(sequences * seq_len))} tokens)"
    )


def _fitting(sequences: int, resources: Resources) -> str:
    """The numbers of ranks around those there are among which so many sequences divide."""
    own, each = data_parallel(resources), resources.world_size // data_parallel(resources)
    fits = [n for n in range(1, sequences + 1) if sequences % n == 0]
    near = [n for n in fits if n < own][-3:] + [n for n in fits if n > own][:1]
    *others, last = (f"{n * each:,}" for n in near)
    return f"{', '.join(others)} or {last} ranks" if others else counted(int(last), "ranks")
