"""The measures that need a judge or tasks, and the choice of the best model."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sampling_models import DIALOG, draw_job, judge, judged, policy, prompts, read_lines
from transformers import AutoModelForCausalLM, AutoTokenizer

from etude.compiler.plan.measures import RewardMeasure, SuiteMeasure
from etude.compiler.plan.plan import BestJob
from etude.runtime.errors import DataError, RunError
from etude.runtime.evaluation.best import pick
from etude.runtime.evaluation.evaluate import measure
from etude.runtime.evaluation.reward import reward
from etude.runtime.sampling import draw
from etude.runtime.sampling.generators import Transformers

TASKS = Path(__file__).parents[2] / "examples" / "tasks"
QUESTIONS = ["What is it?", "Say a word.", "Why?"]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {
        "model": policy(folder / "model"),
        "other": policy(folder / "other", seed=5),
        "judge": judge(folder / "judge"),
        "prompts": prompts(folder / "prompts", QUESTIONS),
    }


def reward_measure(**changes: Any) -> RewardMeasure:
    values: dict[str, Any] = {
        "name": "reward(rm)",
        "prompts": "questions",
        "limit": 2,
        "dialog": DIALOG,
        "max_tokens": 24,
        "temperature": 0.8,
        "seed": 3,
    }
    return RewardMeasure(**{**values, **changes})


def test_the_reward_is_the_mean_over_the_answers_that_the_judge_can_read(
    models: dict[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "draws").mkdir()
    job = draw_job(draws=1, limit=2, seed=3)
    draw(job, models, tmp_path / "draws", root=tmp_path, on_event=lambda event: None)
    draws = tmp_path / "draws" / "result"
    scores = judged(models, draws, tmp_path / "judge")
    found = reward(reward_measure(), draws, scores)
    each = np.load(scores / "scores.npy")
    finished = [line["finished"] for line in read_lines(draws / "draws.jsonl")]
    assert found == {
        "score": pytest.approx(each.mean(), abs=1e-6),
        "stderr": pytest.approx(abs(each[0] - each[1]) / 2, abs=1e-6),
        "prompts": 2,
        "unjudged": 0,
        "finished": np.mean(finished),
    }
    np.save(scores / "scores.npy", np.array([np.nan, 0.5], np.float32))
    short = reward(reward_measure(), draws, scores)
    assert (short["score"], short["prompts"], short["unjudged"]) == (0.5, 2, 1)
    assert short["stderr"] is None
    np.save(scores / "scores.npy", np.full(2, np.nan, np.float32))
    with pytest.raises(RunError, match="are longer than the judge's context"):
        reward(reward_measure(), draws, scores)


def best_job(of: list[str], wanted: Any, *, higher: bool = True) -> BestJob:
    return BestJob(
        key="b", id="pick", stage="pick", inputs={}, of=of, measure=wanted, higher=higher
    )


def results(folder: Path, count: int) -> dict[str, Path]:
    """Stand-ins for checkpoints: what matters is that they arrive as they are."""
    roles = {}
    for number in range(count):
        state = folder / str(number) / "state"
        state.mkdir(parents=True)
        (state / ".metadata").write_text(f"metadata {number}")
        (state / "__0_0.distcp").write_text(f"weights {number}")
        (folder / str(number) / "positions.json").write_text("{}")
        (folder / str(number) / "manifest.json").write_text("of another artifact")
        roles[f"of.{number}"] = folder / str(number)
    return roles


@pytest.mark.parametrize("higher", [True, False])
def test_the_best_model_is_linked_into_the_result(higher: bool, tmp_path: Path) -> None:
    roles = results(tmp_path, 3)
    (tmp_path / "work").mkdir()
    scores = [0.5, -1.0, 0.5] if higher else [0.5, -1.0, -1.0]
    job = best_job(["a", "b", "c"], reward_measure(), higher=higher)
    found = pick(job, roles, tmp_path / "work", scores=scores)
    assert [each["score"] for each in found["scores"]] == scores
    index = scores.index(max(scores) if higher else min(scores))
    assert found["index"] == index
    assert found["winner"] == "abc"[index]
    result = tmp_path / "work" / "result"
    assert json.loads((result / "verdict.json").read_text()) == found
    for name in ("state/.metadata", "state/__0_0.distcp", "positions.json"):
        assert (result / name).samefile(roles[f"of.{index}"] / name)
    assert not (result / "manifest.json").exists()


def test_a_score_that_is_no_number_is_not_compared(tmp_path: Path) -> None:
    job = best_job(["a", "b"], reward_measure())
    with pytest.raises(RunError, match=r"reward\(rm\) of `b` is not a number"):
        pick(job, results(tmp_path, 2), tmp_path, scores=[1.0, float("nan")])


def suite_measure(*tasks: str, **changes: Any) -> SuiteMeasure:
    values: dict[str, Any] = {
        "name": "math",
        "tasks": list(tasks),
        "folder": str(TASKS),
        "limit": 8,
        "seed": 1,
    }
    return SuiteMeasure(**{**values, **changes})


def test_the_facts_of_the_example_tasks_are_true() -> None:
    for row in read_lines(TASKS / "sums.jsonl"):
        assert eval(row["question"].rstrip(" =")) == int(row["answer"])
    for row in read_lines(TASKS / "python_values.jsonl"):
        assert row["choices"][row["answer"]] == repr(eval(row["expression"]))
        assert len(set(row["choices"])) == len(row["choices"]) >= 2


def test_the_example_tasks_are_measured_offline(
    models: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """The score of a task of choices against the log-likelihoods of transformers itself."""
    pytest.importorskip("lm_eval")
    monkeypatch.chdir(tmp_path)
    wanted = suite_measure("sums", "python_values")
    found = measure([wanted], models["model"])["math"]
    shown = capfd.readouterr()
    assert "Running" not in shown.err + shown.out
    assert "git" not in shown.err
    tasks = found["tasks"]
    assert {name: row["metric"] for name, row in tasks.items()} == {
        "sums": "exact_match",
        "python_values": "acc",
    }
    assert {row["samples"] for row in tasks.values()} == {8}
    assert found["score"] == pytest.approx(np.mean([row["score"] for row in tasks.values()]))

    network: Any = AutoModelForCausalLM.from_pretrained(models["model"]).eval()
    tokenizer = AutoTokenizer.from_pretrained(models["model"])
    right = []
    for row in read_lines(TASKS / "python_values.jsonl")[:8]:
        prompt = tokenizer.encode(f">>> {row['expression']}", add_special_tokens=False)
        likelihoods = []
        for choice in row["choices"]:
            answer = tokenizer.encode(f"\n{choice}", add_special_tokens=False)
            tokens = torch.tensor([[tokenizer.bos_token_id, *prompt, *answer]])
            with torch.no_grad():
                logits = network(tokens).logits[0].log_softmax(-1)
            places = torch.arange(len(prompt), len(prompt) + len(answer))
            likelihoods.append(float(logits[places, torch.tensor(answer)].sum()))
        right.append(int(np.argmax(likelihoods)) == row["answer"])
    assert 0 < np.mean(right) < 1
    assert tasks["python_values"]["score"] == pytest.approx(np.mean(right))


def test_a_model_with_a_chat_template_is_asked_through_it(
    models: dict[str, Path], tmp_path: Path
) -> None:
    pytest.importorskip("lm_eval")
    seen: list[str] = []
    generator = Transformers(models["model"])
    network: Any = generator._network
    tokenizer: Any = AutoTokenizer.from_pretrained(models["model"])
    tokenizer.chat_template = (
        "{{ bos_token }}{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<answer>"
    )
    forward = network.forward

    def record(input_ids: torch.Tensor, **rest: Any) -> Any:
        seen.extend(tokenizer.batch_decode(input_ids))
        return forward(input_ids, **rest)

    network.forward = record
    from etude.runtime.evaluation.suites import suite

    suite(suite_measure("python_values", limit=1), generator, tokenizer, tmp_path)
    assert seen
    assert all(text.count("<|begin_of_text|><user>>>> ") == 1 for text in seen)
    assert all(text.count("<|begin_of_text|>") == 1 for text in seen)
    assert all("<answer>" in text for text in seen)


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("task: t\noutput_type: [", r"broken\.yaml:\d: the task file cannot be read"),
        ("- a\n- b", r"broken\.yaml: the task file has no task"),
        (
            "task: t\ndataset_path: json\ndataset_kwargs: {data_files: {test: no.jsonl}}\n"
            "test_split: test\noutput_type: multiple_choice",
            r"broken\.yaml: the task `t` cannot be loaded: .*no\.jsonl",
        ),
        ("task: t\nprocess_docs: !function tasks.go", r"yaml:2: .*`!function` would run a program"),
        ("task: t\nx: !!python/object/apply:os.getcwd []", r"broken\.yaml:2: the task file cannot"),
        ("task: t\ndataset_path: pandas", "`dataset_path: pandas` reads pickles"),
        ("task: t\ninclude: ../other.yaml", r"it includes \.\./other\.yaml, which is not"),
        ("task: t\ninclude: [/etc/passwd]", "it includes /etc/passwd, which is not"),
        (
            "task: t\ndataset_path: json\ndataset_kwargs: {data_files: {test: data.jsonl}}\n"
            "test_split: test\noutput_type: multiple_choice\ndoc_to_choice: [a, b]\n"
            "doc_to_target: 0\ndoc_to_text: \"{{ cycler.__init__.__globals__.os.mkdir('made') }}\"",
            "cannot be (loaded|measured): .*unsafe",
        ),
    ],
    ids=[
        *("no YAML", "a list", "no data", "a function", "an object", "a pickle", "a file above"),
        *("a file elsewhere", "a template"),
    ],
)
def test_a_broken_task_file_is_named(
    file: str, message: str, models: dict[str, Path], tmp_path: Path
) -> None:
    pytest.importorskip("lm_eval")
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "broken.yaml").write_text(file)
    (tmp_path / "tasks" / "data.jsonl").write_text('{"x": 1}\n')
    with pytest.raises(DataError, match=message) as problem:
        measure([suite_measure("t", folder="tasks")], models["model"], root=tmp_path)
    assert problem.value.help
    assert not list(tmp_path.rglob("made"))


def test_unknown_tasks_and_folders_and_a_missing_harness_are_said(
    models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("lm_eval")
    with pytest.raises(RunError, match="names the unknown task `juggling`") as problem:
        measure([suite_measure("juggling")], models["model"])
    assert "python_values, sums" in problem.value.help
    with pytest.raises(DataError, match=r"there is no folder .*/nowhere"):
        measure([suite_measure("sums", folder="nowhere")], models["model"], root=tmp_path)
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(RunError, match="needs lm-evaluation-harness") as problem:
        measure([suite_measure("sums")], models["model"])
    assert "pip install 'etude[eval]'" in problem.value.help
