"""Plain texts."""

from collections.abc import Sequence


def common_start(texts: Sequence[str]) -> str:
    """The common beginning of one or more texts."""
    first, last = min(texts), max(texts)
    for place, (one, other) in enumerate(zip(first, last, strict=False)):
        if one != other:
            return first[:place]
    return first
