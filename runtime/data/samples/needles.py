"""The built-in sample corpus `needles`, and the needle-in-a-haystack test that goes with it.

Documents state a password ("The password is red tiger iron.") among filler sentences and ask for
it again later, nearby in some and far away in others. To predict the answers, a model must look
them up in its context: each of the three words is one of eight with equal probability, so a guess
is right once in 512 times. A document has only one password, and its other facts ("The guard is
Anna.") are never asked for: a two-layer model learns this from about half a million tokens, while
telling two secrets apart takes at least twice as many.
"""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ...errors import RunError

PASSWORDS = (
    ("red", "blue", "green", "black", "white", "yellow", "brown", "pink"),
    ("lion", "tiger", "wolf", "bear", "fox", "horse", "goat", "mouse"),
    ("gold", "iron", "silver", "copper", "tin", "zinc", "lead", "steel"),
)
"""The words of a password: one of each tuple, in this order."""

QUESTION = "What password? The password is"

MOST_FILLER = 0.95
"""The share of filler in a document is between 0 and this. Dense documents teach lookup itself,
sparse ones long-range lookup."""

SENTENCES = (4, 40)
"""Fewest and most sentences per document: about 35 to 400 tokens."""

_PLACES = ("river", "garden", "market", "village", "forest", "kitchen", "station", "library")
_MOODS = ("quiet", "warm", "cold", "bright", "dark", "empty", "busy", "old")
_TIMES = ("in the morning", "at noon", "in the evening", "at night", "in winter", "all day")
_PEOPLE = ("driver", "guard", "baker", "doctor")
_NAMES = ("Anna", "Ben", "Clara", "David", "Emma", "Frank")


@dataclass(frozen=True)
class Haystack:
    """One test item.

    Attributes:
        prompt: the text to continue: filler that contains the needle, with the question at the end.
        answer: the one correct continuation.
        needle: the sentence with the answer, which occurs once in the prompt.
    """

    prompt: str
    answer: str
    needle: str


def documents(seed: int, count: int) -> Iterator[str]:
    """`count` training documents; document i depends only on the seed and i."""
    for index in range(count):
        yield _document(random.Random(f"needles training {seed} {index}"))


def haystack(seed: int, *, depth: float, length: int, count: Callable[[str], int]) -> Haystack:
    """A test item whose prompt and answer take at most `length` tokens, and nearly as many.

    Args:
        seed: one item per seed; no seed repeats a document of `documents`.
        depth: the position of the needle in the filler, from 0 (beginning) to 1 (end).
        count: returns the number of tokens of a text.

    Raises:
        RunError: not even the needle and the question fit.
    """
    rng = random.Random(f"needles evaluation {seed}")
    password = _password(rng)
    needle, answer = _statement(password), f" {password}."
    budget = length - count(answer)

    def prompt(hay: list[str]) -> str:
        sizes = [count(" " + sentence) for sentence in hay]
        wish = depth * sum(sizes)
        place = min(range(len(hay) + 1), key=lambda i: abs(sum(sizes[:i]) - wish))
        return " ".join([*hay[:place], needle, *hay[place:], QUESTION])

    hay: list[str] = []
    room = budget - count(prompt(hay))
    if room < 0:
        raise RunError(
            f"a needle and its question take {length - room} tokens, more than the length {length}",
            "test greater lengths, or train a tokenizer with a larger vocabulary",
        )
    while room >= 0:
        hay.append(_filler(rng))
        room -= count(" " + hay[-1])
    while count(text := prompt(hay)) > budget:
        hay.pop()
    return Haystack(text, answer, needle)


def _document(rng: random.Random) -> str:
    least, most = SENTENCES
    length = round(least * (most / least) ** rng.random())
    filler = MOST_FILLER * rng.random()
    password = _password(rng)
    sentences = [_statement(password)]
    while len(sentences) < length:
        if rng.random() < filler:
            sentences.append(_filler(rng))
        else:
            sentences.append(f"{QUESTION} {password}.")
    return " ".join(sentences)


def _password(rng: random.Random) -> str:
    return " ".join(rng.choice(words) for words in PASSWORDS)


def _statement(password: str) -> str:
    return f"The password is {password}."


def _filler(rng: random.Random) -> str:
    here, there = rng.sample(_PLACES, 2)
    mood, time = rng.choice(_MOODS), rng.choice(_TIMES)
    return rng.choice(
        (
            f"The {here} was {mood} {time}.",
            f"We walked from the {here} to the {there}.",
            f"It was {mood} near the {here} {time}.",
            f"The {rng.choice(_PEOPLE)} is {rng.choice(_NAMES)}.",
        )
    )
