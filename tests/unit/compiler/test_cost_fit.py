"""The constants of the cost model are those that its fit finds."""

import runpy
from pathlib import Path

import pytest

from etude.compiler.costs.formulas import FITTED

MODEL = runpy.run_path(str(Path(__file__).parents[3] / "benchmarks" / "cost_model.py"))


@pytest.mark.exhaustive
def test_the_constants_are_those_of_the_fit() -> None:
    pytest.importorskip("scipy")
    found = MODEL["fit"]()
    for row in MODEL["rows"]():
        assert row.predicted(found) == pytest.approx(row.predicted(), rel=0.02), row.name


@pytest.mark.exhaustive
def test_the_constants_of_a_source_are_fitted_without_it() -> None:
    pytest.importorskip("scipy")
    source, of = next(iter(MODEL["by_source"]().items()))
    others = [row for row in MODEL["rows"]() if not row.is_memory and row.source != source]
    found = FITTED | MODEL["fit_to"](others)
    for row in of:
        assert row.off(found) == pytest.approx(MODEL["error"](row), abs=0.02), row.name


def test_published_rows_are_all_there() -> None:
    """So many the tables have: 20 of memory; 32 and 75 of throughput and 3 of FLOP/s."""
    rows = MODEL["rows"]()
    count = {what: sum(row.what == what for row in rows) for what in ("GiB", "tokens/s", "TFLOP/s")}
    assert count == {"GiB": 20, "tokens/s": 111, "TFLOP/s": 3}
    (flagship,) = (
        row
        for row in rows
        if row.name == "405B, FSDP 8, TP 8, PP 8, 1F1B" and row.what == "tokens/s"
    )
    assert flagship.published == 100
    assert flagship.setting.pipeline_batch == 4
