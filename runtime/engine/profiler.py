"""torchtitan's profiler, for chosen steps of a job."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torchtitan.tools import profiler
from torchtitan.tools.logging import logger

from ...compiler.plan.plan import TrainJob
from ..disk import move
from .checkpoints.stored import send_file

WARM_UP = 3
"""Steps that run under the profiler unrecorded before the first one, since its start takes time
itself; torchtitan's default."""
ENDS = {".json.gz": ".trace.json.gz", ".pickle": ".memory.pickle"}
"""How torchtitan's files end → how etude's do: a trace in Chrome's format, and what was allocated
in a GPU's memory (pytorch.org/memory_viz)."""


class Profiler(profiler.Profiler):
    """Records the steps of the job's profile, and nothing if it has none.

    A rank that records writes `rank-R-steps-A-B.trace.json.gz` into `target`, and with `memory` on
    a GPU `rank-R-steps-A-B.memory.pickle`. A and B are the stage's steps that the file has: if the
    job ends or stops within the profile, those so far.
    """

    @dataclass(kw_only=True, slots=True)
    class Config(profiler.Profiler.Config):
        job: TrainJob
        target: Path
        tell: Callable[[dict[str, Any]], None]
        """Gets an event on rank 0: a `note` on what is written, or a `warning`."""

    _config: Config

    def __enter__(self) -> "Profiler":
        job = self._config.job
        asked = job.profile
        self._done = 0
        self._steps = 0
        if asked is None or (asked.ranks == "first" and dist.get_rank() != 0):
            return self
        self._begin = job.first_step + self._global_step  # the stage's step that comes next
        self._first = max(asked.from_step - self._begin, 0)
        self._steps = max(asked.to_step - self._begin - self._first, 0)
        if not self._steps:
            return self
        self._partial = self._config.target.resolve() / f".rank-{dist.get_rank()}"
        warm_up = min(WARM_UP, self._first)
        self._config = replace(
            self._config,
            enable_profiling=True,
            enable_memory_snapshot=asked.memory and profiler.device_module.__name__ != "torch.cpu",
            profiler_skip_first=self._first - warm_up,
            profiler_warmup=warm_up,
            profiler_active=self._steps,
            profile_freq=warm_up + self._steps,
            profiler_repeat=1,
            memory_snapshot_freq=self._steps,
            save_traces_folder=str(self._partial),
            save_memory_snapshot_folder=str(self._partial),
        )
        # Counted from here on: torchtitan takes the first step after a checkpoint for step 0.
        self.torch_profiler = self.build_torch_profiler(**_FROM_HERE)
        self._record_memory()
        return self

    def step(self) -> None:
        self._done += 1
        if not self._steps:
            return
        with self._files():
            super().step()
        self._record_memory()

    def __exit__(self, exc_type: Any, exc_val: Any, exc_tb: Any) -> bool:
        if not self._steps:
            return False
        if exc_val is not None:
            self._done += 1  # the step in which it stopped
        with self._files():
            if self.memory_profiler and not isinstance(exc_val, torch.OutOfMemoryError):
                self.memory_profiler.step(exit_ctx=True)
            recording = self.memory_profiler is not None
            super().__exit__(exc_type, exc_val, exc_tb)
            if recording:
                _forget_memory()
        return False

    def _record_memory(self) -> None:
        """Begins and ends the record of memory with the profile's first and last step."""
        if self._done == self._first:
            self.memory_profiler = self.build_memory_profiler(**_FROM_HERE)
        elif self.memory_profiler and self._done == self._first + self._steps:
            self.memory_profiler = None
            _forget_memory()

    @contextmanager
    def _files(self) -> Iterator[None]:
        """Gives the files that torchtitan writes their names; training goes on without them if the
        disk takes none."""
        try:
            yield
            last = min(self._done, self._first + self._steps)
            first, last = self._begin + self._first, self._begin + last - 1
            name = f"rank-{dist.get_rank()}-steps-{first}-{last}"
            for theirs, own in ENDS.items():
                for path in self._partial.rglob(f"*{theirs}"):
                    target = self._config.target / f"{name}{own}"
                    move(path, target)
                    send_file(target)
                    self._tell("note", f"recorded {target}")
            if last >= first:
                shutil.rmtree(self._partial, ignore_errors=True)
        except OSError as error:
            reason = f"{error.filename or self._config.target}: {error.strerror or error}"
            self._tell("warning", f"the profile cannot be written: {reason}")

    def _tell(self, event: str, message: str) -> None:
        logger.info(message)
        if dist.get_rank() == 0:
            self._config.tell({"event": event, "message": message})


_FROM_HERE: dict[str, Any] = {"global_step": 0, "base_folder": "", "leaf_folder": ""}


def _forget_memory() -> None:
    profiler.device_module.memory._record_memory_history(enabled=None)
