"""Renders dialogs in a protocol of headers and ends."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tokenizers import Tokenizer

from ...errors import DataError
from ..tokens.tokenizer import require, special
from .encode import CONTENT, FORMATTING, OTHER, TERMINATION, Encoder, Piece
from .format_template import template_of
from .messages import calls, check, normal, unwritten
from .protocols import IPYTHON, SPECIAL, TOOL_INTRODUCTION, Format
from .rendering import Renderer


@dataclass(frozen=True)
class _Turn:
    """A header, a text and an end; a message with tool calls becomes several."""

    message: int
    role: str
    text: str
    code: bool = False
    to_ipython: bool = False


class FormatRenderer(Renderer):
    """Renders according to a `Format`."""

    def __init__(self, form: Format, system: str | None, tokenizer: Tokenizer) -> None:
        self.form = form
        self.system = system
        self.encoder = Encoder(tokenizer)
        ids = special(tokenizer)
        self.begin = form.begin
        if form.begin is None:
            self.begin = "" if ids.bos is None else tokenizer.id_to_token(ids.bos)
        self.special = list(dict.fromkeys([*SPECIAL.findall(self.begin or ""), *form.special()]))
        require(tokenizer, self.special, "the dialog's protocol")
        ends = [match[0] for match in map(SPECIAL.search, [form.end, form.more]) if match]
        self.stop = list(dict.fromkeys([*(self.encoder.special[end] for end in ends), ids.eos]))
        self.chat_template = template_of(form, self.begin or "", system)

    def text(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: list[dict[str, Any]] | None = None,
        prompt: bool = False,
    ) -> list[Piece]:
        messages = normal(messages)
        check(messages, self.form.roles, prompt=prompt)
        written = ("to", "tool_calls") if self.form.tools else ("to",)
        unwritten(messages, written, "the dialog's protocol cannot render")
        if tools and not self.form.tools:
            raise DataError("the dialog's protocol cannot render tool definitions")
        turns = list(self._turns(messages, tools or []))
        pieces = [Piece(self.begin or "")]
        for turn, after in zip(turns, [*turns[1:], None], strict=True):
            speaks = turn.role == "assistant"
            follows = speaks and after is not None and after.role == "assistant"
            goes_on = self.form.more and (turn.to_ipython or follows)
            parts = (FORMATTING, CONTENT, TERMINATION) if speaks else (OTHER, OTHER, OTHER)
            end = self.form.more if goes_on else self.form.end
            stop = max(match.end() for match in SPECIAL.finditer(end))
            about = (turn.role, turn.message)
            pieces += [
                Piece(self._header(turn.role), parts[0], *about),
                Piece(self.form.code if turn.code else "", parts[1], *about),
                Piece(turn.text, parts[1], *about, free=True),
                Piece(end[:stop], parts[2], *about),
                Piece(end[stop:], parts[0], *about),
            ]
        if prompt:
            pieces.append(Piece(self._header("assistant"), FORMATTING, "assistant", len(messages)))
        return [piece for piece in pieces if piece.text]

    def _header(self, role: str) -> str:
        return self.form.header.replace("{role}", self.form.shown(role))

    def _turns(
        self, messages: list[dict[str, Any]], tools: list[dict[str, Any]]
    ) -> Iterator[_Turn]:
        head = ""
        if tools:
            described = "".join(f"{json.dumps(t, ensure_ascii=False, indent=4)}\n\n" for t in tools)
            head = f"Environment: {IPYTHON}\n{TOOL_INTRODUCTION}{described}"
        if messages[0]["role"] != "system" and (head or self.system):
            yield _Turn(-1, "system", self._stripped(head + (self.system or "")))
        for number, message in enumerate(messages):
            if message["role"] == "assistant":
                yield from self._assistant(number, message)
                continue
            text = message["content"]
            if number == 0 and message["role"] == "system":
                text = head + self._stripped(text)
            yield _Turn(number, message["role"], self._stripped(text))

    def _assistant(self, number: int, message: dict[str, Any]) -> Iterator[_Turn]:
        place = f"message {number + 1}"
        called = calls(message, place)
        to_ipython = message.get("to") == IPYTHON and not called
        if to_ipython and not self.form.more:
            raise DataError(
                f"{place} goes to {IPYTHON}, but the dialog's protocol has no end of message"
            )
        if message["content"].strip():
            text = self._stripped(message["content"])
            yield _Turn(number, "assistant", text, to_ipython, to_ipython)
        for name, arguments in called:
            quoted = json.dumps(name, ensure_ascii=False)
            text = f'{{"name": {quoted}, "parameters": {arguments}}}'
            yield _Turn(number, "assistant", text, to_ipython=True)

    def _stripped(self, text: str) -> str:
        return text.strip() if self.form.strip else text
