"""Makes schedules absolute: every knob of every train stage, by step."""

from collections.abc import Mapping, Sequence
from fractions import Fraction
from functools import partial
from math import lcm
from typing import Any

from ...spec import schedule as sc
from ...spec.findings.diagnostics import Report
from ...spec.quantity import counted
from ...spec.record import replace
from ...spec.schema.convert_schedule import DIALOGS
from ...spec.schema.kinds import listed
from ...spec.schema.precision import budget
from ...spec.source import Span
from ..curves import CURVES
from ..families.low_precision import unfit_tokens, unfit_widths
from ..pipelines import LESS_LAYERS, pipelining, told, told_split
from ..placement import Degrees, data_parallel, mesh
from ..program import (
    CheckpointStage,
    ModelStage,
    Resolved,
    Scheduled,
    ScheduledCheckpoint,
    ScheduledStage,
    Segment,
    SourceCount,
    Stage,
    State,
    TrainStage,
)
from ..values import Resources
from . import learning_rate, mixture_parts, settings
from .apart import together, unfit
from .auto import place
from .clock import Clock, note_rounding, run_clock
from .course import Course
from .epochs import note_estimates, of_epochs
from .knobs import Knobs
from .order import evaluated, ordered, profiled, within
from .part import at_checkpoint
from .positions import Border, Length, pace
from .segments import Meshes, cut, frozen

_RAMPS = listed(tuple(shape for shape in sc.SHAPES if not CURVES[shape].by_ratio))
"""The shapes of ramps that may begin or end at 0."""
_IN_STEPS = ("seq_len", "rope_theta", "parallel", "balance")
"""Knobs without ramps. For `balance`, a compiled model is compiled again at every new value."""


def schedule(program: Resolved, report: Report) -> Resolved:
    """The program with steps, tokens, schedules and segments of every training stage.

    If one cannot be scheduled, which is reported, the others still are.
    """
    stages = dict(program.stages)
    checkpoints: dict[str, list[CheckpointStage]] = {}
    for stage in stages.values():
        if isinstance(stage, CheckpointStage):
            checkpoints.setdefault(stage.of, []).append(stage)
    for name, stage in stages.items():
        if not isinstance(stage, TrainStage):
            continue
        before = _before(stage, stages)
        if isinstance(before, TrainStage) and not isinstance(before, ScheduledStage):
            continue
        last = before.end if isinstance(before, ScheduledStage) else None
        own = checkpoints.get(name, [])
        scheduler = _Scheduler(stage, last, own, program, report)
        recipe, known = program.recipe, (program.counted, program.folder)
        counts = (
            (recipe.datasets, recipe.tokenizers, known) if stage.spec.epochs is not None else None
        )
        given = stage, last, own, counts
        scheduled = program.kept.once(("schedule", name), stage.spec, given, scheduler.run, report)
        if scheduled:
            stages[name] = scheduled
            stages |= {each.name: at_checkpoint(each, scheduled) for each in own}
    kind = Resolved if report.failures else Scheduled
    whole: dict[str, Any] = vars(program) | {"stages": stages}
    return kind(**whole)


def _before(stage: TrainStage, stages: Mapping[str, Stage]) -> Stage | None:
    """The stage that trained or read the weights that a stage continues from; None if it starts
    from a model."""
    before = stages[stage.parent] if stage.parent else None
    while before and not isinstance(before, ModelStage | ScheduledCheckpoint):
        before = stages[before.sources[0]]
    return before.part if isinstance(before, ScheduledCheckpoint) else before


class _Scheduler:
    def __init__(
        self,
        stage: TrainStage,
        last: State | None,
        checkpoints: list[CheckpointStage],
        program: Resolved,
        report: Report,
    ) -> None:
        self.stage = stage
        self.checkpoints = checkpoints
        self.spec = stage.spec
        self.last = last
        self.program = program
        self.recipe = program.recipe
        self.report = report
        self.origins = dict(stage.origins)
        self.counts: dict[str, SourceCount] = {}

    def run(self) -> ScheduledStage | None:
        """The stage with its schedules; None after reporting."""
        before = self.report.failures
        self.stage = settings.settled(self.stage, self.last, self.report)
        knobs = {
            "seq_len": self._absolute("seq_len"),
            "batch": self._absolute("batch"),
            "parallel": self._absolute("parallel", default={}),
            "rope_theta": self._absolute("rope_theta", default=self.stage.model.rope_theta),
            "data": self._absolute("data"),
            "lr": self._absolute("lr"),
            **settings.schedules(self.stage),
        }
        self._shapes(knobs)
        self._one_unit(knobs["batch"])
        self._drop_last(knobs)
        length = self._length()
        if length is None:
            return None
        first, same = pace(knobs["batch"], knobs["seq_len"])
        length = replace(length, pace=first if same else None)
        for knob, segments in knobs.items():
            ordered(knob, segments, length, first, self.report)
        if self.report.failures > before or not self._place(knobs, length):
            return None
        meshes = self._meshes(knobs["parallel"])
        if meshes is None:
            return None
        granule = lcm(
            *(
                data_parallel(resources) * int(dict(degrees).get("micro_batch", 1))
                for degrees, resources in meshes.items()
            )
        )
        clock = run_clock(
            length, knobs["seq_len"], knobs["batch"], granule, self.report, self.spec.at()
        )
        if clock is None or self.report.failures > before:
            return None
        note_estimates(self.spec, self.counts, clock.tokens, self.report)
        return self._laid_out(knobs, meshes, Course(length, clock, self.report))

    def _place(self, knobs: dict[str, list[sc.Segment]], length: Length) -> bool:
        """Chooses the placement if it is left to etude; False after reporting."""
        if not any(segment.end == sc.AUTO for segment in knobs["parallel"]):
            return True
        placed = place(
            self.stage, knobs["parallel"], knobs["seq_len"], knobs["batch"], length, self.report
        )
        if placed is None:
            return False
        knobs["parallel"], recompute = placed
        if recompute != self.stage.recompute:
            self.origins["recompute"] = "etude"
            self.stage = replace(self.stage, recompute=recompute)
        return True

    def _meshes(self, parallel: list[sc.Segment]) -> Meshes | None:
        """The meshes of all placements; None after reporting."""
        before = self.report.failures
        stage = self.stage
        meshes = {
            frozen(s.end): mesh(stage.hardware, self._split(s), stage.model, s.span, self.report)
            for s in parallel
        }
        found = {degrees: made for degrees, made in meshes.items() if made}
        if len(found) < len(meshes) or self.report.failures > before:
            return None
        together(self.spec, parallel, self.report)
        for segment in parallel:
            self._not_compiled(found[frozen(segment.end)], segment.span)
            self._whole(found[frozen(segment.end)], segment.span)
        return None if self.report.failures > before else found

    def _not_compiled(self, resources: Resources, span: Span | None) -> None:
        """Reports a compiled model under a schedule whose gradients of weights come apart."""
        if resources.device == "cpu" or not pipelining(resources).split:
            return
        fields = told(self.stage, "compile")
        asks = {
            "components": "model" in fields.get("components", ()),
            "enable_async_tensor_parallel": fields.get("enable_async_tensor_parallel", False),
        }
        for name in (name for name, asked in asks.items() if asked):
            self.report.add(
                "E486",
                f"`schedule {resources.schedule}` computes the gradients of weights apart, which "
                f"torch does not support for the compiled model that `compile.{name}` asks for",
                self.spec.at("torchtitan") or span,
                help=f"remove `{name}`, or take another schedule: `interleave 2`",
            )

    def _whole(self, resources: Resources, span: Span | None) -> None:
        """Reports Muon where torchtitan's cannot bring matrices together (torchtitan 0.3,
        `distributed/flex_shard/dist_muon.py`; #3353)."""
        if resources.device == "cpu" or self.stage.optimizer.kind != "muon":
            return
        cut = [f"`tensor {resources.tensor}`"] if resources.tensor > 1 else []
        if told(self.stage, "training").get("enable_cpu_offload"):
            cut.append("`enable_cpu_offload`")
        if cut:
            self.report.add(
                "E438",
                f"torchtitan's Muon does not work with {' and '.join(cut)}",
                span,
                help="place the model by other degrees, such as `pipeline`, or write "
                "`optimizer = adamw`",
            )

    def _split(self, placed: sc.Segment) -> Degrees:
        """A placement, with the split of its pipeline that `torchtitan` sets; reports one that
        both set otherwise."""
        split = told_split(self.stage)
        for name in split.keys() & placed.end.keys():
            if split[name] != placed.end[name]:
                self.report.add(
                    "E484",
                    f"`{name} {placed.end[name]}` is not what `torchtitan` sets: "
                    f"{LESS_LAYERS[name]} = {split[name]}",
                    placed.span,
                    help="remove one of them",
                )
        return (split if placed.end.get("pipeline", 1) > 1 else {}) | placed.end

    def _laid_out(
        self, knobs: dict[str, list[sc.Segment]], meshes: Meshes, course: Course
    ) -> ScheduledStage | None:
        """The stage with all knobs by step; None after reporting."""
        before = self.report.failures
        clock = course.clock
        self._answers_fit(clock)
        after_zero = self.last is not None and not self.last.lr
        lr = learning_rate.pieces(knobs["lr"], course, self.spec.at("lr"), after_zero=after_zero)
        lr = learning_rate.following(lr, clock, self.spec.lr_scaling)
        changing = settings.changing(self.stage, knobs, course)
        mixture, shares = mixture_parts.parts(knobs["data"], course)
        thetas = course.holds("rope_theta", knobs["rope_theta"])
        places = course.holds("parallel", knobs["parallel"])
        within(self.spec, course.length, clock.steps, clock.tokens, self.report)
        profiled(self.spec, clock.steps, self.report)
        borders = self._checkpoints(course)
        cuts = [border.step for border in borders.values()]
        cuts += range(0, clock.steps, self.spec.each_cut or clock.steps)
        stretches = cut(self.spec, clock, thetas, places, meshes, cuts, self.report)
        self._unfit(stretches)
        unfit(self.stage, stretches, self.report)
        self._beyond(stretches)
        settings.ahead(self.stage, stretches, self.report)
        evaluated(self.spec, clock.steps, len(stretches), self.report)
        if self.report.failures > before:
            return None
        by_step = Knobs(
            clock=clock,
            lr=lr,
            settings=partial(settings.after, self.stage, changing, clock=clock),
            mixture=mixture,
            shares=shares,
            thetas=thetas,
            places=places,
        )
        return ScheduledStage.of(
            replace(self.stage, origins=self.origins),
            steps=clock.steps,
            tokens=clock.tokens,
            lengths=clock.lengths,
            batches=clock.batches,
            lr=lr,
            changing=changing,
            mixture=mixture,
            segments=stretches,
            roundings=clock.roundings,
            end=by_step.at_end(),
            begins=course.begins,
            checkpoints={name: (b.step, by_step.after(b.step)) for name, b in borders.items()},
            counts=self.counts,
        )

    def _answers_fit(self, clock: Clock) -> None:
        """Reports answers of a policy that leave no room for a prompt."""
        longest = getattr(self.spec, "max_tokens", None)
        shortest = min(length for _, _, length in clock.lengths)
        if longest is not None and longest >= shortest:
            self.report.add(
                "E581",
                f"an answer of {counted(longest, 'tokens')} leaves no room for a prompt: a row has "
                f"{counted(shortest, 'tokens')}",
                self.spec.at("max_tokens"),
                help=f"lower `max_tokens`, or write `seq_len = {2 * longest}` or more",
            )

    def _beyond(self, segments: Sequence[Segment]) -> None:
        """Reports sequences that are longer than the learned positions."""
        of, longest = self.stage.model.parts, max(each.seq_len for each in segments)
        if of and 0 < of.learned < longest:
            self.report.add(
                "E595",
                f"sequences have up to {longest} tokens, but the model has learned positions for "
                f"{of.learned}",
                self.spec.at("seq_len") or self.spec.at(),
                help=f"write `seq_len = {of.learned}`, or, if the model has no `weights`, "
                f"`learned = {longest}` in its `parts`",
            )

    def _unfit(self, segments: Sequence[Segment]) -> None:
        """Reports the first widths and lengths that the kernels of the precision do not take."""
        of = self.stage
        place = self.spec.at("precision" if self.spec.precision else "parallel") or self.spec.at()
        for segment in segments if segments[0].resources.device != "cpu" else ():
            wrong = unfit_widths(of.precision, of.model, segment.resources), "E436"
            if wrong[0] is None and not self.spec.padded:
                tokens = unfit_tokens(of.precision, of.model, segment.resources, segment.seq_len)
                wrong = tokens, "E437"
            if wrong[0]:
                self.report.add(wrong[1], wrong[0][0], place, help=wrong[0][1])
                return
            if budget(of.recompute) is not None and pipelining(segment.resources).split:
                self.report.add(
                    "E565",
                    f"`{of.recompute}` needs a compiled model, and this schedule of the pipeline "
                    "cannot be compiled",
                    self.spec.at("recompute" if self.spec.recompute else "parallel"),
                    help="write `recompute = selective`, or another schedule",
                )
                return

    def _length(self) -> Length | None:
        if self.spec.tokens is not None:
            return Length("tokens", Fraction(self.spec.tokens))
        if self.spec.steps is not None:
            return Length("steps", Fraction(self.spec.steps))
        if self.spec.epochs is None:
            return None
        sources = [m for s in self._absolute("data") for m in (s.start, s.end) if m]
        found = of_epochs(
            self.stage,
            self.spec.epochs.value,
            self.program,
            self.report,
            sources=list(dict.fromkeys(name for mix in sources for name in mix)),
            batch=self._absolute("batch")[0].end,
            seq_len=self._absolute("seq_len")[-1].end,
        )
        if found is None:
            return None
        length, self.counts = found
        return length

    def _one_unit(self, batch: list[sc.Segment]) -> None:
        """Reports a batch that counts dialogs at one time and sequences at another."""
        for segment in batch:
            units = {end.unit for end in (batch[0].end, segment.start, segment.end) if end}
            if DIALOGS in units and len(units) > 1:
                self.report.add(
                    "E450",
                    "this batch counts dialogs at one time, and sequences or tokens at another",
                    segment.span,
                    help="count the same throughout; `last` counts what the stage before does",
                )
                return

    def _drop_last(self, knobs: dict[str, list[sc.Segment]]) -> None:
        """Reports `drop_last` if no epoch ends between two batches."""
        if not getattr(self.spec, "drop_last", False):
            return
        mixes = [m for s in knobs["data"] for m in (s.start, s.end) if m]
        sources = dict.fromkeys(name for mix in mixes for name in mix)
        ramps = any(s.shape != "hold" for s in knobs["batch"])
        what = ""
        if len(sources) > 1:
            named = ", ".join(f"`{name}`" for name in sources)
            what = f"a single data set, but there are {named}"
        elif ramps or len({s.end for s in knobs["batch"]}) > 1:
            what = "a constant batch, but it changes"
        if what:
            self.report.add(
                "E458",
                f"`drop_last` needs {what}",
                self.spec.at("drop_last"),
                help="remove `drop_last`: a batch is then filled from the next epoch",
            )
        return None

    def _absolute(self, knob: str, default: Any = None) -> list[sc.Segment]:
        """The segments of a knob with `last` replaced, inherited if not in the spec.

        For a ramp without a left side that follows another segment, `start` stays None: the value
        there depends on how far the segment before has come.
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
                        "this ramp has no starting value: there is no value before it",
                        segment.span,
                        help="write the starting value: `0 -> 3e-4`",
                    )
            segments.append(replace(segment, start=start, end=end))
            current = end
        return segments if knob != "batch" else [self._in_rows(each) for each in segments]

    def _in_rows(self, batch: sc.Segment) -> sc.Segment:
        """A segment of a batch that counts what its rows hold, several to each."""
        each = self.spec.each
        if each == 1:
            return batch
        start, end = (
            value and replace(value, value=value.value * each) for value in (batch.start, batch.end)
        )
        return replace(batch, start=start, end=end)

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
                    f"`{name}` is not in the scaled mixture",
                    span,
                    help=f"the mixture has {', '.join(shares)}",
                )
                continue
            shares[name] *= factor
        total = sum(shares.values())
        if total <= 0:
            self.report.add("E445", "all shares of this mixture are 0", span)
            return dict(current)
        return {name: share / total for name, share in shares.items()}

    def _shapes(self, knobs: dict[str, list[sc.Segment]]) -> None:
        """Reports ramps of knobs that cannot ramp, or not with that shape."""
        for knob, segments in knobs.items():
            for segment in segments:
                if knob in _IN_STEPS and segment.shape != "hold":
                    self.report.add(
                        "E446",
                        f"{knob} changes in steps, not in ramps",
                        segment.span,
                        help="write the values one after the other: `… for 50% then …`",
                    )
                if knob in ("batch", "data") and CURVES[segment.shape].by_ratio:
                    self.report.add(
                        "E446",
                        f"{knob} has no {segment.shape} ramps",
                        segment.span,
                        help=f"write {_RAMPS}",
                    )

    def _checkpoints(self, course: Course) -> dict[str, Border]:
        """The positions of the stage's checkpoints; reports those outside of it."""
        found, clock = {}, course.clock
        for stage in self.checkpoints:
            wish = course.length.of(stage.spec.after)
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
                help=f"for its end, name `{stage.of}` itself; otherwise write a smaller `after`"
                if border.step
                else f"the first step ends after {clock.tokens_before(1):,} tokens",
            )
        return found
