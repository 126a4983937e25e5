"""Evaluations inside a train job: when there is one, what it finds, and what that decides.

An evaluation leaves nothing behind that training could notice: neither random numbers, nor the
place in the data, nor the model's mode.
"""

import json
import time
from collections.abc import Mapping
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch.distributed.checkpoint.stateful import Stateful
from torch.distributed.fsdp import FSDPModule
from torchtitan.tools import utils

from ....compiler.plan.evaluations import role
from ....compiler.plan.plan import TrainJob
from ....compiler.schedule.timeline import Timeline
from ..inputs import input_of
from ..process import as_rank_0_sees
from .measuring import Measuring, measuring

if TYPE_CHECKING:
    from ..metrics import OnEvent
    from ..trainer import Trainer


class Evaluations(Stateful):
    """Measures losses after steps of a job, on all ranks together.

    The state is the steps of the job (from 1) after which the loss that decides was measured, and
    its values. So a job that continues from a checkpoint knows what came before, and decides as if
    it had never been interrupted.

    Raises: DataError: a source has no held-out data.
    """

    def __init__(
        self, trainer: "Trainer", job: TrainJob, inputs: Mapping[str, Path], on_event: "OnEvent"
    ) -> None:
        assert job.evaluation
        self._trainer = trainer
        self._job = job
        self._choice = job.choice
        self._every = job.evaluation.every
        self._on_event = on_event
        self._timeline = Timeline.of(job)
        self._measures: dict[str, Measuring] = {}
        for measure in job.evaluation.measures:
            data = input_of(inputs, role(measure, job.choice, "data"))
            reference = inputs.get(role(measure, job.choice, "reference"))
            self._measures[measure.name] = measuring(trainer, job, measure, data, reference)
        self._found: list[tuple[int, float]] = []

    def state_dict(self) -> dict[str, Any]:
        return {"found": json.dumps(self._found)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._found = [(step, loss) for step, loss in json.loads(state_dict["found"])]

    @property
    def best(self) -> int | None:
        """The step of the job after which the loss that decides was lowest, so far."""
        finite = [(loss, step) for step, loss in self._found if isfinite(loss)]
        return min(finite)[1] if finite else None

    @property
    def kept(self) -> int | None:
        """The step of the job whose checkpoint is to be its result; None: that of its end."""
        return self.best if self._choice and self._choice.best else None

    @property
    def ended(self) -> bool:
        """Whether the loss has not fallen for so long that the job ends."""
        if self._choice is None or self._choice.patience is None or not self._found:
            return False
        since = sum(step > (self.best or 0) for step, _ in self._found)
        return since >= self._choice.patience

    def after(self, step: int) -> None:
        """Measures the losses after a step of the job, if it is time to; tells them on rank 0."""
        job, done = self._job, self._job.first_step + step
        end = job.segment == job.segments - 1 and step == job.steps
        if done % self._every and not end:
            return
        begin = time.perf_counter()
        scores = self._scores()
        if self._choice:
            self._found = [found for found in self._found if found[0] < step]
            self._found.append((step, scores[self._choice.measure.name]["score"]))
        if dist.get_rank() != 0:
            return
        early = self.ended and step < job.steps
        decided = {"best": self.best == step, "ends": early} if self._choice else {}
        self._on_event(
            {
                "event": "evaluation",
                "job": job.id,
                "stage": job.stage,
                "step": done - 1,
                "tokens": self._timeline.tokens_before(done),
                "scores": scores,
                **decided,
                "seconds": time.perf_counter() - begin,
            }
        )

    def _scores(self) -> dict[str, dict[str, float]]:
        """Measure → its figures, the same on all ranks."""
        trainer = self._trainer
        seen, devices = trainer.ntokens_seen, []
        if utils.device_type != "cpu":
            devices = [utils.device_module.current_device()]
        # A model that is not trained may have to be compiled first.
        trainer.wait_at_most(trainer.config.comm.init_timeout_seconds)
        for part in trainer.model_parts:
            part.eval()  # so that routers do not count the tokens
        try:
            with torch.random.fork_rng(devices, device_type=utils.device_type), torch.no_grad():
                found = {name: each() for name, each in self._measures.items()}
        finally:
            for part in trainer.model_parts:
                part.train()
                for module in part.modules():
                    if isinstance(module, FSDPModule):
                        module.reshard()
            trainer.ntokens_seen = seen
        trainer.wait_at_most(trainer.config.comm.train_timeout_seconds)
        return as_rank_0_sees(lambda: found)
