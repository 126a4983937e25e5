"""A process reward model finds right answers among wrong ones."""

import json
from pathlib import Path

import pytest
from etude_cli import etude

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "prm_tiny.etude"


@pytest.mark.exhaustive
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_answer_that_it_likes_best_of_eight_is_right_far_more_often(
    tmp_path: Path, seed: int
) -> None:
    seeded = ("--set", f"recipe.seed={seed}", "--folder", "run")
    done = etude("run", EXAMPLE, *seeded, cwd=tmp_path, timeout=1800)
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stdout
    models = tmp_path / "run" / "models"
    marks = json.loads((models / "marks" / "scores.json").read_text())["accuracy"]
    assert marks["wrong_accuracy"] > 0.9
    assert marks["right_accuracy"] > 0.9
    found = json.loads((models / "choice" / "scores.json").read_text())["accuracy(right)"]
    chance, chosen = found["score"], found["best_of"]["8"]
    assert chance < 0.55
    assert chosen > chance + 0.3
