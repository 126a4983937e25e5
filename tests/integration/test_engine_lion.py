"""Lion: its update, and that ranks and interruptions change nothing."""

from pathlib import Path
from typing import Any

import pytest
import torch
from engine_jobs import (
    architecture,
    experts,
    interrupted_and_resumed,
    lr,
    run,
    same,
    tensors,
    train_job,
)
from specs import HEAD, jobs, plan, stage
from test_engine_ranks import Run, Workplace

from etude.compiler.plan.plan import TrainJob
from etude.runtime.engine.updates.optimizer import lion


def job(steps: int, world_size: int = 1, **fields: Any) -> TrainJob:
    (planned,) = jobs(plan(HEAD + stage(optimizer="lion { weight_decay = 0.5 }")))
    groups = planned.torchtitan["optimizer"]["param_groups"]
    rates = [lr(0, fields.get("first_step", 0) + steps, "hold", 1e-3, 1e-3)]
    sections: dict[str, Any] = {"optimizer": {"implementation": "fused", "param_groups": groups}}
    made = {"steps": steps, "world_size": world_size, "schedule_lr": rates, **fields}
    return train_job(torchtitan=sections, checkpoint_every=4, **made)


def test_an_update_is_that_of_the_paper() -> None:
    """arXiv:2302.06675, Program 1."""
    torch.manual_seed(0)
    param = torch.nn.Parameter(torch.randn(5, 3))
    weights, moment = param.detach().clone(), torch.zeros(5, 3)
    settings = {"lr": 0.02, "betas": (0.9, 0.99), "weight_decay": 0.5}
    optimizer = lion([{"params": [param], **settings}])
    for _ in range(4):
        gradient = torch.randn(5, 3)
        param.grad = gradient.clone()
        optimizer.step()
        update = torch.sign(0.9 * moment + 0.1 * gradient)
        moment = 0.99 * moment + 0.01 * gradient
        weights = weights - 0.02 * (update + 0.5 * weights)
    torch.testing.assert_close(param.detach(), weights, rtol=0, atol=1e-6)


def test_a_parameter_has_one_moment(inputs: dict[str, Path], tmp_path: Path) -> None:
    model = architecture(family="qwen3", qk_norm=True, experts=experts())
    run(job(1, model=model), inputs, tmp_path / "job")
    state = tensors(tmp_path / "job" / "result" / "state")
    moments = {key: of for key, of in state.items() if key.startswith("optimizer.state.")}
    assert {key.rpartition(".")[2] for key in moments} == {"exp_avg"}
    for key, of in moments.items():
        assert of.any(), key


def test_interrupted_and_resumed_it_ends_bit_for_bit_alike(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    whole = interrupted_and_resumed(job(8), inputs, tmp_path, lost=6, again=[4, 5, 6, 7])
    assert whole[-1]["loss"] < whole[0]["loss"]


def test_two_ranks_learn_the_same_and_go_on_with_the_same_bits(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    place = Workplace(inputs, tmp_path)
    read = {"web": 3 * 32, "code": 32}
    carried = {"first_tokens": read, "optimizer_state": "carry"}
    rest = job(2, 2, first_step=1, first_token=128, **carried)
    begun = Run(job(3, 2), "two"), Run(job(1, 2), "one")
    assert place.run(*begun, Run(rest, "rest", "one")) == 0
    alone = [event["loss"] for event in run(job(3), inputs, tmp_path / "alone")]
    # A sign turns where rounding does: the two differ by a few steps of single elements.
    assert [of["loss"] for of in place.events("two")] == pytest.approx(alone, rel=1e-4)
    assert same(place.result("two") / "state", place.result("rest") / "state")
