"""Accuracies by verifiers, from answers in a file."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sampling_models import DIALOG, prompts

from etude.compiler.plan.measures import RewardMeasure, VerifiedMeasure
from etude.compiler.plan.verifiers import Verifier
from etude.runtime.evaluation.reward import reward
from etude.runtime.evaluation.verified import verified

ASKED: dict[str, Any] = {
    "prompts": "sums",
    "limit": 3,
    "dialog": DIALOG,
    "max_tokens": 8,
    "temperature": 1.0,
    "draws": 4,
    "seed": 0,
}
TEXTS = [["22", "21", "22.0", "23"], ["1", "2", "3", "4"], ["22", "22", "22", "22"]]
REWARDS = [[0.1, 0.4, 0.3, 0.2], [1.0, 2.0, 3.0, 4.0], [0.0, 0.0, 0.0, 0.0]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four answers to each of three questions, and a fourth question beyond the limit."""
    prompts(tmp_path, [{"prompt": "7 + 15 =", "answer": "22"}] * 4)
    lines = [
        {"prompt": p, "draw": d, "seed": 0, "text": text, "messages": None, "finished": True}
        for p, of in enumerate(TEXTS)
        for d, text in enumerate(of)
    ]
    lines[-1]["finished"] = False
    (tmp_path / "draws.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    np.save(tmp_path / "scores.npy", np.array(REWARDS, np.float32).ravel())
    return tmp_path


def right(folder: Path, judged: Path | None = None, **changes: Any) -> dict[str, Any]:
    verify = {"right": Verifier(kind="math")}
    measure = VerifiedMeasure(name="accuracy(right)", verify=verify, **{**ASKED, **changes})
    return verified(measure, folder, folder, judged, folder)


def test_accuracy_its_error_and_pass_at_k(folder: Path) -> None:
    found = right(folder)
    assert found["score"] == pytest.approx((2 / 4 + 0 + 3 / 4) / 3)  # one was cut off
    assert found["stderr"] == pytest.approx(np.std([0.5, 0, 0.75], ddof=1) / np.sqrt(3))
    assert found["pass"] == {
        "1": pytest.approx(found["score"]),
        "2": pytest.approx((1 - 1 / 6 + 0 + 1) / 3),
        "4": pytest.approx(2 / 3),
    }
    assert (found["prompts"], found["draws"], found["finished"]) == (3, 4, 11 / 12)
    assert "best_of" not in found


def test_the_accuracy_of_what_a_judge_likes_best(folder: Path) -> None:
    found = right(folder, folder)
    assert found["best_of"]["1"] == pytest.approx(found["score"])
    # Of the first question's answers the judge prefers 21 (wrong), then 22.0, then 23, then 22.
    first = (3 * 0 + 2 * 1 + 1 * 0) / 6
    assert found["best_of"]["2"] == pytest.approx((first + 0 + 1) / 3)
    assert found["best_of"]["4"] == pytest.approx((0 + 0 + 1) / 3)


def test_answers_that_a_judge_cannot_read_rank_last(folder: Path) -> None:
    rewards = np.array(REWARDS, np.float32)
    rewards[0] = [np.nan, 0.1, 0.2, np.nan]
    np.save(folder / "scores.npy", rewards.ravel())
    assert right(folder, folder)["best_of"]["4"] == pytest.approx((1 + 0 + 1) / 3)


def test_the_mean_reward_of_several_answers_and_of_the_best_of_them(folder: Path) -> None:
    found = reward(RewardMeasure(name="reward(rm)", **ASKED), folder, folder)
    assert found["score"] == pytest.approx(np.mean(REWARDS))
    assert found["prompts"] == 3
    assert found["best_of"]["1"] == pytest.approx(np.mean(REWARDS))
    assert found["best_of"]["4"] == pytest.approx(np.mean([0.4, 4.0, 0.0]))
