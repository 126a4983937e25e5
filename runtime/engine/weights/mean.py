"""Averaging of models: the weighted mean of several jobs' weights."""

import shutil
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path

import torch
from torch.distributed.checkpoint.default_planner import DefaultSavePlanner
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.planner import WriteItem

from ....compiler.plan.plan import AverageJob
from ... import stopping
from ...disk import move
from ...errors import RunError
from ..checkpoints.storage import Reader, model_tensors, reading, weights_of, write_tensors, writing

AGAIN = "remove the artifact that contains it; the next run rebuilds it"


def average(job: AverageJob, inputs: Mapping[str, Path], folder: Path) -> None:
    """Writes the mean of the models "of.0", "of.1", … of `inputs` into `folder/result/weights`.

    One tensor is in memory at a time. The mean is computed and stored in float32; the job's weights
    are scaled to a sum of one.

    Raises:
        RunError: a model is missing or damaged, or the models have different weights.
        Stopped: the disk cannot take the result.
    """
    result = folder / "result"
    if result.is_dir():
        return
    shares = [Fraction(weight) for weight in job.weights]
    models = []
    for number, share in enumerate(shares):
        path = weights_of(inputs[f"of.{number}"])
        with reading(path, AGAIN):
            models.append((path, model_tensors(path), float(share / sum(shares))))
    first_path, first, _ = models[0]
    for path, tensors, _ in models[1:]:
        if _shapes(tensors) != _shapes(first):
            raise RunError(
                f"the models in {first_path} and {path} have different weights",
                "average only models of the same architecture",
            )
    partial = folder / "result.partial"
    shutil.rmtree(partial, ignore_errors=True)
    with writing(partial):
        # On the meta device, where they take no memory: the planner computes each when writing it.
        mean = {
            name: torch.empty(entry.size, dtype=torch.float32, device="meta")
            for name, entry in first.items()
        }
        planner = _Mean([(path, share) for path, _, share in models], first)
        write_tensors(mean, partial / "weights", planner)
        move(partial, result)


class _Mean(DefaultSavePlanner):
    """Computes each tensor just before DCP writes it."""

    def __init__(
        self,
        models: list[tuple[Path, float]],
        tensors: Mapping[str, TensorStorageMetadata],
    ) -> None:
        super().__init__()
        self._models = models
        self._written: torch.Tensor | None = None
        self._readers = {path: Reader(path) for path, _ in models}
        self._tensors = tensors

    def resolve_data(self, write_item: WriteItem) -> torch.Tensor:
        stopping.check("the mean starts over")
        name = write_item.index.fqn
        # DCP's writer keeps every tensor until the last one is written: free the memory.
        if self._written is not None:
            self._written.untyped_storage().resize_(0)
        mean = torch.zeros(self._tensors[name].size)
        for path, share in self._models:
            with reading(path, AGAIN):
                self._readers[path].add(name, mean, share)
        self._written = mean
        return mean


def _shapes(tensors: Mapping[str, TensorStorageMetadata]) -> dict[str, torch.Size]:
    return {name: entry.size for name, entry in tensors.items()}
