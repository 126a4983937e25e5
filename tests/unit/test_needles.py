"""The needles corpus and its test items."""

import pytest

from etude.runtime.data import needles
from etude.runtime.errors import RunError


def words(text: str) -> int:
    return len(text.split())


def test_documents_depend_on_seed_and_index_alone() -> None:
    ten = list(needles.documents(1, 10))
    assert ten == list(needles.documents(1, 10))
    assert ten[:3] == list(needles.documents(1, 3))
    assert ten != list(needles.documents(2, 10))


def test_answers_in_documents_repeat_what_was_stated() -> None:
    for document in needles.documents(3, 200):
        for kind in needles.SECRETS:
            said = {
                part.split(".")[0] for part in document.split(f"The {kind} is ")[1:]
            }  # fmt: skip
            assert len(said) <= 1


@pytest.mark.parametrize("length", [40, 100, 1000])
@pytest.mark.parametrize("depth", [0.0, 0.25, 0.5, 1.0])
def test_a_haystack_fills_its_length_with_the_needle_at_its_depth(
    length: int, depth: float
) -> None:
    for seed in range(20):
        item = needles.haystack(seed, depth=depth, length=length, count=words)
        assert item.prompt.count(item.needle) == 1
        assert item.prompt.endswith("is")
        assert (item.prompt + item.answer).endswith(item.needle.removeprefix("The "))
        size = words(item.prompt) + words(item.answer)
        assert length - 12 <= size <= length
        before = words(item.prompt[: item.prompt.index(item.needle)])
        after = words(item.prompt) - before - words(item.needle) - 5
        assert abs(before - depth * (before + after)) <= 5


def test_other_secrets_distract() -> None:
    items = [needles.haystack(s, depth=0.5, length=400, count=words) for s in range(20)]
    assert sum(all(f"The {k} is" in i.prompt for k in needles.SECRETS) for i in items) > 10


def test_guessing_seldom_helps() -> None:
    answers = {needles.haystack(s, depth=0.5, length=60, count=words).answer for s in range(300)}
    assert len(answers) > 200


def test_too_short_a_length_is_refused() -> None:
    with pytest.raises(RunError, match="more than the length 8"):
        needles.haystack(0, depth=0.5, length=8, count=words)
