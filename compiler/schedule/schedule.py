"""Schedules made absolute: every knob of every train stage, by step."""

from fractions import Fraction
from functools import partial
from itertools import pairwise
from math import lcm
from typing import Any

from ...spec import schedule as sc
from ...spec.findings.diagnostics import Report
from ...spec.quantity import Quantity, counted, plain
from ...spec.record import replace
from ...spec.source import Span
from ..placement import (
    CPU_MICRO_BATCH_RECORDS,
    CPU_MICRO_BATCH_TOKENS,
    data_parallel,
    mesh,
    micro_batch,
    rounds,
    sequence_divisor,
)
from ..program import CheckpointStage, MixturePart, Program, Segment, State, TrainStage
from ..resolve.checkpoints import before
from ..values import LrPiece, Resources
from .auto import place
from .clock import Clock, borders, note_rounding, run_clock
from .mixture import RESOLUTION, between, integer_weights
from .order import ordered, within
from .positions import Border, Length

RAMP_LEVELS = 100
RAMP_RESOLUTION = 1000
"""The most levels of a ramp of a mixture, and the denominator of its shares."""


def schedule(program: Program, report: Report) -> Program:
    """Fills steps, tokens, schedules, segments and the end state of every train stage."""
    stages = dict(program.stages)
    checkpoints: dict[str, list[CheckpointStage]] = {}
    for stage in stages.values():
        if isinstance(stage, CheckpointStage):
            checkpoints.setdefault(stage.of, []).append(stage)
    for name, stage in stages.items():
        if isinstance(stage, TrainStage):
            parent = replace(program, stages=stages).trained(stage.parent) if stage.parent else None
            if parent is not None and parent.published:
                parent = None
            if parent is not None and parent.end is None:
                continue
            own = checkpoints.get(name, [])
            stages[name] = _Scheduler(stage, parent, own, program, report).run()
        elif isinstance(stage, CheckpointStage):
            stages[name] = replace(stage, part=before(stage, stages[stage.of]))
    return replace(program, stages=stages)


class _Scheduler:
    def __init__(
        self,
        stage: TrainStage,
        parent: TrainStage | None,
        checkpoints: list[CheckpointStage],
        program: Program,
        report: Report,
    ) -> None:
        self.stage = stage
        self.checkpoints = checkpoints
        self.spec = stage.spec
        self.last = parent.end if parent else None
        self.program = program
        self.report = report
        self.origins = dict(stage.origins)
        self.begins: dict[str, list[int]] = {}

    def run(self) -> TrainStage:
        before = self.report.failures
        seq_len = self._absolute("seq_len")
        batch = self._absolute("batch")
        parallel = self._absolute("parallel", default={})
        theta = self._absolute("rope_theta", default=self.stage.model.rope_theta)
        data, rates = self._absolute("data"), self._absolute("lr")
        knobs = {
            "seq_len": seq_len,
            "batch": batch,
            "parallel": parallel,
            "rope_theta": theta,
            "data": data,
            "lr": rates,
        }
        self._shapes(knobs)
        length = self._length()
        if length is None:
            return self.stage
        for knob, segments in knobs.items():
            ordered(knob, segments, length, self.report)
        if self.report.failures > before:
            return self.stage
        if any(segment.end == sc.AUTO for segment in parallel):
            placed = place(self.stage, parallel, seq_len, batch, length, self.report)
            if placed is None:
                return self.stage
            parallel, recompute = placed
            if recompute != self.stage.recompute:
                self.origins["recompute"] = "etude"
                self.stage = replace(self.stage, recompute=recompute)
        meshes = {_frozen(s.end): self._mesh(s) for s in parallel}
        if None in meshes.values() or self.report.failures > before:
            return self.stage
        self._together(parallel)
        if self.report.failures > before:
            return self.stage
        granule = 1
        for degrees, resources in meshes.items():
            assert resources
            granule = lcm(granule, data_parallel(resources) * dict(degrees).get("micro_batch", 1))
        clock = run_clock(length, seq_len, batch, granule, self.report, self.spec.at())
        if clock is None or self.report.failures > before:
            return self.stage
        lr = self._lr(rates, length, clock)
        mixture, shares = self._mixture(data, length, clock)
        thetas = self._holds(theta, length, clock, "rope_theta")
        places = self._holds(parallel, length, clock, "parallel")
        if self.spec.average:
            within(self.spec.average, length, clock.steps, clock.tokens, self.report)
        borders = self._checkpoints(length, clock)
        cuts = [border.step for border in borders.values()]
        segments = self._segments(clock, thetas, places, meshes, cuts)
        if self.report.failures > before:
            return self.stage
        end = State(
            lr=lr[-1].rate(clock.steps, clock.tokens_before),
            batch=clock.batch_at_end,
            seq_len=clock.lengths[-1][2],
            data=shares,
            rope_theta=float(thetas[-1][1]),
            parallel=dict(places[-1][1]),
        )

        def state(step: int) -> State:
            last = step - 1
            seq_len = _at([(start, seq_len) for start, _, seq_len in clock.lengths], last)
            batch = _at([(b.from_step, b.sequences) for b in clock.batches], last)
            unit = clock.batch_at_end.unit
            piece = next(p for p in reversed(lr) if p.from_step <= last)
            weights = _at([(m.from_step, m.weights) for m in mixture], last)
            return State(
                lr=piece.rate(step, clock.tokens_before),
                batch=Quantity(Fraction(batch * seq_len if unit == "tokens" else batch), unit),
                seq_len=seq_len,
                data=shares
                if weights == mixture[-1].weights
                else {n: Fraction(w, sum(weights.values())) for n, w in weights.items()},
                rope_theta=float(_at(thetas, last)),
                parallel=dict(_at(places, last)),
            )

        return replace(
            self.stage,
            steps=clock.steps,
            tokens=clock.tokens,
            lengths=clock.lengths,
            batches=clock.batches,
            lr=lr,
            mixture=mixture,
            segments=segments,
            roundings=clock.roundings,
            end=end,
            origins=self.origins,
            begins=clock.begins | self.begins,
            checkpoints={name: (b.step, state(b.step)) for name, b in borders.items()},
        )

    def _length(self) -> Length | None:
        if self.spec.tokens is not None:
            return Length("tokens", Fraction(self.spec.tokens))
        if self.spec.steps is not None:
            return Length("steps", Fraction(self.spec.steps))
        if self.spec.epochs is None:
            return None
        preferences = self.spec.data_kind == "preferences"
        total = Fraction(0)
        mixes = [m for s in self._absolute("data") for m in (s.start, s.end) if m]
        for name in dict.fromkeys(name for mix in mixes for name in mix):
            dataset = self.program.recipe.datasets[name]
            what = "pairs" if preferences else "tokens"
            declared = dataset.pairs if preferences else dataset.tokens
            if declared is None:
                self.report.add(
                    "E443",
                    f"a length in epochs needs to know how many {what} `{name}` has",
                    self.spec.at("epochs"),
                    help=f"declare `{what} = …` in the dataset `{name}`",
                )
                return None
            total += declared
        if preferences:
            batch = self._absolute("batch")[0].end.value
            return Length("steps", total * self.spec.epochs.value / batch)
        return Length("tokens", total * self.spec.epochs.value)

    def _absolute(self, knob: str, default: Any = None) -> list[sc.Segment]:
        """The segments of a knob with `last` replaced; what the spec leaves out is inherited.

        Ramps without a left side that follow another segment keep `start` None: the value there
        depends on how far the segment before has come.
        """
        schedule: sc.Schedule | None = getattr(self.spec, knob)
        self.origins[knob] = "spec"
        if schedule is None:
            self.origins[knob] = f"from {self.stage.parent}" if self.last else "etude"
            if knob == "rope_theta" and not self.last:
                self.origins[knob] = "model"
            value = getattr(self.last, knob) if self.last else default
            return [sc.Segment("hold", None, value, None, None, self.spec.at())]
        segments: list[sc.Segment] = []
        current: Any = getattr(self.last, knob) if self.last else None
        for segment in schedule.segments:
            start = self._value(knob, segment.start, current, segment.span)
            end = self._value(knob, segment.end, start or current, segment.span)
            if segment.shape != "hold" and start is None and not segments:
                start = current
                if start is None:
                    self.report.add(
                        "E444",
                        "this ramp begins nowhere: there is no value before it",
                        segment.span,
                        help="write where it begins: `0 -> 3e-4`",
                    )
            segments.append(replace(segment, start=start, end=end))
            current = end
        return segments

    def _value(self, knob: str, value: Any, current: Any, span: Span | None) -> Any:
        if not isinstance(value, sc.Last):
            return value
        if not value.factors:
            return getattr(self.last, knob)
        shares = dict(current)
        for name, factor in value.factors:
            if name not in shares:
                self.report.add(
                    "E445",
                    f"`{name}` is not in the mixture that this scales",
                    span,
                    help=f"there is {', '.join(shares)}",
                )
                continue
            shares[name] *= factor
        total = sum(shares.values())
        if total <= 0:
            self.report.add("E445", "nothing is left of this mixture", span)
            return dict(current)
        return {name: share / total for name, share in shares.items()}

    def _mesh(self, segment: sc.Segment) -> Resources | None:
        return mesh(self.stage.hardware, segment.end, self.stage.model, segment.span, self.report)

    def _shapes(self, knobs: dict[str, list[sc.Segment]]) -> None:
        """Reports ramps of what has none, and of what has none of their shape."""
        for knob, segments in knobs.items():
            for segment in segments:
                if knob in ("seq_len", "rope_theta", "parallel") and segment.shape != "hold":
                    self.report.add(
                        "E446",
                        f"{knob} changes in steps, not in ramps",
                        segment.span,
                        help="write the values one after the other: `4Ki for … then 8Ki`",
                    )
                if knob in ("batch", "data") and segment.shape == "exponential":
                    self.report.add(
                        "E446",
                        f"{knob} has no exponential ramps",
                        segment.span,
                        help="write linear, cosine or sqrt",
                    )

    def _together(self, parallel: list[sc.Segment]) -> None:
        """Reports placements that would part the responses which preferences compare."""
        if self.spec.data_kind != "preferences":
            return
        for segment in parallel:
            for name in ("pipeline", "context"):
                if segment.end.get(name, 1) > 1:
                    inherited = self.spec.parallel is None
                    self.report.add(
                        "E519",
                        f"a stage of the kind {self.spec.kind} has no {name} parallelism"
                        + (", which it would continue with" if inherited else ""),
                        segment.span,
                        help="responses are compared with each other, so that a row stays in one "
                        "place: write `parallel = { tensor … }`, or `{ shard … }`",
                    )

    def _borders(
        self, segments: list[sc.Segment], length: Length, clock: Clock, knob: str
    ) -> list[tuple[sc.Segment, Border, Border]]:
        """Each segment with its beginning and its end; what is wrong with them is reported."""
        result = borders(segments, length, clock, knob, self.report)
        self.begins[knob] = [begin.step for _, begin, _ in result]
        return result

    def _holds(
        self, segments: list[sc.Segment], length: Length, clock: Clock, knob: str
    ) -> list[tuple[int, Any]]:
        return [(b.step, s.end) for s, b, _ in self._borders(segments, length, clock, knob)]

    def _over(
        self, segment: sc.Segment, begin: Border, end: Border, length: Length
    ) -> tuple[str, int, int]:
        """Clock, origin and length of a ramp's curve."""
        if segment.over:
            over = length.of(segment.over)
            unit, size = over.unit, max(int(over.value), 1)
        else:
            bound = segment.bound.quantity.unit if segment.bound else "%"
            unit = length.unit if bound == "%" else bound
            size = end.tokens - begin.tokens if unit == "tokens" else end.step - begin.step
        return unit, begin.tokens if unit == "tokens" else begin.step, size

    def _lr(self, segments: list[sc.Segment], length: Length, clock: Clock) -> list[LrPiece]:
        pieces: list[LrPiece] = []
        for segment, begin, end in self._borders(segments, length, clock, "lr"):
            value = float(segment.end)
            stop = min(end.step, clock.steps)
            if segment.shape == "hold":
                pieces.append(
                    LrPiece(
                        from_step=begin.step,
                        to_step=stop,
                        shape="hold",
                        start=value,
                        end=value,
                        clock="steps",
                        origin=begin.step,
                        length=1,
                    )
                )
                continue
            if segment.start is not None:
                start = float(segment.start)
            else:
                start = pieces[-1].rate(begin.step, clock.tokens_before) if pieces else 0.0
            if segment.shape == "exponential" and (start <= 0 or value <= 0):
                self.report.add(
                    "E448",
                    "an exponential ramp neither begins nor ends at 0",
                    segment.span,
                    help="end it at a small value: `-> 1e-7 exponential`",
                )
                continue
            unit, origin, size = self._over(segment, begin, end, length)
            pieces.append(
                LrPiece(
                    from_step=begin.step,
                    to_step=stop,
                    shape=segment.shape,
                    start=start,
                    end=value,
                    clock=unit,  # type: ignore[arg-type]
                    origin=origin,
                    length=size,
                )
            )
        if pieces and all(p.start == 0 and p.end == 0 for p in pieces):
            after_zero = self.last is not None and not self.last.lr
            why = "the stage before it ended at 0" if after_zero else "nothing would be learned"
            self.report.add(
                "E449",
                "the learning rate is 0 throughout this stage",
                self.spec.at("lr"),
                help=f"{why}: write where this one begins, `3e-5 -> 0`",
            )
        return pieces

    def _mixture(
        self, segments: list[sc.Segment], length: Length, clock: Clock
    ) -> tuple[list[MixturePart], dict[str, Fraction]]:
        parts: list[MixturePart] = []
        shares: dict[str, Fraction] = {}
        for segment, begin, end in self._borders(segments, length, clock, "data"):
            before = shares if segment.start is None else segment.start
            stop = min(end.step, clock.steps)
            if segment.shape == "hold":
                shares = segment.end
                parts.append(MixturePart(begin.step, stop, integer_weights(shares)))
                self._nothing_lost(segment, shares, parts[-1:], RESOLUTION)
                continue
            unit, origin, size = self._over(segment, begin, end, length)
            mixed = partial(_mixed, segment, before, origin, size)
            first_level = len(parts)
            levels = min(RAMP_LEVELS, stop - begin.step)
            edges = [begin.step + (stop - begin.step) * k // levels for k in range(levels + 1)]
            for first, last in pairwise(edges):
                if unit == "tokens":
                    middle = Fraction(clock.tokens_before(first) + clock.tokens_before(last), 2)
                else:
                    middle = Fraction(first + last, 2)
                weights = integer_weights(mixed(middle), RAMP_RESOLUTION)
                parts.append(MixturePart(first, last, weights))
            shares = mixed(Fraction(stop if unit == "steps" else clock.tokens_before(stop)))
            self._nothing_lost(segment, shares, parts[first_level:], RAMP_RESOLUTION)
        merged: list[MixturePart] = []
        for part in parts:
            if merged and merged[-1].weights == part.weights:
                merged[-1] = replace(merged[-1], to_step=part.to_step)
            else:
                merged.append(part)
        return merged, shares

    def _nothing_lost(
        self,
        segment: sc.Segment,
        shares: dict[str, Fraction],
        parts: list[MixturePart],
        resolution: int,
    ) -> None:
        """Reports sources whose share is rounded to nothing throughout a segment."""
        for name, share in shares.items():
            if share > 0 and not any(part.weights.get(name) for part in parts):
                self.report.add(
                    "E208",
                    f"the share of `{name}` is too small: it would be rounded to nothing",
                    segment.span,
                    help=f"give it at least 1/{resolution} of the mixture",
                )

    def _segments(
        self,
        clock: Clock,
        thetas: list[tuple[int, Any]],
        places: list[tuple[int, Any]],
        meshes: dict[Any, Resources | None],
        checkpoints: list[int],
    ) -> list[Segment]:
        lengths = [(start, seq_len) for start, _, seq_len in clock.lengths]
        changes = {step for knob in (lengths, thetas, places) for step, _ in knob}
        # A pipeline fills and drains once a step only if it takes the whole batch at a time.
        changes |= {
            step
            for step in clock.begins["batch"]
            if (there := meshes[_frozen(_at(places, step))]) and there.pipeline > 1
        }
        cuts = sorted(changes | set(checkpoints))
        cuts = [cut for cut in cuts if cut < clock.steps] + [clock.steps]
        segments: list[Segment] = []
        records = self.spec.data_kind == "preferences"
        room = CPU_MICRO_BATCH_RECORDS if records else CPU_MICRO_BATCH_TOKENS
        for start, stop in pairwise(cuts):
            seq_len, theta, degrees = (_at(c, start) for c in (lengths, thetas, places))
            resources = meshes[_frozen(degrees)]
            assert resources
            batches = [
                b.sequences for b in clock.batches if b.from_step < stop and b.to_step > start
            ]
            micro = micro_batch(resources, degrees.get("micro_batch"), seq_len, batches, room)
            self._divisible(batches, resources, micro, seq_len)
            segment = Segment(
                from_step=start,
                to_step=stop,
                seq_len=seq_len,
                rope_theta=float(theta),
                resources=resources,
                micro_batch=micro,
            )
            previous = segments[-1] if segments else None
            same = previous and replace(previous, from_step=start, to_step=stop) == segment
            if previous and same and start not in checkpoints:
                segments[-1] = replace(previous, to_step=stop)
            else:
                segments.append(segment)
        return segments

    def _checkpoints(self, length: Length, clock: Clock) -> dict[str, Border]:
        """Where the stage's checkpoints are; those that lie outside of it are reported."""
        found = {}
        for stage in self.checkpoints:
            wish = length.of(stage.spec.after)
            border = clock.border(wish)
            if 0 < border.step < clock.steps:
                found[stage.name] = border
                what = f"the checkpoint `{stage.name}`"
                note_rounding(what, wish, border.step, border.tokens, clock.roundings)
                continue
            self.report.add(
                "E453",
                f"the checkpoint `{stage.name}` is not inside `{stage.of}`, which has "
                f"{counted(clock.steps, 'steps')} and {counted(clock.tokens, 'tokens')}",
                stage.spec.at("after"),
                help=f"name `{stage.of}` itself for its end, or write fewer"
                if border.step
                else f"the first step ends after {clock.tokens_before(1):,} tokens",
            )
        return found

    def _divisible(
        self, batches: list[int], resources: Resources, micro: int, seq_len: int
    ) -> None:
        if resources.interleave > 1 and rounds(resources, micro) is None:
            low = micro // resources.pipeline * resources.pipeline
            self.report.add(
                "E451",
                f"{micro} sequences of a data-parallel rank do not divide into equal rounds of an "
                f"interleaved pipeline of {resources.pipeline} ranks",
                self.spec.at("batch"),
                help=f"the nearest are {low} and {low + resources.pipeline}: batches of "
                f"{low * data_parallel(resources)} and "
                f"{(low + resources.pipeline) * data_parallel(resources)} sequences",
            )
            return
        granule = data_parallel(resources) * micro
        for sequences in batches:
            if sequences % granule:
                low = sequences // granule * granule
                near = [low, low + granule] if low else [granule]
                self.report.add(
                    "E451",
                    f"a batch of {counted(sequences, 'sequences')} does not divide among "
                    f"{data_parallel(resources)} data-parallel ranks"
                    + (f" × micro-batches of {micro}" if micro > 1 else ""),
                    self.spec.at("batch"),
                    help="the nearest are "
                    + " and ".join(
                        f"{n} sequences ({plain(Fraction(n * seq_len))} tokens)" for n in near
                    ),
                )
                return
        divisor = sequence_divisor(resources)
        if seq_len % divisor:
            self.report.add(
                "E452",
                f"a sequence of {counted(seq_len, 'tokens')} is not a multiple of the {divisor} "
                "that tensor "
                f"{resources.tensor} and context {resources.context} need",
                self.spec.at("seq_len"),
                help=f"the nearest is {max(round(seq_len / divisor), 1) * divisor}",
            )


def _mixed(
    segment: sc.Segment, before: dict[str, Fraction], origin: int, size: int, position: Fraction
) -> dict[str, Fraction]:
    """The shares of a ramp from `before`, at a position in steps or tokens."""
    share = min(max(float((position - origin) / size), 0.0), 1.0)
    return between(segment.shape, before, segment.end, share)


def _frozen(degrees: dict[str, int]) -> tuple[tuple[str, int], ...]:
    return tuple(sorted(degrees.items()))


def _at(changes: list[tuple[int, Any]], step: int) -> Any:
    return next(value for start, value in reversed(changes) if start <= step)
