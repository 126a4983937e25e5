"""The checkpoints of a train job: its starting point, intermediate ones, and its result."""

import shutil
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import (
    AsyncCheckpointerType,
    AsyncSaveResponse,
    async_save,
    save,
)
from torchtitan.components.checkpointer.base import MODEL, OPTIMIZER
from torchtitan.components.checkpointer.dcp import AsyncMode, CheckpointManager

from ....compiler.values import Saving
from ...errors import RunError
from ...run_folder.patience import wait_for
from ...run_folder.ran import in_words, starts
from ...run_folder.saved import SUMS, step_of, steps_saved
from ..adapters import is_adapter
from ..border import hosts
from ..process import as_rank_0_sees
from .checksums import Writer, damage, is_whole
from .lazy_reader import CheckpointReader, PlainPlanner
from .storage import (
    AVERAGE,
    EVALUATIONS,
    HEAD,
    METADATA,
    model_tensors,
    reading,
    writing,
)
from .stored import (
    copy_stored,
    drop_stored,
    has_own_folder,
    remove_stored,
    send_steps,
    settle_removals,
    take_named,
    take_stored,
)


@dataclass(frozen=True)
class Start:
    """The checkpoint that a job begins with, and what it loads besides the weights."""

    path: Path
    optimizer: bool
    average: bool
    headless: bool = False
    """Whether to skip a head of another shape: a reward model begins as a language model."""


SELDOM = 10
"""Of the checkpoints for rollbacks, every so many are kept for longer: the last two of them."""


@dataclass(frozen=True)
class Policy:
    """When a job writes checkpoints, and which of them it keeps.

    Attributes:
        first_step: the stage's step at which the job begins.
        bytes: about the size of one.
        back: steps of the job between those that a rollback can go back to; 0: there is none.
    """

    saving: Saving
    first_step: int = 0
    bytes: int = 0
    back: int = 0

    def is_mark(self, step: int) -> bool:
        """Whether the checkpoint of a step is kept, however old it is."""
        marks = self.saving.marks
        return marks is not None and (self.first_step + step) % marks == 0

    def stays(self, step: int) -> bool:
        """Whether the checkpoint of a step is still there when the job is done."""
        return self.saving.last is None or self.is_mark(step)

    def is_due(self, step: int, seconds: float) -> bool:
        """Whether a checkpoint is due after a step, `seconds` after the last one."""
        every, wait = self.saving.every, self.saving.seconds
        by_steps = every is not None and step % every == 0
        by_clock = wait is not None and seconds >= wait
        to_go_back = self.back > 0 and step % self.back == 0
        return by_steps or by_clock or to_go_back or self.is_mark(step)

    def before(self, step: int) -> int:
        """The step of the job to which a rollback at a step goes back, `back` steps or more."""
        return max(step // self.back - 1, 0) * self.back

    def _may_be_needed(self, step: int, newest: int) -> bool:
        """Whether a rollback after the newest checkpoint may go back to that of a step, or further
        ones that follow at once: a second finds its own, and later ones one that is not far."""
        if self.back == 0 or step % self.back:
            return False
        nearest, apart = self.before(newest), SELDOM * self.back
        return step >= nearest - self.back or (step % apart == 0 and step > nearest - 2 * apart)

    def stale(self, steps: list[int]) -> list[int]:
        """The steps, of those with checkpoints (oldest first), whose checkpoints to remove."""
        last = self.saving.last
        if last is None:
            return []
        return [
            step
            for step in steps[:-last]
            if not self.is_mark(step) and not self._may_be_needed(step, steps[-1])
        ]


class Checkpoints(CheckpointManager):
    """torchtitan's checkpoints, each a folder `step-N` that counts once its checksums are written.

    They are written in the background: training continues once everything is copied. If writing
    one fails or is interrupted, the previous one is unaffected.

    Raises:
        Stopped: the disk cannot take a checkpoint; the earlier ones are unaffected.
        RunError: a checkpoint is damaged or does not fit the job.
    """

    @dataclass(kw_only=True, slots=True)
    class Config(CheckpointManager.Config):
        start: Start | None = None
        policy: Policy
        tell: Callable[[str], None] = print

    def __init__(self, config: Config, **kwargs: Any) -> None:
        self._mode = AsyncMode(config.async_mode)
        # torchtitan would create a process group per job, which lasts as long as the process.
        config.async_mode = AsyncMode.DISABLED.value
        super().__init__(config, **kwargs)
        self.async_mode = self._mode
        self.pg = hosts("saving")
        self._start = config.start
        self._policy = config.policy
        self._tell = config.tell
        self._saved_at = time.monotonic()
        self._pending: Path | None = None
        self.border: Callable[[], None] = lambda: None
        """Called between two steps."""
        self.held: Callable[[], int | None] = lambda: None
        """Returns the step whose checkpoint must stay, however old it is."""

    # When

    def save(self, curr_step: int, last_step: bool = False) -> bool:
        """torchtitan's loop calls this after every step; the job's last one ends with its result.

        Returns: False: what the border writes is none of the loop's business.
        """
        if not last_step:
            self.border()
        return False

    def before(self, step: int) -> int:
        """The step of the job to which a rollback at a step goes back."""
        return self._policy.before(step)

    def write(self, step: int) -> None:
        """Begins to write a checkpoint."""
        self._save(step)

    def is_due(self, step: int) -> bool:
        """Whether a checkpoint is due after a step, according to this rank's clock."""
        if self.save_future is not None and self.save_future.done():
            self._settle()
        return self._policy.is_due(step, time.monotonic() - self._saved_at)

    def save_and_wait(self, step: int) -> None:
        """Writes a checkpoint and waits for it, on all ranks."""
        self._settle()
        if dist.get_rank() == 0:
            send_steps(Path(self.folder))
        path = Path(self._create_checkpoint_id(step))
        with self._writing(path):
            self.dcp_save(self._flattened_model_states_sd(), str(path), AsyncMode.DISABLED)
        self._purge()

    def _should_save(self, curr_step: int, last_step: bool = False) -> bool:
        """Always true: the trainer asks whether a checkpoint is due."""
        return True

    def _save(self, curr_step: int, last_step: bool = False) -> bool:
        self._settle()
        self._saved_at = time.monotonic()
        if dist.get_rank() == 0:
            send_steps(Path(self.folder))
        path = Path(self._create_checkpoint_id(curr_step))
        with self._writing(path):
            saved = super()._save(curr_step, last_step)
        self._pending = path
        if self.save_future is None:
            self._settle()
        return saved

    def _settle(self) -> None:
        """Waits for the checkpoint being written, and removes those that are not kept."""
        if self._pending is None:
            return
        path, self._pending = self._pending, None
        # Report a failure only once.
        future, self.save_future = self.save_future, None
        if future is not None:
            with self._writing(path):
                future.result()
        self._purge()

    def _purge_stale_checkpoints(self) -> None:
        """Does nothing: the newest is not complete before `_settle`."""

    def _purge(self) -> None:
        if dist.get_rank() != 0:
            # Of those that this node has, rank 0 knows which are complete, and has removed stale
            # ones from the store.
            if has_own_folder(Path(self.folder)):
                here = sorted(map(step_of, Path(self.folder).glob("step-*")))
                for step in self._stale(here):
                    shutil.rmtree(self._path(step), ignore_errors=True)
        else:
            for step in self._stale(self._whole()):
                path = self._path(step)
                # Half a checkpoint must not look complete.
                (path / SUMS).unlink(missing_ok=True)
                self.purge_queue.put(str(path))
                remove_stored(path)

    def _stale(self, steps: list[int]) -> list[int]:
        return [step for step in self._policy.stale(steps) if step != self.held()]

    def _close(self) -> None:
        # A process that continues waits for its writes. One of several does not: they all end, and
        # another may be lost already.
        if self.save_future is not None and dist.get_world_size() == 1:
            with suppress(Exception, CheckpointException):
                self.save_future.result()
        self._pending = None
        super()._close()

    # How

    @torch.no_grad()
    def dcp_save(
        self,
        state_dict: dict[str, Any],
        checkpoint_id: str,
        async_mode: AsyncMode,
        enable_garbage_collection: bool = False,
        to_hf: bool = False,
    ) -> Any:
        """torchtitan's method, with checksums."""
        writer = Writer(checkpoint_id)
        if async_mode == AsyncMode.DISABLED:
            return save(state_dict, storage_writer=writer)
        if async_mode == AsyncMode.ASYNC_WITH_PINNED_MEM:
            response = async_save(
                state_dict,
                storage_writer=writer,
                process_group=self.pg,
                async_checkpointer_type=AsyncCheckpointerType.PROCESS,
                async_stager=self.stager,
            )
            assert isinstance(response, AsyncSaveResponse)
            return response
        stager = DefaultStager(StagingOptions(False, False, False, False))
        future: Any = async_save(
            state_dict, storage_writer=writer, process_group=self.pg, async_stager=stager
        )
        future.add_done_callback(lambda _: stager.close())
        return future

    @torch.no_grad()
    def dcp_load(
        self, state_dict: dict[str, Any], checkpoint_id: str, from_hf: bool, from_quantized: bool
    ) -> None:
        """torchtitan's method, for files that may be in a store."""
        load(state_dict, storage_reader=CheckpointReader(checkpoint_id), planner=PlainPlanner())
        if MODEL in self.states:
            self.states[MODEL].load_state_dict(state_dict)

    def save_result(
        self, folder: Path, weights: Callable[[], dict[str, torch.Tensor]] | None
    ) -> None:
        """Writes all states into `folder/state`, then what `weights` returns into `folder/weights`,
        and moves the checkpoints that are kept into `folder/checkpoints`."""
        self._settle()
        parts: dict[str, Callable[[], dict[str, Any]]] = {"state": self._flattened_model_states_sd}
        if weights is not None:
            parts["weights"] = weights
        for name, states in parts.items():
            with self._writing(folder / name):
                self.dcp_save(states(), str(folder / name), AsyncMode.DISABLED)
        if dist.get_rank() == 0:
            for step in filter(self._policy.stays, self._whole()):
                target = folder / "checkpoints" / f"step-{self._policy.first_step + step}"
                target.parent.mkdir(exist_ok=True)
                copy_stored(self._path(step), target)
                self._path(step).rename(target)

    # Where from

    def _load(self, step: int = -1) -> bool:
        """Loads the newest checkpoint of the job itself, or else the one that it begins with."""
        self._saved_at = time.monotonic()
        own = self._newest_whole()
        if own is not None:
            path = self._path(own)
            states = self.states
            help = self._elsewhere(own) + (
                f"remove {path}; the job then resumes from the checkpoint before it"
            )
        elif self._start is None:
            return False
        else:
            path = self._start.path
            wanted = {MODEL: True, OPTIMIZER: self._start.optimizer, AVERAGE: self._start.average}
            states = {name: self.states[name] for name, take in wanted.items() if take}
            help = f"remove {path.parent}; the next run rebuilds it"
            if as_rank_0_sees(lambda: is_whole(path)) and (wrong := _damage_seen_by_any(path)):
                raise RunError(f"the checkpoint {path} is damaged: {wrong}", help)
        if dist.get_rank() != 0:
            wait_for([path / METADATA], dist.get_rank())
        with reading(path, help):
            wanted_states = self._flattened_model_states_sd(states)
            if own is None and self._start is not None:
                self._check_head(wanted_states, path, self._start.headless)
                _without_new_adapters(wanted_states, path)
            if own is not None:
                _without_unsaved_evaluations(wanted_states, path)
            self._load_states(wanted_states, path)
        # Only now is it known which checkpoint is held.
        self._purge()
        return True

    def _load_states(self, states: dict[str, Any], path: Path) -> None:
        self.dcp_load(states, checkpoint_id=str(path), from_hf=False, from_quantized=False)

    def go_back(self, step: int) -> None:
        """Loads an earlier checkpoint of the job, on all ranks.

        Raises: RunError: it is damaged.
        """
        self._settle()
        path = self._path(step)
        help = f"remove {path.parent}; the job then trains from its beginning"
        if wrong := _damage_seen_by_any(path):
            raise RunError(f"the checkpoint {path} is damaged: {wrong}", help)
        if dist.get_rank() != 0:
            wait_for([path / METADATA], dist.get_rank())
        states = {name: state for name, state in self.states.items() if name != EVALUATIONS}
        with reading(path, help):
            self._load_states(self._flattened_model_states_sd(states), path)

    def roll_back(self, step: int) -> None:
        """Removes the checkpoints after a step of the job, on all ranks, for good."""
        self._settle()
        dist.barrier(group=self.pg)
        if dist.get_rank() == 0:
            for path in Path(self.folder).glob("step-*"):
                if step_of(path) > step:
                    # Half a checkpoint must not look complete.
                    (path / SUMS).unlink(missing_ok=True)
                    shutil.rmtree(path, ignore_errors=True)
            drop_stored(Path(self.folder), step)
        dist.barrier(group=self.pg)

    def _newest_whole(self) -> int | None:
        """The step of the newest undamaged checkpoint; rank 0 removes incomplete and newer ones."""
        if dist.get_rank() == 0:
            take_stored(Path(self.folder).parent)
        found = [self._whole()]
        dist.broadcast_object_list(found, group=self.pg)
        whole, good = found[0], None
        steps = [*whole]
        while steps and good is None:
            step = steps.pop()
            wrong = _damage_seen_by_any(self._path(step))
            if not wrong:
                good = step
            elif dist.get_rank() == 0:
                where = f"from step {steps[-1]} of the job" if steps else "from the job's beginning"
                self._tell(f"the checkpoint {self._path(step)} is damaged: {wrong}; going {where}")
        if dist.get_rank() == 0:
            for path in Path(self.folder).glob("step-*"):
                if good is None or step_of(path) > good or not is_whole(path):
                    shutil.rmtree(path, ignore_errors=True)
                    remove_stored(path)
        elif has_own_folder(Path(self.folder)):
            for path in Path(self.folder).glob("step-*"):
                if good is None or step_of(path) > good or step_of(path) not in whole:
                    shutil.rmtree(path, ignore_errors=True)
        settle_removals(Path(self.folder))
        dist.barrier(group=self.pg)
        return good

    def _whole(self) -> list[int]:
        """The steps of the finished checkpoints, oldest first."""
        return steps_saved(Path(self.folder))

    def _path(self, step: int) -> Path:
        return Path(self._create_checkpoint_id(step))

    def _elsewhere(self, step: int) -> str:
        """What to do about a checkpoint written on other ranks; "" if it was not.

        DCP reshards checkpoints for other ranks; if that ever fails, nothing is lost.
        """
        found = starts(Path(self.folder).parent)
        wrote = [start for start in found if start["from_step"] < step]
        if not wrote or in_words(wrote[-1]) == in_words(found[-1]):
            return ""
        return (
            f"it was written on {in_words(wrote[-1])}, and this run has {in_words(found[-1])}: run "
            "there again, where nothing is lost. If that cannot read it either, "
        )

    def _check_head(self, states: dict[str, Any], path: Path, headless: bool) -> None:
        """Skips a head of another shape when loading, if requested."""
        theirs = model_tensors(path).get(HEAD)
        if HEAD not in states or theirs is None or theirs.size == states[HEAD].shape:
            return
        if headless:
            del states[HEAD]
        elif theirs.size[0] == 1:
            raise RunError(
                f"the checkpoint {path} belongs to a reward model",
                "begin the stage with a language model",
            )

    def _writing(self, path: Path) -> AbstractContextManager[None]:
        """Where a checkpoint is written, which the disk may not take."""
        steps = self._whole()
        onwards = f"from step {steps[-1]} of the job" if steps else "from the job's beginning"
        return writing(path, f"it continues {onwards}", self._policy.bytes)


def _without_new_adapters(states: dict[str, Any], path: Path) -> None:
    """Leaves out the adapters that a checkpoint does not have: they stay as they were drawn."""
    theirs = model_tensors(path)
    for name in [name for name in states if is_adapter(name) and name not in theirs]:
        del states[name]


def _without_unsaved_evaluations(states: dict[str, Any], path: Path) -> None:
    """Leaves out what evaluations have found, if there were none when the checkpoint was made."""
    saved = CheckpointReader(path).read_metadata().state_dict_metadata
    if not any(name.startswith(f"{EVALUATIONS}.") for name in saved):
        states.pop(EVALUATIONS, None)


def _damage_seen_by_any(path: Path) -> str:
    """What is wrong with a checkpoint's files, divided among the ranks; the same on all ranks."""
    rank, ranks = dist.get_rank(), dist.get_world_size()
    if rank != 0:
        take_named(path)
        wait_for([path / SUMS], rank)
    found: list[Any] = [None] * ranks
    dist.all_gather_object(found, damage(path, rank, ranks), group=hosts("saving"))
    return next(filter(None, found), "")
