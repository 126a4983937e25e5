"""torchtitan's Trainer, following a plan."""

import functools
import json
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from inspect import unwrap
from pathlib import Path
from typing import Any, NoReturn, Protocol, cast

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor.debug import _clear_sharding_prop_cache
from torchtitan.components.checkpointer.base import MODEL
from torchtitan.distributed import ParallelDims
from torchtitan.distributed import utils as dist_utils
from torchtitan.trainer import Trainer as TitanTrainer

from ...compiler.as_written import counted
from ...compiler.plan.plan import Distill, TrainJob
from ...compiler.schedule.timeline import Timeline
from ...compiler.torchtitan.adapters import SECTION as ADAPTER
from ...compiler.values import ROUTER_LOSSES
from ..disk import move, write
from ..errors import RunError, Stopped
from ..stopping import interrupted
from .adapters import merge, merged
from .attention.documents import (
    DocumentAttention,
    of_documents,
    of_segments,
    segment_blocks,
)
from .border import agree
from .checkpoints.checkpoint import Checkpoints
from .checkpoints.storage import AVERAGE, EVALUATIONS, SPIKES, writing
from .checkpoints.stored import has_own_folder
from .heads import Likely
from .loader import Batch, Loader
from .metrics import Metrics, not_finite
from .objectives import reported
from .updates.polyak import Mean
from .updates.qk_clip import QkClip
from .updates.rollbacks import RollBack, Rollback
from .updates.router_losses import RouterLosses
from .updates.settings import Settings
from .updates.spikes import Spike, Spikes, deciding


class Evaluating(Protocol):
    """Evaluations after steps of a job; see `evaluations`."""

    @property
    def kept(self) -> int | None: ...

    @property
    def ended(self) -> bool: ...

    def after(self, step: int, /) -> None: ...


class Trainer(TitanTrainer):
    """Runs one train job.

    Raises:
        RunError: torchtitan rejects the job's configuration.
        Stopped: training has diverged, or the disk cannot take a checkpoint.
        Interrupted: a rank was asked to stop.
        RollBack: at a spike, after which the job begins again from an earlier checkpoint.
    """

    @dataclass(kw_only=True, slots=True)
    class Config(TitanTrainer.Config):
        job: TrainJob
        rollbacks: tuple[Rollback, ...] = ()

    def __init__(self, config: Config) -> None:
        self.job = config.job
        self.rollbacks = config.rollbacks
        super().__init__(config)
        self.loader = cast(Loader, self.dataloader)
        self.checkpoints = cast(Checkpoints, self.checkpointer)
        self.checkpoints.border = self._border
        objective = self.job.objective
        self._likely = None
        if isinstance(objective, Distill):
            self._likely = Likely(objective.top_k, objective.temperature, objective.vocab)
        self._masked = any(self.model_config.traverse(DocumentAttention.Config))
        self.router_losses: RouterLosses | None = None
        if self.job.schedule.settings.keys() & {*ROUTER_LOSSES}:
            timeline = Timeline.of(self.job)
            self.router_losses = RouterLosses(timeline, self.model_parts, self.parallel_dims)
        if self.router_losses is not None or reported(self.loss_fn):
            cast(Metrics, self.metrics_processor).details = self._figures
        self.mean: Mean | None = None
        if self.job.average is not None:
            self.mean = Mean(self.job.average, self._weights)
            self.checkpoints.states[AVERAGE] = self.mean
        self.qk_clip: QkClip | None = None
        if self.job.qk_clip is not None:
            self.qk_clip = QkClip(self.job.qk_clip, self.model_parts, self.parallel_dims)
            self.optimizers.register_step_post_hook(self._clip_scores)
        self.settings = None
        if self.job.schedule.settings:
            self.settings = Settings(
                Timeline.of(self.job), self.optimizers, self.model_parts, self.loss_fn
            )
        self.evaluations: Evaluating | None = None
        self.spikes: Spikes | None = None
        if self.job.spikes is not None:
            self.spikes = Spikes(self.job.spikes)
            self.checkpoints.states[SPIKES] = self.spikes

    def _figures(self) -> tuple[dict[str, float], int | None]:
        """Figures of the step beside its loss, and its tokens if they are not those of full rows;
        all ranks call this together."""
        found, tokens = {}, None
        if loss := reported(self.loss_fn):
            whole = self.parallel_dims.get_optional_mesh("loss")
            found, tokens = loss.collect(whole if loss.of_sequence else self.batch_mesh)
        if self.router_losses is not None:
            found = {**found, **self.router_losses.collect()}
        return found, tokens

    def evaluate_with(self, evaluations: Evaluating) -> None:
        """Makes `evaluations` after steps, and does what they decide; before anything is loaded."""
        self.evaluations = evaluations
        self.checkpoints.states[EVALUATIONS] = evaluations
        self.checkpoints.held = lambda: evaluations.kept

    def _clip_scores(self, *_: Any) -> None:
        assert self.qk_clip is not None
        cast(Metrics, self.metrics_processor).max_score = self.qk_clip.clip()

    def _weights(self) -> Iterable[tuple[str, torch.Tensor]]:
        """The model's weights, with its adapters merged into them."""
        state = self.checkpoints.states[MODEL].state_dict()
        converters = self.job.torchtitan.get(ADAPTER)
        return merged(state, converters) if converters else state.items()

    def init_distributed(self) -> ParallelDims:
        """Jobs of the same layout share its meshes: a new mesh creates process groups, whose
        threads and sockets last as long as the process, or as long as its first group: an engine
        that has written here has ended that."""
        # torchtitan sets this with its own first group; this may be the one of `world.make`.
        torch.autograd.set_multithreading_enabled(False)
        layout = super().init_distributed()
        degrees = (layout.dp_replicate, layout.dp_shard, layout.cp, layout.tp, layout.pp, layout.ep)
        key = (*degrees, layout.spmd_backend)
        if key not in _LAYOUTS or _LAYOUTS[key][0] is not dist.group.WORLD:
            _LAYOUTS[key] = dist.group.WORLD, layout
        found = _LAYOUTS[key][1]
        if _used and _used[-1] is not found:
            # DTensor remembers how operators are sharded by meshes that are equal, and FSDP wants
            # the same mesh (torch 2.14, `_fsdp_param.py`, `_init_sharding_spec_spmd`).
            _clear_sharding_prop_cache()
        _used[:] = [found]
        return found

    def train(self) -> None:
        """Trains from the newest checkpoint to the job's end, in torchtitan's loop."""
        longest = self.config.comm.init_timeout_seconds
        # An earlier job with the same layout has left the time limit of its steps.
        self.wait_at_most(longest)
        try:
            unwrap(TitanTrainer.train)(self)
        except _Trained:
            # One rank may need minutes more than another to write its part of the result.
            self.wait_at_most(longest)
            best = None if self.evaluations is None else self.evaluations.kept
            if best is not None and best != self.step:
                self.checkpoints.go_back(best)
            return
        step = self.job.first_step + self.step - 1
        raise RunError(
            f"the data of stage `{self.job.stage}` end before its step {step:,}",
            "run again; if that does not help, remove the data sets' artifacts, which the next "
            "run makes again",
        )

    def should_continue_training(self) -> bool:
        """True before each step.

        Raises: _Trained: all steps are done, or the losses on held-out data say that it is enough.
            torchtitan's loop would now wait for two seconds.
        """
        enough = self.evaluations is not None and self.evaluations.ended
        if super().should_continue_training() and not enough:
            return True
        raise _Trained

    def batch_generator(self, data_iterable: Iterable[Batch]) -> Iterator[Batch]:
        # The first step's time begins here, after the checkpoint is loaded.
        self.metrics_processor.time_last_log = time.perf_counter()
        return super().batch_generator(data_iterable)

    def wait_at_most(self, seconds: float) -> None:
        """Sets how long ranks wait for each other in a collective."""
        dist_utils.set_pg_timeouts(timedelta(seconds=seconds), self.parallel_dims)

    def close(self) -> None:
        if hasattr(self, "loader"):
            self.loader.close()
        super().close()

    def _border(self) -> None:
        """Saves between two steps, and stops, if all ranks agree on it; torchtitan's loop calls
        this where it saves.

        Raises: Interrupted: a rank was asked to stop; everything trained is saved.
        """
        best = self.evaluations is not None and self.evaluations.kept == self.step
        stop, due = agree(due=self.checkpoints.is_due(self.step) or best)
        if stop:
            self.wait_at_most(self.config.comm.init_timeout_seconds)
            self.checkpoints.save_and_wait(self.step)
            job, done = self.job, self.step
            raise interrupted(
                stop,
                f"`{job.id}` is saved after step {done:,} of {job.steps:,} and continues from "
                "there",
            )
        if due:
            self.checkpoints.write(self.step)

    def train_step(self, data_iterator: Iterator[Batch]) -> None:
        step = self.job.first_step + self.step - 1
        # A pipeline takes several micro-batches at a time.
        together = self.num_pipeline_parallel_microbatches
        self.gradient_accumulation_steps = self.loader.micro_batches(step) // together
        if self.settings is not None:
            self.config.training = self.settings.at(step, self.config.training)
        if self.router_losses is not None:
            self.router_losses.begin(step)
        if loss := reported(self.loss_fn):
            loss.begin(self, step)
        metrics = cast(Metrics, self.metrics_processor)
        metrics.spike = metrics.max_score = None
        if self.qk_clip is not None:
            self.qk_clip.begin()
        try:
            with self._watched(self.spikes, step, metrics) if self.spikes else nullcontext():
                super().train_step(data_iterator)
        except RuntimeError as error:
            if "Loss is not finite" not in str(error):
                raise
            if metrics.spike is None:
                raise not_finite("loss", step, self.job.stage) from error
            metrics.leave_out()
        if self.mean is not None:
            self.mean.update(self.job.first_step + self.step)
        if self.evaluations is not None:
            self.evaluations.after(self.step)
            # The next step's time begins here.
            self.metrics_processor.time_last_log = time.perf_counter()

    def summed_losses(
        self, batches: Sequence[tuple[dict[str, torch.Tensor], torch.Tensor]]
    ) -> Iterator[torch.Tensor]:
        """The sums of the losses of this rank's batches, without training; of a pipeline 0 before
        its last stage. All ranks call this together, with as many batches."""
        each = self.num_pipeline_parallel_microbatches
        for begin in range(0, len(batches), each):
            asked = [
                self.post_dataloading_process(
                    {name: tensor.to(self.device) for name, tensor in tensors.items()},
                    labels.to(self.device),
                )
                for tensors, labels in batches[begin : begin + each]
            ]
            with self.train_context():
                if self.parallel_dims.pp_enabled:
                    loss = self._losses_of_pipeline(asked)
                else:
                    ((inputs, labels, kwargs),) = asked
                    loss, _ = self.loss_fn(self.model_parts[0](inputs, **kwargs), labels)
            yield loss.detach().double()

    def _losses_of_pipeline(self, asked: Sequence[tuple[Any, Any, Any]]) -> torch.Tensor:
        first, last = self.pp_has_first_stage, self.pp_has_last_stage
        losses: list[torch.Tensor] | None = [] if last else None
        self.pp_schedule.eval(
            arg_mbs=[(inputs,) for inputs, _, _ in asked] if first else None,
            kwarg_mbs=[kwargs for _, _, kwargs in asked],
            target_mbs=[labels for _, labels, _ in asked] if last else None,
            losses=losses,
        )
        found = torch.stack(losses).sum() if losses else torch.zeros(())
        return found.to(self.device)

    def _watched(self, spikes: Spikes, step: int, metrics: Metrics) -> AbstractContextManager[None]:
        """Where a step is not taken if it is a spike.

        Raises: Stopped: the run stops at spikes.
        """

        def take(norm: float) -> bool:
            found = spikes.seen(norm)
            if found is None:
                return True
            if spikes.policy.do == "rollback":
                self._go_back(found, step)
            if spikes.policy.do == "stop":
                raise Stopped(
                    f"{found}, at step {step} of stage `{self.job.stage}`",
                    "look at the data of that step, lower the learning rate, or raise `above`; a "
                    "run that is only resumed continues from the last checkpoint and stops again",
                )
            metrics.tell_spike(step, found)
            return False

        return deciding(self.optimizers, take)

    def _go_back(self, spike: Spike, step: int) -> NoReturn:
        """
        Raises:
            RollBack: always, but
            Stopped: the job has gone back as often as it may.
        """
        if len(self.rollbacks) >= self.job.rollbacks:
            raise Stopped(
                f"{spike}, at step {step} of stage `{self.job.stage}`, and training has already "
                f"gone back {counted(len(self.rollbacks), 'times')}",
                "lower the learning rate, look at the data, or raise `at_most` of `spikes` and run "
                "again: everything finished so far is kept",
            )
        to = self.job.first_step + self.checkpoints.before(self.step - 1)
        raise RollBack(Rollback(len(self.rollbacks) + 1, step, to), spike)

    def roll_back(self, back: RollBack) -> None:
        """Removes the checkpoints that a rollback leaves behind, and tells of it; on all ranks."""
        self.wait_at_most(self.config.comm.init_timeout_seconds)
        # A run that is killed before it is told comes to the same spike again.
        self.checkpoints.roll_back(back.rollback.to - self.job.first_step)
        cast(Metrics, self.metrics_processor).tell_rollback(back.rollback, back.spike)

    def forward_backward_step(self, **arguments: Any) -> torch.Tensor:
        cast(Metrics, self.metrics_processor).learned = arguments["global_valid_tokens"]
        loss = super().forward_backward_step(**arguments)
        if self.router_losses is not None:
            self.router_losses.learned()
        return loss

    @property
    def batch_mesh(self) -> DeviceMesh | None:
        """The mesh of the ranks that have different data, if there are several."""
        return self.parallel_dims.get_mesh("batch") if self.parallel_dims.dp_enabled else None

    def post_dataloading_process(
        self, input_dict: dict[str, torch.Tensor], labels: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, dict[str, Any]]:
        """torchtitan's method, with the masks that DocumentAttention takes.

        For rows of records (see `rows`), the entry `record` says what the model is asked.
        """
        if "segments" in input_dict:
            return self._record_rows(dict(input_dict), labels)
        inputs, labels, kwargs = super().post_dataloading_process(input_dict, labels)
        if self._masked:
            kwargs["attention_masks"] = of_documents(
                input_dict["positions"], self.job.model.window, dense=self.config.compile.enable
            )
        return inputs, labels, kwargs

    def _record_rows(
        self, record: dict[str, torch.Tensor], labels: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, dict[str, Any]]:
        tokens, positions = record.pop("input"), record.pop("positions")
        segments, prefixes = record.pop("segments"), record.pop("prefixes")
        inputs, labels, kwargs = super().post_dataloading_process({"input": tokens}, labels)
        window = self.job.model.window
        if self._masked:
            # A compiled layer would be compiled again for every other set of spans.
            dense = self.config.compile.enable
            masks: Any = of_segments(segments, prefixes, positions, window, dense=dense)
        else:
            attention = cast(Any, self.model_config).first_attention
            size = attention.inner_attention.block_size
            masks = segment_blocks(segments, prefixes, positions, window, size)
        kwargs |= {"positions": positions, "attention_masks": masks, "record": record}
        return inputs, labels, kwargs

    def _forward_backward_body(
        self,
        inputs: torch.Tensor,
        labels: torch.Tensor,
        global_valid_tokens: torch.Tensor,
        extra_kwargs: dict[str, Any],
    ) -> torch.Tensor:
        if "record" not in extra_kwargs:
            return super()._forward_backward_body(inputs, labels, global_valid_tokens, extra_kwargs)
        with self.train_context():
            said = self._ask(inputs, extra_kwargs)
            loss, _ = self.loss_fn(said, labels, global_valid_tokens, **extra_kwargs["record"])
            loss.backward()
        return loss

    def pp_forward_backward_step(self, **micro_batches: Any) -> torch.Tensor:
        total = super().pp_forward_backward_step(**micro_batches)
        if loss := reported(self.loss_fn):
            chunks = getattr(self.loss_fn, "num_chunks", 1)
            loss.keep_last(len(micro_batches["label_mbs"]) * chunks)
        return total

    @torch.no_grad()
    def say(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """The model's outputs for rows of records, without training: float32, shape (N,)."""
        batch = {name: tensor.to(self.device) for name, tensor in batch.items()}
        inputs, _, kwargs = self.post_dataloading_process(batch, torch.zeros_like(batch["input"]))
        with self.train_context():
            return self._ask(inputs, kwargs)

    def _ask(self, inputs: torch.Tensor, kwargs: dict[str, Any]) -> torch.Tensor:
        asked = kwargs["record"]
        return self.model_parts[0](
            inputs,
            positions=kwargs["positions"],
            attention_masks=kwargs["attention_masks"],
            places=asked["places"],
            targets=asked.get("targets"),
            likely=self._likely,
        )

    def save_result(self, folder: Path) -> None:
        """Writes `state`, `weights` if they are a mean or have adapters merged into them, and
        `positions.json` into `folder`, which then exists complete or not at all."""
        partial = folder.with_suffix(".partial")
        if dist.get_rank() == 0 or has_own_folder(partial):
            shutil.rmtree(partial, ignore_errors=True)
        dist.barrier()
        mean, converters = self.mean, self.job.torchtitan.get(ADAPTER)
        weights = None
        if mean is not None and mean.count:
            weights = mean.mean.copy
        elif converters:
            # A second copy of the weights might not fit in memory.
            weights = functools.partial(
                merge, self.checkpoints.states[MODEL].state_dict(), converters
            )
        self.checkpoints.save_result(partial, weights)
        if dist.get_rank() == 0:
            positions = json.dumps(self.loader.positions(), indent=1)
            with writing(partial):
                write(partial / "positions.json", positions + "\n")
                move(partial, folder)
        dist.barrier()


class _Trained(Exception):
    """A job has done all its steps."""


_LAYOUTS: dict[tuple[int | str, ...], tuple[Any, ParallelDims]] = {}
"""Degrees → the layout, behind torch's first process group when it was made."""
_used: list[ParallelDims] = []
"""The layout of the last job."""
