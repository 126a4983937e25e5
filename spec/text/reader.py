"""Text to syntax nodes in one go, with lark's tables and without its trees.

Lark makes a tree with places and then transforms it, and that takes twice as long. What cannot be
read here is for lark to judge: it knows what was expected where.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from lark import Lark, TextSlice, Token
from lark.lexer import LexerState, LexerThread
from lark.parsers.lalr_analysis import Shift
from lark.parsers.lalr_parser import _Parser

from .keywords import SHAPES
from .lexer import OneRegexLexer

_START, _END = "start", "$END"
DROP, KEEP, INLINE = range(3)


class _Reduction(NamedTuple):
    """A rule of the grammar: what becomes of each of its symbols, and the node that they make.

    Attributes:
        node: the method of the builder; "" for a rule whose parts belong to the one around it.
    """

    origin: str
    parts: tuple[int, ...]
    node: str


class Reader:
    """Reads what the grammar of a parser describes; frozen tables, made once."""

    def __init__(self, lark: Lark) -> None:
        frontend: Any = lark.parser
        self.table = table = frontend.parser._parse_table
        self.lexer = lexer = frontend.lexer
        assert isinstance(lexer, OneRegexLexer)
        self.match = lexer.regex.match
        self.words = lexer.words
        texts = [t for t in lexer.conf.terminals if t.pattern.type == "str"]
        self.spelled = {t.pattern.value: t.name for t in texts}
        self.ignored = frozenset(lexer.conf.ignore)
        self.start: int = table.start_states[_START]
        self.end: int = table.end_states[_START]
        known: dict[Any, _Reduction] = {}
        self.actions: dict[int, dict[str, int | _Reduction]] = {
            state: {
                symbol: argument
                if action is Shift
                else known.setdefault(argument, _reduction(argument))
                for symbol, (action, argument) in actions.items()
            }
            for state, actions in table.states.items()
        }

    def read(self, text: str, node: Callable[[str, int, int, list[Any]], Any]) -> Any:
        """What the whole text makes; None where only lark can read it.

        Args:
            node: makes a node of its kind, its beginning, its end and its parts.

        Raises: lark.UnexpectedInput: the text cannot be read.
        """
        match, words, ignored, all_actions = self.match, self.words, self.ignored, self.actions
        states, values = [self.start], []
        actions = all_actions[self.start]
        position, end = 0, len(text)
        while True:
            if position < end:
                token = match(text, position)
                if token is None:
                    return self._judge(text, position, states)
                kind, word, begin = token.lastgroup or "", token[0], position
                position = token.end()
                if kind in ignored:
                    continue
                if kind == "NAME" and words.get(word) in actions:
                    kind = words[word]
            else:
                kind, word, begin = _END, "", end
            before = states
            while True:
                action = actions.get(kind)
                if action is None:
                    return self._judge(text, begin, before)
                if type(action) is int:
                    break
                if before is states:  # as they were when the word was read
                    before = states.copy()
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
            values.append((Token(kind, word, begin), begin, position))

    def following(self, text: str) -> frozenset[str]:
        """The words and signs that can stand right behind the beginning of a statement.

        None where that cannot be read. What stands for a name or a number is not among them.
        """
        states = [self.start]
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
        accepted = {kind for kind in self.actions[states[-1]] if self._shifted(states, kind)}
        words = {word for word, kind in self.spelled.items() if kind in accepted}
        return frozenset(words | set(SHAPES if "SHAPE" in accepted else ()))

    def _shifted(self, states: list[int], kind: str) -> list[int]:
        """The states after one more terminal; none where it cannot stand there."""
        states = states.copy()
        while True:
            action = self.actions[states[-1]].get(kind)
            if action is None or kind == _END:
                return []
            if isinstance(action, int):
                return [*states, action]
            del states[len(states) - len(action.parts) :]
            states.append(self.actions[states[-1]][action.origin])  # type: ignore[arg-type]

    def _judge(self, text: str, position: int, states: list[Any]) -> None:
        """Has lark continue from where a word is not expected, without making anything.

        Raises: lark.UnexpectedInput: so it is.
        """
        rest = LexerThread(self.lexer, LexerState(TextSlice(text, position, len(text))))
        parts = [None] * (len(states) - 1)
        _Parser(self.table, {}).parse(rest, _START, value_stack=parts, state_stack=states)


def _reduction(rule: Any) -> _Reduction:
    parts = tuple(
        (DROP if symbol.filter_out else KEEP)
        if symbol.is_term
        else INLINE
        if symbol.name.startswith("_")
        else KEEP
        for symbol in rule.expansion
    )
    origin = str(rule.origin.name)
    name = rule.alias or ("" if origin.startswith("_") else origin)
    return _Reduction(origin, parts, name)
