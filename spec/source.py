"""Source texts and places in them."""

from bisect import bisect_right
from functools import cached_property
from typing import ClassVar, NamedTuple

from .record import Record

SET = "--set "
"""The prefix of the names of sources given on the command line; a number follows."""


class Source(Record, kw_only=False):
    """A file's text as the user knows it.

    Attributes:
        name: the path as it should be shown.
        text: the whole text.
    """

    name: str
    text: str
    offset: ClassVar[int] = 0

    @property
    def source(self) -> "Source":
        """Itself: spans refer to a `Source` or to a `Piece`."""
        return self

    @cached_property
    def _line_starts(self) -> list[int]:
        starts = [0]
        for offset, character in enumerate(self.text):
            if character == "\n":
                starts.append(offset + 1)
        return starts

    def position(self, offset: int) -> tuple[int, int]:
        """Line and column of an offset, both from 1, in characters."""
        line = bisect_right(self._line_starts, offset)
        return line, offset - self._line_starts[line - 1] + 1

    def line(self, number: int) -> str:
        """The text of a line (from 1), without its line break."""
        starts = self._line_starts
        end = starts[number] - 1 if number < len(starts) else len(self.text)
        return self.text[starts[number - 1] : end].rstrip("\r")


class Piece:
    """A part of a source that is read on its own.

    Its places stay right when it moves: an editor's text is read again after every edit, and the
    results for unchanged pieces are reused. This is the only value that changes.

    Attributes:
        text: what is read.
        source: the source that contains it now.
        offset: where it begins there.
    """

    __slots__ = ("offset", "source", "text")

    def __init__(self, text: str, source: Source, offset: int) -> None:
        self.text = text
        self.source = source
        self.offset = offset

    def move(self, source: Source, offset: int) -> None:
        """Moves it to where the same text is in another source."""
        self.source = source
        self.offset = offset


class Span(NamedTuple):
    """A half-open range of characters, counted from the beginning of a source or of a piece."""

    origin: Source | Piece
    first: int
    last: int

    @property
    def source(self) -> Source:
        """The file that contains the place."""
        return self.origin.source

    @property
    def start(self) -> int:
        """The offset of the first character in the file."""
        return self.origin.offset + self.first

    @property
    def end(self) -> int:
        """The offset after the last character in the file."""
        return self.origin.offset + self.last

    @property
    def line(self) -> int:
        """The line in which the place begins, from 1."""
        return self.source.position(self.start)[0]

    @property
    def column(self) -> int:
        """The column in which the place begins, from 1."""
        return self.source.position(self.start)[1]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Span):
            return NotImplemented
        return (self.start, self.end, self.source) == (other.start, other.end, other.source)

    def __hash__(self) -> int:
        return hash((self.start, self.end))

    @property
    def text(self) -> str:
        """The text at the place."""
        return self.source.text[self.start : self.end]

    def __repr__(self) -> str:
        if self.source.name.startswith(SET):
            return self.source.name
        return f"{self.source.name}:{self.line}:{self.column}"
