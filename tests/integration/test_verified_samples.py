"""Sample stages with verifiers: right draws are kept, and paired with wrong ones."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sampling_models import prompts, read_lines, sample_job

from etude.compiler.plan.verifiers import Verifier
from etude.runtime.errors import RunError
from etude.runtime.sampling import sample

RIGHT = {"right": Verifier(kind="math"), "brief": Verifier(kind="length", most=4)}
Draw = tuple[str, bool]
"""The text of a draw, and whether the model ended it."""


def sampled(
    folder: Path, draws: list[list[Draw]], scores: list[float] | None = None, **changes: Any
) -> Path:
    """The result of a sample job on draws of questions whose answer is 22."""
    question = {"messages": [{"role": "user", "content": "7 + 15?"}], "answer": "22"}
    inputs = {"prompts": prompts(folder / "prompts", [question] * len(draws)), "draws": folder}
    lines = [
        {
            "prompt": prompt,
            "draw": number,
            "seed": 0,
            "text": text,
            "messages": [*question["messages"], {"role": "assistant", "content": text}],
            "finished": finished,
        }
        for prompt, of in enumerate(draws)
        for number, (text, finished) in enumerate(of)
    ]
    (folder / "draws.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if scores is not None:
        inputs["judged"] = folder
        np.save(folder / "scores.npy", np.array(scores, np.float32))
    job = sample_job(**{"draws": len(draws[0]), "keep": 0, "verify": RIGHT, **changes})
    events: list[dict[str, Any]] = []
    sample(job, inputs, folder / "sample", root=folder, on_event=events.append)
    assert (
        events[-1]["right"]
        == json.loads((folder / "sample" / "result" / "summary.json").read_text())["right"]
    )
    return folder / "sample" / "result"


def kept(result: Path) -> list[str]:
    return [line["messages"][-1]["content"] for line in read_lines(result / "drafts.jsonl")]


def paired(result: Path) -> list[tuple[str, str]]:
    return [
        (pair["chosen"][0]["content"], pair["rejected"][0]["content"])
        for pair in read_lines(result / "pairs.jsonl")
    ]


MIXED: list[list[Draw]] = [
    [("21", True), ("22", True), ("It is 22.", True), ("23", True)],
    [("22", False), ("20 or so, or rather more than that", True), ("", True), ("1", True)],
    [("22", True), ("22", True), ("22.0", True), ("44/2", True)],
]


def test_right_draws_are_kept_in_their_order_and_paired_with_wrong_ones(tmp_path):
    result = sampled(tmp_path, MIXED)
    assert kept(result) == ["22", "It is 22.", "22", "22", "22.0", "44/2"]
    assert paired(result) == [("22", "23")]
    draws = read_lines(result / "draws.jsonl")
    assert [draw["scores"] for draw in draws[:6]] == [
        {"right": 0.0, "brief": 1.0},
        {"right": 1.0, "brief": 1.0},
        {"right": 1.0, "brief": 1.0},
        {"right": 0.0, "brief": 1.0},
        {"right": 0.0, "brief": 0.0},  # cut off: nobody knows how it would have ended
        {"right": 0.0, "brief": 0.0},
    ]
    summary = json.loads((result / "summary.json").read_text())
    assert summary["right"] == 6 / 12
    assert summary["verified"] == {"right": 6 / 12, "brief": 10 / 12}
    assert summary["prompts_without_right"] == 1
    assert summary["kept"] == 6
    assert summary["unjudged"] is None


def test_keep_takes_the_first_right_draws_where_nobody_judges(tmp_path):
    assert kept(sampled(tmp_path, MIXED, keep=1)) == ["22", "22"]


def test_a_judge_ranks_the_right_draws(tmp_path):
    scores = [9.0, 1.0, 2.0, -5.0, 0.0, 0.0, 0.0, 0.0, 3.0, 4.0, float("nan"), 5.0]
    result = sampled(tmp_path, MIXED, scores, keep=1)
    assert kept(result) == ["It is 22.", "44/2"]
    assert paired(result) == [("It is 22.", "23")]


def test_a_stage_without_any_right_draw_says_so(tmp_path):
    with pytest.raises(RunError, match=r"none of the 2 draws of .* is right by `right` and"):
        sampled(tmp_path, [[("21", True), ("23", True)]])
    with pytest.raises(RunError, match="non-empty and ends within"):
        sampled(tmp_path, [[("22", False), (" ", True)]])


def test_plain_prompts_become_prompts_and_completions(tmp_path):
    (tmp_path / "p").mkdir()
    line = {"prompt": 0, "draw": 0, "seed": 0, "text": "22", "messages": None, "finished": True}
    wrong = {**line, "draw": 1, "text": "21"}
    (tmp_path / "draws.jsonl").write_text(json.dumps(line) + "\n" + json.dumps(wrong) + "\n")
    asked = prompts(tmp_path / "prompts", [{"prompt": "7 + 15 =", "answer": "22"}])
    job = sample_job(draws=2, keep=0, verify={"right": Verifier(kind="math")})
    given = {"prompts": asked, "draws": tmp_path}
    sample(job, given, tmp_path / "s", root=tmp_path, on_event=lambda event: None)
    result = tmp_path / "s" / "result"
    assert read_lines(result / "drafts.jsonl") == [{"prompt": "7 + 15 =", "completion": "22"}]
    (pair,) = read_lines(result / "pairs.jsonl")
    assert pair == {"prompt": "7 + 15 =", "chosen": "22", "rejected": "21"}
