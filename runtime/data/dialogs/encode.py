"""Text with parts → tokens with parts; special tokens only where the protocol puts them."""

import json
import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate, chain, pairwise, repeat
from typing import Any

from tokenizers import Tokenizer

OTHER, CONTENT, TERMINATION, FORMATTING, EXCLUDED = 0, 1, 2, 3, 4
"""A token's part of an assistant's message; any other token is OTHER.

CONTENT: the text, including tool calls and the mark of their destination. TERMINATION: what ends
the message, written by the model. FORMATTING: header and separators, written by others. EXCLUDED:
any token of a message that its record excludes from learning.
"""


@dataclass
class Rendered:
    """A rendered dialog: lists with one entry per token.

    Attributes:
        ids: token ids.
        parts: OTHER, CONTENT, TERMINATION, FORMATTING or EXCLUDED.
        roles: the role of the token's message, "" outside of messages.
        messages: the number of the token's message in the dialog, from 0; -1 outside of messages.
        free: whether the token comes from the dialog rather than the protocol.
        steps: the number of the token's step in an answer that is cut into steps, else 0.
    """

    ids: list[int] = field(default_factory=list)
    parts: list[int] = field(default_factory=list)
    roles: list[str] = field(default_factory=list)
    messages: list[int] = field(default_factory=list)
    free: list[bool] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.ids)

    def cut(self, start: int, stop: int | None = None) -> "Rendered":
        """The tokens from `start` to `stop`."""
        where = slice(start, stop)
        return Rendered(
            self.ids[where],
            self.parts[where],
            self.roles[where],
            self.messages[where],
            self.free[where],
            self.steps[where],
        )


@dataclass(frozen=True)
class Piece:
    """A span of the text.

    Attributes:
        free: whether it comes from the dialog: no special token is recognised in it.
        step: its number in an answer that is cut into steps.
    """

    text: str
    part: int = OTHER
    role: str = ""
    message: int = -1
    free: bool = False
    step: int = 0


def in_steps(pieces: Sequence[Piece], separator: str, first: int = -1) -> list[Piece]:
    """The pieces of an answer, its content cut into steps, each of which ends with its separator.
    The text, and so its tokens, stay the same.

    What is not content belongs to the step before it, or to the first one. So does a blank step.

    Args:
        first: the number of the message that the answer begins with.
    """
    found: list[Piece] = []
    step, ended = 0, False
    for piece in pieces:
        if not piece.free or piece.part != CONTENT or piece.message < first:
            found.append(replace(piece, step=step))
            continue
        texts = piece.text.split(separator)
        for number, text in enumerate(texts):
            said, ends = bool(text.strip()), number < len(texts) - 1
            if said and ended:
                step, ended = step + 1, False
            found.append(replace(piece, text=text + separator * ends, step=step))
            ended = ended or (said and ends)
    return found


class Encoder:
    """Tokenizes pieces as one text, without the tokenizer's own additions."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        settings = json.loads(tokenizer.to_str())
        # Post-processors add tokens, and the byte-level one trims the offsets.
        settings |= {"post_processor": None, "truncation": None, "padding": None}
        text = json.dumps(settings)
        self._whole = Tokenizer.from_str(text)
        self._plain = Tokenizer.from_str(text)
        self._plain.encode_special_tokens = True
        added = tokenizer.get_added_tokens_decoder().items()
        self.special = {token.content: number for number, token in added if token.special}
        names = sorted(self.special, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, names)) if names else "(?!)")

    def find(self, text: str, start: int = 0, stop: int | None = None) -> list[tuple[int, int]]:
        """The positions of special tokens in a part of a text."""
        return list(self.found(text, start, stop))

    def found(
        self, text: str, start: int = 0, stop: int | None = None
    ) -> Iterator[tuple[int, int]]:
        """Like `find`, but lazily."""
        stop = len(text) if stop is None else stop
        return (match.span() for match in self._pattern.finditer(text, start, stop))

    def encode(self, pieces: Sequence[Piece]) -> Rendered:
        """The tokens of the joined pieces.

        A token that spans several pieces belongs to the one it ends in.
        """
        pieces = [piece for piece in pieces if piece.text]
        text = "".join(piece.text for piece in pieces)
        ends = list(accumulate(len(piece.text) for piece in pieces))
        placed = [span for start, stop in _fixed(pieces) for span in self.find(text, start, stop)]
        ids, before = self._tokens(text, placed, ends)
        counts = [upto - first for first, upto in pairwise((0, *before))]

        def of_tokens(values: Iterable[Any]) -> list[Any]:
            return list(chain.from_iterable(map(repeat, values, counts)))

        return Rendered(
            ids,
            of_tokens(piece.part for piece in pieces),
            of_tokens(piece.role for piece in pieces),
            of_tokens(piece.message for piece in pieces),
            of_tokens(piece.free for piece in pieces),
            of_tokens(piece.step for piece in pieces),
        )

    def _tokens(
        self, text: str, placed: list[tuple[int, int]], ends: list[int]
    ) -> tuple[list[int], list[int]]:
        """Token ids, and for each end of a piece how many tokens end at it or before."""
        if self.find(text) == placed:
            return _with_ends(self._whole, text, ends)
        ids: list[int] = []
        before: list[int] = []

        def add(made: list[int], found: list[int]) -> None:
            before.extend(len(ids) + count for count in found)
            ids.extend(made)

        begin = 0
        for start, stop in placed:
            upto = bisect_right(ends, start)
            inside = [end - begin for end in ends[len(before) : upto]]
            add(*_with_ends(self._plain, text[begin:start], inside))
            upto = bisect_right(ends, stop)
            add(
                [self.special[text[start:stop]]], [int(e == stop) for e in ends[len(before) : upto]]
            )
            begin = stop
        inside = [end - begin for end in ends[len(before) :]]
        add(*_with_ends(self._plain, text[begin:], inside))
        return ids, before


def _with_ends(tokenizer: Tokenizer, text: str, ends: list[int]) -> tuple[list[int], list[int]]:
    """Token ids, and for each of some places how many tokens end at it or before."""
    if not text:
        return [], [0] * len(ends)
    encoding = tokenizer.encode(text, add_special_tokens=False)
    ids = encoding.ids

    def last(token: int) -> int:
        """The token's last character."""
        place = encoding.token_to_chars(token)
        assert place is not None
        start, stop = place
        # Some tokenizers give a token empty offsets: such a token is where it begins.
        return max(stop - 1, start)

    # Few tokens are asked for their place: to ask all takes as long as to make them.
    tokens = range(len(ids))
    return ids, [
        len(ids) if end == len(text) else bisect_left(tokens, end, key=last) for end in ends
    ]


def _fixed(pieces: Sequence[Piece]) -> Iterator[tuple[int, int]]:
    """The spans of text between free pieces."""
    begin = place = 0
    for piece in pieces:
        if piece.free:
            if begin < place:
                yield begin, place
            begin = place + len(piece.text)
        place += len(piece.text)
    if begin < place:
        yield begin, place
