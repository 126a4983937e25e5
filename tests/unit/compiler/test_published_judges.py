"""Reward models from published weights: what the folder says, and what judges with them."""

from pathlib import Path
from typing import Any

import pytest
from weights_folders import CHATML, TEMPLATE, write_folder

from etude.compiler.driver import analyse, compile
from etude.compiler.plan.plan import JudgeJob, Plan, RolloutJob, WeightsJob
from etude.spec.load import read

SCORER = {"architectures": ["LlamaForSequenceClassification"], "id2label": {"0": "LABEL_0"}}
HEAD = """recipe s { seed = 1 }
model base { weights = "base" }
model rm { weights = "rm" }
dataset asks { files = "asks.jsonl", kind = prompts }
"""
DRAFTS = "stage drafts: sample { from = base, prompts = asks, max_tokens = 8, draws = 4"


def write(folder: Path, text: str) -> Any:
    file = folder / "spec.etude"
    file.write_text(HEAD + text)
    return analyse(read(file), root=folder)


def planned(folder: Path, text: str) -> Plan:
    found = write(folder, text)
    made = compile(found)
    assert made, [f"{d.code} {d.message}" for d in found.report.ordered()]
    return made.plan


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A policy, and a judge with a tokenizer and a template of its own."""
    write_folder(tmp_path / "base")
    write_folder(tmp_path / "rm", SCORER, tokens=(*CHATML, "<|more|>"), template=TEMPLATE + " ")
    return tmp_path


def test_the_folder_says_that_it_judges_and_how_it_reads(folder: Path) -> None:
    plan = planned(folder, f"{DRAFTS}, judge = rm }}")
    jobs = {job.id: job for job in plan.jobs}
    weights, judged = jobs["rm"], jobs["drafts.judge"]
    assert isinstance(weights, WeightsJob)
    assert isinstance(judged, JudgeJob)
    assert weights.head == "score"
    assert judged.inputs["model"] == weights.key
    assert judged.dialog == {"template": "rm/chat_template.jinja"}
    assert judged.inputs["tokenizer"] == jobs["tokenizer.rm"].key
    assert jobs["drafts.draws"].dialog == {"template": "base/chat_template.jinja"}  # type: ignore[union-attr]


def test_weights_of_language_models_are_planned_as_before(folder: Path) -> None:
    weights = next(job for job in planned(folder, f"{DRAFTS} }}").jobs if job.kind == "weights")
    assert "head" not in weights.model_dump()


def test_it_scores_answers_that_a_policy_learns_from(folder: Path) -> None:
    plan = planned(
        folder,
        "verifier right { kind = exact }\n"
        "stage rl: grpo { from = base, data = asks, steps = 2, batch = 4 prompts, seq_len = 64\n"
        "  lr = 1e-5, max_tokens = 8, reward = { rm 0.5, right 1 } }",
    )
    rollouts = [job for job in plan.jobs if isinstance(job, RolloutJob)]
    assert all("judged.asks.rm" in job.inputs for job in rollouts)


def test_it_ranks_preferences_and_a_reward_stage_continues_from_it(folder: Path) -> None:
    plan = planned(
        folder,
        "dataset likes { sample = python_functions, kind = preferences }\n"
        "stage sharp: evaluate { from = rm, accuracy = [likes] }\n"
        "stage more: reward { from = rm, data = likes, steps = 2, seq_len = 64, batch = 4 pairs\n"
        "  lr = 1e-5 }",
    )
    (held,) = (job for job in plan.jobs if job.kind == "heldout")
    assert held.inputs["model"] == next(job.key for job in plan.jobs if job.id == "rm")


def test_a_recipe_with_a_tokenizer_of_its_own_keeps_it(folder: Path) -> None:
    """The judge's is one more that no stage has to choose from."""
    plan = planned(
        folder,
        'tokenizer own { file = "base/tokenizer.json" }\n'
        "dialog own { protocol = chatml }\n"
        "dataset chats { sample = python_functions, kind = dialogs }\n"
        f"{DRAFTS}, judge = rm }}\n"
        "stage sft: sft { from = base, data = chats, steps = 2, seq_len = 64, batch = 4 seqs\n"
        "  lr = 1e-4 }",
    )
    jobs = {job.id: job for job in plan.jobs}
    assert jobs["sft.1"].inputs["tokenizer"] == jobs["tokenizer.own"].key
    assert jobs["drafts.judge"].inputs["tokenizer"] == jobs["tokenizer.rm"].key
    assert jobs["drafts.judge"].dialog == {"template": "rm/chat_template.jinja"}  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("config", "template", "text", "code", "message"),
    [
        ({"architectures": ["LlamaForTokenClassification"]}, TEMPLATE, "", "E543", "neither"),
        ({**SCORER, "id2label": None}, TEMPLATE, "", "E543", "with 2 labels"),
        ({**SCORER, "id2label": None, "num_labels": 3}, TEMPLATE, "", "E543", "with 3 labels"),
        ({}, TEMPLATE, "", "E513", "`rm` is not a reward model"),
        (SCORER, None, "", "E549", "of the judge `rm` has no chat template"),
        (SCORER, TEMPLATE, "from = rm", "E512", "cannot generate any"),
        (SCORER, TEMPLATE, "head = tokens", "E542", "describes a reward model"),
        ({}, TEMPLATE, "head = score", "E542", "describes a language model"),
    ],
)
def test_what_is_no_judge_is_found_by_check(
    tmp_path: Path, config: dict[str, Any], template: str | None, text: str, code: str, message: str
) -> None:
    write_folder(tmp_path / "base")
    tokens = () if template is None else CHATML
    write_folder(tmp_path / "rm", config, template=template, tokens=tokens)
    stage = f"{DRAFTS}, judge = rm }}"
    head = HEAD
    if text.startswith("head"):
        head = head.replace('"rm" }', f'"rm", {text} }}')
    elif text:
        stage = stage.replace("from = base", text)
    file = tmp_path / "spec.etude"
    file.write_text(head + stage)
    errors = analyse(read(file), root=tmp_path).report.errors
    assert [error.code for error in errors] == [code]
    assert message in errors[0].message
