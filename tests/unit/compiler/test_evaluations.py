"""`evaluate = { … }` of stages that train: what the plan has of it, and what cannot be meant."""

import pytest
from specs import HEAD, POST_TRAINING, after, analysed, codes, jobs, miniature, plan, stage

from etude.cli.plan_table import table
from etude.compiler.plan.difference import difference
from etude.compiler.plan.plan import Plan, ReferenceJob, TrainJob
from etude.runtime.emission.emit import emit

WATCHED = "{ every = 30 steps, loss = [web, math] }"
DECIDING = "{ every = 30 steps, loss = [web, math], by = math, patience = 3, keep = best }"
GPUS = 'cluster box { gpus = 4 of "H100 80GB" }\n'
PEOPLE = HEAD + (
    "dataset human { sample = python_functions, kind = dialogs }\n"
    "dataset ranked { sample = python_functions, kind = preferences }\n"
)


def first(of: Plan) -> TrainJob:
    return jobs(of)[0]


def test_losses_are_measured_every_so_many_steps_and_after_the_last() -> None:
    evaluation = first(plan(HEAD + stage(evaluate=WATCHED))).evaluation
    assert evaluation
    assert (evaluation.every, evaluation.times) == (30, 4)  # after 30, 60, 90 and 100 steps
    assert [each.name for each in evaluation.measures] == ["loss(web)", "loss(math)"]
    assert {each.seq_len for each in evaluation.measures} == {16}
    assert evaluation.tokens == 4 * 2 * 65_536
    exact = first(plan(HEAD + stage(evaluate="{ every = 50 steps, loss = web, tokens = 1k }")))
    assert exact.evaluation
    assert (exact.evaluation.times, exact.evaluation.tokens) == (2, 2000)


def test_each_job_of_a_stage_has_its_part() -> None:
    cut = stage(evaluate=WATCHED, seq_len="16 for 40 steps then 32")
    found = [job.evaluation for job in jobs(plan(HEAD + cut))]
    assert [(each.times, each.measures[0].seq_len) for each in found if each] == [(1, 16), (3, 32)]


def test_what_is_only_measured_changes_no_key() -> None:
    without = plan(HEAD + stage() + after())
    with_ = plan(HEAD + stage(evaluate=WATCHED) + after())
    assert first(without).key == first(with_).key
    assert jobs(without, "second")[0].key == jobs(with_, "second")[0].key
    assert "observed" not in without.to_json()
    assert {role for role in first(with_).inputs if role.startswith("observed:")} == {
        "observed:data:web",
        "observed:data:math",
    }
    told = [each for job in difference(without, with_).jobs for each in job.changed]
    assert [(each.name, each.old, each.new) for each in told] == [
        ("evaluation", None, "loss(web), loss(math) every 30 steps")
    ]


def test_what_decides_is_part_of_the_key_with_its_data() -> None:
    watched, deciding = (
        first(plan(HEAD + stage(evaluate=of) + after())) for of in (WATCHED, DECIDING)
    )
    assert watched.key != deciding.key
    assert deciding.choice
    assert deciding.choice.measure.name == "loss(math)"
    assert (deciding.choice.patience, deciding.choice.best) == (3, True)
    assert {role for role in deciding.inputs if ":data:" in role} == {
        "decides:data:math",
        "observed:data:web",
    }
    others = HEAD.replace("sample = arithmetic }", "sample = arithmetic, holdout = 7% }")
    assert first(plan(others + stage(evaluate=DECIDING))).key != deciding.key
    others = HEAD.replace("sample = python_docs }", "sample = python_docs, holdout = 7% }")
    quiet = stage(data="math", evaluate=DECIDING)
    assert first(plan(others + quiet)).key == first(plan(HEAD + quiet)).key


def test_a_stage_that_may_end_early_has_the_same_successors_in_any_case() -> None:
    (whole,), (early,) = (
        jobs(plan(HEAD + stage(evaluate=of) + after()), "second") for of in (WATCHED, DECIDING)
    )
    assert whole.schedule == early.schedule
    assert early.optimizer_state == "carry"
    assert first(plan(HEAD + stage(evaluate=DECIDING))).may_end_early
    assert not first(plan(HEAD + stage(evaluate=WATCHED))).may_end_early


def test_preferences_that_dpo_is_measured_on_have_a_reference_of_their_own() -> None:
    text = (
        PEOPLE
        + stage()
        + (
            "stage dpo: dpo { data = ranked, steps = 10, batch = 4 pairs, lr = 1e-5\n"
            "evaluate = { every = 5 steps, loss = [ranked, human, web] } }"
        )
    )
    made = plan(text)
    found = [job for job in made.jobs if isinstance(job, ReferenceJob)]
    assert [(job.id, job.split) for job in found] == [
        ("reference.dpo.ranked", "train"),
        ("reference.dpo.ranked.heldout", "heldout"),
    ]
    (dpo,) = jobs(made, "dpo")
    assert dpo.inputs["observed:reference:ranked"] == found[1].key
    assert dpo.inputs["observed:data:ranked"] == dpo.inputs["data:ranked"]
    assert {"observed:data:human", "observed:data:web"} <= dpo.inputs.keys()
    alone = plan(text.replace("evaluate = { every = 5 steps, loss = [ranked, human, web] }", ""))
    assert jobs(alone, "dpo")[0].key == dpo.key
    assert '"split": "train"' not in alone.to_json()


def test_draws_and_parts_of_rounds_can_be_measured() -> None:
    text = POST_TRAINING.replace(
        "steps = 10, lr = 1e-4\n  }\n  stage dpo",
        "steps = 10, lr = 1e-4\n"
        "evaluate = { every = 5 steps, loss = [drafts, human], by = drafts, keep = best }\n"
        "  }\n  stage dpo",
    )
    assert text != POST_TRAINING
    made = plan(text)
    found = [jobs(made, f"align.{number}.sft")[0] for number in (1, 2)]
    assert [[each.name for each in job.evaluation.measures] for job in found if job.evaluation] == [
        ["loss(align.1.drafts)", "loss(human)"],
        ["loss(align.2.drafts)", "loss(human)"],
    ]
    assert [job.choice and job.choice.measure.data for job in found] == [
        ["align.1.drafts"],
        ["align.2.drafts"],
    ]


def test_the_time_of_evaluations_is_part_of_the_estimate() -> None:
    jobs_of = [first(plan(HEAD + GPUS + stage(evaluate=of))) for of in (None, WATCHED)]
    plain, watched = jobs_of
    assert watched.evaluation
    reading = watched.evaluation.reading
    assert reading
    assert reading.seconds
    assert reading.fits
    assert watched.cost.seconds == pytest.approx(
        (plain.cost.seconds or 0) + 4 * reading.seconds, rel=1e-3
    )
    assert watched.cost.memory == plain.cost.memory


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ("{ every = 30 steps }", "E318"),
        ("{ loss = [web] }", "E318"),
        ("{ every = 30 tokens, loss = [web] }", "E2"),
        ("{ every = 30 steps, loss = [nowhere] }", "E402"),
        ("{ every = 30 steps, loss = [human] }", "E511"),
        ("{ every = 30 steps, loss = [ranked] }", "E511"),
        ("{ every = 101 steps, loss = [web] }", "E587"),
        ("{ every = 30 steps, loss = [web], by = web }", "E522"),
        ("{ every = 30 steps, loss = [web, math], patience = 3 }", "E585"),
        ("{ every = 30 steps, loss = [web, math], keep = best }", "E585"),
        ("{ every = 30 steps, loss = [web], by = math, keep = best }", "E585"),
        ("{ every = 30 steps, loss = [web], patience = 0 }", "E2"),
        ("{ every = 30 steps, loss = [web], keep = first }", "E202"),
        ("{ every = 30 steps, loss = [], keep = best }", "E"),
        ("30 steps", "E201"),
        ("{ every = 30 steps, loss = [web], metric = loss }", "E308"),
    ],
)
def test_what_cannot_be_meant_is_told(said: str, code: str) -> None:
    found = codes(PEOPLE + stage(evaluate=said))
    assert [each for each in found if each.startswith(code)], found


@pytest.mark.parametrize(
    ("body", "seq_len"),
    [
        ("average = polyak every 2 steps", "16"),
        ("gate seq_len { require loss(web) <= 9 }", "16"),
        ("", "16 for 50 steps then 32"),
    ],
)
def test_a_loss_decides_only_about_a_stage_of_one_job(body: str, seq_len: str) -> None:
    watched, deciding = (
        codes(HEAD + stage(body=body, seq_len=seq_len, evaluate=of)) for of in (WATCHED, DECIDING)
    )
    assert "E586" not in watched
    assert "E586" in deciding


def test_a_checkpoint_stage_cuts_a_stage_too() -> None:
    half = "stage half: checkpoint { from = first, after = 50% }\n"
    assert "E586" in codes(HEAD + stage(evaluate=DECIDING) + half)


def test_data_that_are_trained_on_or_hold_nothing_out_are_told() -> None:
    twin = "dataset twin { sample = python_docs }\n"
    measured = stage(evaluate="{ every = 30 steps, loss = [twin] }")
    found = codes(HEAD + twin + measured)
    assert "W622" in found
    assert not {"W626", "N652"} & {*found}
    empty = HEAD.replace("sample = arithmetic }", "sample = arithmetic, holdout = 0% }")
    assert "W623" in codes(empty + stage(evaluate=WATCHED))


def test_prompts_are_trained_on_only_if_a_stage_learns_from_their_samples() -> None:
    text = HEAD + "dataset asked { sample = python_functions, kind = prompts }\n"
    text += 'dialog chat { protocol = llama3 }\nverifier brief { kind = regex, pattern = "a" }\n'
    text += stage() + "stage kept: sample { prompts = asked, max_tokens = 8, verify = [brief] }\n"
    exam = "stage exam: evaluate { prompts = asked, max_tokens = 8, verify = [brief] }\n"
    assert "W622" not in codes(text + exam)
    learned = "stage sft: sft { data = kept, steps = 4, lr = 1e-4, batch = 4 seqs }\n"
    assert "W622" in codes(text + learned + exam)


def test_prompts_that_a_policy_answers_are_trained_on() -> None:
    text = HEAD + "dataset asked { sample = arithmetic, kind = prompts }\n"
    text += "dataset new { sample = arithmetic, skip = 300, kind = prompts }\n"
    text += "dialog chat { protocol = llama3 }\nverifier right { kind = exact }\n" + stage()
    text += "stage rl: grpo { data = asked, steps = 4, batch = 4 prompts, group = 4, "
    text += "max_tokens = 8, reward = right, lr = 1e-4 }\n"
    exam = "stage exam: evaluate {{ prompts = {}, max_tokens = 8, verify = [right] }}\n"
    policy = [analysed(text + exam.format(name)).report.ordered() for name in ("asked", "new")]
    (found,) = [each for each in policy[0] if each.code == "W622"]
    assert "a model learns from answers to it" in found.message
    (alike,) = [each for each in policy[1] if each.code == "W622"]
    assert alike.help == "separate the records with `skip` and `documents`"
    first = text.replace(
        "asked { sample = arithmetic", "asked { sample = arithmetic, documents = 300"
    )
    apart = analysed(first + exam.format("new")).report.ordered()
    assert "W622" not in [each.code for each in apart]


def test_data_that_are_there_for_measuring_alone_can_be_measured_whole() -> None:
    """A note says so where the usual half a percent would be measured."""

    def noted(holdout: str, data: str = "web") -> list[str]:
        held = f"dataset held {{ sample = python_code{holdout} }}\n"
        measured = stage(evaluate="{ every = 30 steps, loss = [held] }", data=data)
        found = analysed(HEAD + held + measured).report.ordered()
        return [each.code for each in found if each.code in ("N622", "E588", "E208")]

    assert noted("") == ["N622"]
    assert noted(", holdout = 100%") == noted(", holdout = 20%") == []
    assert noted("", data="{ web 1, held 1 }") == []
    assert noted(", holdout = 100%", data="{ web 1, held 1 }") == ["E588"]
    assert noted(", holdout = 101%") == ["E208"]


def test_a_miniature_evaluates_as_often() -> None:
    made = miniature(HEAD + stage(evaluate=DECIDING))
    job = first(made)
    assert job.evaluation
    assert job.choice
    assert 2 <= job.evaluation.times <= 8
    assert job.choice.patience == 3


def test_torchtitan_alone_gets_no_job_about_which_a_loss_decides() -> None:
    text = HEAD + GPUS + "tokenizer words { bytes }\n"
    watched = emit(plan(text + stage(evaluate=WATCHED)))
    assert "loss(web), loss(math) on held-out data every 30 steps" in watched
    deciding = emit(plan(text + stage(evaluate=DECIDING)))
    assert "nor go back to the best checkpoint" in " ".join(deciding.split())


def test_the_table_says_how_often_and_that_a_length_is_a_bound(
    capsys: pytest.CaptureFixture[str],
) -> None:
    table(plan(HEAD + GPUS + stage(evaluate=DECIDING)))
    shown = capsys.readouterr().out
    assert "first: ≤ 6,400 tokens, ≤ 100 steps" in shown
    assert "|first.1 | ≤ 6,400 | ≤ 100 |" in shown
    assert "4 times, 524,288 tokens in all at most; each" in shown
    assert "loss of web, math every 30 steps" in shown
    assert "ends after 3 evaluations without a lower loss of math" in shown
    table(plan(HEAD + stage(evaluate=WATCHED)))
    assert "≤" not in capsys.readouterr().out
