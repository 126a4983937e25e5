"""Lowers gates to jobs: evaluations at the end of a segment, and extensions after a failure."""

from typing import Protocol

from ...spec.record import replace
from ...spec.schema import recipe as r
from ..ids import SegmentId
from ..plan.measures import Requirement
from ..plan.plan import Attempt, GateJob, MixturePiece, Schedule
from ..program import Scheduled, ScheduledStage, Segment
from ..schedule.clock import nearest
from ..schedule.learning_rate import hold
from ..values import BatchPiece, LrPiece
from .job_list import Jobs
from .measures import gate_measures
from .model_jobs import Measured, Models


class AddTrainJob(Protocol):
    """Adds the train job of a segment; returns its key and the sources' positions after it."""

    def __call__(
        self,
        stage: ScheduledStage,
        segment: Segment,
        schedule: Schedule,
        model: str | None,
        positions: dict[str, int],
        *,
        first_token: int,
        carry: bool,
        id: str,
        number: int,
        extends: Attempt | None,
    ) -> tuple[str, dict[str, int]]: ...


class Gates:
    """Adds the jobs of gates between those of the segments that they guard.

    Args:
        train: adds the train jobs with which a gate extends a segment.
    """

    def __init__(self, program: Scheduled, jobs: Jobs, models: Models, train: AddTrainJob) -> None:
        self.program = program
        self.jobs = jobs
        self.models = models
        self.train = train

    def start(self, stage: ScheduledStage, model: str | None) -> str | None:
        """The evaluation of the stage's starting weights, if a gate compares with it."""
        assert stage.spec.gate
        if model is None or not any(q.of_start for q in stage.spec.gate.requirements):
            return None
        measures = gate_measures(stage, stage.segments[0], self._short(stage), of_start=True)
        of = self.models.result(stage.parent or "")
        return self.models.evaluation(of, measures, id=f"{stage.name}.start", stage=stage.name)

    def _short(self, stage: ScheduledStage) -> int:
        if stage.parent:
            return self.program.trained(stage.parent).last.seq_len
        return stage.segments[0].seq_len

    def after(
        self,
        stage: ScheduledStage,
        number: int,
        segment: Segment,
        key: str,
        positions: dict[str, int],
        begin: str | None,
    ) -> None:
        """Adds the gate at the end of a segment, and the extensions that run after a failure.

        Args:
            number: of the segment, from 0.
            key: the segment's train job.
            positions: source → the token at which reading continues after the segment.
            begin: the evaluation of the stage's starting weights, if there is one.
        """
        gate = stage.spec.gate
        assert gate
        name = str(SegmentId(stage.name, number + 1))
        self._ask(stage, segment, name, key, key, begin, None)
        last, where = key, positions
        steps = self._extension_steps(stage, segment, gate)
        for attempt in range(1, gate.attempts + 1):
            extends = Attempt(gate=key, number=attempt)
            name = str(SegmentId(stage.name, number + 1, attempt))
            before = (attempt - 1) * steps  # of the extensions before this one
            start = segment.to_step + before
            batch = _batch_at(stage.batches, segment.to_step - 1)
            last, where = self.train(
                stage,
                replace(segment, from_step=start, to_step=start + steps),
                self._extension_schedule(stage, segment, start, steps),
                last,
                where,
                first_token=stage.tokens_before(segment.to_step) + before * batch * segment.seq_len,
                carry=True,
                id=name,
                number=number,
                extends=extends,
            )
            self._ask(stage, segment, name, last, key, begin, extends)

    def _ask(
        self,
        stage: ScheduledStage,
        segment: Segment,
        name: str,
        model: str,
        guarded: str,
        begin: str | None,
        extends: Attempt | None,
    ) -> None:
        """Adds the job that measures a model and decides.

        Args:
            name: the train job that made the model, whose key is `model`.
            guarded: the key of the segment's own train job.
            extends: the attempt that made the model; None: the segment itself.
        """
        gate = stage.spec.gate
        assert gate
        measures = gate_measures(stage, segment, self._short(stage), of_start=False)
        id = f"gate.{name}"
        of = Measured(name, stage.name, model, stage, segment)
        found = self.models.measured([of], measures, id=id, stage=stage.name, extends=extends)
        inputs = {**found.inputs, "start": begin} if begin else found.inputs
        content = {
            "attempt": extends.number if extends else 0,
            "attempts": gate.attempts,
            "measures": measures,
            "requirements": [
                Requirement(
                    measure=q.measure + (f"({q.argument})" if q.argument else ""),
                    op=q.op,
                    value=float(q.value),
                    of_start=q.of_start,
                )
                for q in gate.requirements
            ],
            **found.content,
        }
        self.jobs.add(
            GateJob,
            content,
            inputs,
            id=id,
            stage=stage.name,
            segment=guarded,
            extends=extends,
            what=f"seq_len {segment.seq_len} of {stage.name}",
        )

    def _extension_steps(self, stage: ScheduledStage, segment: Segment, gate: r.Gate) -> int:
        if gate.extend is None:
            return 0
        if gate.extend.unit == "steps":
            return max(nearest(gate.extend.value), 1)
        batch = _batch_at(stage.batches, segment.to_step - 1)
        return max(nearest(gate.extend.value / (batch * segment.seq_len)), 1)

    def _extension_schedule(
        self, stage: ScheduledStage, segment: Segment, start: int, steps: int
    ) -> Schedule:
        """The values in force at the end of the segment, held for some steps from `start`."""
        end, stop = segment.to_step, start + steps

        def held(pieces: list[LrPiece]) -> list[LrPiece]:
            piece = next(p for p in reversed(pieces) if p.from_step < end)
            return [hold(piece.rate(end, stage.tokens_before), start, stop)]

        weights = next(m.weights for m in reversed(stage.mixture) if m.from_step < end)
        return Schedule(
            lr=held(stage.lr),
            batch=[
                BatchPiece(
                    from_step=start, to_step=stop, sequences=_batch_at(stage.batches, end - 1)
                )
            ],
            mixture=[MixturePiece(from_step=start, to_step=stop, weights=weights)],
            **{name: held(pieces) for name, pieces in stage.changing.items()},
        )


def _batch_at(batches: list[BatchPiece], step: int) -> int:
    return next(b.sequences for b in reversed(batches) if b.from_step <= step)
