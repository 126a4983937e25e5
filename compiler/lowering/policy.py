"""The jobs of stages that learn from their own answers: drawing, scoring, likelihoods."""

import hashlib
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any, NamedTuple

from ..costs.reading import Rows
from ..ids import DataId, SegmentId
from ..plan.plan import (
    LikelihoodJob,
    MixturePiece,
    PromptWindow,
    RolloutJob,
    Schedule,
    Until,
)
from ..plan.verifiers import Verifier
from ..program import ScheduledStage, Segment
from ..schedule.mixture import Mixture
from ..torchtitan.configuration import torchtitan
from ..values import BatchPiece
from .job_list import Jobs
from .model_jobs import Measured, Models
from .reading import with_reading
from .verifiers import all_planned, comparing


class Turn(NamedTuple):
    """What a segment learns from.

    Attributes:
        schedule: of the segment, with the answers as their only source.
        inputs: role → key, of everything but the weights.
        positions: source → prompts read so far.
    """

    schedule: Schedule
    inputs: dict[str, str]
    positions: dict[str, int]


class Place(NamedTuple):
    """A segment of a stage, before its training.

    Attributes:
        number: of the segment, from 0.
        schedule: of the segment, in answers, with the prompts as sources.
        model: key of the job whose weights write the answers.
        seed: of the stage.
    """

    stage: ScheduledStage
    number: int
    segment: Segment
    schedule: Schedule
    model: str
    seed: int

    @property
    def id(self) -> SegmentId:
        return SegmentId(self.stage.name, self.number + 1)

    @property
    def steps(self) -> list[int]:
        """The prompts of each step."""
        return [
            piece.sequences // self.stage.spec.each
            for piece in self.schedule.batch
            for _ in range(piece.to_step - piece.from_step)
        ]

    @property
    def mixture(self) -> list[MixturePiece]:
        """How the sources' prompts take turns, in steps from the segment's first."""
        begin = self.segment.from_step
        return [
            piece.model_copy(
                update={"from_step": piece.from_step - begin, "to_step": piece.to_step - begin}
            )
            for piece in self.schedule.mixture
        ]

    def prompts(self) -> dict[str, int]:
        """How many prompts of each source the segment reads."""
        steps = self.steps
        pieces = [(p.weights, sum(steps[p.from_step : p.to_step])) for p in self.mixture]
        return Mixture(pieces).counts(sum(steps))


class Policy:
    """Adds the jobs in which a model writes answers and those that score them."""

    def __init__(self, jobs: Jobs, models: Models) -> None:
        self.jobs = jobs
        self.models = models
        self._writers: dict[tuple[str, int], str] = {}
        self._newest: dict[tuple[str, str], str] = {}

    def turn(self, place: Place, read: Mapping[str, int], reference: str | None) -> Turn:
        """Adds the jobs before a segment's training.

        Args:
            read: source → prompts that the stage has read before.
            reference: the stage whose model the policy stays near at first, if any.
        """
        stage, segment = place.stage, place.segment
        self._writers[stage.name, segment.from_step] = place.model
        rollouts = self._rollouts(place, read)
        name, inputs = stage.name, {f"data:{stage.name}": rollouts}
        if len(place.steps) > 1:
            inputs[f"old:{name}"] = self._likelihood(place, "old", place.model, rollouts)
        if reference:
            near = self._near(place, reference)
            inputs[f"reference:{name}"] = self._likelihood(place, "reference", near, rollouts)
        if stage.tokenizer:
            inputs["tokenizer"] = self.jobs.tokenizer(stage.tokenizer)
        mixture = [
            MixturePiece(from_step=segment.from_step, to_step=segment.to_step, weights={name: 1})
        ]
        counts = place.prompts()
        after = {n: read.get(n, 0) + counts.get(n, 0) for n in {**read, **counts}}
        return Turn(place.schedule.model_copy(update={"mixture": mixture}), inputs, after)

    def student(self, place: Place, read: int, teach: Callable[[str, int, str], str]) -> Turn:
        """Adds the jobs in which a student answers prompts and a teacher reads its answers.

        Args:
            read: prompts that the stage has read before.
            teach: adds the teacher's job, from the key of the answers, their number and an id.
        """
        stage, own = place.stage, place.stage.name
        spec: Any = stage.spec
        mixture = [_with_own(piece, own, spec.on_policy) for piece in place.schedule.mixture]
        schedule = place.schedule.model_copy(update={"mixture": mixture})
        count = drawn(schedule).get(own, 0)
        if not count:
            return Turn(place.schedule, {}, {own: read})
        answers = self._written(place, spec.prompts, read, count)
        inputs = {
            f"data:{own}": answers,
            f"teacher:{own}": teach(answers, count, f"teacher.{place.id}"),
        }
        return Turn(schedule, inputs, {own: read + count})

    def _written(self, place: Place, prompts: str, first: int, count: int) -> str:
        """The key of the job that keeps a student's answers, which nothing scores."""
        drawn = self._drawn(place, prompts, first, count, [], {})
        of = self.jobs.by_key[drawn].inputs
        content = {
            "dialog": place.stage.dialog,
            "group": 1,
            "rewards": {},
            "verify": {},
            "baseline": "mean",
            "scale": "none",
            "prompts": [count],
            "sources": [MixturePiece(from_step=0, to_step=1, weights={prompts: 1})],
        }
        inputs = {f"draws.{prompts}": drawn, f"prompts.{prompts}": of["prompts"]}
        inputs["model"] = of["model"]
        id = f"rollouts.{place.id}"
        return self.jobs.add(RolloutJob, content, inputs, id=id, stage=place.stage.name)

    def _near(self, place: Place, reference: str) -> str:
        """The key of the job whose weights the policy stays near in a segment."""
        spec: Any = place.stage.spec
        every, begin = spec.reference_refresh, place.segment.from_step
        if every is None or begin < every:
            return self.jobs.result[reference]
        return self._writers[place.stage.name, begin - begin % every]

    def _rollouts(self, place: Place, read: Mapping[str, int]) -> str:
        """The key of the job that scores a segment's answers."""
        stage, recipe = place.stage, self.jobs.recipe
        spec: Any = stage.spec
        verifiers = all_planned(recipe, [name for name in spec.reward if name in recipe.verifiers])
        judges = [name for name in spec.reward if name not in verifiers]
        inputs: dict[str, str] = {}
        for source, count in place.prompts().items():
            drawn = self._drawn(place, source, read.get(source, 0), count, judges, verifiers)
            inputs[f"draws.{source}"] = drawn
            inputs |= {
                role: self.jobs.by_key[drawn].inputs[of]
                for role, of in ((f"prompts.{source}", "prompts"), ("model", "model"))
            }
            for judge in judges:
                id = f"judge.{place.id}.{source}.{judge}"
                inputs[f"judged.{source}.{judge}"] = self.models.judged(
                    drawn, judge, stage.dialog or {}, id=id, stage=stage.name
                )
        content = {
            "dialog": stage.dialog,
            "group": spec.group,
            "rewards": spec.reward,
            "verify": verifiers,
            "baseline": "others" if spec.objective == "rloo" else "mean",
            "scale": spec.advantage or _SCALES[spec.objective],
            "prompts": place.steps,
            "sources": place.mixture,
            "mask_truncated": spec.mask_truncated,
        }
        id = f"rollouts.{place.id}"
        return self.jobs.add(RolloutJob, content, inputs, id=id, stage=stage.name)

    def _drawn(
        self,
        place: Place,
        source: str,
        first: int,
        count: int,
        judges: list[str],
        verifiers: dict[str, Verifier],
    ) -> str:
        """The key of the job that writes answers to a source's prompts from the `first` on."""
        spec: Any = place.stage.spec
        own, group = _seed(place.seed, source), getattr(spec, "group", None)
        dataset = DataId.parse(source).name
        verifiers = {name: each for name, each in verifiers.items() if each.scores(dataset)}
        until, before = _until(spec, verifiers), None
        if until:
            before = self._newest.get((place.stage.name, source))
            first = 0  # where `before` has ended, which only the run knows
        window = PromptWindow(first=first, count=count, seed=own, longest=place.segment.seq_len)
        drawn = self._newest[place.stage.name, source] = self.models.drawn(
            self._writer(place),
            id=f"draws.{place.id}.{source}",
            stage=place.stage.name,
            judges=judges,
            answers=comparing(verifiers),
            on=place.stage,
            settings={
                "dialog": place.stage.dialog,
                "prompts": source,
                "limit": None,
                "draws": group or 1,
                # All tokens of the policy, whose log-probabilities are learned. The temperature of
                # a student is that of what it learns.
                "temperature": spec.temperature if group else 1.0,
                "top_p": 1.0,
                "max_tokens": spec.max_tokens,
                "seed": own,
                "window": window,
                "until": until,
            },
            before=before,
        )
        return drawn

    def _writer(self, place: Place) -> Measured:
        """The model that writes the answers of a segment."""
        stage, number = place.stage, place.number
        if number == 0:
            assert stage.parent
            return self.models.result(stage.parent)
        name = str(SegmentId(stage.name, number))
        return Measured(name, stage.name, place.model, stage, stage.segments[number - 1])

    def _likelihood(self, place: Place, what: str, model: str, rollouts: str) -> str:
        """The key of the job that computes the log-probabilities of answers under a model."""
        stage, segment = place.stage, place.segment
        spec: Any = stage.spec
        content = {
            "model": stage.model.knowing(segment.seq_len, segment.rope_theta),
            "source": stage.name,
            "temperature": spec.temperature,
            "seq_len": segment.seq_len,
            "resources": segment.resources,
            "torchtitan": torchtitan(stage, segment, 1, place.seed, stage.lr),
        }
        answers = sum(place.steps) * stage.spec.each
        content = with_reading(content, [Rows(answers, segment.seq_len)])
        inputs = {"model": model, f"data:{stage.name}": rollouts}
        id = f"{what}.{place.id}"
        return self.jobs.add(LikelihoodJob, content, inputs, id=id, stage=stage.name)


def _until(spec: Any, verifiers: Mapping[str, Verifier]) -> Until | None:
    """How long prompts are drawn whose answers these verifiers score; None if once."""
    asked: Any = getattr(spec, "dynamic_sampling", None)
    by = asked.by or list(verifiers) if asked else ()
    verify = {name: each for name, each in verifiers.items() if name in by}
    if not verify:
        return None
    weights = {name: spec.reward[name] for name in verify}
    return Until(verify=verify, weights=weights, most=asked.most)


def drawn(schedule: Schedule) -> dict[str, int]:
    """How many sequences, or what else batches count, a schedule draws from each source."""
    pieces = [(m.weights, sequences(schedule.batch, m)) for m in schedule.mixture]
    return Mixture(pieces).counts(sum(count for _, count in pieces))


def sequences(batch: list[BatchPiece], piece: MixturePiece) -> int:
    """Sequences that a piece of a mixture covers."""
    return sum(
        (min(b.to_step, piece.to_step) - max(b.from_step, piece.from_step)) * b.sequences
        for b in batch
        if b.from_step < piece.to_step and b.to_step > piece.from_step
    )


def _with_own(piece: MixturePiece, own: str, share: Fraction) -> MixturePiece:
    """A piece of a mixture of which a share comes from another source; weights stay whole."""
    total, rest = sum(piece.weights.values()), share.denominator - share.numerator
    weights = {name: weight * rest for name, weight in piece.weights.items() if weight * rest}
    return piece.model_copy(update={"weights": {**weights, own: total * share.numerator}})


def _seed(seed: int, source: str) -> int:
    """A seed of its own for a source of a stage."""
    return int.from_bytes(hashlib.sha256(f"{seed} {source}".encode()).digest()[:4], "big")


_SCALES = {"grpo": "group", "dapo": "group", "gspo": "group", "dr_grpo": "none", "rloo": "none"}
"""Objective → whose standard deviation divides the rewards, if the spec does not say."""
