"""The table of docs/performance.md is what the compiler plans."""

import sys
from pathlib import Path

import pytest

# The benchmarks are no part of what is installed.
sys.path.append(str(Path(__file__).parents[3]))

from benchmarks import settings


def test_the_rows_of_the_smallest_model_are_those_of_its_plan() -> None:
    rows = [settings.row(case) for case in settings.CASES if case.size == "8B"]
    text = settings.PAGE.read_text()
    assert len(rows) == 3
    for row in rows:
        assert row in text


@pytest.mark.exhaustive
def test_the_table_is_that_of_the_plans() -> None:
    text = settings.PAGE.read_text()
    assert settings.page(text) == text
