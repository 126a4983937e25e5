"""The built-in sample corpus `needles`, and the needle-in-a-haystack test that goes with it.

Documents state a secret ("The password is red tiger iron.") among filler sentences, and ask for it
again later. A model that predicts the answers has to look them up in its context: every word of a
secret is as likely as the other words in its place, so that guessing scores one in several hundred.
"""

import os
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ..errors import DataError

SECRETS: dict[str, tuple[tuple[str, ...], ...]] = {
    kind: tuple(tuple(words.split()) for words in places)
    for kind, places in {
        "password": (
            "red blue green black white yellow brown pink",
            "lion tiger wolf bear fox horse goat mouse",
            "gold iron silver copper tin zinc lead steel",
        ),
        "address": (
            "two three four five six seven eight nine",
            "apple pear plum lemon cherry olive peach mango",
            "street road lane square hill bank court gate",
        ),
        "order": (
            "hot iced sweet strong weak plain double small",
            "tea coffee milk juice cider cocoa rum soda",
            "bread cake soup rice cheese salad toast pasta",
        ),
    }.items()
}
for k in list(SECRETS)[int(os.environ.get("NKINDS", "3")):]:
    del SECRETS[k]
FILL = float(os.environ.get("FILL", "0.7"))

_PLACES = "river garden market harbour village forest kitchen station library bridge".split()
_MOODS = "quiet warm cold bright dark empty busy old".split()
_TIMES = ("in the morning", "at noon", "in the evening", "at night", "in winter", "all day")
_SENTENCES = (4, 40)  # in a training document: about 35 to 400 tokens


@dataclass(frozen=True)
class Haystack:
    """One test item: the text to continue, and the one continuation that counts as right."""

    prompt: str
    answer: str
    needle: str


def documents(seed: int, count: int) -> Iterator[str]:
    for index in range(count):
        yield _document(random.Random(f"needles training {seed} {index}"))


def haystack(seed: int, *, depth: float, length: int, count: Callable[[str], int]) -> Haystack:
    rng = random.Random(f"needles evaluation {seed}")
    kind, *other_kinds = rng.sample(list(SECRETS), len(SECRETS))
    words = _words(rng, kind)
    needle, question, answer = _fact(kind, words), _question(kind), f" {words}."
    budget = length - count(answer) - 1

    def prompt(hay: list[str]) -> str:
        sizes = [count(" " + sentence) for sentence in hay]
        wanted = depth * sum(sizes)
        place = min(range(len(hay) + 1), key=lambda i: abs(sum(sizes[:i]) - wanted))
        return " ".join([*hay[:place], needle, *hay[place:], question])

    room = budget - count(prompt([]))
    if room < 0:
        raise DataError("x")
    hay: list[str] = []
    while room >= 0:
        if other_kinds and rng.random() < 0.2:
            other = other_kinds.pop()
            hay.append(_fact(other, _words(rng, other)))
        else:
            hay.append(_filler(rng))
        room -= count(" " + hay[-1])
    while count(text := prompt(hay)) > budget:
        hay.pop()
    return Haystack(text, answer, needle)


def _words(rng, kind):
    return " ".join(rng.choice(place) for place in SECRETS[kind])


def _document(rng: random.Random) -> str:
    low, high = _SENTENCES
    length = round(low * (high / low) ** rng.random())
    filler_share = FILL * rng.random()
    kinds = rng.sample(list(SECRETS), len(SECRETS))
    secrets: dict[str, str] = {}
    sentences: list[str] = []
    for _ in range(length):
        if rng.random() < filler_share:
            sentences.append(_filler(rng))
        elif kinds and (not secrets or rng.random() < 0.2):
            kind = kinds.pop()
            secrets[kind] = _words(rng, kind)
            sentences.append(_fact(kind, secrets[kind]))
        else:
            kind = rng.choice(list(secrets))
            sentences.append(f"{_question(kind)} {secrets[kind]}.")
    return " ".join(sentences)


def _fact(kind: str, words: str) -> str:
    return f"The {kind} is {words}."


def _question(kind: str) -> str:
    return f"What {kind}? The {kind} is"


def _filler(rng: random.Random) -> str:
    here, there = rng.sample(_PLACES, 2)
    mood, time = rng.choice(_MOODS), rng.choice(_TIMES)
    return rng.choice(
        (
            f"The {here} was {mood} {time}.",
            f"We walked from the {here} to the {there}.",
            f"It was {mood} near the {here} {time}.",
            f"They met at the {here} {time}.",
        )
    )
