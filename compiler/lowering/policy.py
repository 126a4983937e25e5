"""The jobs of stages that learn from their own answers: drawing, scoring, likelihoods."""

import hashlib
from typing import Any, NamedTuple

from ..costs.reading import Rows
from ..ids import SegmentId
from ..plan.plan import (
    LikelihoodJob,
    MixturePiece,
    PromptWindow,
    RolloutJob,
    Schedule,
    TrainJob,
)
from ..program import ScheduledStage, Segment
from ..schedule.mixture import Mixture
from ..torchtitan.configuration import torchtitan
from .job_list import Jobs
from .model_jobs import Measured, Models
from .reading import with_reading
from .verifiers import planned


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


class Policy:
    """Adds the jobs in which a model writes answers and those that score them."""

    def __init__(self, jobs: Jobs, models: Models) -> None:
        self.jobs = jobs
        self.models = models

    def turn(
        self,
        stage: ScheduledStage,
        number: int,
        segment: Segment,
        schedule: Schedule,
        model: str,
        positions: dict[str, int],
        *,
        reference: str | None,
        seed: int,
    ) -> Turn:
        """Adds the jobs before a segment's training.

        Args:
            number: of the segment, from 0.
            schedule: of the segment, in answers, with the prompts as sources.
            model: key of the job whose weights write the answers.
            positions: source → prompts that the stage has read before.
            reference: the stage whose model the policy stays near, if any.
            seed: of the stage.
        """
        steps = [
            piece.sequences // stage.spec.each
            for piece in schedule.batch
            for _ in range(piece.to_step - piece.from_step)
        ]
        rollouts, after = self._rollouts(
            stage, number, segment, schedule, model, positions, steps, seed
        )
        name, inputs = stage.name, {f"data:{stage.name}": rollouts}
        if len(steps) > 1:
            inputs[f"old:{name}"] = self._likelihood(
                stage, segment, model, rollouts, f"old.{SegmentId(name, number + 1)}", seed
            )
        if reference:
            inputs[f"reference:{name}"] = self._likelihood(
                stage,
                segment,
                self.jobs.result[reference],
                rollouts,
                f"reference.{SegmentId(name, number + 1)}",
                seed,
            )
        if stage.tokenizer:
            inputs["tokenizer"] = self.jobs.tokenizer(stage.tokenizer)
        mixture = [
            MixturePiece(from_step=segment.from_step, to_step=segment.to_step, weights={name: 1})
        ]
        return Turn(schedule.model_copy(update={"mixture": mixture}), inputs, after)

    def _rollouts(
        self,
        stage: ScheduledStage,
        number: int,
        segment: Segment,
        schedule: Schedule,
        model: str,
        positions: dict[str, int],
        steps: list[int],
        seed: int,
    ) -> tuple[str, dict[str, int]]:
        """The key of the job that scores a segment's answers, and the prompts read after it."""
        spec: Any = stage.spec
        of = self._writer(stage, number, model)
        inputs: dict[str, str] = {}
        after = dict(positions)
        judges = [name for name in spec.reward if name not in self.jobs.recipe.verifiers]
        place = SegmentId(stage.name, number + 1)
        for source, count in _prompts(schedule, segment, steps).items():
            first, own = positions.get(source, 0), _seed(seed, source)
            after[source] = first + count
            drawn = self.models.drawn(
                of,
                id=f"draws.{place}.{source}",
                stage=stage.name,
                judge=judges[0] if judges else None,
                settings={
                    "dialog": stage.dialog,
                    "prompts": source,
                    "limit": None,
                    "draws": spec.group,
                    "temperature": 1.0,
                    "top_p": 1.0,
                    "max_tokens": spec.max_tokens,
                    "seed": own,
                    "window": PromptWindow(
                        first=first, count=count, seed=own, longest=segment.seq_len
                    ),
                },
            )
            inputs[f"draws.{source}"] = drawn
            inputs[f"prompts.{source}"] = self.jobs.by_key[drawn].inputs["prompts"]
            inputs["model"] = self.jobs.by_key[drawn].inputs["model"]
            for judge in judges:
                inputs[f"judged.{source}.{judge}"] = self.models.judged(
                    drawn,
                    judge,
                    stage.dialog or {},
                    id=f"judge.{place}.{source}.{judge}",
                    stage=stage.name,
                )
        scaled = spec.advantage or _SCALES[spec.objective]
        content = {
            "dialog": stage.dialog,
            "group": spec.group,
            "rewards": spec.reward,
            "verifiers": {
                name: planned(self.jobs.recipe, name)
                for name in spec.reward
                if name in self.jobs.recipe.verifiers
            },
            "baseline": "others" if spec.objective == "rloo" else "mean",
            "scale": scaled,
            "prompts": steps,
            "sources": [
                piece.model_copy(update=_within(piece, segment)) for piece in schedule.mixture
            ],
        }
        key = self.jobs.add(RolloutJob, content, inputs, id=f"rollouts.{place}", stage=stage.name)
        return key, after

    def _writer(self, stage: ScheduledStage, number: int, model: str) -> Measured:
        """The model that writes the answers of a segment."""
        job = self.jobs.by_key[model]
        if number == 0 or not isinstance(job, TrainJob):
            assert stage.parent
            return self.models.result(stage.parent)
        name = str(SegmentId(stage.name, number))
        return Measured(name, stage.name, model, stage, stage.segments[number - 1])

    def _likelihood(
        self,
        stage: ScheduledStage,
        segment: Segment,
        model: str,
        rollouts: str,
        id: str,
        seed: int,
    ) -> str:
        """The key of the job that computes the log-probabilities of answers under a model."""
        content = {
            "model": stage.model.knowing(segment.seq_len, segment.rope_theta),
            "source": stage.name,
            "seq_len": segment.seq_len,
            "resources": segment.resources,
            "torchtitan": torchtitan(stage, segment, 1, seed, stage.lr),
        }
        job = self.jobs.by_key[rollouts]
        read = Rows(sum(job.prompts) * job.group, segment.seq_len)
        content = with_reading(content, [read])
        inputs = {"model": model, f"data:{stage.name}": rollouts}
        return self.jobs.add(LikelihoodJob, content, inputs, id=id, stage=stage.name)


def _seed(seed: int, source: str) -> int:
    """A seed of its own for a source of a stage."""
    return int.from_bytes(hashlib.sha256(f"{seed} {source}".encode()).digest()[:4], "big")


_SCALES = {"grpo": "group", "dapo": "group", "gspo": "group", "dr_grpo": "none", "rloo": "none"}
"""Objective → whose standard deviation divides the rewards, if the spec does not say."""


def _within(piece: MixturePiece, segment: Segment) -> dict[str, int]:
    """The steps of a piece, from the segment's first."""
    return {
        "from_step": piece.from_step - segment.from_step,
        "to_step": piece.to_step - segment.from_step,
    }


def _prompts(schedule: Schedule, segment: Segment, steps: list[int]) -> dict[str, int]:
    """How many prompts of each source a segment reads."""
    begin = segment.from_step
    pieces = [
        (piece.weights, sum(steps[piece.from_step - begin : piece.to_step - begin]))
        for piece in schedule.mixture
    ]
    return Mixture(pieces).counts(sum(steps))
