"""Distillation on what a student writes itself: what is planned, and what is refused."""

from typing import Any

import pytest
from whole_spec import problems, spec

from etude.compiler.driver import analyse, compile
from etude.compiler.plan.plan import RolloutJob, TeacherJob, TrainJob
from etude.spec.load import reads

OWN = "on_policy = 25%, prompts = asked, max_tokens = 64, batch = 64 dialogs"


def planned(statements: str) -> Any:
    made = compile(analyse(reads(spec("distill", statements))))
    assert made
    assert made.plan
    return made.plan


def test_a_share_of_each_batch_is_written_in_turns() -> None:
    plan = planned(f"{OWN}, steps = 10, refresh = 4 steps, temperature = 2")
    own = [job for job in plan.jobs if job.stage == "student"]
    trained = [job for job in own if isinstance(job, TrainJob)]
    assert [(job.first_step, job.steps) for job in trained] == [(0, 4), (4, 4), (8, 2)]
    drawn = [{n: w.sequences for n, w in job.data.items()} for job in trained]
    assert drawn == [{"chats": 192, "student": 64}] * 2 + [{"chats": 96, "student": 32}]
    # Each turn continues in the data, and has answers of its own.
    begins = [{n: w.first_token // job.seq_len for n, w in job.data.items()} for job in trained]
    assert begins == [{"chats": n, "student": 0} for n in (0, 192, 384)]
    windows = [(job.window.first, job.window.count) for job in own if job.kind == "draw"]
    assert {(job.draws, job.temperature) for job in own if job.kind == "draw"} == {(1, 1.0)}
    assert windows == [(0, 64), (64, 64), (128, 32)]
    answers = [job for job in own if isinstance(job, RolloutJob)]
    assert [(job.prompts, job.rewards) for job in answers] == [([n], {}) for n in (64, 64, 32)]


def test_the_teacher_reads_the_answers_of_each_turn_and_the_data_once() -> None:
    plan = planned(f"{OWN}, steps = 4, refresh = 2 steps")
    names = {job.key: job.id for job in plan.jobs}
    taught = {job.id: job.form for job in plan.jobs if isinstance(job, TeacherJob)}
    assert taught == {
        "teacher.student.chats": "dialogs",
        "teacher.student.1": "rollouts",
        "teacher.student.2": "rollouts",
    }
    trained = [job for job in plan.jobs if isinstance(job, TrainJob) and job.stage == "student"]
    roles = [{role: names[key] for role, key in job.inputs.items()} for job in trained]
    assert [each["teacher:student"] for each in roles] == ["teacher.student.1", "teacher.student.2"]
    assert {each["teacher:chats"] for each in roles} == {"teacher.student.chats"}


def test_all_of_a_batch_may_be_the_students_own() -> None:
    plan = planned(f"{OWN}, steps = 2, on_policy = 100%".replace("on_policy = 25%, ", ""))
    trained = [job for job in plan.jobs if isinstance(job, TrainJob) and job.stage == "student"]
    assert [list(job.data) for job in trained] == [["student"]] * 2
    assert not [job for job in plan.jobs if job.id == "teacher.student.chats"]


@pytest.mark.parametrize(
    ("statements", "code", "message"),
    [
        ("prompts = asked", "E522", "`prompts` has no effect here"),
        ("on_policy = 5%, batch = 64 dialogs, max_tokens = 9", "E529", "needs `prompts`"),
        ("on_policy = 5%, batch = 64 dialogs, prompts = asked", "E529", "needs `max_tokens`"),
        (OWN.replace("64 dialogs", "64 seqs"), "E529", "a batch counts dialogs"),
        (f"{OWN}, drop_last = true", "E529", "`drop_last` does not go with"),
        (f"{OWN}, average = polyak every 1 step", "E529", "`average` does not go with"),
        (OWN.replace("asked", "chats"), "E511", "prompts are needed here"),
        (OWN.replace("= 64,", "= 4Ki,"), "E581", "leaves no room for a prompt"),
    ],
)
def test_what_does_not_go_with_it_is_said(statements: str, code: str, message: str) -> None:
    found = [each for each in problems(spec("distill", statements)) if each.severity == "error"]
    assert [each.code for each in found] == [code]
    assert message in found[0].message
