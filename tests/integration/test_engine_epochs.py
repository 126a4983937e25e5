"""What a loader reads where an epoch ends inside a batch."""

from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import pytest
from record_jobs import Roles, make_records, record_job

from etude.compiler.plan.plan import Objective, Reward, Sft
from etude.runtime.engine.train import dataloader

BATCH = 8


@pytest.fixture(scope="module")
def roles(tmp_path_factory: pytest.TempPathFactory) -> Roles:
    return make_records(tmp_path_factory.mktemp("records"))


def rows(objective: Objective, roles: Roles, root: Path, steps: int) -> list[list[Any]]:
    """The rows of every step, sorted, as lists of tokens."""
    job = record_job(objective, batch=BATCH, steps=steps)
    loader = dataloader(job, roles, root, dict.fromkeys(job.data, 0)).build(
        dp_world_size=1, dp_rank=0, local_batch_size=1
    )
    batches = iter(loader)
    return [
        sorted(
            piece
            for batch, _ in islice(batches, loader.micro_batches(step))
            for row in range(len(batch["input"]))
            for piece in apart(batch, row)
        )
        for step in range(steps)
    ]


def apart(batch: dict[str, Any], row: int) -> list[list[int]]:
    """The tokens of each preference in a row, which begins at position 0; of dialogs, the row."""
    tokens = batch["input"][row].tolist()
    if "segments" not in batch:
        return [tokens]
    places = batch["positions"][row].tolist()
    begins = [*(at for at, place in enumerate(places) if place == 0), len(tokens)]
    pieces = [tokens[begin:end] for begin, end in pairwise(begins)]
    return [piece for piece in pieces if len(piece) > 1]  # padding has position 0 everywhere


@pytest.mark.parametrize(("drop_last", "same"), [(False, 7), (True, 7)])
def test_epochs_of_preferences(roles: Roles, tmp_path: Path, drop_last: bool, same: int) -> None:
    """60 records: the first 7 batches are the same; the 8th is filled, or of the next epoch."""
    found = rows(Reward(drop_last=drop_last), roles, tmp_path, 15)
    first = [row for step in found[:same] for row in step]
    assert len({tuple(row) for row in first}) == 56
    whole = rows(Reward(), roles, tmp_path, 15)
    assert found[:same] == whole[:same]
    if drop_last:
        # Nothing of the 4 records that are left, and the second epoch's batches are whole.
        second = {tuple(row) for step in found[7:14] for row in step}
        assert len(second) == 56
    else:
        left = {tuple(row) for row in whole[7]} - {tuple(row) for row in first}
        assert len(left) == 4


def test_epochs_of_packed_dialogs(roles: Roles, tmp_path: Path) -> None:
    job = record_job(Sft(), batch=BATCH)
    config: Any = dataloader(job, roles, tmp_path, {"chat": 0})
    count = config.packings["chat"].rows(0)
    assert count % BATCH
    whole, cut = (
        rows(Sft(drop_last=drop), roles, tmp_path, count // BATCH + 1) for drop in (False, True)
    )
    assert whole[:-1] == cut[:-1]
    assert whole[-1] != cut[-1]
