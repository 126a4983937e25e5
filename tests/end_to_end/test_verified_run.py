"""A run whose answers are verified: measured, kept, learned, and asked for at the beginning."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from etude_cli import etude

HEAD = """
recipe sums { seed = 1 }
model tiny { layers = 2, dim = 32, heads = 4, kv_heads = 2, ffn = 64 }
tokenizer words { train = { on [counts], vocab 280 } }
dataset counts { sample = arithmetic, documents = 200 }
dataset solved { sample = arithmetic, kind = dialogs }
verifier right { kind = math }
verifier brief { kind = length, most = 3 words }
stage first: train {
  model = tiny, steps = 2, seq_len = 64, batch = 8 seqs, lr = 1e-3, data = counts
}
stage chat: sft { steps = 40, lr = 4e-3, data = solved }
"""
VERIFIED = """
dataset asked { sample = arithmetic, kind = prompts, documents = 6 }
stage exam: evaluate {
  verify = [right, brief], prompts = asked, draws = 4, max_tokens = 6
}
stage drafts: sample {
  from = chat, prompts = asked, draws = 2, max_tokens = 6, verify = [brief]
}
stage more: sft { from = chat, data = drafts, steps = 2, lr = 1e-4 }
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("verified")
    (folder / "sums.etude").write_text(HEAD + VERIFIED)
    done = etude("run", "sums.etude", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder / "runs" / "sums"


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_accuracies_are_those_of_the_answers_that_were_drawn(run: Path) -> None:
    plan = json.loads((run / "plan.json").read_text())
    assert sum(job["kind"] == "draw" for job in plan["jobs"]) == 2
    scores = json.loads((run / "models" / "exam" / "scores.json").read_text())
    assert list(scores) == ["accuracy(right)", "accuracy(brief)"]
    for score in scores.values():
        assert (score["prompts"], score["draws"]) == (6, 4)
        assert score["pass"]["1"] == pytest.approx(score["score"])
        assert score["pass"]["1"] <= score["pass"]["2"] <= score["pass"]["4"] <= 1
    # The model has learned to end an answer, and hardly any arithmetic.
    assert scores["accuracy(right)"]["score"] < scores["accuracy(brief)"]["score"]


def test_what_is_kept_is_what_verifiers_find_right(run: Path) -> None:
    drafts = run / "models" / "drafts"
    draws, kept = lines(drafts / "draws.jsonl"), lines(drafts / "drafts.jsonl")
    for draw in draws:
        brief = draw["finished"] and len(draw["text"].split()) <= 3
        assert draw["scores"] == {"brief": float(brief)}
    right = [draw["messages"] for draw in draws if draw["scores"]["brief"] and draw["text"].strip()]
    assert [each["messages"] for each in kept] == right
    assert right
    summary = json.loads((drafts / "summary.json").read_text())
    assert summary["right"] == sum(draw["scores"]["brief"] for draw in draws) / len(draws)


def test_a_report_shows_accuracies_with_their_error_and_pass_at_k(run: Path) -> None:
    shown = etude("report", run, cwd=run).stdout
    for words in ("accuracy(right)", "±", "pass@4 (brief)", "right"):
        assert words in shown


def test_a_prompt_without_an_answer_stops_the_run_before_the_first_job(tmp_path: Path) -> None:
    asked = 'dataset asked { files = "asked.jsonl.gz", kind = prompts, documents = 2 }\n'
    exam = VERIFIED[VERIFIED.index("stage exam") :]
    (tmp_path / "sums.etude").write_text(HEAD + asked + exam)
    packed = gzip.compress(b'{"prompt": "1 + 1 =", "solution": "2"}\n')
    (tmp_path / "asked.jsonl.gz").write_bytes(packed)
    done = etude("run", "sums.etude", cwd=tmp_path)
    assert done.returncode != 0
    assert "asked.jsonl.gz:1: `answer` is missing: `right` must know" in done.stderr
    assert 'write `fields = { answer = "solution" }` in the dataset' in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.glob("runs/*/artifacts/*"))
    previewed = etude("preview", "sums.etude", "exam", cwd=tmp_path)
    assert "`answer` is missing" in previewed.stdout + previewed.stderr
