"""What stages do about spikes of the gradient: in plans, keys and what is shown."""

import pytest
from specs import HEAD, after, analysed, check, jobs, plan, stage

from etude.compiler.driver import compile_miniature
from etude.compiler.plan.checkpoints import at_once, inside
from etude.compiler.plan.plan import Plan
from etude.compiler.values import Saving, Spikes
from etude.runtime.emission.emit import emit


def test_spikes_are_part_of_a_job_and_of_its_key() -> None:
    without = plan(HEAD + stage())
    made = plan(HEAD + stage(spikes="{ do = skip, above = 5 }"))
    assert [job.spikes for job in jobs(made)] == [Spikes(do="skip", above=5.0)]
    assert jobs(made)[0].key != jobs(without)[0].key
    assert Plan.model_validate_json(made.to_json()) == made
    # A stage without them keeps the key, and the plan, that it had before there was such a thing.
    nothing = plan(HEAD + stage(spikes="{ do = nothing }"))
    assert jobs(nothing)[0].key == jobs(without)[0].key
    assert "spikes" not in without.to_json()


def test_they_are_inherited_until_a_stage_says_otherwise_and_shown() -> None:
    text = HEAD + stage(spikes="{ do = stop }") + after()
    made = plan(text + after("off", from_="second", spikes="{ do = nothing }"))
    stop = Spikes(do="stop", above=10.0)
    assert [jobs(made, name)[0].spikes for name in ("first", "second", "off")] == [stop, stop, None]
    shown = {name: stage.values["spikes"] for name, stage in made.stages.items()}
    assert "stop" in shown["first"].value
    assert shown["second"].origin == "from first"
    assert "nothing" in shown["off"].value


def test_a_file_for_torchtitan_says_that_it_takes_all_steps() -> None:
    text = emit(plan(HEAD + stage(spikes="{ do = skip }")))
    assert "takes steps with spikes of the gradient" in text
    assert "spikes" not in emit(plan(HEAD + stage()))


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("skip", "`spikes` is a group of attributes"),
        ("{ above = 5 }", "`do`"),
        ("{ do = back }", "rollback"),
        ("{ do = skip, above = 0.5 }", "at least 1"),
    ],
)
def test_what_spikes_are_not(value: str, said: str) -> None:
    found = [each for each in check(HEAD + stage(spikes=value)) if each.code.startswith("E")]
    assert found
    assert any(said in each.message + (each.help or "") for each in found), found


ROLLBACK = "{ do = rollback, back = 20 steps, at_most = 2 }"


def test_a_rollback_is_part_of_the_key_but_not_how_often_it_may_be() -> None:
    made = plan(HEAD + stage(spikes=ROLLBACK))
    (job, *_) = jobs(made)
    assert job.spikes == Spikes(do="rollback", above=10.0, back=20)
    assert job.rollbacks == 2
    assert Plan.model_validate_json(made.to_json()) == made
    often = jobs(plan(HEAD + stage(spikes="{ do = rollback, back = 20, at_most = 9 }")))
    assert (often[0].key, often[0].rollbacks) == (job.key, 9)
    assert jobs(plan(HEAD + stage(spikes="{ do = rollback, back = 30 }")))[0].key != job.key


def test_a_rollback_has_defaults_that_are_shown() -> None:
    made = plan(HEAD + stage(spikes="{ do = rollback }") + after())
    assert jobs(made)[0].spikes == Spikes(do="rollback", above=10.0, back=100)
    assert jobs(made, "second")[0].rollbacks == 10
    shown = {name: each.values["spikes"].value for name, each in made.stages.items()}
    assert shown["first"] == shown["second"]
    assert "100" in shown["first"]


def test_a_rollback_needs_checkpoints_which_the_plan_counts() -> None:
    (job, *_) = jobs(plan(HEAD + stage(spikes=ROLLBACK)))
    assert job.steps == 100
    every = Saving(every=30, seconds=None)
    plain = job.model_copy(update={"saving": every, "spikes": None})
    rolling = job.model_copy(update={"saving": every})
    # 30, 60 and 90; then 20, 40 and 80, too. Rollbacks keep all of so few.
    assert (inside(plain), inside(rolling)) == (3, 6)
    assert (at_once(plain), at_once(rolling)) == (3, 6)


@pytest.mark.parametrize(
    ("spec", "code", "said"),
    [
        (stage(spikes="{ do = skip, back = 20 }"), "E522", "belongs to `do = rollback`"),
        (stage(spikes="{ do = stop, at_most = 2 }"), "E522", "belongs to `do = rollback`"),
        (stage(spikes="{ do = rollback, back = 0 }"), "E208", "1"),
        (stage(spikes="{ do = rollback, back = 100 }"), "W640", "to the beginning"),
    ],
)
def test_rollbacks_that_cannot_work(spec: str, code: str, said: str) -> None:
    found = [each for each in check(HEAD + spec) if each.code == code]
    assert [said in each.message + (each.help or "") for each in found] == [True]


def test_a_miniature_goes_back_by_its_own_steps() -> None:
    text = HEAD + stage(steps="10000", spikes="{ do = rollback, back = 1000 }")
    small = compile_miniature(analysed(text))
    assert small
    (job, *_) = jobs(small.plan)
    assert job.spikes
    assert job.spikes.back == round(job.steps / 10)
