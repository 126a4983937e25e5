"""Renders dialogs with the Jinja chat template of a Hugging Face tokenizer.

`chat_template` renders. `template_parts` finds the assistant's parts of the text. `template_marks`
finds the dialog's own text, and what the template leaves out.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from tokenizers import Tokenizer

from ...errors import DataError
from ..tokens.tokenizer import named, special
from .chat_template import Template
from .encode import CONTENT, FORMATTING, OTHER, TERMINATION, Encoder, Piece
from .format_template import quoted
from .messages import check, normal, unwritten
from .rendering import Renderer
from .template_gaps import gaps
from .template_marks import Left, Marked, Places, marked, require_shown
from .template_parts import SPOKEN, Comparison, Message, NoEnd, common, uncut, undecided

_CALL = {"type": "function", "function": {"name": "f", "arguments": {"x": "y"}}}
_MADE_UP = "stranger"
"""A role that no template knows."""
# Dialogs made up to find the tokens that end an answer.
_QUESTION = {"role": "user", "content": "one"}
_TALK = [_QUESTION, {"role": "assistant", "content": "two"}]
_CALLING = [_QUESTION, {"role": "assistant", "content": "", "tool_calls": [_CALL]}]

_NO_END = (
    "the chat template does not end the assistant's message with a special token of the tokenizer"
)
_WITH_END = (
    "use the tokenizer that the template was made for, train one with its special tokens, or "
    "write `{{ eos_token }}` after the answers in the template"
)

Cut = tuple[int, int]
"""Where a span of the text ends, and its part."""


class TemplateRenderer(Renderer):
    """Renders with a Jinja template.

    Raises:
        DataError: the template is broken, or does not end the assistant's message with a special
            token of the tokenizer.
    """

    def __init__(self, text: str, settings: Mapping[str, Any], tokenizer: Tokenizer) -> None:
        self.chat_template = _system_line(settings.get("system")) + text
        self.encoder = Encoder(tokenizer)
        self._template = Template(self.chat_template, named(tokenizer))
        # `Left` determines which of these keys the template writes.
        self._named = {*re.findall(r"\w+", text), *SPOKEN}
        self._ends: list[str] = []
        self._endless = False
        self._roles: dict[str, bool] = {}
        try:
            self._ends += self._ends_of(_TALK)
        except NoEnd:
            raise DataError(_NO_END, _WITH_END) from None
        self._endless = self._template.tells and not self._learned_end(_TALK)
        # Not every template has tool calls.
        with suppress(DataError):
            self._ends += self._ends_of(_CALLING)
        self.special = list(dict.fromkeys(self._ends))
        stop = [self.encoder.special[end] for end in self.special]
        self.stop = list(dict.fromkeys([*stop, special(tokenizer).eos]))

    def _ends_of(self, messages: list[Message]) -> list[str]:
        """The special token that ends the answer of a dialog, if there is one."""
        text = self._template.render(messages, None)
        ends: list[str] = []
        last = 0
        for start, cuts in self._answers(text, messages, None).values():
            for begin, stop, part in _stretches(start, cuts):
                last = stop if part != FORMATTING else last
                if part == TERMINATION:
                    ends += [text[a:b] for a, b in self.encoder.find(text, begin, stop)]
        if last and not ends and self._template.tells:
            # The template may end answers with a token outside its `{% generation %}` blocks.
            ends = [text[a:b] for a, b in self.encoder.find(text, last)[:1]]
        return ends[-1:]

    def _learned_end(self, messages: list[Message]) -> bool:
        """Whether the special token that ends a dialog's last answer is learned."""
        text = self._template.render(messages, None)
        answers = self._answers(text, messages, None)
        return any(
            part == TERMINATION and any(self.encoder.find(text, begin, stop))
            for start, cuts in answers.values()
            for begin, stop, part in _stretches(start, cuts)
        )

    def warnings(self) -> list[str]:
        said = []
        if self._endless:
            said.append(
                "the `{% generation %}` blocks of the chat template do not contain the end of "
                "the turn, so the model does not learn to stop: move `{% endgeneration %}` "
                "behind the token that ends the turn"
            )
        said += [
            f"the chat template does not know the role `{role}`: it renders these messages like "
            "those of any other role; rename the role, or use a template that knows it"
            for role, known in self._roles.items()
            if not known
        ]
        return said

    def _knows(
        self,
        role: str,
        messages: list[Message],
        tools: list[dict[str, Any]] | None,
        text: str,
        prompt: bool,
    ) -> bool:
        """Whether a template writes messages of a role differently from those of an unknown one."""
        changed = [m if m["role"] != role else {**m, "role": _MADE_UP} for m in messages]
        try:
            return self._template.render(changed, tools, prompt=prompt) != text
        except DataError:  # it rejects unknown roles
            return True

    def text(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: list[dict[str, Any]] | None = None,
        prompt: bool = False,
    ) -> list[Piece]:
        given = normal(messages)
        check(given, None, prompt=prompt)
        unwritten(given, self._named, "the chat template does not render")
        text = self._template.render(given, tools, prompt=prompt)
        for role in dict.fromkeys(message["role"] for message in given):
            if role not in ("user", "assistant", *self._roles):
                self._roles[role] = self._knows(role, given, tools, text, prompt)
        known = marked(self._template, given, tools, text, prompt)
        require_shown(self.encoder, given, tools, known)
        Left(self._template, given, tools, text, known).require_none(prompt=prompt)
        if prompt:
            header = self._without_header(given, tools, text)
            answers = {len(given): (header, [(len(text), FORMATTING)])}
            given.append({"role": "assistant"})
        else:
            answers = self._answers(text, given, tools, known)
            _require_apart(answers, known.places)
        return list(_pieces(text, given, answers, known.places, self.encoder))

    def _without_header(
        self, messages: list[Message], tools: list[dict[str, Any]] | None, text: str
    ) -> int:
        """Where the header at the end of a prompt begins."""
        try:
            return uncut(self.encoder, text, common(text, self._template.render(messages, tools)))
        except DataError:
            return len(text)

    def _answers(
        self,
        text: str,
        messages: list[Message],
        tools: list[dict[str, Any]] | None,
        known: Marked | None = None,
    ) -> dict[int, tuple[int, list[Cut]]]:
        """Where each message of the assistant begins, and its spans with their parts.

        Args:
            known: where the dialog's own texts are, to find all answers at once.

        Raises:
            DataError: they cannot be determined, or a message says nothing.
        """
        found = gaps(self._template, messages, tools, text, known) if known else None
        compared = Comparison(
            self._template, self.encoder, messages, tools, text, self._ends, found
        )
        numbers = [n for n, message in enumerate(messages) if message["role"] == "assistant"]
        if self._template.tells:
            spans = self._template.generations(messages, tools, text)
            answers = self._told(text, numbers, spans, compared)
        else:
            answers = {}
            for number in numbers:
                at = compared.answer(number)
                cuts = [(at.begin, FORMATTING), (at.stop, CONTENT), (at.end, TERMINATION)]
                answers[number] = (at.start, [*cuts, (at.after, FORMATTING)])
        for number, (start, cuts) in answers.items():
            said = [text[a:b] for a, b, part in _stretches(start, cuts) if part == CONTENT]
            if said and not "".join(said).strip():
                raise DataError(
                    f"message {number + 1} (assistant) is rendered as empty by the chat template",
                    "remove the message, or give it a `content`",
                )
        return answers

    def _told(
        self, text: str, numbers: list[int], spans: list[tuple[int, int]], compared: Comparison
    ) -> dict[int, tuple[int, list[Cut]]]:
        """Like `_answers`, from the template's own `{% generation %}` blocks."""
        places = [compared.place(n) if len(numbers) > 1 else 0 for n in numbers]
        found: dict[int, list[tuple[int, int]]] = {number: [] for number in numbers}
        for start, stop in spans:
            before = [n for n, place in zip(numbers, places, strict=True) if place < stop]
            if start < stop and before:
                found[before[-1]].append((start, stop))
        answers: dict[int, tuple[int, list[Cut]]] = {}
        for number, own in found.items():
            if not own:
                continue
            begin = compared.start(number)
            begin = own[0][0] if begin is None or begin > own[0][0] else begin
            cuts: list[Cut] = []
            for start, stop in own:
                ends = self.encoder.find(text, start, stop)
                last = ends[-1] if ends and not text[ends[-1][1] : stop].strip() else (stop, stop)
                cuts += [(start, FORMATTING), (last[0], CONTENT), (stop, TERMINATION)]
            after = own[-1][1]
            line = len(text[after:]) - len(text[after:].lstrip())
            answers[number] = (begin, [*cuts, (after + line, FORMATTING)])
        return answers


def _stretches(start: int, cuts: Sequence[Cut]) -> Iterator[tuple[int, int, int]]:
    """Beginning, end and part of each span."""
    for stop, part in cuts:
        yield start, stop, part
        start = stop


def _require_apart(answers: Mapping[int, tuple[int, list[Cut]]], brought: Places) -> None:
    """Checks that no answer contains text from another message.

    Raises: DataError
    """
    for number, (start, cuts) in answers.items():
        for begin, end, part in _stretches(start, cuts):
            if part in (CONTENT, TERMINATION) and any(
                max(each.start, begin) < min(each.stop, end)
                for each in brought.near(begin, end)
                if each.message != number
            ):
                raise undecided(number, "where it ends and another message begins")


def _pieces(
    text: str,
    messages: Sequence[Message],
    answers: Mapping[int, tuple[int, list[Cut]]],
    brought: Places,
    encoder: Encoder,
) -> Iterator[Piece]:
    """The pieces of the whole text, from left to right."""
    begin, waiting = 0, 0
    for number, (start, cuts) in [*answers.items(), (len(messages), (len(text), []))]:
        for each in range(waiting, number):
            stop = start if each == number - 1 else _after(text, each, brought, encoder, start)
            stop = max(begin, stop)
            yield from _cut(text, begin, stop, brought, (OTHER, messages[each]["role"], each))
            begin = stop
        if begin < start:
            # Between two answers there is only what the template adds.
            last = max(number - 1, 0)
            yield from _cut(text, begin, start, brought, (OTHER, messages[last]["role"], last))
            begin = start
        for stop, part in cuts:
            yield from _cut(text, begin, stop, brought, (part, "assistant", number))
            begin = max(begin, stop)
        waiting = number + 1


def _after(text: str, message: int, brought: Places, encoder: Encoder, most: int) -> int:
    """Where another role's message ends: after the special token that follows its text."""
    end = max((each.stop for each in brought.of(message)), default=None)
    if end is None:
        return 0
    later = (each.start for each in brought.after(end) if each.message > message)
    most = min(most, next(later, most))
    for _, stop in encoder.found(text, end, most):
        return stop + len(text[stop:most]) - len(text[stop:most].lstrip())
    return most


def _cut(
    text: str, start: int, stop: int, brought: Places, about: tuple[int, str, int]
) -> Iterator[Piece]:
    """The pieces of a span, cut where the dialog's texts begin and end."""
    part, role, message = about
    piece = partial(Piece, part=part, role=role, message=message)
    for each in brought.near(start, stop):
        begin, end = max(each.start, start), min(each.stop, stop)
        if begin < end:
            if start < begin:
                yield piece(text[start:begin])
            yield piece(text[begin:end], free=True)
            start = end
    if start < stop:
        yield piece(text[start:stop])


def _system_line(system: str | None) -> str:
    """Template code that gives a system prompt to dialogs without one."""
    if not system:
        return ""
    return (
        "{%- if not messages or messages[0]['role'] != 'system' %}"
        f"{{%- set messages = [{{'role': 'system', 'content': {quoted(system)}}}] + messages %}}"
        "{%- endif -%}\n"
    )
