"""Reads and writes checkpoints (DCP folders), and reports failures."""

import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import torch
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.planner import ReadItem, SavePlanner
from torch.distributed.checkpoint.state_dict_saver import save

from ...disk import KEPT, reasons
from ...errors import RunError, Stopped
from ...stores.remote import METADATA
from .checksums import Writer
from .lazy_reader import CheckpointReader

AVERAGE = "average"
EVALUATIONS = "evaluations"
SPIKES = "spikes"
TRAINING_STATE = (
    *("optimizer", "lr_scheduler", "dataloader", "train_state"),
    *(AVERAGE, EVALUATIONS, SPIKES),
)
"""What a checkpoint holds besides the model, whose weights are at its top level."""

HEAD = "lm_head.weight"
"""The weights that map hidden states to logits, or to a score."""


@contextmanager
def writing(path: Path, kept: str = KEPT, needs: int = 0) -> Iterator[None]:
    """Turns a failure to write a folder with weights into Stopped, and removes what was written.

    Args:
        kept: what is not lost.
        needs: about how many bytes are written, if known.
    """
    try:
        yield
    except (Exception, CheckpointException) as error:
        cause = _cause(error)
        if isinstance(cause, RunError):
            raise cause from error
        # DCP loses the system's own error when it sends errors between ranks.
        found = reasons(cause, path, needs)
        if found is None:
            raise
        shutil.rmtree(path, ignore_errors=True)
        said, do = found
        raise Stopped(f"{path} {said}", f"{do} and run again: {kept}") from error


@contextmanager
def reading(path: Path, help: str) -> Iterator[None]:
    """Turns a failure on a damaged, missing or ill-shaped checkpoint into RunError."""
    try:
        if not (path / METADATA).is_file():
            raise RunError(f"the checkpoint {path} is missing or was never finished", help)
        yield
    except (Exception, CheckpointException) as error:
        cause = _cause(error)
        if isinstance(cause, RunError):
            raise cause from error
        raise RunError(f"the checkpoint {path} cannot be read: {_reason(cause)}", help) from error


def weights_of(artifact: Path) -> Path:
    """The checkpoint of an artifact's model: the mean if there is one."""
    weights = artifact / "weights"
    return weights if weights.is_dir() else artifact / "state"


def model_tensors(path: Path) -> dict[str, TensorStorageMetadata]:
    """Name, shape and dtype of a checkpoint's weights, without its training state."""
    state = tuple(f"{part}." for part in TRAINING_STATE)
    return {
        name: entry
        for name, entry in CheckpointReader(path).read_metadata().state_dict_metadata.items()
        if isinstance(entry, TensorStorageMetadata) and not name.startswith(state)
    }


def read_tensor(path: Path, name: str, entry: TensorStorageMetadata) -> torch.Tensor:
    """One tensor of a checkpoint, whole, without a process group."""
    return Reader(path).tensor(name, entry)


class Reader:
    """Reads tensors of a checkpoint one by one, each whole, without a process group.

    DCP's own `load` keeps each tensor alive in a reference cycle, and rereads the metadata.
    """

    def __init__(self, path: Path) -> None:
        self._reader = CheckpointReader(path)
        self._metadata = self._reader.read_metadata()
        self._reader.set_up_storage_reader(self._metadata, is_coordinator=True)

    def tensor(self, name: str, entry: TensorStorageMetadata) -> torch.Tensor:
        """The tensor of this name."""
        tensor = torch.empty(entry.size, dtype=entry.properties.dtype)
        self._read(name, tensor, DefaultLoadPlanner())
        return tensor

    def add(self, name: str, mean: torch.Tensor, share: float) -> None:
        """Adds a share of the tensor of this name to `mean`, float32 of its shape."""
        self._read(name, mean, _Adding(share))

    def _read(self, name: str, tensor: torch.Tensor, planner: DefaultLoadPlanner) -> None:
        planner.set_up_planner({name: tensor}, self._metadata, is_coordinator=True)
        plan = self._reader.prepare_local_plan(planner.create_local_plan())
        self._reader.read_data(plan, planner).wait()


class _Adding(DefaultLoadPlanner):
    """Adds what is read to the existing tensor, so that only the two are in memory."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self._share = share

    def resolve_tensor(self, read_item: ReadItem) -> Any:
        return _Sum(super().resolve_tensor(read_item), self._share)


class _Sum:
    """Stands for the target tensor: where DCP's reader copies into it, this adds."""

    def __init__(self, tensor: torch.Tensor, share: float) -> None:
        self._tensor = tensor
        self._share = share

    def detach(self) -> Self:
        return self

    def size(self) -> torch.Size:
        return self._tensor.size()

    def copy_(self, read: torch.Tensor) -> None:
        self._tensor.add_(read, alpha=self._share)


def write_tensors(state: dict[str, Any], path: Path, planner: SavePlanner) -> None:
    """Writes a checkpoint, without a process group."""
    with _alone():
        save(state, storage_writer=Writer(path), planner=planner, no_dist=True)


@contextmanager
def _alone() -> Iterator[None]:
    """Suppresses DCP's warning that there is no process group."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled", UserWarning)
        yield


def _cause(error: BaseException) -> BaseException:
    """The first cause from etude or the system, or the error itself if there is none."""
    if isinstance(error, CheckpointException) and error.failures:
        return _cause(next(iter(error.failures.values()))[0])
    seen: BaseException | None = error
    while seen is not None and not isinstance(seen, OSError | RunError):
        seen = seen.__cause__ or seen.__context__
    return seen or error


def _reason(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return str(error).strip().split("\n")[0] or type(error).__name__
