"""The checkpoints of a train job: the one that it begins with, those inside it, and its result."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torchtitan.components.checkpointer.base import MODEL, OPTIMIZER
from torchtitan.components.checkpointer.dcp import AsyncMode, CheckpointManager

from ..errors import RunError
from ..run_folder.ran import in_words, starts
from .storage import AVERAGE, HEAD, model_tensors, reading, writing


@dataclass(frozen=True)
class Start:
    """The checkpoint that a job begins with, and what of it besides the weights."""

    path: Path
    optimizer: bool
    average: bool
    headless: bool = False
    """Whether a head of another shape is left out: a reward model begins as a language model."""


class Checkpoints(CheckpointManager):
    """torchtitan's checkpoints, each a folder `step-N` that counts once its `.metadata` is there.

    Raises:
        Stopped: the disk does not take a checkpoint; the earlier ones are as they were.
        RunError: a checkpoint is damaged or does not fit the job.
    """

    @dataclass(kw_only=True, slots=True)
    class Config(CheckpointManager.Config):
        start: Start | None = None

    def __init__(self, config: Config, **kwargs: Any) -> None:
        super().__init__(config, **kwargs)
        self._start = config.start

    def _load(self, step: int = -1) -> bool:
        """Loads the newest checkpoint of the job itself, or else the one that it begins with."""
        own = self._find_load_step()
        if own >= 0:
            path = Path(self._create_checkpoint_id(own))
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
        with reading(path, help):
            wanted_states = self._flattened_model_states_sd(states)
            if own < 0 and self._start is not None:
                self._check_head(wanted_states, path, self._start.headless)
            self.dcp_load(
                wanted_states,
                checkpoint_id=str(path),
                from_hf=False,
                from_quantized=False,
            )
        return True

    def _elsewhere(self, step: int) -> str:
        """What to do about a checkpoint that was written on other ranks; "" for one that was not.

        DCP cuts checkpoints anew for other ranks; should it ever not, nothing is lost.
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
        """Leaves a head of another shape out of what is loaded, where that is wanted."""
        theirs = model_tensors(path).get(HEAD)
        if HEAD not in states or theirs is None or theirs.size == states[HEAD].shape:
            return
        if headless:
            del states[HEAD]
        elif theirs.size[0] == 1:
            raise RunError(
                f"the checkpoint {path} is that of a reward model",
                "begin the stage with a language model",
            )

    def is_due(self, step: int) -> bool:
        """Whether a checkpoint is due after a step."""
        return step % self.interval == 0

    def save_and_wait(self, step: int) -> None:
        """Writes a checkpoint to its end, on all ranks."""
        self.save(step)
        self.maybe_wait_for_saving()

    def _should_save(self, curr_step: int, last_step: bool = False) -> bool:
        """Always: the trainer asks where a checkpoint is due."""
        return True

    def _save(self, curr_step: int, last_step: bool = False) -> bool:
        with writing(Path(self._create_checkpoint_id(curr_step)), self._help()):
            return super()._save(curr_step, last_step)

    def save_result(self, folder: Path, mean: dict[str, torch.Tensor] | None) -> None:
        """Writes all states into `folder/state`, and `mean` into `folder/weights`."""
        self.maybe_wait_for_saving()
        parts: dict[str, dict[str, Any]] = {"state": self._flattened_model_states_sd()}
        if mean is not None:
            parts["weights"] = dict(mean)
        for name, states in parts.items():
            with writing(folder / name, self._help()):
                self.dcp_save(states, str(folder / name), AsyncMode.DISABLED)

    def _help(self) -> str:
        last = self._find_load_step()
        onwards = f"from step {last} of the job" if last >= 0 else "from the job's beginning"
        return f"make room on the disk and run again: it continues {onwards}"
