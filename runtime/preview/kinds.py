"""Names for the tokens of a rendered dialog."""

import re
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from ..data.dialogs.encode import CONTENT, EXCLUDED, FORMATTING, OTHER, TERMINATION, Rendered
from ..data.tokens.tokenizer import special
from .parts import Label, decoded

_THOUGHTS = ("reasoning_content", "reasoning", "thinking", "thought")
_TAGGED = re.compile(r"\s*<(think|thinking|thought|reasoning)>.*?</\1>\s*", re.DOTALL)
_CLOSED = re.compile(r"\s*(</[^<>]*>|<\|[^|]*\|>|\[/[A-Z_]+\])?\s*")


def labels_of(
    tokenizer: Tokenizer,
    rendered: Rendered,
    learned: np.ndarray,
    messages: Sequence[Mapping[str, Any]] = (),
    *,
    branch: str = "",
) -> list[Label]:
    """The label of each token.

    Args:
        learned: bool, shape (n,).
        messages: of the whole dialog; they tell thoughts and tool calls apart.
        branch: the branch of a preference that is rendered.
    """
    marks = {n for n, token in tokenizer.get_added_tokens_decoder().items() if token.special}
    kinds = list(_kinds(tokenizer, rendered, messages))
    return [
        Label(kind, bool(taught), number in marks, branch, message)
        for kind, taught, number, message in zip(
            kinds, learned, rendered.ids, rendered.messages, strict=True
        )
    ]


def _kinds(
    tokenizer: Tokenizer, rendered: Rendered, messages: Sequence[Mapping[str, Any]]
) -> Iterator[str]:
    numbers = range(len(rendered))
    plain = not any(rendered.roles)
    asked = OTHER in rendered.parts[1:-1] if plain else False
    bos = special(tokenizer).bos
    begin = bool(rendered.ids) and rendered.ids[0] == bos
    for (message, role), run in groupby(
        numbers, key=lambda i: (rendered.messages[i], rendered.roles[i])
    ):
        places = list(run)
        own = rendered.cut(places[0], places[-1] + 1)
        if role == "assistant" and not {OTHER, EXCLUDED}.issuperset(own.parts):
            about = messages[message] if 0 <= message < len(messages) else {}
            kinds = _assistant(tokenizer, own, about)
        elif role:
            kinds = _other(own, role)
        else:
            kinds = _plain(own, prompted=asked)
        if begin and places[0] == 0:
            kinds = ["begin", *kinds[1:]]
        yield from kinds


def _plain(own: Rendered, *, prompted: bool) -> list[str]:
    """Text without a protocol."""
    kinds = []
    for part, free in zip(own.parts, own.free, strict=True):
        if not free:
            kinds.append("end" if part == TERMINATION else "begin")
        elif part == CONTENT:
            kinds.append("completion" if prompted else "text")
        else:
            kinds.append("prompt")
    return kinds


def _other(own: Rendered, role: str) -> list[str]:
    """A message from which the assistant learns nothing."""
    brought = [i for i, free in enumerate(own.free) if free]
    if not brought:
        return [role] * len(own)
    first, last = brought[0], brought[-1]
    return [
        f"{role} header" if i < first else f"{role} end" if i > last else role
        for i in range(len(own))
    ]


def _assistant(tokenizer: Tokenizer, own: Rendered, message: Mapping[str, Any]) -> list[str]:
    kinds: list[str] = []
    runs = [(part, list(run)) for part, run in groupby(range(len(own)), key=own.parts.__getitem__)]
    for number, (part, places) in enumerate(runs):
        if part == CONTENT:
            kinds += _content(tokenizer, [own.ids[i] for i in places], message)
        elif part == TERMINATION:
            kinds += ["assistant end"] * len(places)
        else:
            following = runs[number + 1][0] if number + 1 < len(runs) else None
            ends = following is None and any(part == CONTENT for part, _ in runs[:number])
            opens = part == FORMATTING and not ends
            kinds += ["assistant header" if opens else "assistant end"] * len(places)
    return kinds


def _content(tokenizer: Tokenizer, ids: Sequence[int], message: Mapping[str, Any]) -> list[str]:
    """Which of an assistant's tokens are thoughts, text and tool calls."""
    text = decoded(tokenizer, ids)
    thought = _thought(text, message)
    said = str(message.get("content") or "").strip()
    called = len(text)
    if message.get("tool_calls"):
        place = text.find(said, thought) if said else -1
        called = thought if place < 0 else place + len(said)
    if thought == 0 and called == len(text):
        return ["assistant"] * len(ids)

    def tokens(characters: int) -> int:
        """The number of tokens at the beginning that hold this many characters."""
        if characters >= len(text):
            return len(ids)
        return bisect_left(
            range(len(ids)), characters, key=lambda n: len(decoded(tokenizer, ids[:n]))
        )

    thoughts, texts = tokens(thought), tokens(called)
    kinds = ["thought"] * thoughts + ["assistant"] * (texts - thoughts)
    return kinds + ["tool call"] * (len(ids) - texts)


def _thought(text: str, message: Mapping[str, Any]) -> int:
    """Where the thought at the beginning of a text ends; 0 if there is none."""
    for key in _THOUGHTS:
        known = str(message.get(key) or "").strip()
        if known and known in text:
            end = text.index(known) + len(known)
            closed = _CLOSED.match(text, end)
            return closed.end() if closed else end
    found = _TAGGED.match(text)
    return found.end() if found else 0
