"""Places in an editor (lines, and columns in units of an encoding) and places in a text."""

import re
from bisect import bisect_right

from lsprotocol import types

_ENDS = re.compile(r"\r\n|\n|\r")


class Lines:
    """The lines of a text as editors count them: from zero, ended by LF, CR LF or CR.

    Args:
        encoding: what a column counts: code units of "utf-16" (the default unless editor and server
            agree on another), bytes of "utf-8", or characters ("utf-32").
    """

    def __init__(self, text: str, encoding: str = "utf-16") -> None:
        self.text = text
        self.encoding = encoding
        self.ascii = text.isascii()
        ends = [match.span() for match in _ENDS.finditer(text)]
        self.starts = [0, *(end for _, end in ends)]
        self.stops = [*(start for start, _ in ends), len(text)]

    def position(self, offset: int) -> types.Position:
        """The position of a character of the text; an offset after the text gives its end."""
        offset = min(max(offset, 0), len(self.text))
        line = bisect_right(self.starts, offset) - 1
        start = self.starts[line]
        before = self.text[start : min(offset, self.stops[line])]
        return types.Position(line, len(before) if self.ascii else self._units(before))

    def offset(self, position: types.Position) -> int:
        """The character at a position; a column after the end of its line gives that end."""
        if position.line >= len(self.starts):
            return len(self.text)
        start, stop = self.starts[position.line], self.stops[position.line]
        if self.ascii:
            return min(start + position.character, stop)
        units = 0
        for place in range(start, stop):
            if units >= position.character:
                return place
            units += self._units(self.text[place])
        return stop

    def range(self, start: int, end: int) -> types.Range:
        """The client's range for a range of the text."""
        return types.Range(self.position(start), self.position(end))

    def _units(self, text: str) -> int:
        if self.encoding == "utf-32":
            return len(text)
        if self.encoding == "utf-8":
            return len(text.encode("utf-8", "surrogatepass"))
        return len(text) + sum(character > "\uffff" for character in text)
