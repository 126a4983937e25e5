"""Process reward models in plans: what they learn, and how they score answers."""

import pytest
from specs import HEAD, check, jobs, plan, stage

from etude.compiler.plan.plan import DatasetJob, HeldOutJob, JudgeJob, Plan, Prm, StepScores
from etude.compiler.stages.prm import TOKENS
from etude.runtime.data.dialogs.dialog import special_tokens

AFTER = HEAD + stage()
AFTER += 'dataset pairs { files = "p.jsonl", kind = preferences, pairs = 100 }\n'
AFTER += 'dataset checked { files = "s.jsonl", kind = solutions, solutions = 100 }\n'


def prm(**attributes: str) -> str:
    given = {"data": "checked", "steps": "9", "batch": "16 solutions", "lr": "1e-5", **attributes}
    lines = ", ".join(f"{name} = {value}" for name, value in given.items())
    return f"{AFTER}stage tuned: prm {{ {lines} }}\n"


JUDGED = """
dataset asked { sample = arithmetic, kind = prompts }
dialog plain { protocol = chatml }
stage drafts: sample { from = FIRST, prompts = asked, judge = tuned, max_tokens = 8, draws = 2 }
stage right: evaluate { from = tuned, accuracy = [checked] }
"""


def test_a_process_reward_model_learns_steps_and_scores_answers_by_them() -> None:
    first = next(iter(plan(HEAD + stage()).stages))
    judged = JUDGED.replace("FIRST", first)
    made = plan(prm(separator='"\\n\\n"', combine="minimum", loss="last") + judged)
    (job,) = jobs(made, "tuned")
    assert job.objective == Prm(loss_on="last")
    by_key = {each.key: each for each in made.jobs}
    data = by_key[job.inputs["data:checked"]]
    assert isinstance(data, DatasetJob)
    assert (data.form, data.separator) == ("solutions", "\n\n")
    (scored,) = [each for each in made.jobs if isinstance(each, JudgeJob)]
    assert scored.by_step == StepScores(separator="\n\n", combine="minimum")
    (ranked,) = [each for each in made.jobs if isinstance(each, HeldOutJob)]
    assert [getattr(each, "of", "") for each in ranked.measures] == ["solutions"]
    assert made.stages["tuned"].values["batch"].value == "16 solutions"
    assert Plan.model_validate_json(made.to_json()) == made


@pytest.mark.parametrize(("epochs", "filled", "dropped"), [("1 epoch", 6, 6), ("2 epochs", 13, 12)])
def test_steps_of_epochs_of_solutions(epochs: str, filled: int, dropped: int) -> None:
    for more, expected in (({}, filled), ({"drop_last": "true"}, dropped)):
        text = prm(epochs=epochs, **more).replace("steps = 9, ", "")
        assert jobs(plan(text), "tuned")[0].steps == expected


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ({"data": "pairs"}, "E511"),
        ({"batch": "16 pairs"}, "E206"),
        ({"separator": '""'}, "E208"),
        ({"combine": "mean"}, "E202"),
        ({"margin": "subtract"}, "E308"),
        ({"loss": "assistant"}, "E202"),
    ],
)
def test_what_is_wrong_with_a_prm_stage_is_said(given: dict[str, str], code: str) -> None:
    assert [d.code for d in check(prm(**given)) if d.severity == "error"] == [code]


@pytest.mark.parametrize(
    ("dialog", "separator"),
    [
        ("protocol = chatml", "<|im_end|>"),
        ("protocol = llama3", "\\n<|eom_id|>\\n"),
        ('header = "<role:{role}>", end_of_turn = "<end>"', " <end>"),
    ],
)
def test_a_separator_is_no_token_of_the_protocol(dialog: str, separator: str) -> None:
    declared = f"dialog used {{ {dialog} }}\n"
    (found,) = check(declared + prm(separator=f'"{separator}"'))
    assert found.code == "E536"
    assert separator.replace("\\n", "").strip() in found.message
    assert check(declared + prm(separator='"<step>"')) == []


def test_the_tokens_of_protocols_are_those_that_are_rendered() -> None:
    for name, tokens in TOKENS.items():
        made = {*tokens} - {"<|begin_of_text|>", "<|end_of_text|>"}
        assert made == {*special_tokens({"protocol": name})}


def test_a_process_reward_model_is_measured_on_solutions_alone() -> None:
    measured = "stage right: evaluate { from = tuned, accuracy = [pairs] }\n"
    (found,) = [d for d in check(prm() + measured) if d.severity == "error"]
    assert (found.code, found.message) == (
        "E511",
        "solutions are needed here, but `pairs` has preferences",
    )
