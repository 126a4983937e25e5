"""Similarity of responses, and which responses of a record are too similar."""

from collections.abc import Sequence

from ...errors import RunError


def similarity(one: str, other: str) -> float:
    """The share of two texts that they have in common, from 0 to 1.

    1 − d / (|one| + |other|), where d is the least number of insertions and deletions of characters
    that turn one text into the other (rapidfuzz's `Indel`). Two empty texts are equal.

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
    """Which responses, best first, remain when similar ones are dropped.

    From best to worst, a response is dropped if its similarity to a kept one exceeds `limit`. Of
    two similar ones the better is kept, and so is the widest contrast.
    """
    kept: list[int] = []
    for number, text in enumerate(texts):
        if all(similarity(text, texts[other]) <= limit for other in kept):
            kept.append(number)
    return kept
