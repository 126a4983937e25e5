"""Finds which text of a rendered template comes from the dialog, and what the template leaves out.

All texts of the dialog are put between marks, which are then searched for in the rendered text.
"""

import json
import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, count, islice
from typing import Any

from ...errors import DataError
from .chat_template import REASONING, Template, free_characters
from .encode import Encoder
from .messages import METADATA
from .template_parts import Message

_NUMBER = 0xF0000
"""The character next to a mark that stands for text 0; two Unicode planes follow it."""
_MOST = 0x110000 - _NUMBER

# Keys whose values templates compare, not only write.
_NAMES = ("type", "role", "to", "id", "tool_call_id")
# Keys that describe a message and are not its text: templates may leave them out.
_SILENT = METADATA.union(_NAMES, ("weight",))
_OTHERWISE = (
    "use a chat template that renders it (`template` in the dialog); or, if it should not be "
    'learned, write `fields = {{ ignore = "{}" }}` in the dataset'
)
# Markup inside texts that templates look for.
_MARKUP = re.compile(r"<[^<>\n]*>|\[/?[A-Z_]+\]")


@dataclass(frozen=True)
class Brought:
    """A span of the rendered text that comes from the dialog, and the number of its message.

    Tools have the number after the last message's.
    """

    start: int
    stop: int
    message: int


class Places:
    """The spans of a text that come from the dialog.

    Args:
        brought: from left to right; they may overlap.
    """

    def __init__(self, brought: Sequence[Brought]) -> None:
        self._all = brought
        self._starts = [each.start for each in brought]
        # How far spans up to each one reach.
        self._reach = list(accumulate((each.stop for each in brought), max))
        self._of: dict[int, list[Brought]] = {}
        for each in brought:
            self._of.setdefault(each.message, []).append(each)

    def of(self, message: int) -> Sequence[Brought]:
        """Those of a message."""
        return self._of.get(message, ())

    def near(self, start: int, stop: int) -> Sequence[Brought]:
        """All that overlap a span, and perhaps others."""
        first = bisect_right(self._reach, start)
        return self._all[first : bisect_left(self._starts, stop, first)]

    def after(self, place: int) -> Iterator[Brought]:
        """Those that begin there or later."""
        return islice(self._all, bisect_left(self._starts, place), None)


@dataclass(frozen=True)
class Marked:
    """What is known about a rendered text.

    Attributes:
        brought: from left to right; empty if the template writes a different text with marks.
        whole: whether each text that is written was found with both its ends.
        shown: the places of texts in the dialog of which at least one end was found.
    """

    brought: list[Brought]
    whole: bool
    shown: frozenset[tuple[Any, ...]]

    @cached_property
    def places(self) -> Places:
        return Places(self.brought)


def marked(
    template: Template,
    messages: Sequence[Message],
    tools: list[dict[str, Any]] | None,
    text: str,
    prompt: bool,
) -> Marked:
    """Finds the dialog's own text in `text`, the rendered dialog."""
    given = [*messages, tools]
    free = free_characters(2, text, json.dumps(given, ensure_ascii=False))
    places: list[tuple[Any, ...]] = []
    wrapped = [_wrapped(each, (n,), free[0], free[1], places) for n, each in enumerate(given)]
    if len(places) > _MOST:
        return Marked([], False, frozenset())
    try:
        shown = template.render(wrapped[:-1], wrapped[-1], prompt=prompt)
    except DataError:
        return Marked([], False, frozenset())
    plain, found, lost = _found(shown, free[0], free[1], places)
    there = frozenset(places[number] for number, _, _ in found)
    if plain != text:
        return Marked([], False, there)
    brought = [Brought(start, stop, places[number][0]) for number, start, stop in found]
    return Marked(sorted(brought, key=lambda b: b.start), not lost, there)


def _wrapped(
    value: Any, place: tuple[Any, ...], left: str, right: str, places: list[tuple[Any, ...]]
) -> Any:
    """A value with all its texts between marks; surrounding white space stays outside."""
    if isinstance(value, str):
        core = value.strip()
        if not core:
            return value
        number = chr(_NUMBER + min(len(places), _MOST - 1))
        places.append(place)
        before = value[: len(value) - len(value.lstrip())]
        after = value[len(before) + len(core) :]
        return f"{before}{left}{number}{core}{right}{number}{after}"
    if isinstance(value, list | tuple):
        return [_wrapped(v, (*place, n), left, right, places) for n, v in enumerate(value)]
    if isinstance(value, Mapping):
        return {
            k: v if k in _NAMES else _wrapped(v, (*place, k), left, right, places)
            for k, v in value.items()
        }
    return value


def _found(
    shown: str, left: str, right: str, places: list[tuple[Any, ...]]
) -> tuple[str, list[tuple[int, int, int]], set[int]]:
    """A text without its marks, what was between two, and the numbers of single marks."""
    text: list[str] = []
    length, begins, found, lost = 0, {}, [], set()
    for part in re.split(f"([{left}{right}].)", shown, flags=re.DOTALL):
        number = ord(part[1]) - _NUMBER if part[:1] in (left, right) and len(part) == 2 else -1
        if not 0 <= number < len(places):
            text.append(part)
            length += len(part)
        elif part[0] == left:
            lost |= {number} & begins.keys()
            begins[number] = length
        else:
            # A single mark still shows where the text ends.
            lost |= set() if number in begins else {number}
            found.append((number, begins.pop(number, length), length))
    found += [(number, start, start) for number, start in begins.items()]
    return "".join(text), found, lost | begins.keys()


def require_shown(
    encoder: Encoder,
    messages: Sequence[Message],
    tools: list[dict[str, Any]] | None,
    known: Marked,
) -> None:
    """Rejects special tokens in texts whose rendered position is unknown.

    Raises: DataError
    """
    named = [value for each in [*messages, *(tools or [])] for value in _names(each)]
    if not known.whole:
        named.append(json.dumps([messages, tools], ensure_ascii=False))
    if any(encoder.find(value) for value in named):
        raise DataError(
            "the dialog's texts contain names of special tokens, and the chat template does not "
            "show where",
            "write thoughts to `reasoning_content`, and remove the names of special tokens from "
            "the texts",
        )


def _names(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, each in value.items():
            if key not in _NAMES:
                yield from _names(each)
            elif isinstance(each, str):
                yield each
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _names(each)


class Left:
    """Finds what a template leaves out of a dialog.

    If it writes something of the last message and omits it from earlier ones, such as thoughts,
    that is by design. What it never writes is an error.
    """

    def __init__(
        self,
        template: Template,
        messages: Sequence[Message],
        tools: list[dict[str, Any]] | None,
        text: str,
        known: Marked,
    ) -> None:
        self._template = template
        self._messages = list(messages)
        self._tools = tools
        self._known = known
        self._free = free_characters(1, text, json.dumps([messages, tools], ensure_ascii=False))[0]

    def require_none(self, *, prompt: bool) -> None:
        """Raises: DataError: the template never writes something; gives message and key."""
        for number, message in enumerate(self._messages):
            for key, value in message.items():
                if key == "tool_calls":
                    self._require_calls(number, message)
                elif isinstance(value, str) and value.strip() and key not in _SILENT:
                    self._require_text(number, key, value)
        self._require_tools(prompt)

    def _require_text(self, number: int, key: str, text: str) -> None:
        if self._known.whole and (number, key) in self._known.shown:
            return
        changed, pieces = _with_marks(text, self._free)
        message = self._messages[number] | {key: changed}
        if key in REASONING:
            message |= {k: changed for k in REASONING if self._messages[number].get(k) == text}
        missing = set(pieces)
        for rendered in self._renderings(number, message):
            missing -= {n for n in missing if self._free + chr(_NUMBER + n) in rendered}
            if not missing:
                return
        role = self._messages[number]["role"]
        if len(missing) == len(pieces):
            what = f"the chat template does not render its `{key}`"
        else:
            part = " ".join(pieces[min(missing)].split())
            part = part if len(part) <= 40 else part[:39] + "…"
            what = f"the chat template leaves “{part}” out of its `{key}`"
        raise DataError(
            f"message {number + 1} ({role}): {what}",
            _OTHERWISE.format(key),
        )

    def _renderings(self, number: int, message: Message) -> Iterator[str]:
        """The dialog with this message replaced, whole and ending with it."""
        others = [*self._messages]
        others[number] = message
        for given in (others, others[: number + 1]):
            try:
                yield self._template.render(given, self._tools)
            except DataError:
                continue

    def _require_calls(self, number: int, message: Message) -> None:
        for each, call in enumerate(message.get("tool_calls") or []):
            place = (number, "tool_calls", each)
            shown = [where[3:] for where in self._known.shown if where[:3] == place]
            names = [where for where in shown if where[-1] == "name"]
            if names and len(shown) > len(names):
                continue
            for key in ("name", "arguments"):
                if not self._written(number, each, call, key):
                    what = f"`tool_calls` (the {key} of call {each + 1})"
                    raise DataError(
                        f"message {number + 1} ({message['role']}): the chat template does not "
                        f"render its {what}",
                        _OTHERWISE.format("tool_calls"),
                    )

    def _written(self, number: int, each: int, call: Mapping[str, Any], key: str) -> bool:
        function = dict(call.get("function", call))
        given = function.get(key)
        if not given:
            return True
        if key == "name":
            other: Any = self._free
        elif isinstance(given, str):
            other = json.dumps({self._free: self._free}, ensure_ascii=False)
        else:
            other = dict.fromkeys(given, self._free)
        function[key] = other
        calls = [*self._messages[number]["tool_calls"]]
        calls[each] = {**call, "function": function} if "function" in call else function
        message = self._messages[number] | {"tool_calls": calls}
        return any(self._free in rendered for rendered in self._renderings(number, message))

    def _require_tools(self, prompt: bool) -> None:
        last = len(self._messages)
        shown = {where[1] for where in self._known.shown if where[0] == last}
        for each, tool in enumerate(self._tools or []):
            if each in shown:
                continue
            given = [*(self._tools or [])]
            given[each] = _renamed(tool, self._free)
            try:
                rendered = self._template.render(self._messages, given, prompt=prompt)
            except DataError:
                rendered = ""
            if self._free not in rendered:
                raise DataError(
                    "the chat template does not render the tool definitions (`tools`, number "
                    f"{each + 1})",
                    "use a template that renders tools, or remove `tools` from the record",
                )


def _renamed(value: Any, name: str) -> Any:
    """A tool with other names."""
    if isinstance(value, Mapping):
        return {
            k: name if k == "name" and isinstance(v, str) else _renamed(v, name)
            for k, v in value.items()
        }
    return [_renamed(v, name) for v in value] if isinstance(value, list) else value


def _with_marks(text: str, mark: str) -> tuple[str, dict[int, str]]:
    """A text with a numbered mark in each part between markup, and these parts."""
    made: list[str] = []
    pieces: dict[int, str] = {}
    begin, numbers = 0, count()
    for match in [*_MARKUP.finditer(text), None]:
        piece = text[begin : match.start() if match else len(text)]
        core = piece.strip()
        if core and len(pieces) < _MOST:
            number = next(numbers)
            pieces[number] = core
            # After the first character, so that what the text begins with stays.
            cut = piece.index(core) + 1
            piece = f"{piece[:cut]}{mark}{chr(_NUMBER + number)}{piece[cut:]}"
        made.append(piece)
        if match:
            made.append(match[0])
            begin = match.end()
    if not pieces:
        return text + mark + chr(_NUMBER), {0: text.strip()}
    return "".join(made), pieces
