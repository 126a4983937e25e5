"""`etude plan SPEC --why STAGE.FIGURE`: a figure's formula, with the numbers put in."""

import re
from argparse import Namespace
from collections.abc import Iterator, Mapping

from ..compiler.as_written import at_most
from ..compiler.costs.estimate import FORMULAS, evaluate, shape_symbols
from ..compiler.costs.formulas import ACCOUNT, FITTED, SYMBOLS, TOTALS, compiled
from ..compiler.costs.hardware import GIB, gpu
from ..compiler.costs.jobs import job_costs, segment_batch, segment_estimate
from ..compiler.families.architectures import dense_layers
from ..compiler.ids import FigureId, SegmentId
from ..compiler.pipelines import LESS_LAYERS, told_split
from ..compiler.program import Scheduled, ScheduledStage, Segment
from ..compiler.schedule.auto import Candidate, Stretch, candidates, verdicts
from ..compiler.values import Resources
from ..spec.findings.diagnostics import did_you_mean
from ..spec.quantity import counted, measured
from ..spec.schedule import AUTO
from .common import analyse_file, problem, show
from .screen import say

COUNTS = ("tokens", "steps")
WORDS = SYMBOLS | TOTALS


def run(args: Namespace) -> int:
    found = analyse_file(args.file, ranks=args.ranks, variant=args.variant, sets=args.set)
    program = found.program
    show(found.report)
    if program is None or found.report.failures:
        return 1
    name, figure = FigureId.parse(args.why)
    trained = {n: s for n, s in program.stages.items() if isinstance(s, ScheduledStage)}
    name, number = _stage(name or next(iter(trained), ""), trained)
    if name not in trained:
        problem(
            f"`{args.why}` does not begin with a stage that trains",
            did_you_mean(name, trained) or f"the stages are {', '.join(trained)}",
        )
        return 1
    known = [*COUNTS, "parallel", *ACCOUNT, *FORMULAS]
    if not figure:
        problem(f"`{args.why}` has no figure", f"write `{name}.memory`, for example")
        return 1
    if figure not in known:
        problem(
            f"`{figure}` is not a figure of the cost model",
            did_you_mean(figure, known) or f"the figures are {', '.join(known)}",
        )
        return 1
    # A GPU's share is part of its memory; `parameters` means the model's.
    figure = "P" if figure == "parameters" else figure
    stage = trained[name]
    if number is not None and number > len(stage.segments):
        problem(
            f"`{name}` has {counted(len(stage.segments), 'segments')}", f"write `{name}.1.{figure}`"
        )
        return 1
    if figure == "parallel":
        return _placed(stage)
    if figure in COUNTS:
        for line in _counted(stage, figure):
            say(line, rest=" " * 4)
        return 0
    segment = stage.segments[(number or len(stage.segments)) - 1]
    values = _values(program, stage, segment)
    needs = FORMULAS if figure in FORMULAS else {}
    if values is None and (needs or figure not in ("P", "flops")):
        problem(
            f"`{figure}` is estimated only for known GPUs, but `{name}` runs on "
            f"{stage.hardware.device}",
            'write a cluster such as `cluster h100 { gpus = 8 of "H100 80GB" }`',
        )
        return 1
    where = f"{name}, segment {stage.segments.index(segment) + 1} of {len(stage.segments)}"
    print(f"{where}: {segment.resources.world_size:,} × {segment.resources.device}")
    for line in _explained(figure, values or _account(stage, {}, 0.0)):
        say(line.lstrip(), first=line[: len(line) - len(line.lstrip())], rest=" " * 4)
    return 0


def _stage(name: str, trained: Mapping[str, ScheduledStage]) -> tuple[str, int | None]:
    """A stage, and the number of its segment if given: `pretrain.2`."""
    segment = SegmentId.parse(name)
    if name not in trained and segment and segment.stage in trained and segment.number:
        return segment.stage, segment.number
    return name, None


def _placed(stage: ScheduledStage) -> int:
    """Prints verdicts on the best placements for each length of a stage with `parallel = auto`."""
    device = gpu(stage.hardware.device)
    schedule = stage.spec.parallel
    if device is None or schedule is None or schedule.segments[0].end != AUTO:
        origin = stage.origins.get("parallel")
        problem(
            f"the placement of `{stage.name}` was not searched for"
            + (f": it continues {origin}" if origin and origin.startswith("from") else ""),
            "write `parallel = auto` for a cluster whose GPUs are known",
        )
        return 1
    stretches = [
        Stretch(
            seq_len=segment.seq_len,
            sequences=tuple(sorted({b.sequences for b in segment_batch(stage, segment)})),
        )
        for segment in stage.segments
    ]
    choices = candidates(stage, stretches)
    for segment, stretch, found in zip(stage.segments, stretches, choices, strict=True):
        chosen = next(
            (
                c
                for c in found
                if c.recompute == stage.recompute and _is(c, segment.resources, stage)
            ),
            None,
        )
        if chosen is None:
            continue
        tried = counted(len(found), "placements")
        print(f"{stage.name}: sequences of {counted(stretch.seq_len, 'tokens')}, {tried}")
        for line in verdicts(found, chosen, device.memory):
            say(line, first="  ", rest=" " * 6)
    return 0


def _is(candidate: Candidate, resources: Resources, stage: ScheduledStage) -> bool:
    names = ["replicate", "tensor", "context", "pipeline", "interleave", "expert"]
    names += [name for name in LESS_LAYERS if name not in told_split(stage)]
    return all(candidate.degrees.get(name, 1) == getattr(resources, name) for name in names)


def _counted(stage: ScheduledStage, figure: str) -> Iterator[str]:
    """Steps × sequences × length of every stretch with one batch and one length."""
    total, bound = 0, at_most(stage.spec.counts)
    for start, stop, seq_len in stage.lengths:
        for batch in stage.batches:
            steps = min(stop, batch.to_step) - max(start, batch.from_step)
            if steps > 0:
                total += steps * batch.sequences * seq_len
                yield (
                    f"{steps:>12,} steps × {counted(batch.sequences, stage.spec.counts)} × "
                    f"{bound}{counted(seq_len, 'tokens')}"
                    f" = {bound}{steps * batch.sequences * seq_len:,} tokens"
                )
    assert total == stage.tokens
    yield (
        f"{stage.name}: {counted(stage.steps, 'steps')}, {bound}{counted(total, 'tokens')}"
        if figure == "tokens"
        else (f"{stage.name}: {counted(stage.steps, 'steps')}")
    )


def _values(program: Scheduled, stage: ScheduledStage, segment: Segment) -> dict[str, float] | None:
    batch = segment_batch(stage, segment)
    found = segment_estimate(stage, segment, max(b.sequences for b in batch))
    if found is None:
        return None
    seconds = 0.0
    for each in stage.segments:
        seconds += job_costs(stage, each, segment_batch(stage, each))["seconds"]
    return _account(stage, found.values, seconds)


def _account(
    stage: ScheduledStage, values: Mapping[str, float], seconds: float
) -> dict[str, float]:
    model, device = stage.model, gpu(stage.hardware.device)
    symbols = dict(values) | {
        **shape_symbols(model),
        "dense": dense_layers(model),
        "mixed": model.layers - dense_layers(model),
        "tied": float(model.tied),
        "tokens": stage.tokens,
        "seconds": seconds,
        "W": stage.hardware.world_size,
        "watts": device.watts if device else 0.0,
        "gpu_hour": stage.hardware.price or 0.0,
    }
    of_layers = ("N_attention", "N_layer", "N_expert", "N_mixed", "N_module")
    layer = {name: FORMULAS[name] for name in of_layers}
    return evaluate(symbols, compiled(layer | ACCOUNT))


def _explained(figure: str, values: Mapping[str, float]) -> Iterator[str]:
    """The formula of the figure, then the formulas of its terms, each once."""
    formulas = FORMULAS | ACCOUNT
    waiting, seen, symbols = [figure], {figure}, {}
    while waiting:
        name = waiting.pop(0)
        formula = formulas[name]
        yield ""
        yield f"{name} = {_shown(values[name], formula.unit)}    {formula.what}"
        yield f"  = {formula.text}"
        for part in re.findall(r"[A-Za-z_]\w*", formula.text):
            if part in formulas and part not in seen:
                waiting.append(part)
            elif part in WORDS or part in FITTED:
                symbols[part] = values[part]
            seen.add(part)
    yield ""
    for name, value in symbols.items():
        meaning = WORDS.get(name) or "fitted to published measurements, docs/cost.md"
        yield f"  {name:<12} {_plain(value):>16}  {meaning}"


def _shown(value: float, unit: str) -> str:
    if unit == "bytes" and abs(value) >= GIB / 100:
        return f"{measured(value / GIB, 4)} GiB"
    return f"{_plain(value)} {unit}".strip()


def _plain(value: float) -> str:
    whole = float(value).is_integer() and abs(value) < 1e15
    return f"{int(value):,}" if whole else measured(value, 4)
