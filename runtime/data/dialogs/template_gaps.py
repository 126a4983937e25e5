"""Finds what surrounds all answers of a dialog from one rendering.

`template_parts` replaces one answer at a time, which takes a rendering of the whole dialog for each
of them. Here all answers are replaced at once, each by a character of its own. Where the text
between two answers occurs exactly once from the first's own text to the second's, it shows where
one ends and the other begins, as if they had been replaced one by one. Where it does not, because
the template also writes an answer elsewhere or looks into it, nothing is said.
"""

import json
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from ...errors import DataError
from .chat_template import PRIVATE, Template, free_characters
from .template_marks import Marked
from .template_parts import Message, changed

Span = tuple[int, int]


def gaps(
    template: Template,
    messages: Sequence[Message],
    tools: list[dict[str, Any]] | None,
    text: str,
    known: Marked,
) -> Mapping[int, Span]:
    """Message number of each answer → the span of `text` that its content determines: what it says,
    its thoughts and calls with their markup.

    Returns: all answers, or none if one of them cannot be determined so.

    Args:
        messages: in normal form.
        text: the dialog as the template renders it.
        known: where the dialog's own texts are in it.
    """
    numbers = [n for n, message in enumerate(messages) if message["role"] == "assistant"]
    said = _said(known, numbers) if known.whole and len(numbers) > 1 else None
    if said is None or len(numbers) > len(PRIVATE) // 2:
        return {}
    dumped = json.dumps([*messages, tools], ensure_ascii=False)
    marks = dict(zip(numbers, free_characters(len(numbers), text, dumped), strict=True))
    given = [
        changed(each, marks[n], bool(each.get("tool_calls"))) if n in marks else each
        for n, each in enumerate(messages)
    ]
    try:
        between = _between(template.render(given, tools), marks, messages)
    except DataError:  # the template rejects other answers
        between = None
    return {} if between is None else _aligned(text, messages, between, said, numbers)


def _said(known: Marked, numbers: Sequence[int]) -> list[Span] | None:
    """From where to where the text has what each answer says; None if that overlaps."""
    found: list[Span] = []
    for number in numbers:
        own = known.places.of(number)
        if not own:
            return None
        found.append((min(each.start for each in own), max(each.stop for each in own)))
    apart = all(a[1] <= b[0] for a, b in pairwise(found))
    return found if apart else None


def _between(shown: str, marks: Mapping[int, str], messages: Sequence[Message]) -> list[str] | None:
    """The texts before, between and after the marks of all answers; None if they are not apart."""
    begin, found = 0, []
    for number, mark in marks.items():
        first, last = shown.find(mark), shown.rfind(mark)
        # Plain content is replaced by nothing but marks.
        plain = not messages[number].get("tool_calls")
        if first < begin or (plain and shown[first : last + 1].strip(mark)):
            return None
        found.append(shown[begin:first])
        begin = last + 1
    return [*found, shown[begin:]]


def _aligned(
    text: str,
    messages: Sequence[Message],
    between: Sequence[str],
    said: Sequence[Span],
    numbers: Sequence[int],
) -> dict[int, Span]:
    """Where the answers are in the text, from what is between them."""
    first, *inner, last = between
    begin, end = len(first), len(text) - len(last)
    if not (text.startswith(first) and text.endswith(last)):
        return {}
    begins, ends = [begin], []
    for gap, (low, _), (_, high) in zip(inner, said, said[1:], strict=False):
        place = text.find(gap, low, high)
        if not gap or place < 0 or text.find(gap, place + 1, high) >= 0:
            return {}
        ends.append(place)
        begins.append(place + len(gap))
    ends.append(end)
    for number, begin, (low, high), end in zip(numbers, begins, said, ends, strict=True):
        # Calls keep the names of their functions.
        kept = bool(messages[number].get("tool_calls"))
        if begin > (high if kept else low) or end < (low if kept else high):
            return {}
    return dict(zip(numbers, zip(begins, ends, strict=True), strict=True))
