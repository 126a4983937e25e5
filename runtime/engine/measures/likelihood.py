"""Likelihood jobs: log-probabilities of each token of answers, for a policy to learn from."""

from collections.abc import Mapping, Sequence
from functools import partial as bound
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ....compiler.plan.plan import LikelihoodJob
from ...data.records.shards import LIKELIHOOD
from ..inputs import input_of, read_records
from .forward import run, save
from .walk import Walk

if TYPE_CHECKING:
    from ..metrics import OnEvent
    from ..records.rows import Row
    from ..trainer import Trainer


def likelihood(
    job: LikelihoodJob,
    inputs: Mapping[str, Path],
    folder: Path,
    *,
    root: Path,
    on_event: "OnEvent",
) -> None:
    """Writes `result/likelihood.npy`: the log-probability (nats) of each token of all answers, one
    after the other; float32, shape (tokens,). All ranks call this together.

    Args:
        inputs: role → folder: "data:<source>" (rollouts) and "model".

    Other arguments and errors are those of `forward.reference`; `done` and `of` count answers.
    """

    def work(trainer: "Trainer", partial: Path) -> None:
        from ..loader import check_vocab
        from ..records.rows import ask_tokens, check_length, lay_out

        records = read_records(input_of(inputs, f"data:{job.source}"), "rollouts", job.source)

        def rows(number: int) -> Sequence["Row"]:
            record = records.record(number)
            check_length(len(record.tokens), job.seq_len, job.source, number)
            check_vocab(record.tokens, job.source, job.model.vocab)
            return [lay_out(record, [0], "joint")]

        walk = Walk(trainer, job, folder, on_event, bound(ask_tokens, mask="none"))
        sizes = records.branches[:, 1].astype(np.int64)
        found = walk.each("train", sizes, rows)
        save(partial / LIKELIHOOD, (-found).astype(np.float32))

    run(job, inputs, folder, root, on_event, work)
