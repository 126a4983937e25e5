"""`parallel = auto`: the fastest placement that fits, according to the cost model."""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import product
from math import fsum, gcd

from ...spec import schedule as sc
from ...spec.findings.diagnostics import Report
from ...spec.quantity import Quantity, counted, measured
from ...spec.record import Record, replace
from ..costs.hardware import GIB, gpu
from ..costs.jobs import Work, step_estimate
from ..families.low_precision import unfit_widths
from ..pipelines import layers_of_stages
from ..placement import (
    Degrees,
    data_parallel,
    interleaves,
    mesh,
    rounds,
    sequence_divisor,
    written,
)
from ..program import Form, TrainStage
from ..tensor_widths import shared_keys, tensor_widths
from ..values import ModelShape, Resources
from .clock import run_clock
from .positions import Length

HEADROOM = 0.95
"""Share of a GPU's memory that the estimate for a placement may use."""
MICRO_BATCHES = (1, 2, 4, 8)
RECOMPUTE = ("none", "selective", "full")
SPLITS = ({"first_less": 0, "last_less": 0}, {"last_less": 0}, {"first_less": 0})
"""Splits of a pipeline's layers besides the usual one, in which both ends have one less."""
SHOWN = 5
SHORTEST_PART = 8192
MOST_PARTS = 16
"""Context parallelism is searched up to the published limit: Llama 3 splits 128 Ki tokens among 16
GPUs (arXiv:2407.21783, Table 4). The cost model was not fitted to shorter parts, whose rings would
wait for the network."""


class Candidate(Record):
    """A placement that the model, the ranks, the lengths and the batches permit.

    Attributes:
        degrees: as a spec writes them.
        seconds: estimated, per step with the largest batch.
        memory: estimated bytes on the fullest GPU.
        fits: whether that leaves some headroom.
    """

    degrees: Degrees
    recompute: str
    seconds: float
    memory: float
    fits: bool

    def shown(self) -> str:
        """As a spec writes it."""
        return written(self.degrees)


class Stretch(Record):
    """Steps of one sequence length, with the batches in them in sequences."""

    seq_len: int
    sequences: tuple[int, ...]


@lru_cache(maxsize=256)
def search(
    work: Work, stretch: Stretch, recompute: tuple[str, ...], *, without: tuple[str, ...]
) -> list[Candidate]:
    """All placements of a stretch of a stage, fastest first.

    Args:
        recompute: the kinds of recomputation to choose from.
        without: kinds of parallelism that the stage cannot use.

    Returns:
        [] if the GPU is unknown, or no placement is possible.
    """
    device = gpu(work.hardware.device)
    found = []
    for resources, degrees in _placements(work, stretch, without):
        for micro in _micro_batches(resources, stretch):
            form = Form(
                seq_len=stretch.seq_len,
                rope_theta=0.0,
                resources=resources,
                micro_batch=micro or max(stretch.sequences) // data_parallel(resources),
            )
            for kind in recompute:
                estimate = step_estimate(work, form, kind, max(stretch.sequences))
                if estimate is None or device is None:
                    return []
                found.append(
                    Candidate(
                        degrees={**degrees, **({"micro_batch": micro} if micro > 1 else {})},
                        recompute=kind,
                        seconds=estimate.seconds,
                        memory=estimate.memory_total,
                        fits=estimate.memory_total <= HEADROOM * device.memory,
                    )
                )
    # Among equal times, the placement with the fewest kinds of parallelism is the simplest.
    return sorted(
        found, key=lambda c: (float(f"{c.seconds:.3g}"), len(c.degrees), c.memory, str(c.degrees))
    )


def _placements(
    work: Work, stretch: Stretch, without: tuple[str, ...]
) -> Iterator[tuple[Resources, dict[str, int]]]:
    """Meshes that the ranks, the model and the stretch permit, with their degrees."""
    hardware, model = work.hardware, work.model
    world, node = hardware.world_size, hardware.per_node
    widths = gcd(*tensor_widths(model, 2).values(), world)
    nothing = Report()
    for tensor in [1] if work.muon or "tensor" in without else _divisors(gcd(widths, node)):
        for context in [1] if "context" in without else _divisors(world // tensor):
            if context > 1 and stretch.seq_len // context < SHORTEST_PART:
                break
            for pipeline in [1] if "pipeline" in without else _divisors(world // tensor // context):
                if pipeline > model.layers:
                    break
                data = world // tensor // context // pipeline
                for replicate in _replicas(data, tensor, node):
                    if any(n % data for n in stretch.sequences):
                        continue
                    for expert, interleave in product(
                        _expert_degrees(model, data // replicate * context * tensor),
                        _interleaves(model, pipeline, dict(work.split)),
                    ):
                        degrees = {
                            "replicate": replicate,
                            "tensor": tensor,
                            "context": context,
                            "pipeline": pipeline,
                            "interleave": interleave,
                            "expert": expert,
                        }
                        degrees = {name: degree for name, degree in degrees.items() if degree > 1}
                        for split in _splits(work, pipeline, interleave):
                            placed = {
                                **(dict(work.split) if pipeline > 1 else {}),
                                **degrees,
                                **split,
                            }
                            resources = mesh(hardware, placed, model, None, nothing)
                            empty = (
                                split
                                and resources
                                and 0 in layers_of_stages(model.layers, resources)
                            )
                            if resources and not empty and _takes(work, resources, stretch):
                                yield resources, degrees | split


def _takes(work: Work, resources: Resources, stretch: Stretch) -> bool:
    """Whether the mesh divides the sequences, and an interleaved pipeline the batches, and the
    kernels of the precision take the widths of a rank's part of the model."""
    if unfit_widths(work.precision, work.model, resources):
        return False
    if work.adapters and shared_keys(work.model, resources.tensor):
        return False
    if stretch.seq_len % sequence_divisor(resources):
        return False
    each = [sequences // data_parallel(resources) for sequences in stretch.sequences]
    return resources.interleave == 1 or None not in (rounds(resources, n) for n in each)


def _splits(work: Work, pipeline: int, interleave: int) -> list[dict[str, int]]:
    """Splits of a pipeline to choose from, the usual one first, as placements write them.

    Where the layers, the embedding and the output divide evenly, or `torchtitan` sets the split,
    there is only one.
    """
    stages = pipeline * interleave
    if pipeline == 1 or work.split or (work.model.layers + 2) % stages == 0:
        return [{}]
    return [{}, *SPLITS]


def _interleaves(model: ModelShape, pipeline: int, told: dict[str, int]) -> list[int]:
    """Stages per rank of a pipeline: powers of two, and the most that the layers permit."""
    split = told.get("first_less", 1), told.get("last_less", 1)
    found = interleaves(model.layers, pipeline, split)
    return [n for n in found if n & (n - 1) == 0 or n == found[-1]]


def _expert_degrees(model: ModelShape, ranks: int) -> list[int]:
    """Degrees of expert parallelism: powers of two that divide experts and ranks."""
    if model.experts is None:
        return [1]
    common = gcd(model.experts.count, ranks)
    return [1 << power for power in range(common.bit_length()) if common % (1 << power) == 0]


def _replicas(data: int, tensor: int, node: int) -> list[int]:
    """Numbers of replicas: one, one per node, and a few of several nodes each."""
    inside = max(node // tensor, 1)
    sizes = {data, inside, 8 * inside, 64 * inside}
    return sorted(data // size for size in sizes if data % size == 0)


def _micro_batches(resources: Resources, stretch: Stretch) -> list[int]:
    """Sequences that a rank processes at a time; 0 in a pipeline, which takes them all."""
    if resources.pipeline > 1:
        return [0]
    each = gcd(*stretch.sequences) // data_parallel(resources)
    return [micro for micro in MICRO_BATCHES if each % micro == 0]


def _divisors(number: int) -> list[int]:
    return (
        [d for d in range(1, number + 1) if number % d == 0]
        if number < 4096
        else sorted(
            {
                d
                for low in range(1, int(number**0.5) + 1)
                if number % low == 0
                for d in (low, number // low)
            }
        )
    )


def place(
    stage: TrainStage,
    parallel: list[sc.Segment],
    seq_len: list[sc.Segment],
    batch: list[sc.Segment],
    length: Length,
    report: Report,
) -> tuple[list[sc.Segment], str] | None:
    """The placements of a stage, one per sequence length, and its recomputation.

    If the spec sets the recomputation, it is kept. CPUs have no estimates, so all their ranks are
    data-parallel. None after reporting.
    """
    (first, *others) = parallel
    if others:
        report.add(
            "E434",
            "`auto` applies to a whole stage and cannot be combined",
            first.span,
            help="write `parallel = auto`: every sequence length gets its own placement",
        )
        return None
    nothing = [replace(first, end={})], stage.recompute
    if stage.hardware.device == "cpu":
        return nothing
    device = gpu(stage.hardware.device)
    if device is None:
        report.add(
            "E434",
            f"`auto` does not know the GPU `{stage.hardware.device}`",
            first.span,
            help="write a placement: `parallel = { tensor 8 }`",
        )
        return None
    stretches = _stretches(seq_len, batch, length)
    if stretches is None:  # errors in the lengths or batches are reported elsewhere
        return nothing
    choices = candidates(stage, stretches)
    chosen = choose(choices)
    if chosen is None:
        _nothing_fits(stretches, choices, device.memory, first, report)
        return None
    recompute, placements = chosen
    found = [
        replace(each, end=placement.degrees, span=first.span)
        for each, placement in zip(seq_len, placements, strict=False)
    ]
    return found, recompute


def candidates(stage: TrainStage, stretches: Sequence[Stretch]) -> list[list[Candidate]]:
    """The placements of every stretch of a stage, fastest first."""
    kinds = (stage.recompute,) if stage.origins.get("recompute") == "spec" else RECOMPUTE
    without, work = stage.spec.unplaceable, Work.of(stage)
    return [search(work, stretch, kinds, without=without) for stretch in stretches]


def _stretches(
    seq_len: list[sc.Segment], batch: list[sc.Segment], length: Length
) -> list[Stretch] | None:
    """The stretches of one length each, with the batches at the beginnings and ends of segments."""
    clock = run_clock(length, seq_len, batch, 1, Report(), None)
    if clock is None:
        return None
    ends = [end for segment in batch for end in (segment.start, segment.end) if end]
    found = []
    for start, stop, tokens in clock.lengths:
        there = {b.sequences for b in clock.batches if b.from_step < stop and b.to_step > start}
        named = there & {_sequences(end, tokens) for end in ends}
        found.append(Stretch(seq_len=tokens, sequences=tuple(sorted(named or there))))
    return found


def _sequences(batch: Quantity, seq_len: int) -> int:
    return int(batch.value / seq_len if batch.unit == "tokens" else batch.value)


def _nothing_fits(
    stretches: Sequence[Stretch],
    choices: Sequence[Sequence[Candidate]],
    memory: int,
    segment: sc.Segment,
    report: Report,
) -> None:
    for stretch, found in zip(stretches, choices, strict=True):
        if any(candidate.fits for candidate in found):
            continue
        least = min(found, key=lambda candidate: candidate.memory, default=None)
        if least is None:
            message = (
                f"no placement can divide batches of {', '.join(map(str, stretch.sequences))} "
                f"sequences of {counted(stretch.seq_len, 'tokens')} among the GPUs"
            )
            help = "use a batch that is a multiple of the GPUs, or fewer GPUs"
        else:
            message = (
                f"no placement for sequences of {counted(stretch.seq_len, 'tokens')} fits: the "
                f"smallest takes {least.memory / GIB:.0f} GiB of {memory / GIB:.0f}"
            )
            help = f"that is {least.shown()} with recompute {least.recompute}: use more GPUs"
        report.add("E435", message, segment.span, help=help)
        return
    report.add(
        "E435",
        "no single `recompute` lets every sequence length fit",
        segment.span,
        help="write separate stages for the longer ones",
    )


def choose(choices: Sequence[Sequence[Candidate]]) -> tuple[str, list[Candidate]] | None:
    """One placement for each stretch of a stage, all with the same recomputation.

    Args:
        choices: per stretch, fastest first.

    Returns:
        The recomputation and placements with the smallest sum of times per step, each stretch
        weighted by its share; None if a stretch has no placement that fits.
    """
    found: list[tuple[float, str, list[Candidate]]] = []
    known = {candidate.recompute for candidates in choices for candidate in candidates}
    for kind in (*RECOMPUTE, *sorted(known.difference(RECOMPUTE))):
        picked = [
            next((c for c in candidates if c.fits and c.recompute == kind), None)
            for candidates in choices
        ]
        if all(picked):
            kept = [c for c in picked if c]
            best = [min(c.seconds for c in candidates if c.fits) for candidates in choices]
            slower = fsum(c.seconds / b for c, b in zip(kept, best, strict=True))
            found.append((slower, kind, kept))
    return min(found, key=lambda each: each[0])[1:] if found else None


def verdicts(candidates: Sequence[Candidate], chosen: Candidate, memory: int) -> list[str]:
    """What became of the best placements, one line each: those that fit and those that do not."""
    lines = []
    best = [*candidates[:SHOWN]]
    if chosen not in best:
        best.append(chosen)
    for candidate in best:
        what = f"{measured(candidate.seconds)} s a step, {candidate.memory / GIB:.0f} GiB"
        if candidate == chosen:
            verdict = "chosen"
        elif not candidate.fits:
            verdict = f"dropped: more than {HEADROOM:.0%} of {memory / GIB:.0f} GiB"
        elif candidate.recompute != chosen.recompute:
            verdict = "dropped: the stage has another recomputation"
        else:
            slower = candidate.seconds / chosen.seconds - 1
            verdict = f"dropped: {slower:.1%} slower" if slower > 0 else "dropped: no faster"
        lines.append(f"{candidate.shown()}, recompute {candidate.recompute}: {what}: {verdict}")
    return lines
