"""Batches of the jobs whose memory is measured: full rows, of one document or record each."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch


def rows() -> Any:
    """A loader of rows of one document each; torchtitan may be imported by now."""
    from torchtitan.components.dataloader import BaseDataLoader

    class Loader(BaseDataLoader):
        """Rows of one document each."""

        @dataclass(kw_only=True, slots=True)
        class Config(BaseDataLoader.Config):
            job: Any

        def __init__(self, config: Any, *, dp_world_size: int, local_batch_size: int, **_: Any):
            self.job, self.batch, self.ranks = config.job, local_batch_size, dp_world_size

        def micro_batches(self, step: int) -> int:
            sequences = self.job.schedule.batch[0].sequences
            return sequences // (self.batch * self.ranks)

        def close(self) -> None: ...

        def state_dict(self) -> dict[str, Any]:
            return {}

        def load_state_dict(self, state_dict: dict[str, Any]) -> None: ...

        def __iter__(self) -> Iterator[Any]:
            from etude.compiler.plan.objectives import makes_logits

            while True:
                if not makes_logits(self.job.objective):
                    yield records(self.job, self.batch)
                    continue
                shape = (self.batch, self.job.seq_len)
                row = torch.zeros(shape, dtype=torch.int64)
                places = torch.arange(self.job.seq_len).expand(shape).contiguous()
                yield {"input": row, "positions": places}, row.clone()

    return Loader


RESPONSES = {"dpo": 2, "reward": 2, "grpo": 1}
"""Of a record, by objective."""
STEPS_OF_ANSWERS = 32
"""Scores of an answer in steps."""


def records(job: Any, number: int) -> Any:
    """Full rows of a record each, of a prompt and responses as long, or of one answer, and their
    labels."""
    import numpy as np

    from etude.runtime.data.dialogs.encode import CONTENT
    from etude.runtime.data.records.shards import Record
    from etude.runtime.engine.records import rows as of

    kind, tokens = job.objective.name, np.zeros(job.seq_len, np.int64)
    if kind in RESPONSES:
        each = job.seq_len // (RESPONSES[kind] + 1)
        branches = (job.seq_len - RESPONSES[kind] * each, *[each] * RESPONSES[kind])
        record = Record(tokens, np.full(job.seq_len, CONTENT, np.uint8), branches)
        layout: Any = getattr(job.objective, "layout", "joint")
        row = of.lay_out(record, range(RESPONSES[kind]), layout)
    elif kind == "prm":
        step = job.seq_len // STEPS_OF_ANSWERS
        row = of.scored(tokens, range(step - 1, job.seq_len, step))
    else:
        row = of.window(np.zeros(job.seq_len + 1, np.int64))
    rows = [row] * number
    batch = of.collate(rows, 128, job.seq_len)
    scored = kind in ("reward", "prm")
    batch |= of.ask_ends(rows, job.seq_len) if scored else of.ask_tokens(rows, job.seq_len, "none")
    batch |= beside(job.objective, number, len(batch["places"]))
    batch["tokens"] = torch.tensor(number * job.seq_len)
    labels = torch.full_like(batch["input"], -100)
    labels.view(-1)[:number] = 0
    return batch, labels


def beside(objective: Any, number: int, places: int) -> dict[str, torch.Tensor]:
    """What else the loss of so many records is told, and of so many places."""
    from etude.runtime.engine.records.rewards import pairs

    match objective.name:
        case "dpo":
            return {"reference": torch.zeros(2 * number)}
        case "reward":
            return pairs([2] * number)
        case "prm":
            return {"right": torch.ones(places, dtype=torch.bool)}
        case "grpo":
            of_answers = {name: torch.zeros(number) for name in ("advantages", "rewards")}
            return of_answers | {name: torch.zeros(places) for name in ("old", "reference")}
        case _:
            shape = (places, objective.top_k)
            return {"teacher": torch.zeros(shape), "targets": torch.zeros(shape, dtype=torch.int64)}
