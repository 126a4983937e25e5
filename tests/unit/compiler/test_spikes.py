"""What stages do about spikes of the gradient: in plans, keys and what is shown."""

import pytest
from specs import HEAD, after, check, jobs, plan, stage

from etude.compiler.plan.plan import Plan
from etude.compiler.values import Spikes
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
        ("{ do = rollback }", "skip"),
        ("{ do = skip, above = 0.5 }", "at least 1"),
    ],
)
def test_what_spikes_are_not(value: str, said: str) -> None:
    found = [each for each in check(HEAD + stage(spikes=value)) if each.code.startswith("E")]
    assert found
    assert any(said in each.message + (each.help or "") for each in found), found
