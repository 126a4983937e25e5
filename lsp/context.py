"""What is before the cursor, from the characters alone: unfinished text does not parse."""

import re
from typing import NamedTuple

from ..spec.schema import recipe as r
from ..spec.text.keywords import BREAKS_AFTER, CONTINUES
from . import names

_TOKEN = re.compile(
    r'(?P<text>"(?:[^"\\\n]|\\.)*"?)|(?P<comment>#[^\n]*)|(?P<end>\n)|(?P<number>[0-9][0-9_]*'
    r"(?:\.[0-9][0-9_]*)?(?:[eE][+-]?[0-9]+)?[A-Za-z%]*)|(?P<word>[A-Za-z_][A-Za-z0-9_]*)"
    r"|(?P<sign>->|>=|<=|\.\.|[^\s])"
)
_GOES_ON = ("->", *CONTINUES)


class Token(NamedTuple):
    """A word, a number, a text, a sign or the end of a line, with its place in the text."""

    kind: str
    text: str
    start: int
    end: int


class Frame(NamedTuple):
    """A block, group or list that is open at the cursor.

    Attributes:
        head: the tokens of the statement before its brace.
        start: the place of the brace.
        given: the first words of the statements in it, before and after the cursor.
    """

    brace: str
    head: tuple[Token, ...]
    start: int
    given: frozenset[str]

    @property
    def words(self) -> list[str]:
        """The words of the statement before the brace."""
        return [token.text for token in self.head]


class Context(NamedTuple):
    """Where the cursor is.

    Attributes:
        frames: the open frames, outermost first.
        statement: the tokens of the statement before the cursor, without the word being typed.
        before: the text of the statement up to there.
        prefix: the part before the cursor of the word, or of the text in quotes, being typed.
        start: where the prefix begins.
        inside: "text" or "comment" if the cursor is in one.
    """

    frames: tuple[Frame, ...]
    statement: tuple[Token, ...]
    before: str
    prefix: str
    start: int
    inside: str

    @property
    def blocks(self) -> list[Frame]:
        """The frames in braces: blocks and groups, not lists."""
        return [frame for frame in self.frames if frame.brace == "{"]

    @property
    def rounds(self) -> str:
        """The rounds that the cursor is in, or ""."""
        first = self.frames[0].words if self.frames else []
        return first[1] if len(first) > 1 and first[0] == "rounds" else ""

    @property
    def model(self) -> type[r.Declaration] | None:
        """The model of the innermost group or block in braces."""
        blocks = self.blocks
        if blocks and blocks[0].words[:1] == ["rounds"]:
            blocks = blocks[1:]
        if not blocks:
            return None
        words = blocks[0].words
        model = r.block_model(words[0], words[-1] if ":" in words else None) if words else None
        for frame in blocks[1:]:
            model = names.group_model(model, frame.words[0]) if frame.words else None
        return model

    @property
    def outer_model(self) -> type[r.Declaration] | None:
        """The model of the block around the list or group that the cursor is in."""
        if not self.frames or not self.frames[-1].words:
            return None
        return self._replace(frames=self.frames[:-1]).model


def context(text: str, offset: int) -> Context:
    """What is before a place in a text, whatever else is wrong with the text."""
    stack: list[tuple[str, tuple[Token, ...], int, set[str]]] = []
    statement: list[Token] = []
    inside, prefix, start = "", "", offset
    for match in _TOKEN.finditer(text, 0, offset):
        kind = match.lastgroup or ""
        token = Token(kind, match[0], *match.span())
        if (token.end == offset and kind in ("word", "comment")) or _unclosed(token, offset):
            inside = "" if kind == "word" else kind
            prefix = token.text.removeprefix('"') if kind == "text" else token.text
            start = offset - len(prefix)
            if kind == "word" and _new_line(statement, token.text):
                statement = []
            break
        if kind == "comment":
            continue
        if kind == "end":
            statement.append(token)
            continue
        if _new_line(statement, token.text):
            statement = []
        statement = _without_ends(statement)
        if token.text in ("{", "["):
            stack.append((token.text, tuple(statement), token.start, set()))
            statement = []
        elif token.text in ("}", "]"):
            if stack:
                _, head, _, _ = stack.pop()
                statement = [*head, token]
        elif token.text == ",":
            statement = []
        else:
            statement.append(token)
            if len(statement) == 1 and stack:
                stack[-1][3].add(token.text)
    else:
        if _new_line(statement, ""):
            statement = []
    if stack:
        stack[-1][3].update(_behind(text, offset))
    frames = tuple(Frame(brace, head, at, frozenset(given)) for brace, head, at, given in stack)
    tokens = tuple(_without_ends(statement))
    before = text[tokens[0].start : start] if tokens else ""
    return Context(frames, tokens, before, prefix, start, inside)


def _without_ends(statement: list[Token]) -> list[Token]:
    """The tokens of a statement without the ends of its lines."""
    return [token for token in statement if token.kind != "end"]


def _unclosed(token: Token, offset: int) -> bool:
    """Whether the cursor is in a text in quotes: the scan ends there, so its quote is missing."""
    if token.kind != "text" or token.end != offset:
        return False
    body = re.sub(r"\\.", "", token.text)
    return len(body) == 1 or not body.endswith('"')


def _new_line(statement: list[Token], following: str) -> bool:
    """Whether a statement ends at the line's end, given what the next line begins with."""
    if not statement or statement[-1].kind != "end":
        return False
    last = next((of.text for of in reversed(statement) if of.kind != "end"), "")
    return last not in BREAKS_AFTER and following not in _GOES_ON


def _behind(text: str, offset: int) -> set[str]:
    """The first words of the statements after the cursor, up to the end of its block."""
    words: set[str] = set()
    depth, first = 0, False
    for match in _TOKEN.finditer(text, offset):
        token = match[0]
        if token in ("{", "["):
            depth += 1
        elif token in ("}", "]"):
            depth -= 1
            if depth < 0:
                break
        elif depth == 0 and (match.lastgroup == "end" or token == ","):
            first = True
        elif depth == 0 and first and match.lastgroup != "comment":
            words.add(token)
            first = False
    return words
