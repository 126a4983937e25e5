"""Claims about what a plan costs."""

import re
from typing import Any

import pytest
from specs import HEAD, compiled, jobs, plan, stage

from etude.compiler.claims.claims import ESTIMATES
from etude.compiler.costs.hardware import GIB


def codes(spec: str) -> list[str]:
    _, report = compiled(spec)
    return [finding.code for finding in report.errors]


BIG = (
    HEAD
    + (
        'model big { family = llama3, size = "8B" }\n'
        'cluster h { nodes = 2, gpus = 8 of "H100", price = 2.5 }\n'
    )
    + stage(model="big", seq_len="8192", batch="32 seqs")
)


def figures() -> dict[str, Any]:
    (job,) = jobs(plan(BIG))
    cost: Any = job.cost
    return {
        "hours": cost.seconds / 3600,
        "gpu_hours": cost.gpu_hours,
        "price": cost.price,
        "energy_kwh": cost.energy_kwh,
        "memory": sum(cost.memory.values()) / GIB,
        "step_seconds": cost.seconds / job.steps,
        "mfu": cost.mfu,
        "tflops": (cost.flops_per_token + cost.attention_flops_per_token)
        * cost.tokens_per_second
        / 1e12,
        "tokens_per_second": cost.tokens_per_second,
    }


@pytest.mark.parametrize("figure", ESTIMATES)
def test_a_claim_is_held_against_the_figure_that_the_plan_shows(figure: str) -> None:
    value = figures()[figure]

    def claim(what: float) -> str:
        return f"{BIG}expect {{ first.{figure} = {what:.6f} within 0.1% }}"

    assert [found.holds for found in plan(claim(value)).claims] == [True]
    assert codes(claim(value * 1.01)) == ["E462"]


def test_sums_over_stages_need_no_name() -> None:
    found = figures()
    made = plan(BIG + f"expect {{ gpu_hours = {found['gpu_hours']:.6f} h within 0.1% }}")
    assert made.claims[0].computed == pytest.approx(found["gpu_hours"])


@pytest.mark.parametrize(
    ("spec", "claim"),
    [
        (HEAD + stage(), "first.memory = 8 GiB"),
        (HEAD + stage(), "gpu_hours = 8"),
        (BIG.replace(", price = 2.5", ""), "price = 8"),
        (BIG, "memory = 8"),
        (BIG, "first.gpu_hour = 8"),
    ],
)
def test_what_is_not_estimated_cannot_be_claimed(spec: str, claim: str) -> None:
    assert codes(spec + f"expect {{ {claim} }}") == ["E461"]


@pytest.mark.parametrize(("nodes", "length"), [(2, "8Ki"), (4, "8Ki"), (8, "64Ki")])
def test_what_does_not_fit_fits_with_the_change_that_is_proposed(nodes: int, length: str) -> None:
    def spec(more: str = "") -> str:
        return (
            HEAD
            + 'model large { family = llama3, size = "70B" }\n'
            + f'cluster h {{ nodes = {nodes}, gpus = 8 of "H100" }}\n'
            + stage(model="large", seq_len=length, batch="64 seqs", body=more)
        )

    _, report = compiled(spec())
    (found,) = [each for each in report.ordered() if each.code in ("W661", "W662")]
    changes = re.findall(r"`([^`]+)`", found.help)
    assert changes
    _, after = compiled(spec("\n".join(changes)))
    assert not [each for each in after.ordered() if each.code in ("W661", "W662")]
    assert not after.errors


def test_where_no_placement_fits_it_says_so() -> None:
    text = (
        HEAD
        + 'model large { family = llama3, size = "70B" }\ncluster h { gpus = 8 of "H200" }\n'
        + stage(model="large", seq_len="128Ki", batch="64 seqs", recompute="full")
    )
    found = [each for each in compiled(text)[1].ordered() if each.code in ("W661", "W662")]
    assert found
    assert "fit" in found[0].help
