"""Similarity of responses, and which responses of a record are too similar."""

from collections.abc import Sequence

from ..errors import RunError


def similarity(one: str, other: str) -> float:
    """The share of two texts that is common to both, from 0 to 1.

    1 − d / (|one| + |other|), d the least number of characters to insert and delete that makes
    one text the other (rapidfuzz's `Indel`); two empty texts are equal.

    Raises:
        RunError: rapidfuzz is not installed.
    """
    try:
        from rapidfuzz.distance import Indel
    except ImportError:
        raise RunError(
            "rapidfuzz, which compares responses, is not installed",
            "install it: pip install 'etude[post]'",
        ) from None
    return Indel.normalized_similarity(one, other)


def unlike(texts: Sequence[str], limit: float) -> list[int]:
    """Which responses, best first, are left when similar ones are dropped.

    From the best to the worst, each is dropped that is more alike than `limit` to one that is
    kept. Of two similar ones the better is kept, and so is the widest contrast.
    """
    kept: list[int] = []
    for number, text in enumerate(texts):
        if all(similarity(text, texts[other]) <= limit for other in kept):
            kept.append(number)
    return kept
