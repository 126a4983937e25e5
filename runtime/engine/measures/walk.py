"""Walks over the rows of a split, chunk by chunk, to collect what a model says of them.

The chunks depend only on the data. Each chunk's results are kept in a file, so that a killed job
continues with the chunk that it had begun.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial as bound
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
import torch.distributed as dist

from ....compiler.costs.reading import CHUNK
from ....compiler.plan.plan import ForwardJob, TrainJob
from ...disk import write_by
from ...stopping import interrupted
from ..border import agree

if TYPE_CHECKING:
    from ..metrics import OnEvent
    from ..records.rows import Row
    from ..trainer import Trainer

CHUNKS = "chunks"

Ask = Callable[[Sequence["Row"], int], dict[str, torch.Tensor]]
Make = Callable[[int], Sequence["Row"]]


class Said(NamedTuple):
    """What the model says of some rows of a chunk.

    Attributes:
        rows: this rank's rows, with the numbers of their items in the chunk.
        values: of all responses, one after the other: float32, on the CPU.
        counts: how many values each response has: int64.
    """

    rows: Sequence[tuple[int, "Row"]]
    values: torch.Tensor
    counts: torch.Tensor


class Walk:
    """Collects a model's outputs over the responses in the rows of a split, chunk by chunk."""

    def __init__(
        self,
        trainer: "Trainer",
        job: ForwardJob,
        folder: Path,
        on_event: "OnEvent",
        ask: Ask,
    ) -> None:
        """
        Args:
            ask: what to ask the model about the rows of a batch, padded to this many tokens:
                `places`, `targets` if it has an output of tokens, and `counts`, the number of
                values of each response.
        """
        self._trainer = trainer
        self._job = job
        self._folder = folder / CHUNKS
        self._on_event = on_event
        self._ask = ask

    def over(self, split: str, count: int, make: Make, responses: int) -> np.ndarray:
        """
        Args:
            split: name of the chunks' files.
            count: how many items there are.
            make: returns the rows of an item, each with at most `responses` responses.

        Returns:
            For each item and response, the sum of the model's outputs (cross-entropies in nats, or
            scores) and the number of values: float64, shape (count, 2, responses); on rank 0,
            zeros elsewhere.
        """
        found = np.zeros((count, 2, responses))
        begins = range(0, count, CHUNK)
        parts = [found[begin : begin + CHUNK] for begin in begins]
        self._fill(split, count, parts, make, self._sums)
        return found

    def each(
        self, split: str, sizes: np.ndarray, make: Make, into: np.ndarray | None = None
    ) -> np.ndarray:
        """
        Args:
            split: name of the chunks' files.
            sizes: how many values each item has: int64, shape (items,).
            make: returns the rows of an item.
            into: where the outputs go, of shape (Σ sizes, …) if each of them is several numbers; by
                default a new array, float64, shape (Σ sizes,).

        Returns:
            The model's outputs for all items, one after the other; on rank 0, zeros elsewhere.
        """
        count = len(sizes)
        ends = np.concatenate([[0], np.cumsum(sizes)])
        found = np.zeros(int(ends[-1])) if into is None else into
        borders = [int(ends[min(place, count)]) for place in range(0, count + CHUNK, CHUNK)]
        parts = [found[begin:end] for begin, end in pairwise(borders)]

        def values(
            rows: Sequence[tuple[int, "Row"]], shape: tuple[int, ...], begin: int
        ) -> torch.Tensor:
            kind = torch.float64 if into is None else torch.float32
            found = torch.zeros(shape, dtype=kind)
            self._values(rows, found, ends[begin : begin + CHUNK] - ends[begin])
            return found

        self._fill(split, count, parts, make, values)
        return found

    def _fill(
        self,
        split: str,
        count: int,
        parts: Sequence[np.ndarray],
        make: Make,
        collect: Callable[[Sequence[tuple[int, "Row"]], tuple[int, ...], int], torch.Tensor],
    ) -> None:
        """Fills the results of all chunks, on rank 0: from their files, or from the model.

        Args:
            parts: the results of each chunk.
            collect: what the model says of the rows of a chunk, of the shape of its results;
                each rank has its share, and zeros elsewhere. Its last argument is the chunk's
                first item.
        """
        rank = dist.get_rank()
        begins = range(0, count, CHUNK)
        paths = [self._folder / f"{split}-{begin:012}.npy" for begin in begins]
        # Only rank 0 looks at the files, so that all ranks continue from the same chunk.
        done = [[_chunk(path, part) for path, part in zip(paths, parts, strict=True)]]
        dist.broadcast_object_list(done)
        for begin, path, part, known in zip(begins, paths, parts, done[0], strict=True):
            items = min(CHUNK, count - begin)
            if not known:
                rows = [(item, row) for item in range(items) for row in make(begin + item)]
                values = together(self._trainer, collect(rows, part.shape, begin))
                if rank == 0:
                    part[:] = values
                    write_by(path, bound(np.save, arr=part))
            if rank == 0:
                self._on_event(
                    {
                        "event": "progress",
                        "job": self._job.id,
                        "stage": self._job.stage,
                        "done": begin + items,
                        "of": count,
                    }
                )

    def _sums(
        self, rows: Sequence[tuple[int, "Row"]], shape: tuple[int, ...], begin: int
    ) -> torch.Tensor:
        """The sums of each response, and how many values it has."""
        return sums(self._said(rows), shape)

    def _values(
        self, rows: Sequence[tuple[int, "Row"]], found: torch.Tensor, begins: np.ndarray
    ) -> None:
        """All values, item by item; items have one row with one response.

        Args:
            found: gets them.
            begins: where the values of each item begin.
        """
        for of in self._said(rows):
            pieces = of.values.to(found.dtype).split(of.counts.tolist())
            for (item, _), piece in zip(of.rows, pieces, strict=False):
                found[int(begins[item]) : int(begins[item]) + len(piece)] = piece

    def _said(self, rows: Sequence[tuple[int, "Row"]]) -> Iterator[Said]:
        """What the model says of this rank's rows of a chunk.

        Raises: Interrupted: a rank was asked to stop.
        """

        def border() -> None:
            if stop := agree().stop:
                raise interrupted(
                    stop, f"`{self._job.id}` continues with the chunk that it was working on"
                )

        return said(self._trainer, self._job, rows, self._ask, border)


def said(
    trainer: "Trainer",
    job: ForwardJob | TrainJob,
    rows: Sequence[tuple[int, "Row"]],
    ask: Ask,
    border: Callable[[], None] = lambda: None,
) -> Iterator[Said]:
    """What the model of a job says of this rank's rows, batch by batch, longest first.

    Args:
        rows: of all ranks, with the numbers of their items.
        border: called before each batch.
    """
    from ..records.rows import collate, row_multiple

    multiple, mesh = row_multiple(job.resources), trainer.batch_mesh
    rank, ranks = (mesh.get_local_rank(), mesh.size()) if mesh is not None else (0, 1)
    room = trainer.config.training.local_batch_size * job.seq_len
    rows = sorted(rows, key=lambda each: -len(each[1].tokens))
    first = 0
    while first < len(rows):
        border()
        length = len(rows[first][1].tokens)
        here = max(room // (-(-length // multiple) * multiple), 1)
        own = rows[first + rank * here : first + (rank + 1) * here]
        # A rank without rows takes part too, because the ranks compute together.
        given = [row for _, row in own or rows[first : first + 1]]
        batch = collate(given, multiple, length)
        batch |= ask(given, batch["input"].shape[1])
        yield Said(own, trainer.say(batch).cpu(), batch["counts"])
        first += here * ranks


def sums(every: Iterable[Said], shape: tuple[int, ...]) -> torch.Tensor:
    """The sums of each response, and how many values it has: float64, of the shape (items, 2,
    responses)."""
    from ..objectives import sums_of

    found = torch.zeros(shape, dtype=torch.float64)
    for of in every:
        values, counts = sums_of(of.values, of.counts).tolist(), of.counts.tolist()
        for item, row in of.rows:
            for response in range(len(row.parts)):
                found[item, 0, response] += values.pop(0)
                found[item, 1, response] += counts.pop(0)
    return found


def together(trainer: "Trainer", found: torch.Tensor) -> np.ndarray:
    """The sum of what the ranks have found."""
    mesh = trainer.batch_mesh
    if mesh is not None:
        found = found.to(trainer.device)
        dist.all_reduce(found, group=mesh.get_group())
    return found.cpu().numpy()


def _chunk(path: Path, part: np.ndarray) -> bool:
    """Reads a chunk's file into `part`, on rank 0; returns whether there is a complete one."""
    if dist.get_rank() != 0:
        return False
    # A file that is missing, or truncated by a crash of the machine, is rebuilt.
    with suppress(OSError, ValueError, EOFError):
        values = np.load(path)
        if values.shape == part.shape:
            part[:] = values
            return True
    return False
