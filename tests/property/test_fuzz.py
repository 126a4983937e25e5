"""A share of `make fuzz`: no traceback, no finding without a place, no long wait."""

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
