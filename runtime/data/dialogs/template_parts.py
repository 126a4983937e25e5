"""Finds the assistant's text in a rendered template by comparing renderings.

A template is a program that produces a text, without saying what each part of it is. So the dialog
is rendered again with changes, and what stays the same shows where things are:

- With a different answer, the text before and after stays the same: what is between is the answer,
  its thoughts, its tool calls and all their markup.
- Without what follows, and with `add_generation_prompt`, the text ends with the header. What the
  header has and the answer lacks, such as the beginning of a thought, is not part of it.
- With the answer as the last message and with another one after it, the text after the answer stays
  the same as far as it belongs to the answer. Its last special token is the terminator.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import takewhile
from typing import Any

from ...errors import DataError
from .chat_template import REASONING, Template, free_characters
from .encode import Encoder

Message = dict[str, Any]

SPOKEN = ("content", *REASONING, "tool_calls")
"""The keys of a message's content."""


class NoEnd(DataError):
    """The end of a message gives a model nothing to learn to stop by."""


@dataclass(frozen=True)
class Answer:
    """Where an assistant message is in the text.

    Attributes:
        start: where its header begins.
        begin: where the model's text begins.
        stop: where its terminator begins.
        end: where its terminator ends; `stop` if it has none.
        after: where everything that belongs to it ends.
    """

    start: int
    begin: int
    stop: int
    end: int
    after: int


# What templates write around thoughts and calls, without special tokens.
_MARKUP = re.compile(r"<[^<>\s]*>|\[[^\[\]\s]*\]")
_LONGEST = 100


@dataclass(frozen=True)
class _Around:
    """What a template writes before and after a message's content.

    Attributes:
        calls: whether the replacement message kept its thoughts and calls.
        skip: how many characters of the replacement's form came before `after`.
    """

    before: str
    after: str
    calls: bool
    skip: int


def undecided(number: int, what: str) -> DataError:
    return DataError(
        f"message {number + 1}: the chat template does not show {what}",
        "mark what the model generates by {% generation %} … {% endgeneration %} in the template",
    )


class Comparison:
    """A dialog, rendered in several ways.

    Args:
        messages: in normal form.
        text: the dialog as the template renders it.
        ends: the special tokens known to end answers.
        gaps: where answers are that have been found already, see `template_gaps`.
    """

    def __init__(
        self,
        template: Template,
        encoder: Encoder,
        messages: Sequence[Message],
        tools: list[dict[str, Any]] | None,
        text: str,
        ends: Sequence[str] = (),
        gaps: Mapping[int, tuple[int, int]] | None = None,
    ) -> None:
        self._template = template
        self._encoder = encoder
        self._messages = list(messages)
        self._tools = tools
        self._text = text
        self._ends = ends
        self._gaps = gaps or {}

    @cached_property
    def _mark(self) -> str:
        dumped = json.dumps([self._messages, self._tools], ensure_ascii=False)
        return free_characters(1, self._text, dumped)[0]

    @cached_property
    def _opener(self) -> str:
        """The special token that begins the text, after the tokenizer's own; "" for none."""
        begin = 0
        for start, stop in self._encoder.find(self._text):
            token = self._text[start:stop]
            if self._text[begin:start].strip():
                break
            if token not in self._template.tokens.values():
                return token
            begin = stop
        return ""

    def answer(self, number: int) -> Answer:
        """Where assistant message `number` is.

        Raises:
            DataError: it cannot be determined.
        """
        here = self._here(number)
        if here is None:
            raise undecided(number, "where what the assistant says begins and ends")
        start, begin = self._header(number, here)
        last = len(self._text) - len(here.after)
        stop, end, after = self._tail(number, here, last, self._text[start:begin])
        if not start <= begin <= stop <= end <= after:
            raise undecided(number, "where the assistant's header ends")
        return Answer(start, begin, stop, end, after)

    def place(self, number: int) -> int:
        """Where the text begins to differ if message `number` says something else.

        Raises:
            DataError: it cannot be determined.
        """
        here = self._here(number)
        if here is None:
            raise undecided(number, "where what the assistant says begins")
        return common(self._text, here.before)

    def start(self, number: int) -> int | None:
        """Where message `number` begins, if what is before it does not depend on it."""
        made = self._render(self._messages[:number]) if number else ""
        return len(made) if made is not None and self._text.startswith(made) else None

    def _render(self, messages: Sequence[Message], *, prompt: bool = False) -> str | None:
        """None if the template rejects the messages."""
        try:
            return self._template.render(messages, self._tools, prompt=prompt)
        except DataError:
            return None

    def _here(self, number: int) -> _Around | None:
        """The text around an answer."""
        if number not in self._gaps:
            return self._around(self._messages, number)
        begin, end = self._gaps[number]
        calls = bool(self._messages[number].get("tool_calls"))
        return _Around(self._text[:begin], self._text[end:], calls, 0)

    def _around(self, messages: Sequence[Message], number: int) -> _Around | None:
        """The text around a message, found by replacing its content.

        The replacement is plain content, or keeps the message's form with other values. The latter
        is tried first if it calls tools, because templates may write results where the calls are.
        """
        called = bool(messages[number].get("tool_calls"))
        for calls in (called, not called):
            shown = self._replaced(messages, number, calls)
            if shown is None:
                continue
            before, after = shown
            same = _common_end(self._text, after)
            # If the last value of a call is a number, the replacement has one more quotation mark.
            rest = after[: len(after) - same]
            if not rest or (calls and len(rest) < 9 and not any(map(str.isalnum, rest))):
                return _Around(before, after[len(rest) :], calls, len(rest))
        return None

    def _replaced(
        self, messages: Sequence[Message], number: int, calls: bool
    ) -> tuple[str, str] | None:
        """The text before and after a message with replaced content, if it is written."""
        said = self._mark
        given = [*messages]
        given[number] = changed(messages[number], said, calls)
        shown = self._render(given)
        if shown is None or said not in shown:
            return None
        first, last = shown.index(said), shown.rindex(said)
        if not calls and shown[first : last + 1].strip(said):
            return None
        return shown[:first], shown[last + 1 :]

    def _header(self, number: int, here: _Around) -> tuple[int, int]:
        """Where the assistant's header begins and ends."""
        try:
            before = self._messages[:number]
            prompt, border = self._template.asked(before, self._tools, self._mark)
        except DataError:  # the template rejects these messages
            lead = common(self._text, here.before)
            return lead, lead
        start = self._border(number, prompt, border)
        header = prompt[start:]
        if header and self._text.startswith(prompt):
            return start, len(prompt)
        if self._text[:start] != prompt[:start]:
            return self._header_after(number, here)
        lead = common(self._text, here.before)
        name = header.strip()
        if name and name in self._text[start:lead]:
            # The template has other white space around it.
            begin = self._text.index(name, start) + len(name)
            space = header[len(header.rstrip()) :]
            return start, begin + common(space, self._text[begin:lead])
        # An answer without calls shows where calls begin, which may look like the added prompt.
        plain = self._replaced(self._messages, number, False) or (here.before, "")
        begin = uncut(self._encoder, prompt, common(prompt, plain[0], here.before, self._text))
        return start, max(start, begin) if header else self._without_prompt(number, begin)

    def _border(self, number: int, prompt: str, shown: int | None) -> int:
        """Where the messages end and the assistant's header begins in a prompt.

        Args:
            shown: where the template shows that, see `Template.asked`.
        """
        before = self._messages[:number]
        if shown is None or not before:
            shown = common(prompt, (self._render(before) or "") if before else "")
        border = shown
        if border == len(prompt) and before:
            # Some templates always write the header.
            other = self._render([*before, {"role": "user", "content": "U"}])
            border = border if other is None else common(prompt, other)
        return uncut(self._encoder, prompt, border)

    def _without_prompt(self, number: int, begin: int) -> int:
        """The end of a header that the template does not write for `add_generation_prompt`.

        White space alone is not a header: at inference the model writes it.
        """
        plain = self._replaced(self._messages[: number + 1], number, False)
        lead = begin if plain is None else common(self._text, plain[0])
        return lead if self._text[begin:lead].strip() else begin

    def _header_after(self, number: int, here: _Around) -> tuple[int, int]:
        """Like `_header`, if the text before depends on what follows.

        Then only the text between the previous message and this one can be compared.
        """
        near = self._around(self._messages, number - 1)
        if near is None:
            raise undecided(number, "where the assistant's header begins")
        place = len(self._text) - len(near.after)
        given = self._messages[:number]
        given[-1] = changed(given[-1], self._mark, near.calls)
        asked, rest = (self._after(given, near.skip, prompt=prompt) for prompt in (True, False))
        if asked is None:
            raise undecided(number, "where the assistant's header ends")
        lead = max(place, common(self._text, here.before))
        gap = self._text[place:lead]
        start = uncut(self._encoder, asked, common(asked, rest or ""))
        header = asked[start:]
        if header and header in gap:
            begin = place + gap.index(header)
            return begin, begin + len(header)
        if self._text.startswith(asked, place):
            end = place + len(asked)
            return place + start, end if header else self._without_prompt(number, end)
        if not gap.startswith(asked[:start]):
            raise undecided(number, "where the assistant's header begins")
        plain = self._replaced(self._messages, number, False) or (here.before, "")
        end = common(asked, gap, plain[0][place:])
        return place + start, place + uncut(self._encoder, asked, end)

    def _after(self, messages: Sequence[Message], skip: int, *, prompt: bool) -> str | None:
        """What follows the marks, without its first `skip` characters."""
        shown = self._render(messages, prompt=prompt)
        if shown is None or self._mark not in shown:
            return None
        return shown.split(self._mark)[-1][skip:]

    def _tail(self, number: int, here: _Around, last: int, header: str) -> tuple[int, int, int]:
        """Where the terminator begins and ends, and where the message ends.

        Args:
            last: the message's content ends here or later.
            header: the assistant's.
        """
        tail = self._text[last:]
        is_last = number == len(self._messages) - 1
        upto = self._messages[: number + 1]
        other = [*upto, {"role": "user", "content": "U"}] if is_last else upto
        found = self._replaced(other, number, here.calls)
        beside = None if found is None else found[1][here.skip :]
        alone = tail if is_last else beside
        if alone is None:
            raise undecided(number, "what ends the assistant's message")
        own = alone if beside is None else alone[: common(alone, beside if is_last else tail)]
        possible = self._ends_in(tail, header)
        ends = [span for span in possible if span[1] <= len(own)]
        if not self._ends_in(alone, header):
            raise NoEnd(
                f"message {number + 1} (assistant): the chat template does not end it with a "
                "special token of the tokenizer",
                "write `{{ eos_token }}` after the answers in the template",
            )
        if not ends and is_last:
            ends, own = possible, tail
        if not ends and self._foreign(number, tail, possible, header):
            ends = possible[:1]
        if not ends:
            return last, last, last + len(own)
        start, end = self._terminator(ends, tail, here)
        return last + start, last + end, last + max(end, len(own))

    def _terminator(self, ends: list[tuple[int, int]], tail: str, here: _Around) -> tuple[int, int]:
        """The terminator among the special tokens that follow a message."""
        end = ends[-1][1]
        if not here.calls:
            return 0, end
        start = next((a for a, b in ends if tail[a:b] in self._ends), ends[-1][0])
        return len(tail[:start].rstrip()), end

    def _ends_in(self, tail: str, header: str) -> list[tuple[int, int]]:
        """The special tokens that follow a message, up to where another one begins."""
        openers = {self._opener, *self._tokens(header)}
        return list(
            takewhile(lambda span: tail[slice(*span)] not in openers, self._encoder.found(tail))
        )

    def _tokens(self, text: str) -> list[str]:
        return [text[start:stop] for start, stop in self._encoder.find(text)]

    def _foreign(
        self, number: int, tail: str, possible: list[tuple[int, int]], header: str
    ) -> bool:
        """Whether a message in the middle ends with another special token than the last message.

        The token belongs to the message if it stays whoever speaks next.
        """
        if not possible:
            return False
        end = possible[0][1]
        if self._messages[number + 1]["role"] == "assistant" and header.strip():
            return header in tail and tail.index(header) >= end
        return tail[slice(*possible[0])] in self._ends or self._stays(number, tail[:end])

    def _stays(self, number: int, beginning: str) -> bool:
        """Whether what follows a message begins the same way, whoever speaks next."""
        others = []
        for role in ("user", "tool", "system"):
            if role != self._messages[number + 1]["role"]:
                given = [*self._messages[: number + 1], {"role": role, "content": "U"}]
                found = self._replaced(given, number, False)
                others += [] if found is None else [found[1].startswith(beginning)]
        return bool(others) and all(others)


def changed(message: Mapping[str, Any], said: str, calls: bool) -> Message:
    """A message with other content.

    Args:
        said: one character that replaces the content.
        calls: whether it keeps its thoughts and calls, with other values. It calls the same
            functions, because templates may name them again at the results.
    """
    if not calls:
        # As long as the original, for templates that check the length.
        text = said * max(1, len(message["content"]))
        return {k: v for k, v in message.items() if k not in SPOKEN} | {"content": text}
    kept = {k: said for k in ("content", *REASONING) if str(message.get(k) or "").strip()}
    made = {**message, **kept}
    if message.get("tool_calls"):
        made["tool_calls"] = [_changed_call(call, said) for call in message["tool_calls"]]
    return made


def _changed_call(call: Mapping[str, Any], said: str) -> dict[str, Any]:
    function = call.get("function", call)
    given = function.get("arguments") or {}
    if isinstance(given, str):
        other: Any = json.dumps({said: said}, ensure_ascii=False)
    else:
        other = dict.fromkeys(given, said) or {said: said}
    function = {**function, "arguments": other}
    return {**call, "function": function} if "function" in call else function


def common(first: str, *others: str) -> int:
    """The length of the common beginning of all texts."""
    length = len(first)
    for other in others:
        if not other.startswith(first[:length]):
            low, length = 0, min(length, len(other))
            while low < length:
                middle = (low + length + 1) // 2
                if first[:middle] == other[:middle]:
                    low = middle
                else:
                    length = middle - 1
    return length


def uncut(encoder: Encoder, text: str, stop: int) -> int:
    """`stop`, or where the special token or the markup begins that a cut there would split."""
    near = (max(0, stop - _LONGEST), stop + _LONGEST)
    spans = encoder.find(text, *near) + [m.span() for m in _MARKUP.finditer(text, *near)]
    return min((start for start, end in spans if start < stop < end), default=stop)


def _common_end(first: str, second: str) -> int:
    """The length of the common end of both texts."""
    if first.endswith(second):
        return len(second)
    return common(first[::-1], second[::-1])
