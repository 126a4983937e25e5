"""Settings that the engine sets before each step."""

from pathlib import Path
from typing import Any

import pytest
import torch
from engine_jobs import interrupted_and_resumed, lr, make_inputs, run, same, train_job
from torch import nn
from torchtitan.config import TrainingConfig

from etude.compiler.plan.plan import Schedule, TrainJob
from etude.compiler.schedule.timeline import Timeline
from etude.compiler.values import LrPiece
from etude.runtime.engine.updates.settings import Settings

CLIP = [lr(0, 3, "hold", 1.0, 1.0), lr(3, 6, "linear", 1.0, 0.01)]
DECAY = [lr(0, 6, "linear", 0.0, 0.5)]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return make_inputs(tmp_path_factory.mktemp("inputs"))


def job(**schedules: list[LrPiece]) -> TrainJob:
    made = train_job(steps=6, checkpoint_every=2, weight_decay=0.5 if schedules else 0.1)
    found = {**dict(made.schedule), **schedules}
    return made.model_copy(update={"schedule": Schedule(**found)})


class Balanced(nn.Module):
    load_balance_coeff: Any = 0.001


def test_they_are_set_for_each_step() -> None:
    weights = [nn.Parameter(torch.ones(2)) for _ in range(2)]
    groups = [
        {"params": weights[:1], "weight_decay": 0.5},
        {"params": weights[1:], "weight_decay": 0.0},
    ]
    optimizer, layer = torch.optim.AdamW(groups), Balanced()
    of = job(
        clip=CLIP,
        weight_decay=DECAY,
        balance=[lr(0, 3, "hold", 0.001, 0.001), lr(3, 6, "hold", 0.0, 0.0)],
    )
    settings = Settings(Timeline.of(of), [optimizer], [nn.Sequential(layer, nn.Linear(2, 2))])
    for step, clip in enumerate([1.0, 1.0, 1.0, 1.0, 0.67, 0.34]):
        assert settings.at(step, TrainingConfig()).max_norm == pytest.approx(clip)
        assert [group["weight_decay"] for group in optimizer.param_groups] == pytest.approx(
            [0.5 * step / 6, 0.0]
        )
        assert layer.load_balance_coeff == (0.001 if step < 3 else 0.0)
        # As after a checkpoint: groups are new ones.
        optimizer.load_state_dict(optimizer.state_dict())


@pytest.mark.exhaustive
def test_a_job_that_is_interrupted_goes_on_with_them(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    changing = job(clip=CLIP, weight_decay=DECAY)
    interrupted_and_resumed(changing, inputs, tmp_path, lost=4, again=[4, 5])
    # The values of each step alone, as constants, end elsewhere.
    run(job(clip=CLIP[:1], weight_decay=DECAY), inputs, tmp_path / "other")
    assert not same(tmp_path / "other/result/state", tmp_path / "whole/result/state")
