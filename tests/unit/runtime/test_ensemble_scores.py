"""What several judges say as one."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from etude.compiler.plan.plan import EnsembleJob
from etude.runtime.sampling.judging import SCORES, together

GIVEN = [[1.0, -2.0, 0.5, np.nan], [3.0, 2.0, 0.5, 1.0], [2.0, 0.0, 0.5, 1.0]]
DEVIATION = np.sqrt(8 / 3)


@pytest.mark.parametrize(
    ("combine", "penalty", "wanted"),
    [
        ("mean", 1.0, [2.0, 0.0, 0.5]),
        ("minimum", 1.0, [1.0, -2.0, 0.5]),
        ("minus_std", 0.5, [2.0 - 0.5 * np.sqrt(2 / 3), -0.5 * DEVIATION, 0.5]),
        ("minus_variance", 0.5, [2.0 - 0.5 * 2 / 3, -0.5 * 8 / 3, 0.5]),
    ],
)
def test_scores_of_an_ensemble(
    tmp_path: Path, combine: Any, penalty: float, wanted: list[float]
) -> None:
    inputs = {}
    for number, scores in enumerate(GIVEN):
        inputs[f"of.{number}"] = folder = tmp_path / str(number)
        folder.mkdir()
        np.save(folder / SCORES, np.array(scores, np.float32))
    job = EnsembleJob(
        key="e", id="e", stage="e", inputs={}, combine=combine, penalty=penalty, judge="both"
    )
    together(job, inputs, tmp_path / "job")
    found = np.load(tmp_path / "job" / "result" / SCORES)
    assert found.dtype == np.float32
    assert found[:3] == pytest.approx(wanted, rel=1e-6)
    assert np.isnan(found[3])  # one of them could not read it
