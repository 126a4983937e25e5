"""Checkpoint stages: models on the way of a stage."""

import pytest
from specs import HEAD, after, batches, codes, jobs, plan, rates, stage

from etude.compiler.plan.plan import AverageJob, Plan

KNOBS = {
    "seq_len": "16 for 40 steps then 32",
    "batch": "64 tokens -> 256 tokens for 30 steps then 256 tokens",
    "lr": "0 -> 1e-3 for 10 steps then -> 1e-4 cosine",
    "data": "{ web 1, math 2 } -> { web 2, math 1 } linear",
}
WHOLE = HEAD + stage(**KNOBS)
EARLY = "stage early: checkpoint { from = first, after = 25 steps }\n"
LATE = "stage late: checkpoint { after = 75% }\n"


@pytest.fixture(scope="module")
def cut() -> Plan:
    soup = "stage soup: average { of = [early, late, first] }\n"
    return plan(WHOLE + EARLY + LATE + soup)


def test_a_checkpoint_cuts_its_stage_and_changes_none_of_its_steps(cut: Plan) -> None:
    whole, parts = jobs(plan(WHOLE)), jobs(cut)
    assert [job.first_step for job in whole] == [0, 40]
    assert [job.first_step for job in parts] == [0, 25, 40, 75]
    assert sum(job.tokens for job in parts) == sum(job.tokens for job in whole)
    assert rates(parts) == rates(whole)
    assert batches(parts) == batches(whole)
    for name in ("web", "math"):  # the sources begin to take turns again at a cut
        difference = parts[-1].data[name].last_token - whole[-1].data[name].last_token
        assert abs(difference) <= 2 * 32


def test_the_average_takes_the_weights_at_the_steps(cut: Plan) -> None:
    (average,) = [job for job in cut.jobs if isinstance(job, AverageJob)]
    parts = jobs(cut)
    assert [average.inputs[f"of.{n}"] for n in range(3)] == [
        parts[0].key,
        parts[2].key,
        parts[3].key,
    ]


def test_a_stage_goes_on_from_a_checkpoint_with_what_was_in_force_there() -> None:
    found = plan(WHOLE + EARLY + after("decay", from_="early", steps="5", lr="last -> 0"))
    parts, (decay,) = jobs(found), jobs(found, "decay")
    assert decay.inputs["model"] == parts[0].key
    assert decay.optimizer_state == "carry"
    assert decay.seq_len == 16
    assert decay.schedule.lr[0].start == rates(jobs(found))[25]
    assert decay.schedule.batch[0].sequences == batches(parts)[24]
    for name, window in decay.data.items():
        assert window.first_token == parts[0].data[name].last_token
    weights = parts[0].schedule.mixture[-1].weights
    share = decay.schedule.mixture[0].weights
    assert share["web"] * sum(weights.values()) == weights["web"] * sum(share.values())


def test_a_checkpoint_is_not_gone_on_from_unasked() -> None:
    found = plan(WHOLE + EARLY + after("second", steps="5", lr="1e-4"))
    assert jobs(found, "second")[0].inputs["model"] == jobs(found)[-1].key


def test_tokens_fall_on_the_nearest_step_and_the_plan_says_so() -> None:
    found = plan(HEAD + stage() + "stage early: checkpoint { after = 1000 tokens }\n")
    parts = jobs(found)
    assert parts[0].tokens == 1024
    assert any("checkpoint `early`" in each.what for each in parts[0].roundings)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("stage early: checkpoint { from = first, after = 100 steps }", "E453"),
        ("stage early: checkpoint { from = first, after = 1 token }", "E453"),
        ("stage early: checkpoint { from = first, after = 0 steps }", "E208"),
        ("stage early: checkpoint { from = first }", "E318"),
        ("stage a: average { of = [first] }\nstage b: checkpoint { from = a, after = 9% }", "E454"),
        (
            "stage a: checkpoint { after = 9% }\nstage b: checkpoint { from = a, after = 9% }",
            "E454",
        ),
        (
            "stage a: evaluate { loss = [web] }\nstage b: checkpoint { from = a, after = 9% }",
            "E406",
        ),
    ],
)
def test_what_is_no_place_in_a_stage_is_refused(text: str, code: str) -> None:
    assert code in codes(HEAD + stage() + text + "\n")
