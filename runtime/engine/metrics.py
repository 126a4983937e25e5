"""The metrics of every step."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torchtitan.components.metrics import MetricsProcessor, _get_metrics_rank
from torchtitan.distributed import ParallelDims
from torchtitan.tools.utils import device_type, get_local_device

from ...compiler.plan.plan import TrainJob
from ...compiler.plan.rates import utilization
from ...compiler.schedule.timeline import Timeline
from ..errors import Stopped
from .updates.rollbacks import Rollback
from .updates.spikes import Spike

OnEvent = Callable[[dict[str, Any]], None]


def not_finite(what: str, step: int, stage: str | None) -> Stopped:
    """Training has diverged at `step` of the stage (from 0)."""
    return Stopped(
        f"the {what} is not finite at step {step} of stage `{stage}`",
        "lower the learning rate or the clipping norm at that point and run again; a run that is "
        "only resumed continues from the last checkpoint before that step",
    )


class Metrics(MetricsProcessor):
    """Passes one event per step to `on_event`, on rank 0.

    The event: `event` ("step"), `job`, `stage`, `step` (the stage's, from 0), `loss` (nats per
    token; for preferences, and with terms besides the cross-entropy, the loss that `objectives`
    defines, with the figures named there), `lr`, `sequences`, `seq_len`, `tokens` (the stage's
    after the step), `mixture` (weights in force), `sources` (tokens of each that the job has
    drawn), `grad_norm` (before clipping), `tokens_per_second` (of all ranks; for preferences,
    without padding), `seconds` (of the step, from end to end) and `data_seconds` (of these, how
    long rank 0 waited for data).

    Where they are known: `spike` (how many times the usual gradient norm, if the step was not
    taken), `max_score` (the largest attention score of the step, where scores are clipped),
    `max_loss` (the largest loss of a rank's own tokens), `skipped` (tokens of the step's
    rows that are not learned: padding, prompts), `tflops` (of a rank) and `mfu` (a share of the
    peak), both as the plan counts FLOPs, and on GPUs the peaks of rank 0's memory within the
    step: `memory_active` and `memory_reserved` in GiB, each with its `…_share` of the GPU's, and
    `memory_retries`, how often an allocation had to wait for memory to be freed.

    Raises:
        Stopped: the gradient is not finite.
    """

    @dataclass(kw_only=True, slots=True)
    class Config(MetricsProcessor.Config):
        log_freq: int = 1
        job: TrainJob
        on_event: OnEvent

    def __init__(
        self, config: Config, *, parallel_dims: ParallelDims, pp_schedule: str, **kwargs: Any
    ) -> None:
        # Both V schedules have the last stage on rank 0; torchtitan knows it of one (0.3,
        # `_get_metrics_rank`).
        known = "ZBVZeroBubble" if pp_schedule == "DualPipeV" else pp_schedule
        super().__init__(config, parallel_dims=parallel_dims, pp_schedule=known, **kwargs)
        self._loss_rank = _get_metrics_rank(parallel_dims=parallel_dims, pp_schedule=known)
        self._job = config.job
        self._on_event = config.on_event
        self._timeline = Timeline.of(config.job)
        self.details: Callable[[], tuple[dict[str, float], int | None]] | None = None
        """Further figures of the step, and its tokens if they are not those of full rows; called on
        all ranks."""
        self.spike: Spike | None = None
        """The step's, if it is one that is not taken; a step whose gradient is not finite has no
        event of its own then."""
        self.max_score: float | None = None
        """The step's largest attention score, if the optimizer has looked at it."""
        self.learned: torch.Tensor | None = None
        """The tokens of the step that all ranks learn, set by the trainer."""

    def log(
        self,
        step: int,
        global_avg_loss: float,
        global_max_loss: float,
        grad_norm: float,
        extra_metrics: dict[str, Any] | None = None,
    ) -> None:
        timeline = self._timeline
        done = self._job.first_step + step
        if not math.isfinite(grad_norm):
            if self.spike is not None:
                self.leave_out()
                return
            raise not_finite("gradient", done - 1, self._job.stage)
        details, tokens = self.details() if self.details else ({}, None)
        figures = self._known_to_all(
            {"loss": global_avg_loss, **details, "max_loss": global_max_loss}
        )
        largest, dims = figures.pop("max_loss"), self.parallel_dims
        # Among context ranks torchtitan divides a part's loss by the tokens of the whole row, and
        # the loss of a rank without a token to learn is not a number.
        if dims.dp_enabled and not dims.cp_enabled and math.isfinite(largest):
            figures["max_loss"] = largest
        sequences = timeline.batch(done - 1)
        skipped = self._skipped(sequences) if self.details is None or tokens is None else None
        tokens = sequences * timeline.seq_len if tokens is None else tokens
        seconds = time.perf_counter() - self.time_last_log
        rates = {value for name, value in (extra_metrics or {}).items() if name.startswith("lr/")}
        (lr,) = rates
        if dist.get_rank() == 0:
            self._on_event(
                {
                    "event": "step",
                    "job": self._job.id,
                    "stage": self._job.stage,
                    "step": done - 1,
                    "loss": figures.pop("loss"),
                    "lr": lr,
                    "sequences": sequences,
                    "seq_len": timeline.seq_len,
                    "tokens": timeline.tokens_before(done),
                    "mixture": timeline.mixture(done - 1),
                    "sources": {
                        source: drawn * timeline.seq_len
                        for source, drawn in timeline.drawn_before(done).items()
                    },
                    "grad_norm": grad_norm,
                    "tokens_per_second": tokens / seconds,
                    "seconds": seconds,
                    "data_seconds": sum(self.data_loading_times),
                    **figures,
                    **({} if self.spike is None else {"spike": self.spike.norm / self.spike.usual}),
                    **({} if self.max_score is None else {"max_score": self.max_score}),
                    **({} if skipped is None else {"skipped": skipped}),
                    **utilization(self._job, tokens / seconds),
                    **self._memory(),
                }
            )
        self._begin()

    def tell_spike(self, step: int, spike: Spike) -> None:
        """Tells that a step is not taken, on rank 0."""
        self.spike = spike
        if dist.get_rank() == 0:
            message = f"step {step:,} of {self._job.stage} is not taken: {spike}"
            self._on_event(self._spiked("spike", step, spike) | {"message": message})

    def tell_rollback(self, back: Rollback, spike: Spike) -> None:
        """Tells that training goes back, on rank 0."""
        if dist.get_rank() == 0:
            message = (
                f"at step {back.step:,} of {self._job.stage}, {spike}: training goes back to step "
                f"{back.to:,} and passes over the data since then"
            )
            told = self._spiked("rollback", back.step, spike)
            self._on_event(told | back._asdict() | {"message": message})

    def _spiked(self, event: str, step: int, spike: Spike) -> dict[str, Any]:
        told = {"event": event, "job": self._job.id, "stage": self._job.stage, "step": step}
        numbers = {"grad_norm": spike.norm, "usual": spike.usual}
        return told | {name: number for name, number in numbers.items() if math.isfinite(number)}

    def leave_out(self) -> None:
        """Forgets the figures of a step; all ranks call this, or `log`."""
        if self.details:
            self.details()
        self.learned = None
        self._begin()

    def _begin(self) -> None:
        """Begins to measure the next step."""
        self.ntokens_since_last_log = 0
        self.data_loading_times.clear()
        self.time_last_log = time.perf_counter()
        self.device_memory_monitor.reset_peak_stats()

    def _skipped(self, sequences: int) -> int | None:
        if self.learned is None:
            return None
        learned, self.learned = int(self.learned), None
        return sequences * self._timeline.seq_len - learned

    def _memory(self) -> dict[str, float]:
        """The peaks of this rank's memory since the last step; {} on a CPU, which counts none."""
        if device_type == "cpu":
            return {}
        peak = self.device_memory_monitor.get_peak_stats()
        found = {
            "memory_active": peak.max_active_gib,
            "memory_active_share": peak.max_active_pct / 100,
            "memory_reserved": peak.max_reserved_gib,
            "memory_reserved_share": peak.max_reserved_pct / 100,
        }
        if peak.num_alloc_retries:
            found["memory_retries"] = peak.num_alloc_retries
        return found

    def _known_to_all(self, figures: dict[str, float]) -> dict[str, float]:
        """Figures of the loss, which only a pipeline's last stage has."""
        if not self.parallel_dims.pp_enabled:
            return figures
        values = torch.tensor([*figures.values()], dtype=torch.float64, device=get_local_device())
        dist.broadcast(values, src=self._loss_rank)
        return dict(zip(figures, values.tolist(), strict=True))
