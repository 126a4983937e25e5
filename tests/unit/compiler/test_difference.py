"""Plans compared: what is kept, rerun, new or gone, and why."""

import pytest
from specs import HEAD, POST_TRAINING, after, plan, stage

from etude.compiler.plan.difference import Difference, difference

BASE = (
    HEAD + stage() + after("second", steps="10", lr="1e-4") + after("third", steps="5", lr="5e-5")
)


def compared(old: str, new: str, **more: dict[str, bool]) -> Difference:
    return difference(plan(old), plan(new), **more)


def what(found: Difference) -> dict[str, str]:
    return {job.job: job.what for job in found.jobs}


@pytest.mark.parametrize("text", [BASE, POST_TRAINING])
def test_a_plan_does_not_differ_from_itself(text: str) -> None:
    found = compared(text, text)
    assert not found
    assert set(what(found).values()) == {"kept"}
    assert (found.tokens, found.steps, found.recipe) == (0, 0, [])


def test_what_changes_is_made_again_with_its_reason_and_what_follows_with_its_cause() -> None:
    found = compared(BASE, BASE.replace("lr = 1e-4", "lr = 2e-4"))
    jobs = {job.job: job for job in found.jobs}
    assert jobs["first.1"].what == "kept"
    assert jobs["second.1"].what == "again"
    assert [(c.name, c.old, c.new) for c in jobs["second.1"].changed] == [
        ("lr", "0.0001", "0.0002")
    ]
    assert jobs["second.1"].changed[0].place
    assert jobs["second.1"].because == []
    assert jobs["third.1"].what == "again"
    assert jobs["third.1"].because == ["second.1"]
    assert jobs["third.1"].changed == []
    assert (found.steps, found.tokens) == (15, 15 * 4 * 16)


def test_stages_come_and_go_and_swapping_swaps_them() -> None:
    more = BASE + after("fourth", steps="3", lr="1e-5")
    there, back = compared(BASE, more), compared(more, BASE)
    new = {name for name, each in what(there).items() if each == "new"}
    assert "fourth.1" in new
    assert new == {name for name, each in what(back).items() if each == "gone"} - {"export.third"}
    assert there.count("again") == back.count("again") == 0


def test_a_renamed_stage_is_kept_under_its_new_name() -> None:
    found = compared(BASE, BASE.replace("stage third", "stage last_one"))
    jobs = {job.job: job for job in found.jobs}
    assert jobs["last_one.1"].what == "kept"
    assert jobs["last_one.1"].was == "third.1"
    assert not found


def test_formatting_and_names_of_lets_change_nothing() -> None:
    assert not compared(BASE, "# a comment\n\n" + BASE.replace("  ", " "))
    named = "let speed = 1e-4\n" + BASE.replace("lr = 1e-4", "lr = speed")
    assert not compared(BASE, named)


def test_a_dataset_that_changes_makes_what_reads_it_again() -> None:
    old = HEAD + stage() + after("second", steps="10", lr="1e-4", data="math")
    new = old.replace("{ sample = arithmetic }", "{ sample = arithmetic, documents = 9 }")
    jobs = {job.job: job for job in compared(old, new).jobs}
    assert jobs["first.1"].what == "kept"
    assert jobs["dataset.math"].what == "again"
    assert any("documents" in each.name for each in jobs["dataset.math"].changed)
    assert jobs["second.1"].because == ["dataset.math"]


def test_rounds_that_are_added_keep_those_before() -> None:
    more = POST_TRAINING.replace("rounds align 2", "rounds align 3")
    found = what(compared(POST_TRAINING, more))
    assert found["first.1"] == "kept"
    assert all(each == "new" for name, each in found.items() if name.startswith("align.3."))


def test_what_is_done_is_told() -> None:
    found = compared(BASE, BASE, done={"first.1": True})
    assert {job.job: job.done for job in found.jobs}["first.1"] is True
    assert not {job.job: job.done for job in found.jobs}["second.1"]


def test_estimates_are_summed_where_they_are_known() -> None:
    gpus = 'model big { family = llama3, size = "8B" }\n'
    gpus += 'cluster h { nodes = 2, gpus = 8 of "H100", price = 2 }\n'
    old = HEAD + gpus + stage(model="big", seq_len="8192", batch="32 seqs")
    new = old.replace("lr = 1e-3", "lr = 9e-4")
    found = compared(old, new)
    assert found.gpu_hours
    assert found.price == pytest.approx(2 * found.gpu_hours, rel=1e-2)
    assert compared(BASE, BASE.replace("lr = 1e-4", "lr = 2e-4")).gpu_hours is None
