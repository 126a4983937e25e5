"""A policy that hardly ever answers right learns to, from the rewards of a verifier alone."""

import json
from pathlib import Path

import pytest
from etude_cli import etude

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "rl_tiny.etude"


@pytest.mark.exhaustive
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_from_about_a_sixth_to_above_four_fifths(tmp_path: Path, seed: int) -> None:
    done = etude("run", EXAMPLE, "--set", f"recipe.seed={seed}", "--folder", "run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    models = tmp_path / "run" / "models"
    before, after = (
        json.loads((models / stage / "scores.json").read_text())["accuracy(right)"]["score"]
        for stage in ("before", "after")
    )
    assert before < 0.2
    assert after > 0.8
