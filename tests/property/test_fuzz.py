"""A share of `make fuzz`: no traceback, no finding without a place, no long wait."""

from pathlib import Path

import fuzz_files
import pytest
from fuzz import made, tried


@pytest.mark.parametrize("first", range(1, 301, 100))
def test_a_hundred_inputs_are_answered(first: int) -> None:
    seeds = range(first, first + 100)
    problems = [f"seed {seed}: {found}" for seed in seeds if (found := tried(seed))]
    assert problems == []


def test_the_inputs_of_a_seed_are_the_same_and_those_of_others_are_not() -> None:
    assert made(7) == made(7)
    assert len({made(seed) for seed in range(1, 50)}) == 49


def test_damaged_files_of_data_are_read_or_refused(tmp_path: Path) -> None:
    seeds = range(10 * len(fuzz_files.data()))
    problems = [fuzz_files.tried("data", seed, tmp_path / "input") for seed in seeds]
    assert [problem for problem in problems if problem] == []


def test_damaged_files_of_runs_are_shown_or_refused(tmp_path: Path) -> None:
    """Without checkpoints, which need torch: `test_pickles`."""
    seeds = [seed for seed in range(8) if seed % len(fuzz_files.runs())]
    problems = [fuzz_files.tried("runs", seed, tmp_path / "input") for seed in seeds]
    assert [problem for problem in problems if problem] == []
