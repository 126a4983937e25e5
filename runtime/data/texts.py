"""Plain texts."""

from collections.abc import Sequence


def common_start(texts: Sequence[str]) -> str:
    """What all of one or more texts begin with."""
    first, last = min(texts), max(texts)
    for place, (one, other) in enumerate(zip(first, last, strict=False)):
        if one != other:
            return first[:place]
    return first
