"""The needles corpus and its test items."""

import re
from collections.abc import Callable

import pytest

from etude.runtime.data.samples.needles import PASSWORDS, QUESTION, documents, haystack
from etude.runtime.errors import RunError

DEPTHS = [0.0, 0.25, 0.5, 0.75, 1.0]


def words(text: str) -> int:
    """Counts like a tokenizer that knows every word: words and full stops."""
    return len(re.findall(r"\w+|[^\w\s]", text))


def pairs(text: str) -> int:
    """Counts unlike one: the sentences take more one by one than together."""
    return -(-len(text) // 2)


def passwords(text: str) -> list[str]:
    return re.findall(r"The password is (\w+ \w+ \w+)\.", text)


def test_documents_depend_on_seed_and_index_alone() -> None:
    ten = list(documents(1, 10))
    assert ten == list(documents(1, 10))
    assert ten[:3] == list(documents(1, 3))
    assert not set(documents(1, 200)) & set(documents(2, 200))


def test_a_document_states_one_password_first_and_asks_for_it() -> None:
    texts = list(documents(3, 200))
    for text in texts:
        stated = passwords(text)
        assert text.startswith(f"The password is {stated[0]}.")
        assert len(set(stated)) == 1
    assert sum(text.count(QUESTION) for text in texts) > 600


def test_documents_are_short_and_long_dense_and_sparse() -> None:
    texts = list(documents(0, 300))
    lengths = sorted(map(words, texts))
    assert lengths[0] < 64
    assert lengths[-1] > 256
    gaps = [words(gap) for text in texts for gap in text.split("The password is")[1:-1]]
    assert min(gaps) < 8
    assert max(gaps) > 128


@pytest.mark.parametrize("count", [words, pairs])
@pytest.mark.parametrize("length", [64, 128, 512])
@pytest.mark.parametrize("depth", DEPTHS)
def test_a_haystack_fills_its_length_and_never_exceeds_it(
    depth: float, length: int, count: Callable[[str], int]
) -> None:
    longest_sentence = 24
    for seed in range(20):
        item = haystack(seed, depth=depth, length=length, count=count)
        size = count(item.prompt) + count(item.answer)
        assert length - longest_sentence < size <= length


@pytest.mark.parametrize("depth", DEPTHS)
def test_the_needle_stands_once_at_its_depth_and_nothing_else_tells(depth: float) -> None:
    for seed in range(20):
        item = haystack(seed, depth=depth, length=512, count=words)
        assert item.needle == "The password is" + item.answer
        before, after = item.prompt.removesuffix(QUESTION).split(item.needle)
        assert abs(words(before) - depth * words(before + after)) <= 6
        for word in item.answer.strip(" .").split():
            assert not re.search(rf"\b{word}\b", before + after)


def test_other_facts_distract() -> None:
    """Of the sentences of a length of 256 tokens, several have the needle's form."""
    prompts = [haystack(seed, depth=0.5, length=256, count=words).prompt for seed in range(100)]
    facts = [len(re.findall(r"The \w+ is [A-Z]\w+\.", prompt)) for prompt in prompts]
    assert sum(facts) / len(facts) > 5


def test_guessing_seldom_helps() -> None:
    items = [haystack(seed, depth=0.5, length=64, count=words) for seed in range(800)]
    answers = [tuple(item.answer.strip(" .").split()) for item in items]
    assert len(set(answers)) > 350
    for place, choices in enumerate(PASSWORDS):
        drawn = [answer[place] for answer in answers]
        assert set(drawn) == set(choices)
        assert max(map(drawn.count, choices)) < 1.5 * len(drawn) / len(choices)


def test_training_and_test_draw_from_different_streams() -> None:
    training = [passwords(text)[0] for text in documents(0, 500)]
    tested = [
        haystack(seed, depth=0, length=64, count=words).answer.strip(" .") for seed in range(500)
    ]
    assert sum(a == b for a, b in zip(training, tested, strict=True)) < 10


def test_too_short_a_length_is_refused_with_what_it_takes() -> None:
    with pytest.raises(RunError, match="more than the length 8") as error:
        haystack(0, depth=0.5, length=8, count=words)
    needed = int(re.findall(r"take (\d+) tokens", error.value.message)[0])
    assert haystack(0, depth=0.5, length=needed, count=words).prompt.endswith(QUESTION)
    with pytest.raises(RunError):
        haystack(0, depth=0.5, length=needed - 1, count=words)
