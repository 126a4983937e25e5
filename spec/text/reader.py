"""Parses text to syntax nodes in one pass, with the tables that lark makes of the grammar.

`docs/parse_tables.py` writes them to `tables.json`, so that parsing a spec needs neither lark nor a
cache. The kind of a word depends on what the parser accepts at its place. Lark compiles an
expression for each such state; here one expression finds the first choice among all terminals. If
the parser accepts it, it is also the first choice among those accepted.
"""

import json
import re
from collections.abc import Callable, Iterator
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from .keywords import SHAPES

BRACES = re.compile(r'"(?:[^"\\\n]|\\.)*"|#[^\n]*|[{}\[\]()]')
"""Every brace; also texts and comments, in which braces have no meaning."""
DROP, KEEP, INLINE = range(3)
_END = "$END"


class Token(str):
    """A word or sign of a text, and its place."""

    __slots__ = ("kind", "start")
    kind: str
    start: int

    def __new__(cls, kind: str, text: str, start: int) -> "Token":
        token = super().__new__(cls, text)
        token.kind = kind
        token.start = start
        return token


class Unreadable(Exception):
    """A text has something that the grammar does not accept there.

    Attributes:
        position: where.
        kind: its kind in the grammar; `$END` for the end of the text, "" if no token begins there.
        word: the same as written.
        expected: the kinds that are accepted there.
    """

    def __init__(self, position: int, kind: str, word: str, expected: frozenset[str]) -> None:
        super().__init__(f"{word!r} at {position}")
        self.position = position
        self.kind = kind
        self.word = word
        self.expected = expected

    @property
    def at_end(self) -> bool:
        """Whether the text ends too early."""
        return self.kind == _END


class _Reduction(NamedTuple):
    """A rule of the grammar: how each of its symbols is used, and the node that they make.

    Attributes:
        node: the method of the builder; "" for a rule whose parts belong to the one around it.
    """

    origin: str
    parts: tuple[int, ...]
    node: str


class Reader:
    """Parses what the grammar describes, with frozen tables that are made once.

    Args:
        tables: written by `docs/parse_tables.py`.
    """

    def __init__(self, tables: dict[str, Any]) -> None:
        self.terminals: list[tuple[str, str]] = tables["terminals"]
        self.spelled: dict[str, str] = tables["spelled"]
        self.words = {word: name for word, name in self.spelled.items() if word.isidentifier()}
        names = set(self.words.values())
        groups = (f"(?P<{name}>{regex})" for name, regex in self.terminals if name not in names)
        self.match = re.compile("|".join(groups)).match
        self.ignored = frozenset(tables["ignored"])
        self.end: int = tables["end"]
        reductions = [
            _Reduction(origin, tuple(parts), node) for origin, parts, node in tables["reductions"]
        ]
        self.actions: list[dict[str, int | _Reduction]] = [
            {symbol: to if to >= 0 else reductions[~to] for symbol, to in state.items()}
            for state in tables["states"]
        ]

    # Long because a call for each word would take longer than everything else here.
    def read(
        self,
        text: str,
        node: Callable[[str, int, int, list[Any]], Any],
        token: Callable[[str, str, int], Any] = Token,
    ) -> Any:
        """The result for the whole text.

        Args:
            node: makes a node from its kind, beginning, end and parts.
            token: makes a word or sign from its kind, text and beginning.

        Raises: Unreadable: the text cannot be read.
        """
        match, words, ignored, all_actions = self.match, self.words, self.ignored, self.actions
        states, values = [0], []
        actions = all_actions[0]
        position, end = 0, len(text)
        while True:
            begin = position
            if position < end:
                found = match(text, position)
                kind, word = (found.lastgroup or "", found[0]) if found else ("", "")
                if kind in ignored:
                    position += len(word)
                    continue
                if kind == "NAME" and words.get(word) in actions:
                    kind = words[word]
                if kind not in actions:
                    kind, word = self._other(text, position, states)
                position += len(word)
                if kind in ignored:
                    continue
            else:
                kind, word = _END, ""
            while True:
                action = actions.get(kind)
                if type(action) is int:
                    break
                if action is None:
                    raise Unreadable(begin, kind, word, self._accepted(states))
                origin, parts, name = action  # type: ignore[misc]
                size = len(parts)
                inner = values[len(values) - size :]
                first, last = (inner[0][1], inner[-1][2]) if size else (0, 0)
                inside: list[Any] = []
                for part, (value, _, _) in zip(parts, inner, strict=True):
                    if part == KEEP:
                        inside.append(value)
                    elif part == INLINE:
                        inside += value
                if size:
                    del values[-size:]
                    del states[-size:]
                values.append((node(name, first, last, inside) if name else inside, first, last))
                state = all_actions[states[-1]][origin]
                states.append(state)  # type: ignore[arg-type]
                actions = all_actions[state]  # type: ignore[index]
                if kind == _END and state == self.end:
                    return values[-1][0]
            states.append(action)
            actions = all_actions[action]
            values.append((token(kind, word, begin), begin, position))

    def following(self, text: str) -> frozenset[str]:
        """The words and signs that are accepted right after the beginning of a statement; none if
        that cannot be parsed. Names and numbers are not included.
        """
        states = [0]
        position = 0
        while match := self.match(text, position):
            kind, position = match.lastgroup or "", match.end()
            if kind in self.ignored:
                continue
            if kind == "NAME" and self.words.get(match[0]) in self.actions[states[-1]]:
                kind = self.words[match[0]]
            states = self._shifted(states, kind)
            if not states:
                return frozenset()
        accepted = self._accepted(states)
        words = {word for word, kind in self.spelled.items() if kind in accepted}
        return frozenset(words | set(SHAPES if "SHAPE" in accepted else ()))

    @cached_property
    def _alone(self) -> dict[str, re.Pattern[str]]:
        """An expression for each terminal, in the order of choice."""
        return {name: re.compile(regex) for name, regex in self.terminals}

    def _other(self, text: str, position: int, states: list[int]) -> tuple[str, str]:
        """The kind and text at a place where the first choice among all terminals is not
        accepted: the first of those that are accepted or have no meaning.

        Raises: Unreadable: there is none.
        """
        actions = self.actions[states[-1]]
        for name, regex in self._alone.items():
            if (name in actions or name in self.ignored) and (found := regex.match(text, position)):
                # A word of the grammar is a name if the grammar does not accept it here.
                kind = self.words.get(found[0], name) if name == "NAME" else name
                return (kind if kind in actions else name), found[0]
        self._refuse(text, position, states)

    def _refuse(self, text: str, position: int, states: list[int]) -> NoReturn:
        expected = self._accepted(states)
        found = self.match(text, position)
        if found is None:
            raise Unreadable(position, "", text[position], expected)
        kind = self.words.get(found[0], found.lastgroup or "")
        raise Unreadable(position, kind, found[0], expected)

    def _accepted(self, states: list[int]) -> frozenset[str]:
        """The kinds that are accepted here."""
        return frozenset(kind for kind in self._choices(states) if self._shifted(states, kind))

    def _choices(self, states: list[int]) -> Iterator[str]:
        return (symbol for symbol in self.actions[states[-1]] if symbol.isupper())

    def _shifted(self, states: list[int], kind: str) -> list[int]:
        """The states after one more terminal; empty if it is not accepted."""
        states = states.copy()
        while True:
            action = self.actions[states[-1]].get(kind)
            if action is None:
                return []
            if isinstance(action, int):
                return [*states, action]
            del states[len(states) - len(action.parts) :]
            to = self.actions[states[-1]][action.origin]
            states.append(to)  # type: ignore[arg-type]
            if kind == _END and to == self.end:
                return states


@lru_cache(maxsize=1)
def reader() -> Reader:
    """The reader of specs."""
    return Reader(json.loads(Path(__file__).with_name("tables.json").read_text(encoding="utf-8")))
