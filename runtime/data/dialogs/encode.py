"""Text with parts → tokens with parts; special tokens only where the protocol puts them."""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any

import numpy as np
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
        ends = np.cumsum([len(piece.text) for piece in pieces], dtype=np.int64)
        placed = [span for start, stop in _fixed(pieces) for span in self.find(text, start, stop)]
        ids, lasts = self._tokens(text, placed)
        within = np.searchsorted(ends, lasts, side="right")

        def of_tokens(values: list[Any]) -> list[Any]:
            return np.array(values, object)[within].tolist()

        return Rendered(
            ids,
            of_tokens([piece.part for piece in pieces]),
            of_tokens([piece.role for piece in pieces]),
            of_tokens([piece.message for piece in pieces]),
            of_tokens([piece.free for piece in pieces]),
            of_tokens([piece.step for piece in pieces]),
        )

    def _tokens(self, text: str, placed: list[tuple[int, int]]) -> tuple[list[int], np.ndarray]:
        """Token ids, and the position of each one's last character: int64, shape (tokens,)."""
        if self.find(text) == placed:
            return _with_ends(self._whole, text, 0)
        ids: list[int] = []
        lasts: list[np.ndarray] = []
        begin = 0
        for start, stop in placed:
            made, places = _with_ends(self._plain, text[begin:start], begin)
            ids += [*made, self.special[text[start:stop]]]
            lasts += [places, np.array([stop - 1])]
            begin = stop
        made, places = _with_ends(self._plain, text[begin:], begin)
        return ids + made, np.concatenate([*lasts, places])


def _with_ends(tokenizer: Tokenizer, text: str, shift: int) -> tuple[list[int], np.ndarray]:
    if not text:
        return [], np.zeros(0, np.int64)
    encoding = tokenizer.encode(text, add_special_tokens=False)
    ids = encoding.ids
    offsets = np.fromiter(chain.from_iterable(encoding.offsets), np.int64, 2 * len(ids))
    starts, stops = offsets[::2], offsets[1::2]
    # Some tokenizers give a token empty offsets: such a token is where it begins.
    return ids, shift + np.maximum(stops - 1, starts)


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
