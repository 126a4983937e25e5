"""Lion in specs: its settings, and what a checkpoint of it has."""

from typing import Any

import pytest
from specs import HEAD, after, compiled, jobs, only, plan, stage

from etude.compiler.plan.checkpoints import size


def group(optimizer: str) -> dict[str, Any]:
    (job,) = jobs(plan(HEAD + stage(optimizer=optimizer)))
    return job.torchtitan["optimizer"]["param_groups"][-1]


@pytest.mark.parametrize("written", ["lion", "lion { }"])
def test_its_defaults_are_those_of_the_paper(written: str) -> None:
    found = group(written)
    assert found["optimizer_name"] == "Lion"
    assert found["optimizer_kwargs"] == {
        "lr": 1e-3,
        "betas": [0.9, 0.99],
        "weight_decay": 0.1,
        "fused": False,
        "foreach": False,
    }


def test_what_is_written_counts_and_a_stage_after_it_goes_on() -> None:
    text = HEAD + stage(optimizer="lion { betas = [0.95, 0.98] }") + after(lr="last -> 0")
    made = plan(text)
    job = only(jobs(made, "second"))
    assert job.optimizer_state == "carry"
    (found,) = job.torchtitan["optimizer"]["param_groups"]
    assert found["optimizer_kwargs"]["betas"] == [0.95, 0.98]
    shown = made.stages["second"].values["optimizer"].value
    assert "lion" in shown
    assert "eps" not in shown
    assert "N603" not in {each.code for each in compiled(text)[1].ordered()}


def test_a_checkpoint_has_one_moment() -> None:
    lion, adamw = (only(jobs(plan(HEAD + stage(optimizer=of)))) for of in ("lion", "adamw"))
    assert size(adamw) * 2 == size(lion) * 3
