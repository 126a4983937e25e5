"""Means of the weights during training, in the plan."""

import pytest
from specs import HEAD, after, check, jobs, miniature, plan, stage

from etude.compiler.plan.checkpoints import size
from etude.compiler.plan.plan import Averaging, TrainJob

LARGE = """recipe test { seed = 1 }
model large { size = "1B" }
dataset web { sample = python_docs }
cluster pod { gpus = 8 of "H100 80GB" }
"""
LONG = {"model": "large", "steps": "1000", "seq_len": "4Ki", "batch": "8 seqs"}


def trained(text: str) -> list[TrainJob]:
    return plan(text).trained()


def test_a_moving_average_is_part_of_the_job_and_its_key() -> None:
    without, given = trained(HEAD + stage()), trained(HEAD + stage(ema="0.9"))
    assert given[0].average == Averaging(every=1, from_step=0, decay=0.9)
    assert given[0].key != without[0].key
    assert size(given[0]) == size(without[0]) + 4 * given[0].cost.parameters


def test_plain_means_are_what_they_were() -> None:
    text = plan(HEAD + stage(average="polyak every 10 steps")).to_json()
    assert "decay" not in text.partition('"average"')[2].partition("}")[0]


def test_the_next_stage_takes_the_average_with_empty_moments_and_keeps_none() -> None:
    first, second = trained(HEAD + stage(ema="0.9") + after())
    assert second.inputs["model"] == first.key
    assert (second.optimizer_state, second.average) == ("fresh", None)


@pytest.mark.parametrize("mean", [{"ema": "0.99"}, {"average": "polyak every 10 steps"}])
def test_its_memory_is_four_bytes_a_parameter(mean: dict[str, str]) -> None:
    (without,) = trained(LARGE + stage(**LONG))
    (given,) = trained(LARGE + stage(**LONG, **mean))
    assert without.cost.memory
    assert given.cost.memory
    more = given.cost.memory["optimizer"] - without.cost.memory["optimizer"]
    assert more == pytest.approx(without.cost.memory["optimizer"] / 2, rel=1e-9)


def test_a_miniature_forgets_as_much_of_the_beginning() -> None:
    text = HEAD + stage(steps="10000", ema="0.999", lr="0 -> 1e-3 for 10% then 1e-3")
    (job,) = miniature(text).trained()
    assert job.average
    assert job.average.decay == pytest.approx(max(0.999 ** (10000 / job.steps), 0.01))


@pytest.mark.parametrize(
    ("code", "attributes"),
    [
        ("E464", {"ema": "0.9", "average": "polyak every 1 step"}),
        ("W634", {"ema": "0.999"}),
        ("E208", {"ema": "1"}),
        ("E208", {"ema": "0"}),
    ],
)
def test_what_makes_no_average(code: str, attributes: dict[str, str]) -> None:
    assert [each.code for each in check(HEAD + stage(**attributes))] == [code]


def test_checkpoint_stages_are_not_inside_it() -> None:
    text = HEAD + stage(ema="0.9") + "stage early: checkpoint { from = first, after = 50% }\n"
    assert "E454" in [each.code for each in check(text)]


def test_the_decay_that_a_warning_proposes_is_taken() -> None:
    (found,) = check(HEAD + stage(ema="0.999"))
    better = found.help.partition("ema = ")[2].partition("`")[0]
    assert not check(HEAD + stage(ema=better))
    assert jobs(plan(HEAD + stage(ema=better)))
