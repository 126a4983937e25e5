"""Memory as plans have it, against what the benchmark has recorded of steps."""

import sys
from pathlib import Path
from statistics import median

import pytest

# The benchmarks are no part of what is installed.
sys.path.append(str(Path(__file__).parents[3]))

from benchmarks.memory import ROWS, Row, job_of, planned, recorded
from etude.compiler.costs.hardware import GIB

MEASURED = recorded()


def off(row: Row) -> float:
    return sum(planned(job_of(row)).values()) / GIB / MEASURED[row.name].allocated - 1


def test_every_row_has_been_measured() -> None:
    assert set(MEASURED) == {row.name for row in ROWS}
    assert len(MEASURED) == len(ROWS) > 30


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_the_memory_of_a_step_is_near_what_was_measured(row: Row) -> None:
    assert abs(off(row)) < 0.12


def test_half_of_the_rows_are_within_two_percent() -> None:
    assert median(abs(off(row)) for row in ROWS) < 0.02
