"""Adafactor in specs: its settings, what is advised, and what its decay is."""

from typing import Any

import pytest
from specs import HEAD, after, check, compiled, jobs, only, plan, stage

from etude.compiler.plan.checkpoints import size


def group(optimizer: str, number: int = 0) -> dict[str, Any]:
    (job,) = jobs(plan(HEAD + stage(optimizer=optimizer)))
    return job.torchtitan["optimizer"]["param_groups"][number]


@pytest.mark.parametrize("written", ["adafactor", "adafactor { }"])
def test_its_defaults_are_those_of_the_paper_and_it_does_not_decay(written: str) -> None:
    found = group(written)
    assert found["optimizer_name"] == "Adafactor"
    assert found["optimizer_kwargs"] == {
        "lr": 1e-3,
        "beta2_decay": 0.8,
        "eps1": 1e-15,
        "eps2": 1e-3,
        "d": 1.0,
        "scale_parameter": True,
        "weight_decay": 0.0,
        "fused": False,
        "foreach": False,
    }


def test_what_is_written_counts() -> None:
    written = "adafactor { d = 2, weight_decay = 0.01, decay = matrices, scale_parameter = false }"
    norms, matrices = group(written), group(written, 1)
    assert [of["optimizer_kwargs"]["weight_decay"] for of in (norms, matrices)] == [0.0, 0.01]
    assert {of["optimizer_name"] for of in (norms, matrices)} == {"Adafactor"}
    assert matrices["optimizer_kwargs"]["d"] == 2
    assert not matrices["optimizer_kwargs"]["scale_parameter"]


def test_decay_may_change_over_time() -> None:
    made = plan(HEAD + stage(optimizer="adafactor { weight_decay = 0.1 -> 0.01 }"))
    (piece,) = only(jobs(made)).schedule.weight_decay
    assert (piece.start, piece.end) == (0.1, 0.01)


def test_a_stage_after_it_goes_on_with_what_it_kept() -> None:
    made = plan(HEAD + stage(optimizer="adafactor { d = 2 }") + after(lr="last -> 0"))
    job = only(jobs(made, "second"))
    assert job.optimizer_state == "carry"
    (found,) = job.torchtitan["optimizer"]["param_groups"]
    assert (found["optimizer_kwargs"]["d"], found["optimizer_kwargs"]["weight_decay"]) == (2, 0)
    shown = made.stages["second"].values["optimizer"].value
    assert "adafactor" in shown
    assert "betas" not in shown


def test_a_checkpoint_has_hardly_more_than_the_weights() -> None:
    factored, adamw = (
        only(jobs(plan(HEAD + stage(optimizer=of)))) for of in ("adafactor", "adamw")
    )
    assert size(adamw) == 3 * size(factored)


def test_rates_that_are_relative_are_not_compared_with_those_of_adam() -> None:
    def found(optimizer: str) -> set[str]:
        text = HEAD + stage(optimizer=optimizer, lr="0 -> 0.5 for 10 steps then 0.5")
        return {"W605", "N602"} & {each.code for each in compiled(text)[1].ordered()}

    assert found("adamw { weight_decay = 0 }") == {"W605", "N602"}
    assert found("adafactor { scale_parameter = false }") == {"W605"}
    assert found("adafactor") == set()


def test_adam_has_none_of_its_settings() -> None:
    (found,) = [e for e in check(HEAD + stage(optimizer="adamw { eps2 = 0 }")) if e.code == "E325"]
    assert found.message == "`adamw` has no `eps2`"
