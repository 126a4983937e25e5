"""One mistake is one error, at its place: examples with one mistake each, drawn by a fixed seed."""

from collections import Counter

import pytest
from mutations import EXAMPLES, Mistake, errors, mistakes

EACH = 60
"""Mistakes of an example; those that `use` files need them."""


@pytest.fixture(scope="module")
def found() -> list[tuple[Mistake, list]]:
    result = []
    for seed, path in enumerate(EXAMPLES):
        text = path.read_text(encoding="utf-8")
        if 'use "' in text or errors(text):
            continue
        result += [(mistake, errors(mistake.text)) for mistake in mistakes(text, EACH, seed)]
    return [(mistake, of) for mistake, of in result if of]


def share(of: list[bool]) -> float:
    return sum(of) / len(of)


def test_one_mistake_is_one_error(found: list[tuple[Mistake, list]]) -> None:
    assert len(found) > 700
    assert share([len(of) == 1 for _, of in found]) >= 0.97
    assert sum(len(of) for _, of in found) / len(found) <= 1.04


def test_the_error_points_to_the_mistake_or_the_line_beside_it(
    found: list[tuple[Mistake, list]],
) -> None:
    """By its own place or, of a bracket that is open, by where the other one belongs."""

    def near(mistake: Mistake, error) -> bool:
        places = [error.span, *(span for span, _ in error.notes)]
        return any(span and abs(span.line - mistake.line) <= 1 for span in places)

    assert share([near(mistake, of[0]) for mistake, of in found]) >= 0.98


def test_no_kind_of_mistake_is_worse_than_the_others(found: list[tuple[Mistake, list]]) -> None:
    kinds = Counter(mistake.kind for mistake, _ in found)
    many = Counter(mistake.kind for mistake, of in found if len(of) > 1)
    assert {kind: many[kind] for kind in many if many[kind] > max(2, kinds[kind] * 0.2)} == {}
