"""Teacher jobs: what a model finds likely at each place at which a token is learned."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.distributed as dist

from ....compiler.plan.plan import TeacherJob
from ...data.order.packing import learned
from ...data.records.shards import BEGINS, TOP, Records
from ..train import input_of, read_records
from .forward import run
from .walk import Walk

if TYPE_CHECKING:
    from ..metrics import OnEvent
    from ..records.rows import Row
    from ..trainer import Trainer


def teach(
    job: TeacherJob,
    inputs: Mapping[str, Path],
    folder: Path,
    *,
    root: Path,
    on_event: "OnEvent",
) -> None:
    """Writes `result/top.npy` and `result/begins.npy`; all ranks call this together.

    `top.npy` has, for each place of all records at which a token is learned, one after the other,
    the log-probabilities (nats) of the teacher's `top_k` likeliest tokens, the likeliest first, and
    then their ids: float32, shape (places, 2 K). `begins.npy` says where each record begins in it:
    int64, shape (records + 1,).

    Args:
        inputs: role → folder: "data:<source>" (dialogs) and "model".

    Other arguments and errors are those of `forward.reference`; `done` and `of` count dialogs.
    """

    def work(trainer: "Trainer", partial: Path) -> None:
        from ..loader import check_vocab
        from ..records.rows import ask_tokens, check_length, dialog_row

        records = read_records(input_of(inputs, f"data:{job.source}"), job.form, job.source)
        sizes = _sizes(records, every_token=job.every_token)

        def rows(number: int) -> Sequence["Row"]:
            record = records.record(number)
            check_length(len(record.tokens), job.seq_len, job.source, number)
            check_vocab(record.tokens, job.source, job.model.vocab)
            return [dialog_row(record, every_token=job.every_token)]

        def ask(given: Sequence["Row"], width: int) -> dict[str, torch.Tensor]:
            asked = ask_tokens(given, width, "none")
            return {name: asked[name] for name in ("places", "counts")}

        shape = (int(sizes.sum()), 2 * job.top_k)
        first = dist.get_rank() == 0
        found = (
            np.lib.format.open_memmap(partial / TOP, "w+", np.float32, shape)
            if first
            else np.zeros(shape, np.float32)  # never touched, and so not in memory
        )
        Walk(trainer, job, folder, on_event, ask).each("train", sizes, rows, into=found)
        if first:
            np.save(partial / BEGINS, np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64))
            found.flush()  # pyright: ignore[reportAttributeAccessIssue]

    run(job, inputs, folder, root, on_event, work)


def _sizes(records: Records, *, every_token: bool) -> np.ndarray:
    """How many tokens of each record are learned: int64, shape (records,)."""
    parts = (records.record(number).parts for number in range(records.count))
    return np.array([learned(of, every_token=every_token).sum() for of in parts], np.int64)
