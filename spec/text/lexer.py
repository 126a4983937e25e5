"""Text to tokens with one regular expression, where lark has one for each state of the parser.

What a word is depends on what the parser accepts where it stands. Lark's contextual lexer compiles
an expression of its own for each such state, and that takes as long as reading a whole spec.
"""

import re
from collections.abc import Collection, Iterator
from functools import cached_property
from typing import Any

from lark import Token
from lark.common import LexerConf
from lark.lexer import ContextualLexer, Lexer, LexerState

BRACES = re.compile(r'"(?:[^"\\\n]|\\.)*"|#[^\n]*|[{}\[\]()]')
"""Every brace, and texts and comments, in which braces have no meaning."""


class OneRegexLexer(Lexer):
    """Gives the tokens and raises the errors that lark's `ContextualLexer` does.

    Its expression finds the first choice among all terminals. Where the parser accepts that, it is
    also the first choice among those accepted; where not, lark's lexer takes over.

    Args:
        states: the terminals that the parser accepts in each of its states.
    """

    def __init__(
        self, conf: LexerConf, states: dict[int, Collection[str]], always_accept: Collection[str]
    ) -> None:
        self.conf = conf
        self.accepted: dict[int, Collection[str]] = {s: frozenset(of) for s, of in states.items()}
        self.always_accept = always_accept
        texts = [t for t in conf.terminals if t.pattern.type == "str"]
        self.words = {t.pattern.value: t.name for t in texts if t.pattern.value.isidentifier()}
        terminals = sorted(
            (t for t in conf.terminals if t.pattern.value not in self.words),
            key=lambda t: (-t.priority, -t.pattern.max_width, -len(t.pattern.value), t.name),
        )
        groups = (f"(?P<{t.name}>{t.pattern.to_regexp()})" for t in terminals)
        self.regex = re.compile("|".join(groups))

    @cached_property
    def contextual(self) -> ContextualLexer:
        """Lark's own lexer, made only where something is wrong."""
        return ContextualLexer(self.conf, self.accepted, self.always_accept)

    def lex(self, lexer_state: LexerState, parser_state: Any) -> Iterator[Token]:
        """The tokens of a text, one by one.

        Raises: lark.UnexpectedCharacters: nothing that the parser accepts stands there.
        """
        text, place = lexer_state.text, lexer_state.line_ctr
        while place.char_pos < text.end:
            match = self.regex.match(text.text, place.char_pos, text.end)
            word, kind = (match[0], match.lastgroup or "") if match else ("", "")
            if kind in self.conf.ignore:
                place.feed(word)
                continue
            accepted = self.accepted[parser_state.position]
            if kind == "NAME" and self.words.get(word) in accepted:
                kind = self.words[word]
            if kind not in accepted:
                yield from self.contextual.lex(lexer_state, parser_state)
                return
            token = Token(kind, word, place.char_pos, place.line, place.column)
            place.feed(word)
            token.end_line, token.end_column = place.line, place.column
            token.end_pos = place.char_pos
            lexer_state.last_token = token
            yield token
