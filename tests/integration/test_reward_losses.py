"""Reward models learn margins and rankings as their papers say."""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from engine_jobs import architecture
from record_jobs import SEQ_LEN, Roles, loaded, preference, record_job, transformers_model
from test_engine_records import (
    BATCH,
    check_against_transformers,
    expected_reward,
    loss_and_gradients,
)

from etude.compiler.plan.plan import Reward
from etude.runtime.data.order.packing import Shuffled
from etude.runtime.data.records.shards import Record, Records, write_records
from etude.runtime.errors import DataError


@pytest.mark.parametrize(
    ("objective", "responses"),
    [
        (Reward(margin="subtract", center=0.1), (2, 2)),
        (Reward(margin="scale", layout="pairs"), (2, 2)),
        (Reward(center=0.5), (2, 3)),
        (Reward(objective="plackett_luce"), (2, 5)),
    ],
)
def test_margins_and_rankings_are_those_of_their_papers(
    roles: Roles, tmp_path: Path, objective: Reward, responses: tuple[int, int]
) -> None:
    rng = np.random.default_rng(5)
    made = [preference(rng, responses[number % 2]) for number in range(12)]
    margins = np.array([number % 3 + 0.5 for number in range(12)], np.float32)
    if objective.margin != "none":
        made = [replace(each, margin=float(m)) for each, m in zip(made, margins, strict=True)]
    options: Any = {"holdout": Fraction(0), "seed": 1, "name": "prefer"}
    write_records(made, tmp_path / "data", form="preferences", vocab=512, **options)
    given = {**roles, "data:prefer": tmp_path / "data"}
    job = record_job(objective, seq_len=2 * SEQ_LEN)
    with loaded(job, given, tmp_path / "begun") as trainer:
        trainer.save_result(tmp_path / "begun" / "result")
    model = transformers_model(tmp_path / "begun" / "result" / "state", architecture(), score=True)
    model.config.pad_token_id = 511
    known = Records(given["data:prefer"], "train")
    order = Shuffled(known, seed=job.seed, name="prefer")

    def expected(records: list[Record]) -> torch.Tensor:
        if known.margins is not None:
            numbers = [order.index(place) for place in range(BATCH)]
            records = [
                replace(each, margin=float(known.margins[n]))
                for each, n in zip(records, numbers, strict=True)
            ]
        return expected_reward(model, records, objective)

    check_against_transformers(job, given, tmp_path / "job", expected, model)


def test_margins_that_are_not_there_are_said(roles: Roles, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="was made without margins"):
        loss_and_gradients(record_job(Reward(margin="scale")), roles, tmp_path / "job")
