"""Stages that learn from their own answers: what is planned, and what is refused."""

import time
from typing import Any

import pytest
from whole_spec import problems, spec

from etude.compiler.driver import analyse, compile
from etude.compiler.plan.plan import LikelihoodJob, RolloutJob, TrainJob
from etude.spec.load import reads


def refused(statements: str) -> list[tuple[str, str, str]]:
    found = problems(spec("grpo", statements))
    return [
        (each.code, each.message, each.help or "") for each in found if each.severity == "error"
    ]


def planned(statements: str) -> list[Any]:
    made = compile(analyse(reads(spec("grpo", statements))))
    assert made
    assert made.plan
    return [job for job in made.plan.jobs if job.stage == "rl"]


@pytest.mark.parametrize(
    ("statements", "code", "message", "help"),
    [
        ("reward = wrong", "E402", "there is no verifier `wrong`", "`right`"),
        ("reward = { right 1, asked 1 }", "E402", "there is no verifier `asked`", "is a dataset"),
        ("reward = sft", "E513", "`sft` is not a reward model", "`reward`"),
        ("reward = { right 0 }", "E210", "nothing here has a weight above 0", ""),
        ("reference = sft", "E522", "`reference` has no effect here", "`kl = 0.01`"),
        ("reference_refresh = 100", "E522", "`reference_refresh` has no effect", "`kl = 0.01`"),
        (
            "kl = 0.1, refresh = 4, reference_refresh = 10 steps",
            "E583",
            "after 10 steps is in the middle of a turn",
            "`reference_refresh = 8 steps`",
        ),
        ("max_tokens = 4Ki", "E581", "leaves no room for a prompt", "`seq_len = 8192`"),
        ("average = polyak every 1 step", "E582", "not with their mean", "average {"),
        ("temperature = 0", "E208", "above 0", ""),
        ("dynamic_sampling = { most = 1 }", "E208", "at least 2", ""),
        (
            "dynamic_sampling = { by = [brief] }",
            "E590",
            "`brief` is no verifier in this stage's `reward`",
            "`by = [right]`, or add `brief 1` to `reward`",
        ),
        ("dynamic_sampling = { }, reward = rm", "E590", "no verifier in `reward` says", "add"),
        ("group = 1", "E208", "at least 2", ""),
        ("batch = 4 seqs", "E206", "`prompts`", "`prompts`"),
        ("data = chats", "E511", "prompts are needed here", "`asked`"),
        ("clip_ratio = [0.2]", "E208", "two numbers", "[0.2, 0.28]"),
    ],
)
def test_mistakes_are_told(statements: str, code: str, message: str, help: str) -> None:
    ((found, said, advice),) = refused(statements)
    assert found == code
    assert message in said
    assert help in advice


def test_turns_end_where_the_model_writes_anew() -> None:
    jobs = planned("steps = 10, refresh = 4 steps, batch = 64 prompts, group = 4")
    trained = [job for job in jobs if isinstance(job, TrainJob)]
    assert [(job.first_step, job.steps) for job in trained] == [(0, 4), (4, 4), (8, 2)]
    assert {piece.sequences for job in trained for piece in job.schedule.batch} == {256}
    rollouts = [job for job in jobs if isinstance(job, RolloutJob)]
    assert [job.prompts for job in rollouts] == [[64] * 4, [64] * 4, [64] * 2]
    windows = [(job.window.first, job.window.count) for job in jobs if job.kind == "draw"]
    assert windows == [(0, 256), (256, 256), (512, 128)]


def test_sixty_thousand_turns_are_checked_in_seconds() -> None:
    begin = time.process_time()
    assert refused("steps = 60_000, refresh = 1 step") == []
    assert time.process_time() - begin < 10


def test_likelihoods_are_computed_where_the_loss_needs_them() -> None:
    def likelihoods(statements: str) -> list[str]:
        jobs = planned(f"steps = 2, batch = 64 prompts, {statements}")
        return [job.id for job in jobs if isinstance(job, LikelihoodJob)]

    assert likelihoods("refresh = 1 step") == []
    assert likelihoods("refresh = 2 steps") == ["old.rl.1"]
    # In the first turn the reference wrote the answers; it is not asked twice.
    assert likelihoods("refresh = 2 steps, kl = 0.1") == ["old.rl.1"]
    assert likelihoods("refresh = 1 step, kl = 0.1") == ["reference.rl.1", "reference.rl.2"]


def test_the_policy_becomes_its_own_reference_again_and_again() -> None:
    jobs = planned("steps = 14, refresh = 2 steps, kl = 0.1, reference_refresh = 4 steps")
    of = {job.key: job.id for job in jobs}
    near = [of.get(job.inputs["reference:rl"], "") for job in jobs if isinstance(job, TrainJob)]
    read = {job.id: of.get(job.inputs["model"]) for job in jobs if isinstance(job, LikelihoodJob)}
    # In a turn that begins with a new reference, that is the model that has written its answers.
    kinds = ("old", "reference", "old", "reference", "old", "reference", "old")
    assert near == [f"{kind}.rl.{turn}" for turn, kind in enumerate(kinds, 1)]
    assert [read[job] for job in near] == [None, None, "rl.2", "rl.2", "rl.4", "rl.4", "rl.6"]


def test_memory_for_answers_is_that_of_the_rows() -> None:
    jobs = planned("steps = 1, batch = 64 prompts, seq_len = 1Ki, max_tokens = 256")
    (drawn,) = [job for job in jobs if job.kind == "draw"]
    assert drawn.generation.context == 1024


def test_a_prompt_leaves_room_for_every_judge_of_its_answers() -> None:
    def longest(reward: str) -> int:
        text = spec("grpo", f"steps = 1, batch = 64 prompts, reward = {reward}")
        text += """
stage base: train {
  model = tiny, steps = 100, seq_len = 1Ki, batch = 64 seqs, lr = 1e-3, data = web
}
stage small: reward {
  from = base, steps = 10, batch = 64 pairs, lr = 1e-5, data = ranked
}
"""
        made = compile(analyse(reads(text)))
        assert made
        assert made.plan
        jobs = {job.key: job for job in made.plan.jobs}
        (drawn,) = [job for job in jobs.values() if job.kind == "draw" and job.stage == "rl"]
        prompts: Any = jobs[drawn.inputs["prompts"]]
        return prompts.longest

    assert longest("{ rm 1, small 1 }") == longest("{ small 1, rm 1 }") == 1023
    assert longest("rm") == 4095


def test_what_is_learned_at_a_temperature_is_drawn_and_read_at_it() -> None:
    jobs = planned("steps = 2, refresh = 2 steps, kl = 0.1, temperature = 0.7")
    (drawn,) = [job for job in jobs if job.kind == "draw"]
    (read,) = [job for job in jobs if isinstance(job, LikelihoodJob)]
    (trained,) = [job for job in jobs if isinstance(job, TrainJob)]
    assert drawn.temperature == read.temperature == 0.7
    objective: Any = trained.objective
    assert objective.temperature == 0.7


def test_turns_that_replace_prompts_continue_where_the_one_before_has_ended() -> None:
    jobs = planned(
        "steps = 4, refresh = 2 steps, batch = 8 prompts, dynamic_sampling = { most = 3 }, "
        "reward = { right 2, rm 1 }"
    )
    first, second = (job for job in jobs if job.kind == "draw")
    assert "before" not in first.inputs
    assert second.inputs["before"] == first.key
    assert [job.window.count for job in (first, second)] == [16, 16]
    assert first.until.weights == {"right": 2}
    assert first.until.most == 3


def test_a_verifier_scores_the_data_sets_that_it_is_for() -> None:
    text = spec("grpo", "data = { asked 50%, more 50% }, steps = 2, reward = { own 1, brief 1 }")
    text += """
dataset more { files = "more.jsonl", kind = prompts }
verifier own { kind = exact, data = [asked] }
verifier brief { kind = length, most = 5 words, data = [more] }
"""
    made = compile(analyse(reads(text)))
    assert made
    assert made.plan
    jobs: dict[str, Any] = {job.key: job for job in made.plan.jobs}
    drawn: list[Any] = [job for job in jobs.values() if job.kind == "draw" and job.stage == "rl"]
    answers = {job.prompts: list(jobs[job.inputs["prompts"]].answers) for job in drawn}
    assert answers == {"asked": ["own"], "more": []}


def test_prompts_that_no_verifier_is_for_are_told() -> None:
    text = spec("grpo", "data = { asked 50%, more 50% }, steps = 2, reward = own")
    text += """
dataset more { files = "more.jsonl", kind = prompts }
verifier own { kind = exact, data = [asked] }
"""
    (found,) = [each for each in problems(text) if each.severity == "error"]
    assert found.code == "E589"
    assert "scores the answers to `more`" in found.message
