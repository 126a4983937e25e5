"""Brackets of a text, and whether each has its partner."""

from bisect import bisect_left

from .reader import BRACES


def brackets(text: str) -> list[tuple[int, str]]:
    """The places and kinds of all brackets."""
    return [(m.start(), m[0]) for m in BRACES.finditer(text) if m[0] in "{[()]}"]


def is_balanced(text: str) -> bool:
    """Whether every bracket has its partner."""
    return _matches("".join(kind for _, kind in brackets(text)))


def _matches(kinds: str) -> bool:
    """Whether each of these brackets has its partner."""
    length = -1
    while length != len(kinds):
        length = len(kinds)
        kinds = kinds.replace("{}", "").replace("[]", "").replace("()", "")
    return not kinds


class Attempts:
    """Whether the brackets of a changed text match. Only the changed lines are read, as neither a
    text in quotes nor a comment goes over a line."""

    def __init__(self, text: str) -> None:
        self._text = text
        found = brackets(text)
        self._places = [at for at, _ in found]
        self._kinds = "".join(kind for _, kind in found)

    def match(self, changed: str) -> bool:
        """Whether all brackets of a text match that differs in one place."""
        text, more = self._text, len(changed) - len(self._text)
        most = min(len(text), len(changed))
        same = _alike(text[:most], changed[:most])
        left = most - same
        rest = _alike(text[len(text) - left :][::-1], changed[len(changed) - left :][::-1])
        start = text.rfind("\n", 0, same) + 1
        end = text.find("\n", len(text) - rest)
        end = end if end >= 0 else len(text)
        before, after = bisect_left(self._places, start), bisect_left(self._places, end)
        between = "".join(kind for _, kind in brackets(changed[start : end + more]))
        return _matches(self._kinds[:before] + between + self._kinds[after:])


def _alike(one: str, other: str) -> int:
    """How many characters two texts of the same length have in common at their beginning."""
    low, high = 0, len(one)
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
