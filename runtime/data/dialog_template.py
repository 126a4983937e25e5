"""Jinja chat templates of Hugging Face tokenizers: rendering with them, and writing them.

A template is a program that yields a text, and says nothing of what is what in it. It is found out
by rendering more: the dialog up to each message, which gives the borders of messages; up to
each answer with the assistant's header, which gives the place where the model goes on; and the
whole with marks around all that the dialog brings, which gives what no special token can be in.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer

from ..errors import DataError
from .dialog import IPYTHON, TOOL_INTRODUCTION, Format, Renderer
from .encode import CONTENT, FORMATTING, OTHER, TERMINATION, Encoder, Piece
from .messages import check, normal
from .tokenizer import named, special

_PRIVATE = range(0xE000, 0xF900)
"""Characters that mean nothing, from which the marks are taken."""
_NUMBER = 0xF0000
"""The character that stands for message 0 beside a mark."""

# Keys whose values templates compare, and do not only write.
_NAMES = ("type", "role", "to")
# Ends a message to a tool, in protocols that have an end of message beside that of a turn.
_ENDS_OF_MESSAGE = ("<|eom_id|>",)


class _Generation(Extension):
    """`{% generation %}` … `{% endgeneration %}`, by which templates mark the assistant's text."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> nodes.Node | list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _raise(message: str) -> None:
    raise jinja2.TemplateError(message)


def _to_json(
    value: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def compiled(text: str) -> jinja2.Template:
    """A template, with what transformers gives to chat templates.

    Raises:
        DataError: it is no Jinja template.
    """
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    try:
        return environment.from_string(text)
    except jinja2.TemplateSyntaxError as error:
        raise DataError(
            f"the chat template is broken in line {error.lineno}: {error.message}",
            "mend the Jinja file that the dialog names as `template`",
        ) from None


@dataclass(frozen=True)
class _Marked:
    """A stretch of the text that the dialog brought, and the number of its message."""

    start: int
    stop: int
    message: int


class TemplateRenderer(Renderer):
    """Renders by a Jinja template.

    Raises:
        DataError: the template is broken, or it does not end the assistant's message with a
            special token of the tokenizer.
    """

    def __init__(self, text: str, settings: Mapping[str, Any], tokenizer: Tokenizer) -> None:
        self.chat_template = _system_line(settings.get("system")) + text
        self.encoder = Encoder(tokenizer)
        self._template = compiled(self.chat_template)
        ids = special(tokenizer)
        self._tokens = named(tokenizer)
        self._ends = [self._end()]
        self._ends += [e for e in _ENDS_OF_MESSAGE if e in text and e in self.encoder.special]
        self.special = list(dict.fromkeys(self._ends))
        stop = [self.encoder.special[end] for end in self._ends]
        self.stop = list(dict.fromkeys([*stop, ids.eos]))

    def _end(self) -> str:
        """The special token that ends an answer, of a dialog made up to find it out."""
        messages = [{"role": "user", "content": "one"}, {"role": "assistant", "content": "two"}]
        text, marked = self._marked(messages, None)
        found = self.encoder.find(text, max((m.stop for m in marked), default=0))
        if found:
            start, stop = found[0 if marked else -1]
            return text[start:stop]
        raise DataError(
            "the chat template ends the assistant's message with no special token of the tokenizer",
            "use the tokenizer that the template was made for, or train one with its tokens as "
            "special ones",
        )

    def text(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: list[dict[str, Any]] | None = None,
        prompt: bool = False,
    ) -> list[Piece]:
        messages = normal(messages)
        check(messages, None, prompt=prompt)
        text, marked = self._marked(messages, tools, prompt)
        borders = self._borders(text, messages, tools, marked, prompt)
        pieces: list[Piece] = []
        if prompt:
            borders.append(len(text))
            messages = [*messages, {"role": "assistant", "header": True}]
        for number, message in enumerate(messages):
            start, stop = borders[number], borders[number + 1]
            cuts = [(stop, OTHER)]
            if "header" in message:
                cuts = [(stop, FORMATTING)]
            elif message["role"] == "assistant":
                cuts = self._assistant(text, messages, tools, marked, number, start, stop)
            begin = start
            for end, part in cuts:
                where = (part, message["role"], number)
                pieces += _pieces(text, begin, end, marked, *where)
                begin = end
        if "".join(piece.text for piece in pieces) != text:
            raise DataError("the chat template does not write the messages one after the other")
        return pieces

    def _assistant(
        self,
        text: str,
        messages: list[dict[str, Any]],
        tools: list[dict[str, Any]] | None,
        marked: list[_Marked],
        number: int,
        start: int,
        stop: int,
    ) -> list[tuple[int, int]]:
        """Where the header, the content, the terminator and what follows it end, with the parts."""
        own = [m for m in marked if m.message == number]
        shown = [m.start for m in own if m.start < m.stop]
        head = self._header(text, messages[:number], tools, start)
        # A template without a header for the answer still writes one, in front of its text.
        bare = head == start and shown and messages[number]["content"].strip()
        if head is not None and start <= head <= stop and not bare:
            begin = head
        elif shown:
            begin = shown[0]
        elif (head := self._header(text, messages[:number], tools, start, cut=True)) is not None:
            begin = head
        else:
            raise DataError(
                f"message {number + 1}: the chat template does not show where the assistant's "
                "text begins"
            )
        after = max([begin, *(m.stop for m in own)])
        ends = self.encoder.find(text, after, stop)
        known = [end for end in ends if text[slice(*end)] in self._ends]
        ending = (known or ends or [(stop, stop)])[0]
        # White space that the template puts before the special token is part of the ending.
        if own and not text[after : ending[0]].strip():
            ending = (after, ending[1])
        return [
            (begin, FORMATTING),
            (ending[0], CONTENT),
            (ending[1], TERMINATION),
            (stop, FORMATTING),
        ]

    def _borders(
        self,
        text: str,
        messages: list[dict[str, Any]],
        tools: list[dict[str, Any]] | None,
        marked: list[_Marked],
        prompt: bool,
    ) -> list[int]:
        """Where each message begins, and where the last one ends."""
        borders = [0]
        for number in range(1, len(messages) + prompt):
            border = self._prefix(text, messages[:number], tools)
            if border is None or border < borders[-1]:
                border = self._after_end(text, marked, number - 1, borders[-1])
            borders.append(border)
        return borders if prompt else [*borders, len(text)]

    def _after_end(self, text: str, marked: list[_Marked], message: int, least: int) -> int:
        """Where a message ends, by the special token and the white space after its content."""
        last = max((m.stop for m in marked if m.message == message), default=least)
        for _, stop in self.encoder.find(text, last):
            return stop + len(text[stop:]) - len(text[stop:].lstrip())
        return len(text)

    def _header(
        self,
        text: str,
        before: list[dict[str, Any]],
        tools: list[dict[str, Any]] | None,
        start: int,
        *,
        cut: bool = False,
    ) -> int | None:
        """Where the assistant's header ends that begins at `start`.

        Args:
            cut: whether the header's end may be missing, such as that of thoughts left out.
        """
        try:
            asked, rest = (self._text(before, tools, prompt) for prompt in (True, False))
        except DataError:
            return None
        if text.startswith(asked):
            return len(asked)
        # Where the messages before end otherwise, because the assistant goes on, the header is
        # still the same.
        header = asked.removeprefix(rest)
        if cut:
            pairs = enumerate(zip(header, text[start:], strict=False))
            same = next((i for i, (one, other) in pairs if one != other), 0)
            return start + same if same else None
        return start + len(header) if text.startswith(header, start) else None

    def _prefix(
        self,
        text: str,
        messages: list[dict[str, Any]],
        tools: list[dict[str, Any]] | None,
    ) -> int | None:
        """The length of what the first messages make, where the text begins with it."""
        try:
            made = self._text(messages, tools, prompt=False)
        except DataError:
            return None
        return len(made) if text.startswith(made) else None

    def _text(
        self, messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None, prompt: bool
    ) -> str:
        try:
            return self._template.render(
                messages=messages,
                tools=tools,
                documents=None,
                add_generation_prompt=prompt,
                **self._tokens,
            )
        # A template is a program of others, in which any operation may fail.
        except Exception as error:
            reason = " ".join(str(error).split())[:300] or type(error).__name__
            raise DataError(f"the chat template refuses the dialog: {reason}") from None

    def _marked(
        self,
        messages: list[dict[str, Any]],
        tools: list[dict[str, Any]] | None,
        prompt: bool = False,
    ) -> tuple[str, list[_Marked]]:
        """The text, and what in it the dialog brought.

        Raises:
            DataError: the dialog holds special tokens, and the template does not show where.
        """
        text = self._text(messages, tools, prompt)
        dumped = json.dumps([messages, tools], ensure_ascii=False)
        free = (chr(c) for c in _PRIVATE if chr(c) not in text and chr(c) not in dumped)
        left, right = next(free), next(free)
        marks = [
            (left + chr(_NUMBER + n), right + chr(_NUMBER + n)) for n in range(len(messages) + 1)
        ]
        given = [_wrapped(message, *m) for message, m in zip(messages, marks, strict=False)]
        try:
            shown = self._text(given, _wrapped(tools, *marks[-1]), prompt)
        except DataError:
            shown = ""
        plain, marked, lost = _found(shown, left, right)
        if plain == text:
            dumped = json.dumps([[*messages, tools][n] for n in lost], ensure_ascii=False)
        else:
            marked = []
        if (lost or plain != text) and self.encoder.find(dumped):
            raise DataError(
                "the dialog's texts hold names of special tokens, and the chat template does not "
                "show where"
            )
        return text, marked


def _wrapped(value: Any, left: str, right: str) -> Any:
    """All texts in a value between marks, white space around them left outside."""
    if isinstance(value, str):
        core = value.strip()
        before = value[: len(value) - len(value.lstrip())]
        return before + left + core + right + value[len(before) + len(core) :] if core else value
    if isinstance(value, list):
        return [_wrapped(each, left, right) for each in value]
    if isinstance(value, dict):
        return {k: v if k in _NAMES else _wrapped(v, left, right) for k, v in value.items()}
    return value


def _found(shown: str, left: str, right: str) -> tuple[str, list[_Marked], set[int]]:
    """A text without its marks, what stood between two, and the messages of single marks."""
    text: list[str] = []
    length, begins, marked, lost = 0, {}, [], set()
    for part in re.split(f"([{left}{right}].)", shown, flags=re.DOTALL):
        if part[:1] in (left, right):
            message = ord(part[1]) - _NUMBER
            begin = begins.pop(message, None)
            if part[0] == left:
                lost |= set() if begin is None else {message}
                begins[message] = length
            elif begin is None:
                # It still shows where the text ends.
                lost.add(message)
                marked.append(_Marked(length, length, message))
            else:
                marked.append(_Marked(begin, length, message))
        else:
            text.append(part)
            length += len(part)
    return "".join(text), marked, lost | set(begins)


def _pieces(
    text: str, start: int, stop: int, marked: list[_Marked], part: int, role: str, message: int
) -> Iterator[Piece]:
    """The pieces of a stretch, cut where the dialog's texts begin and end."""
    piece = partial(Piece, part=part, role=role, message=message)
    for each in sorted(marked, key=lambda m: m.start):
        begin, end = max(each.start, start), min(each.stop, stop)
        if begin < end:
            yield piece(text[start:begin])
            yield piece(text[begin:end], free=True)
            start = end
    yield piece(text[start:stop])


def _system_line(system: str | None) -> str:
    """What gives a dialog without a system prompt one, before a template."""
    if not system:
        return ""
    return (
        "{%- if not messages or messages[0]['role'] != 'system' %}"
        f"{{%- set messages = [{{'role': 'system', 'content': {_quoted(system)}}}] + messages %}}"
        "{%- endif -%}\n"
    )


def _quoted(text: str) -> str:
    """A Jinja literal; braces and per cent signs apart, lest they end the block."""
    return re.sub(r"[{}%#]", lambda m: f"\\x{ord(m[0]):02x}", json.dumps(text, ensure_ascii=False))


def template_of(form: Format, begin: str, system: str | None) -> str:
    """The Jinja template that renders as `FormatRenderer` does, for other programs."""
    before, _, after = form.header.partition("{role}")
    role = "role"
    if form.tools:
        role = f"('{IPYTHON}' if role == 'tool' else role)"
    trim = " | trim" if form.strip else ""
    known = json.dumps(list(form.roles))
    lines = [
        "{%- macro header(role) %}",
        f"{{{{- {_quoted(before)} + {role} + {_quoted(after)} }}}}",
        "{%- endmacro %}",
        f"{{{{- {_quoted(begin)} }}}}",
        "{%- set head = namespace(text='') %}",
    ]
    if form.tools:
        lines += [
            "{%- if tools %}",
            f"{{%- set head.text = {_quoted(f'Environment: {IPYTHON}{chr(10)}')} "
            f"+ {_quoted(TOOL_INTRODUCTION)} %}}",
            "{%- for tool in tools %}",
            "{%- set head.text = head.text + (tool | tojson(indent=4)) + '\\n\\n' %}",
            "{%- endfor %}",
            "{%- endif %}",
        ]
    else:
        lines += [
            "{%- if tools %}{{- raise_exception('this protocol has no tools') }}{%- endif %}",
        ]
    lines += [
        f"{{%- set default = {_quoted(system or '')} %}}",
        "{%- if messages[0]['role'] != 'system' and (head.text or default) %}",
        "{{- header('system') }}",
        f"{{{{- (head.text + default){trim} }}}}",
        f"{{{{- {_quoted(form.end)} }}}}",
        "{%- endif %}",
        "{%- for message in messages %}",
        f"{{%- if message['role'] not in {known} %}}",
        "{{- raise_exception('unknown role ' + message['role']) }}",
        "{%- endif %}",
        f"{{%- set text = (message['content'] or ''){trim} %}}",
        "{%- if loop.first and message['role'] == 'system' %}",
        f"{{%- set text = (head.text + text){trim} %}}",
        "{%- endif %}",
        "{%- set calls = message['tool_calls'] or [] %}",
        "{%- if message['role'] != 'assistant' %}",
        "{{- header(message['role']) + text + " + _quoted(form.end) + " }}",
        "{%- else %}",
        *_assistant_lines(form),
        "{%- endif %}",
        "{%- endfor %}",
        "{%- if add_generation_prompt %}{{- header('assistant') }}{%- endif %}",
    ]
    return "\n".join(lines) + "\n"


def _assistant_lines(form: Format) -> list[str]:
    more, end = _quoted(form.more or form.end), _quoted(form.end)
    follows = "(loop.nextitem is defined and loop.nextitem['role'] == 'assistant')"
    lines = [
        "{%- set to_ipython = message['to'] == 'ipython' %}",
        "{%- if text | trim %}",
        "{{- header('assistant') }}",
    ]
    if not form.tools:
        return [
            "{%- if calls %}{{- raise_exception('this protocol has no tools') }}{%- endif %}",
            *lines,
            f"{{{{- text + ({more} if to_ipython or {follows} else {end}) }}}}",
            "{%- endif %}",
        ]
    return [
        *lines,
        "{%- if to_ipython and not calls %}",
        f"{{{{- {_quoted(form.code)} + text + {more} }}}}",
        "{%- else %}",
        f"{{{{- text + ({more} if calls or {follows} else {end}) }}}}",
        "{%- endif %}",
        "{%- endif %}",
        "{%- for call in calls %}",
        "{%- set called = call['function'] or call %}",
        "{%- set given = called['arguments'] if called['arguments'] is defined else {} %}",
        "{{- header('assistant') + '{\"name\": ' + (called['name'] | tojson) }}",
        "{{- ', \"parameters\": ' + (given if given is string else given | tojson) + '}' }}",
        f"{{{{- {more} }}}}",
        "{%- endfor %}",
    ]
