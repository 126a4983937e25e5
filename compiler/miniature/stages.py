"""Scales the stages of a miniature, attribute by attribute."""

from collections.abc import Callable
from fractions import Fraction
from math import gcd
from typing import Any

from ...spec import schedule as sc
from ...spec.quantity import Quantity
from ...spec.record import fields, replace
from ...spec.schema import recipe as r
from ..program import Scheduled, ScheduledCheckpoint, ScheduledStage
from ..schedule.clock import nearest
from ..schedule.positions import Length
from .blocks import rope_scaling
from .scale import GROUP, STRETCH, Scale, Steps, averaged_from, steps

DRAWS, ANSWER, ANSWERS = 8, 64, 8
"""Draws of a prompt, tokens of an answer, and prompts that an evaluation answers, at most."""
TURNS = 3
"""The most times that a policy writes answers."""
DEPTHS, SAMPLES = 3, 1
"""The most depths and samples of a needle test."""
MEASURED = 2048
"""The most tokens of each source that an evaluation during training reads."""
LIKELY = 16
"""The most tokens of a place of which a teacher says how likely they are."""
RANK = 4
"""The largest rank of adapters: half of the least width of a matrix."""
LEAST_DECAY = 0.01
"""The least decay of a moving average, which has to be above 0."""
LOSS, RATIO = Fraction(100), Fraction(10)
"""Thresholds above any loss: in nats, and as a multiple of the loss at the start."""


class Stages:
    """Scales stages.

    Args:
        program: the recipe's, scheduled.
        target: steps of a training stage, unless its changes need more.
    """

    def __init__(self, recipe: r.Recipe, program: Scheduled, scale: Scale, target: int) -> None:
        self.recipe, self.program, self.scale, self.target = recipe, program, scale, target

    def all(self) -> dict[str, r.Stage | r.Rounds]:
        return {
            name: replace(
                stage,
                stages={
                    inner: self._stage(of, f"{name}.1.{inner}")
                    for inner, of in stage.stages.items()
                },
            )
            if isinstance(stage, r.Rounds)
            else self._stage(stage, name)
            for name, stage in self.recipe.stages.items()
        }

    def _stage(self, spec: Any, name: str) -> r.Stage:
        """The stage with a name in the program; for stages in rounds, that of the first round."""
        stage = self.program.stages[name]
        if isinstance(stage, ScheduledStage):
            return self._training(spec, stage)
        known = fields(type(spec))
        return replace(
            spec, **{name: of(self, spec, stage) for name, of in SCALED.items() if name in known}
        )

    def after(self, stage: ScheduledCheckpoint) -> Quantity:
        """The position of a checkpoint in its stage."""
        step = steps(stage.whole, self.target).at[stage.part.steps]
        return Quantity(Fraction(step), "steps")

    def loss(self, spec: r.Measuring) -> list[str] | None:
        """The data sets that a loss is measured on, including when it replaces suites of tasks."""
        if spec.loss or not spec.suites:
            return spec.loss
        documents = (n for n, each in self.recipe.datasets.items() if each.kind == "documents")
        return [*documents][:1]

    def needle(self, needle: r.Needle | None) -> r.Needle | None:
        """A smaller grid for a needle test."""
        return needle and self._needle(needle)

    def length(self, tokens: int | None) -> int | None:
        """The miniature of a sequence length."""
        return tokens and self.scale.lengths[tokens]

    def _needle(self, needle: r.Needle) -> r.Needle:
        lengths = needle.lengths and [self.scale.lengths[each] for each in needle.lengths]
        return replace(
            needle,
            lengths=lengths,
            depths=min(needle.depths, DEPTHS),
            samples=min(needle.samples, SAMPLES),
        )

    # Training stages

    def _training(self, spec: r.Training, stage: ScheduledStage) -> r.Training:
        steps_of = steps(stage, self.target)
        length = self._length(stage)
        changes: dict[str, Any] = {
            "tokens": None,
            "epochs": None,
            "steps": steps_of.at[stage.steps],
            "cluster": None,
            "precision": None,
            "recompute": None,
            "attention": None,
            "dispatcher": None,
            "torchtitan": None,
            "checkpoint": None,
            "keep": None,
            "parallel": self._placement(spec, stage, steps_of, length),
        }
        for knob in ("seq_len", "batch", "lr", "data", "rope_theta"):
            schedule: sc.Schedule | None = getattr(spec, knob)
            if schedule is not None:
                changes[knob] = self._schedule(knob, schedule, stage, steps_of, length)
        changes |= self._settings(spec, stage, steps_of, length)
        if spec.model and stage.parent:
            # A stage stands in for published weights.
            changes |= {"model": None, "from_": stage.parent}
        if spec.checkpoint and spec.checkpoint.unit == "steps":
            every = nearest(spec.checkpoint.value * changes["steps"] / stage.steps)
            every = max(every, changes["steps"] // 10, 1)
            changes["checkpoint"] = Quantity(Fraction(every), "steps")
        if spec.spikes:
            changes["spikes"] = _spikes(stage, changes["steps"])
        if spec.profile:
            changes["profile"] = _profile(spec.profile, stage.steps, changes["steps"])
        if getattr(spec, "refresh", None):
            changes |= _turns(spec, stage.steps, changes["steps"])
        if spec.evaluate:
            every = nearest(Fraction(spec.evaluate.every * changes["steps"], stage.steps))
            tokens = min(spec.evaluate.tokens, MEASURED)
            changes["evaluate"] = replace(spec.evaluate, every=max(every, 1), tokens=tokens)
        if spec.adapter:
            rank = min(spec.adapter.rank, RANK)
            alpha = spec.adapter.factor * rank
            changes["adapter"] = replace(spec.adapter, rank=rank, alpha=alpha, over="rank")
        if top_k := getattr(spec, "top_k", None):
            changes["top_k"] = min(top_k, LIKELY)
        if spec.averages:
            changes |= _averages(spec, stage, changes["steps"], steps_of)
        if spec.gate:
            changes["gate"] = replace(
                spec.gate,
                requirements=[_passing(each) for each in spec.gate.requirements],
                extend=spec.gate.extend and Quantity(Fraction(STRETCH), "steps"),
                needle=self._needle(spec.gate.needle),
            )
        if spec.rope_scaling:
            changes["rope_scaling"] = rope_scaling(spec.rope_scaling, self.scale.lengths)
        return replace(spec, **{n: v for n, v in changes.items() if n in fields(type(spec))})

    def _settings(
        self, spec: r.Training, stage: ScheduledStage, steps_of: Steps, length: Length
    ) -> dict[str, Any]:
        """The settings that change, with bounds in steps."""
        changes: dict[str, Any] = {}
        for knob in stage.changing.keys() & stage.begins.keys():
            own = spec.optimizer if knob == "weight_decay" else spec
            value = getattr(own, knob)
            assert isinstance(value, sc.Schedule)
            found = self._schedule(knob, value, stage, steps_of, length)
            if isinstance(own, r.Optimizer):
                changes["optimizer"] = replace(own, weight_decay=found)
            else:
                changes[knob] = found
        return changes

    def _length(self, stage: ScheduledStage) -> Length:
        spec = stage.spec
        if spec.tokens is not None:
            return Length("tokens", Fraction(spec.tokens))
        unit = "steps" if spec.steps is not None or spec.padded else "tokens"
        return Length(unit, Fraction(stage.steps if unit == "steps" else stage.tokens))

    def _schedule(
        self,
        knob: str,
        schedule: sc.Schedule,
        stage: ScheduledStage,
        steps_of: Steps,
        length: Length,
    ) -> sc.Schedule:
        """The schedule with mapped values and with bounds in steps."""
        ends = [*stage.begins[knob][1:], stage.steps]
        segments = []
        for segment, begin, end in zip(schedule.segments, stage.begins[knob], ends, strict=True):
            over = segment.over and self._over(segment.over, stage, (begin, end), steps_of, length)
            bound = None
            if len(segments) + 1 < len(ends):
                until = Quantity(Fraction(steps_of.at[end]), "steps")
                span = segment.bound.span if segment.bound else None
                bound = sc.Bound(relative=False, quantity=until, span=span)
            segments.append(
                replace(
                    segment,
                    over=over,
                    bound=bound,
                    start=self._value(knob, segment.start, stage),
                    end=self._value(knob, segment.end, stage),
                    # There is no pipeline to fill, and smaller batches have fewer levels.
                    levels=None,
                    # Turns become unequal where they are rounded to steps.
                    turn=None,
                )
            )
        return replace(schedule, segments=tuple(segments))

    def _value(self, knob: str, value: Any, stage: ScheduledStage) -> Any:
        if value is None or isinstance(value, sc.Last):
            return value
        if knob == "seq_len":
            return self.scale.lengths[value]
        if knob == "batch":
            return self.scale.batch(value, stage.spec)
        return value * self.scale.rates[stage.spec.kind] if knob == "lr" else value

    def _over(
        self,
        over: Quantity,
        stage: ScheduledStage,
        span: tuple[int, int],
        steps_of: Steps,
        length: Length,
    ) -> Quantity:
        """The length of a curve, in the same ratio to its segment as in the recipe: it still ends
        within the segment, with it or after it."""
        begin, end = span
        wish = length.of(over)
        extent = Fraction(end - begin)
        if wish.unit == "tokens":
            extent = Fraction(stage.tokens_before(end) - stage.tokens_before(begin))
        ratio, small = wish.value / extent, steps_of.of(begin, end)
        size = nearest(ratio * small)
        if ratio < 1:
            size = min(size, small - 1)
        elif ratio > 1:
            size = max(size, small + 1)
        return Quantity(Fraction(max(size, 1)), "steps")

    def _placement(
        self, spec: r.Training, stage: ScheduledStage, steps_of: Steps, length: Length
    ) -> sc.Schedule:
        """One rank has no placement except micro-batches; where only a change of placement starts a
        new job, the micro-batch changes instead."""
        if spec.parallel and any(s.end == sc.AUTO for s in spec.parallel.segments):
            return spec.parallel
        base = {"micro_batch": micro} if (micro := self._micro(spec, stage)) else {}
        if spec.parallel is None:
            return sc.constant(base, spec.at())
        cuts = {segment.from_step for segment in stage.segments}
        others = {0, *stage.begins["seq_len"], *stage.begins["rope_theta"]}
        others.update(step for step, _ in stage.checkpoints.values())
        schedule = self._schedule("parallel", spec.parallel, stage, steps_of, length)
        placed, toggled = [], False
        for segment, begin in zip(schedule.segments, stage.begins["parallel"], strict=True):
            toggled ^= begin in cuts - others
            placed.append(replace(segment, end={"micro_batch": 1} if toggled else base))
        return replace(schedule, segments=tuple(placed))

    def _micro(self, spec: r.Training, stage: ScheduledStage) -> int | None:
        """Sequences by which the batch ramps; without them, the micro-batch would be one."""
        if not spec.batch or all(s.shape == "hold" for s in spec.batch.segments):
            return None
        longest = max(self.scale.lengths[length] for _, _, length in stage.lengths)
        values = []
        for value in (v for s in spec.batch.segments for v in (s.start, s.end)):
            if isinstance(value, Quantity):
                small = self.scale.batch(value, spec)
                values.append(int(small.value / (longest if small.unit == "tokens" else 1)))
        common = gcd(*values)
        return common if max(values) - min(values) >= 3 * common else max(common // 4, 1)


def _turns(spec: Any, steps: int, few: int) -> dict[str, Any]:
    """The turns of a policy in a stage of `few` steps, and its answers."""
    turns = min(-(-steps // spec.refresh), TURNS)
    refresh = -(-few // turns)
    renewed = spec.reference_refresh
    return {
        "refresh": refresh,
        "reference_refresh": renewed and refresh * (1 if renewed < steps else turns),
        "group": min(spec.group, GROUP),
        "max_tokens": min(spec.max_tokens, ANSWER),
        "dynamic_sampling": spec.dynamic_sampling and r.DynamicSampling(most=2),
    }


def _spikes(stage: ScheduledStage, steps: int) -> r.Spikes:
    """What the stage does at spikes; a rollback goes back by as large a part of the stage."""
    policy = stage.settings["spikes"]
    if policy.do != "rollback":
        return policy
    return replace(policy, back=max(nearest(Fraction(policy.back * steps, stage.steps)), 1))


def _profile(profile: r.Profile, steps: int, few: int) -> r.Profile:
    """A profile at the same point of a stage of `few` steps, on one CPU."""
    count = min(len(profile.steps), few)
    begin = min(profile.steps[0] * few // steps, few - count)
    return replace(profile, steps=list(range(begin, begin + count)), memory=False, ranks="first")


def _limit(spec: r.Measuring) -> int | None:
    """The most prompts or documents; no limit if a loss replaces suites."""
    if spec.suites and not spec.loss:
        return None
    return min(spec.limit or ANSWERS, ANSWERS) if spec.prompts else spec.limit


SCALED: dict[str, Callable[[Stages, Any, Any], Any]] = {
    "after": lambda own, spec, stage: own.after(stage),
    "draws": lambda own, spec, stage: min(spec.draws, DRAWS),
    "keep": lambda own, spec, stage: spec.keep and min(spec.keep, spec.draws, DRAWS),
    "limit": lambda own, spec, stage: _limit(spec),
    "loss": lambda own, spec, stage: own.loss(spec),
    "max_tokens": lambda own, spec, stage: spec.max_tokens and min(spec.max_tokens, ANSWER),
    "needle": lambda own, spec, stage: own.needle(spec.needle),
    "seq_len": lambda own, spec, stage: own.length(spec.seq_len),
    "suites": lambda own, spec, stage: None,
    "tasks": lambda own, spec, stage: None,
}
"""Attribute of a stage that does not train → its miniature: a laptop has no time for suites of
tasks, so a loss replaces them."""


def _averages(spec: r.Training, stage: ScheduledStage, short: int, steps: Steps) -> dict[str, Any]:
    """The mean of a stage of `short` steps."""
    if spec.ema is not None:
        # As much of the first weights is left at the end.
        return {"ema": max(spec.ema ** (stage.steps / short), LEAST_DECAY)}
    assert spec.average
    over = short - steps.at[averaged_from(stage)]
    every = nearest(Fraction(spec.average.every * short, stage.steps))
    mean = replace(
        spec.average,
        every=min(max(every, 1), max(over // 2, 1)),
        over=spec.average.over and Quantity(Fraction(over), "steps"),
    )
    return {"average": mean}


def _passing(requirement: r.Requirement) -> r.Requirement:
    """The requirement with a threshold that every model meets."""
    if requirement.op in (">=", ">"):
        return replace(requirement, op=">=", value=Fraction(0))
    value = Fraction(1) if requirement.measure == "needle" else LOSS
    return replace(requirement, op="<=", value=RATIO if requirement.of_start else value)
