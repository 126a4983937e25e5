"""What failures of a cluster cost, and how often to save."""

from math import exp, inf

import pytest
from specs import HEAD, compiled, jobs, plan, stage

from etude.compiler.costs.failures import best_interval, with_failures
from etude.compiler.costs.jobs import RESTART
from etude.spec.schema.declaration import attributes
from etude.spec.schema.recipe import Cluster

MINUTE, HOUR, DAY = 60.0, 3600.0, 24 * 3600.0


def pod(**more: str) -> str:
    given = "".join(f", {name} = {value}" for name, value in more.items())
    return f'cluster pod {{ gpus = 4 of "H100 80GB"{given} }}\n'


@pytest.mark.parametrize(
    ("mtbf", "minutes"), [(24 * HOUR, 117), (6 * HOUR, 57), (15 * MINUTE, 9.1)]
)
def test_the_best_interval_is_that_of_dalys_figures(mtbf: float, minutes: float) -> None:
    """Figures 3 to 5 of the paper: a dump takes five minutes."""
    found = best_interval(5 * MINUTE, mtbf) / MINUTE
    assert float(f"{found:.{2 if minutes < 10 else 3}g}") == pytest.approx(minutes, abs=0.5)
    assert found == pytest.approx(minutes, rel=0.006)


@pytest.mark.parametrize("mtbf", [24 * HOUR, 6 * HOUR, 15 * MINUTE])
def test_no_other_interval_takes_much_less_time(mtbf: float) -> None:
    def time(between: float) -> float:
        return with_failures(
            500 * HOUR, between=between, save=5 * MINUTE, restart=10 * MINUTE, mtbf=mtbf
        )

    best = time(best_interval(5 * MINUTE, mtbf))
    least = min(time(minutes * MINUTE) for minutes in range(1, 500))
    assert best <= 1.001 * least


def test_saving_that_takes_longer_than_twice_the_time_between_failures() -> None:
    assert best_interval(3 * HOUR, HOUR) == HOUR


def test_llama_3_trained_more_than_nine_tenths_of_its_time() -> None:
    """419 unexpected interruptions in 54 days, and over 90 % effective training time
    (arXiv:2407.21783 §3.3.4): with checkpoints every ten minutes and ten to restart."""
    mtbf = 54 * DAY / 419
    assert mtbf / HOUR == pytest.approx(3.09, abs=0.01)
    taken = with_failures(54 * DAY, between=10 * MINUTE, save=0, restart=10 * MINUTE, mtbf=mtbf)
    assert 0.9 < 54 * DAY / taken < 0.95


def test_rare_failures_cost_half_an_interval_and_a_restart_each() -> None:
    taken = with_failures(1000.0, between=20.0, save=0, restart=30.0, mtbf=1e6)
    assert taken - 1000.0 == pytest.approx(1000.0 / 1e6 * (20.0 / 2 + 30.0), rel=1e-3)


def test_the_plan_has_the_time_with_failures() -> None:
    (job,) = plan(HEAD + pod(mtbf="3 h", restart="5 min") + stage()).trained()
    assert job.cost.seconds
    # The job is shorter than the time between two checkpoints: all of it is lost at once.
    within = job.cost.seconds
    expected = 10_800 * exp(300 / 10_800) * (exp(within / 10_800) - 1)
    assert job.cost.expected_seconds == pytest.approx(expected, rel=1e-3)


def test_the_interval_of_a_stage_counts_in_steps_or_minutes() -> None:
    text = HEAD + pod(mtbf="1 s", restart="0 s")
    often = plan(text + stage(body="checkpoint every 1 steps", steps="1000")).totals
    rare = plan(text + stage(body="checkpoint every 1000 steps", steps="1000")).totals
    assert often
    assert rare
    assert often.seconds
    assert often.seconds == rare.seconds
    assert often.expected_seconds
    assert rare.expected_seconds
    assert often.seconds <= often.expected_seconds < rare.expected_seconds


def test_without_failures_a_plan_is_what_it_was() -> None:
    made = plan(HEAD + pod() + stage())
    assert made.totals
    assert made.totals.expected_seconds is None
    assert "expected_seconds" not in made.to_json()


def test_failures_are_no_part_of_a_key() -> None:
    keys = [
        [job.key for job in plan(HEAD + pod(**more) + stage()).jobs]
        for more in ({}, {"mtbf": "3 h", "save": "20 s"})
    ]
    assert keys[0] == keys[1]


def notes(text: str) -> list[tuple[str, str]]:
    found = compiled(text)[1].ordered()
    return [(each.message, each.help) for each in found if each.code == "N663"]


def test_a_better_interval_is_proposed_where_it_saves_a_hundredth() -> None:
    text = HEAD + pod(mtbf="3 h", save="20 s")
    (rare,) = notes(text + stage(body="checkpoint every 2 h"))
    assert rare[1] == "write `checkpoint every 11 min`"
    assert notes(text + stage(body="checkpoint every 11 min")) == []
    (often,) = notes(text + stage(body="checkpoint every 1 min"))
    assert often[1] == "write `checkpoint every 11 min`"
    # Without the time of a checkpoint nothing says that saving more often costs anything.
    assert notes(HEAD + pod(mtbf="3 h") + stage(body="checkpoint every 2 h")) == []


def test_failures_that_let_nothing_be_finished_are_said() -> None:
    """No number is so large; the plan has none."""
    long = stage(steps="1000000000", lr="1e-3", body="checkpoint every 2 h")
    text = HEAD + pod(mtbf="1 s") + long
    ((message, help),) = notes(text)
    assert message.startswith("with a failure every 1 s, training never gets")
    assert "save more often" in help
    assert jobs(plan(text))[0].cost.expected_seconds is None
    assert with_failures(1e9, between=1e6, save=0, restart=0, mtbf=1.0) == inf


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ({"mtbf": "3"}, "E205"),
        ({"mtbf": "0 h"}, "E208"),
        ({"mtbf": "3 tokens"}, "E206"),
        ({"restart": "10 min"}, "E428"),
        ({"save": "20 s"}, "E428"),
    ],
)
def test_times_have_a_unit(given: dict[str, str], code: str) -> None:
    found = compiled(HEAD + pod(**given) + stage())[1].ordered()
    assert code in [each.code for each in found]


def test_the_reference_names_the_restart_that_the_plan_assumes() -> None:
    assert attributes(Cluster)["restart"].otherwise == f"{RESTART / 60:g} min"
