"""Dialogs → token ids, with the part, role and message of each token.

Two protocols are built in; a recipe may describe its own, or take the Jinja template of a Hugging
Face tokenizer (`dialog_template`).

`llama3` is the published prompt format of Llama 3.1, by these rules:

- A message is `<|start_header_id|>ROLE<|end_header_id|>`, two line feeds, its text without the
  white space around it, and `<|eot_id|>`. The text begins with `<|begin_of_text|>`.
- A message of the assistant after which its turn continues ends with `<|eom_id|>`: one that is sent
  to `ipython`, and one that another message of the assistant follows.
- A message to `ipython` without tool calls is code and begins with `<|python_tag|>`. A tool call
  is a message to `ipython` of its own: `{"name": …, "parameters": …}`. What a tool answers is a
  message of the role `ipython` (`tool` is the same).
- Tool definitions stand in the system message before its text, after `Environment: ipython`, as
  JSON indented by 4. No line tells a date.

`chatml` is `<|im_start|>ROLE`, a line feed, the text as it is, `<|im_end|>`, a line feed.
"""

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import dropwhile, takewhile
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from ..errors import DataError
from .encode import CONTENT, EXCLUDED, FORMATTING, OTHER, TERMINATION, Encoder, Piece, Rendered
from .messages import calls, check, excluded, normal, unweighted, unwritten
from .tokenizer import BOS, require, special

__all__ = ["CONTENT", "EXCLUDED", "FORMATTING", "OTHER", "TERMINATION", "Rendered", "Renderer"]

IPYTHON = "ipython"
TOOL_INTRODUCTION = (
    "You can call the functions below. To call one, answer with nothing but a JSON object:\n"
    '{"name": name of the function, "parameters": object of argument names and values}\n'
    "Write values, not variables.\n\n"
)

_SPECIAL = re.compile(r"<\|[^|<>\s]+\|>|<[^<>|\s]+>|\[/?[A-Z][A-Z_]*\]")


class Renderer(ABC):
    """What renders the dialogs of one protocol with one tokenizer.

    Attributes:
        special: special tokens that the tokenizer must have.
        stop: ids of the tokens that end the assistant's message or turn.
        chat_template: the Jinja text for transformers' `tokenizer.chat_template`.
    """

    special: list[str]
    stop: list[int]
    chat_template: str
    encoder: Encoder

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: list[dict[str, Any]] | None = None,
        prompt: bool = False,
    ) -> Rendered:
        """The tokens of a dialog, those of its whole text tokenized at once.

        Messages that are not to be learned (`weight` 0, see `messages.normal`) are EXCLUDED.

        Args:
            prompt: the dialog does not end with the assistant, and its header follows, so that
                a model continues with the answer.

        Raises:
            DataError: the dialog is empty, has an unknown role, an empty message or the wrong
                end, or the protocol has no way to write it.
        """
        return self.encoder.encode(self.pieces(messages, tools=tools, prompt=prompt))

    def pieces(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: list[dict[str, Any]] | None = None,
        prompt: bool = False,
    ) -> list[Piece]:
        """The text that `render` tokenizes, in pieces of one part each.

        Raises: DataError: as `render`.
        """
        messages = normal(messages)
        pieces = self.text(unweighted(messages), tools=tools, prompt=prompt)
        return list(_weighted(pieces, messages))

    @abstractmethod
    def text(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: list[dict[str, Any]] | None = None,
        prompt: bool = False,
    ) -> list[Piece]:
        """The pieces of a dialog in normal form, whatever is learned of it."""


def renderer(settings: Mapping[str, Any], tokenizer: Tokenizer, root: Path) -> Renderer:
    """The renderer of the protocol that `settings` describe.

    Args:
        settings: `{"protocol": "llama3"}`, `{"protocol": "chatml"}`, `{"template": "file.jinja"}`
            or `{"header": "<|{role}|>", "end_of_turn": "<|end|>"}`, the latter with
            `end_of_message` and `roles` where there are; and `system`, the system prompt of
            dialogs that have none.
        root: the folder that the template's path starts from.

    Raises:
        DataError: an unknown protocol, a broken template, or a tokenizer that lacks special
            tokens.
    """
    if "template" in settings:
        from .dialog_template import TemplateRenderer

        return TemplateRenderer(read_template(settings, root), settings, tokenizer)
    return FormatRenderer(_format(settings), settings.get("system"), tokenizer)


def special_tokens(settings: Mapping[str, Any]) -> list[str]:
    """The special tokens of a protocol, without a tokenizer; [] for a Jinja template.

    The tokens at the beginning and end of a text, which every tokenizer has, are not among them.

    Raises:
        DataError: an unknown protocol.
    """
    return [] if "template" in settings else _format(settings).special()


def needed_tokens(settings: Mapping[str, Any], root: Path) -> list[str]:
    """The special tokens that a tokenizer made for a protocol gets.

    Of a Jinja template, all of the form `<|…|>` that are written in it.

    Raises:
        DataError: an unknown protocol, or the template cannot be read.
    """
    if "template" not in settings:
        return special_tokens(settings)
    found = re.findall(r"<\|[^|<>\s{}'\"]+\|>", read_template(settings, root))
    return list(dict.fromkeys(found))


def read_template(settings: Mapping[str, Any], root: Path) -> str:
    """The text of a Jinja template.

    Raises:
        DataError: the file cannot be read.
    """
    path = root / settings["template"]
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise DataError(
            f"the chat template {path} cannot be read: {reason}",
            "name a Jinja file, such as the chat_template.jinja of a Hugging Face model, as "
            "`template` in the dialog",
        ) from None


def continuations(
    renderer: Renderer,
    prompt: Sequence[Mapping[str, Any]],
    answers: Sequence[Sequence[Mapping[str, Any]]],
    tools: list[dict[str, Any]] | None = None,
) -> tuple[Rendered, list[Rendered]]:
    """The tokens of a prompt, up to the assistant's header, and those of each answer to it.

    The prompt is the one that a model gets, whatever the protocol would write before an answer.
    Where the header begins something that some answer does not have, such as a thought, the prompt
    ends before that for all of them, so that each answer follows on the same prompt.

    Where an answer's first characters would join the prompt's last token, the answer is tokenized
    by itself, as a model would write it.

    Raises:
        DataError: as `render`; or an answer has another header than the prompt.
    """
    count = len(prompt)
    asked = renderer.pieces(prompt, tools=tools, prompt=True)
    header = _header(asked, count)
    dialogs = [normal([*prompt, *answer]) for answer in answers]
    wholes = [renderer.text(unweighted(dialog), tools=tools) for dialog in dialogs]
    text = "".join(piece.text for piece in asked)
    headers = [
        header if "".join(p.text for p in whole).startswith(text) else _header(whole, count)
        for whole in wholes
    ]
    kept = min(
        (own for own in headers if header.startswith(own) and own.strip() != header.strip()),
        key=len,
        default=header,
    )
    start = "".join(piece.text for piece in asked if piece.message < count) + kept
    head = renderer.encoder.encode(list(_upto(asked, len(start))))
    after: list[Rendered] = []
    for dialog, whole, own in zip(dialogs, wholes, headers, strict=True):
        cut = len(own) if own.strip() == kept.strip() else len(kept)
        if not own.startswith(kept) and own.strip() != kept.strip():
            raise DataError(
                f"message {count + 1} (assistant): the chat template writes another header for an "
                "answer to come than for an answer that is there",
                "let the template write the same header for `add_generation_prompt`",
            )
        pieces = list(_weighted(whole, dialog))
        after.append(_answer(renderer, head, start, pieces, cut, count))
    return head, after


def _weighted(pieces: Sequence[Piece], messages: Sequence[Mapping[str, Any]]) -> Iterator[Piece]:
    """The pieces of a dialog in normal form, EXCLUDED where it says so."""
    skipped = excluded(messages)
    for piece in pieces:
        yield replace(piece, part=EXCLUDED) if piece.message in skipped else piece


def _header(pieces: Sequence[Piece], message: int) -> str:
    """The header of a message of the assistant."""
    own = dropwhile(lambda piece: piece.message < message, pieces)
    return "".join(p.text for p in takewhile(lambda p: p.part == FORMATTING, own))


def _answer(
    renderer: Renderer, head: Rendered, start: str, whole: list[Piece], cut: int, message: int
) -> Rendered:
    """The tokens of an answer that follows on a prompt.

    Args:
        head: the tokens of the prompt.
        start: the text of the prompt.
        whole: the prompt and the answer, as they are rendered together.
        cut: the length of what the prompt has of the answer's message.
        message: the number of that message.
    """
    if "".join(piece.text for piece in whole).startswith(start):
        rendered = renderer.encoder.encode(whole)
        if rendered.ids[: len(head)] == head.ids:
            return rendered.cut(len(head))
    own = list(dropwhile(lambda piece: piece.message < message, whole))
    return renderer.encoder.encode(list(_after(own, cut)))


def _upto(pieces: Sequence[Piece], stop: int) -> Iterator[Piece]:
    for piece in pieces:
        yield replace(piece, text=piece.text[: max(stop, 0)])
        stop -= len(piece.text)


def _after(pieces: Sequence[Piece], start: int) -> Iterator[Piece]:
    for piece in pieces:
        yield replace(piece, text=piece.text[start:])
        start = max(start - len(piece.text), 0)


@dataclass(frozen=True)
class Format:
    """A protocol of headers and ends.

    Attributes:
        begin: what the text begins with; None for the tokenizer's beginning of text.
        header: with `{role}` in it.
        end: ends a turn.
        more: ends a message after which the assistant's turn continues; "" where there is none.
        code: begins a message to ipython that is no tool call.
        tools: whether there is a way to write tool definitions and calls.
        strip: whether white space around a text is left out.
    """

    begin: str | None
    header: str
    end: str
    more: str
    roles: tuple[str, ...]
    code: str = ""
    tools: bool = False
    strip: bool = False

    def special(self) -> list[str]:
        headers = [self.header.replace("{role}", self.shown(role)) for role in self.roles]
        texts = [*headers, self.end, self.more, self.code]
        return list(dict.fromkeys(_SPECIAL.findall(" ".join(texts))))

    def shown(self, role: str) -> str:
        """The role as headers name it."""
        return IPYTHON if self.tools and role == "tool" else role


LLAMA3 = Format(
    begin=BOS,
    header="<|start_header_id|>{role}<|end_header_id|>\n\n",
    end="<|eot_id|>",
    more="<|eom_id|>",
    roles=("system", "user", "assistant", IPYTHON, "tool"),
    code="<|python_tag|>",
    tools=True,
    strip=True,
)
CHATML = Format(
    begin="",
    header="<|im_start|>{role}\n",
    end="<|im_end|>\n",
    more="",
    roles=("system", "user", "assistant"),
)
PROTOCOLS = {"llama3": LLAMA3, "chatml": CHATML}


def _format(settings: Mapping[str, Any]) -> Format:
    if "protocol" in settings:
        if settings["protocol"] not in PROTOCOLS:
            raise DataError(
                f"there is no dialog protocol `{settings['protocol']}`",
                f"write one of {', '.join(PROTOCOLS)}, a `template`, or `header` and "
                "`end_of_turn` of your own",
            )
        return PROTOCOLS[settings["protocol"]]
    header, end = settings.get("header") or "", settings.get("end_of_turn") or ""
    more = settings.get("end_of_message") or ""
    if "{role}" not in header:
        raise DataError(
            f"the dialog's header `{header}` does not name the role",
            'write {role} where it stands, as in header = "<|{role}|>"',
        )
    for name, text in [("end_of_turn", end), ("end_of_message", more or None)]:
        if text is not None and not _SPECIAL.search(text):
            raise DataError(
                f"the dialog's {name} `{text}` holds no special token, so nothing could tell it "
                "from a text",
                f'write one, as in {name} = "<|end|>"',
            )
    default = ("system", "user", "assistant", *([IPYTHON] if more else []))
    roles = tuple(settings.get("roles") or default)
    if "assistant" not in roles:
        raise DataError(
            f"the dialog's roles {', '.join(roles)} lack the assistant",
            "add `assistant`, whose messages are learned",
        )
    return Format(begin=None, header=header, end=end, more=more, roles=roles)


@dataclass(frozen=True)
class _Turn:
    """A header, a text and an end; a message with tool calls makes several."""

    message: int
    role: str
    text: str
    code: bool = False
    to_ipython: bool = False


class FormatRenderer(Renderer):
    """Renders by a `Format`."""

    def __init__(self, form: Format, system: str | None, tokenizer: Tokenizer) -> None:
        from .format_template import template_of

        self.form = form
        self.system = system
        self.encoder = Encoder(tokenizer)
        ids = special(tokenizer)
        self.begin = form.begin
        if form.begin is None:
            self.begin = "" if ids.bos is None else tokenizer.id_to_token(ids.bos)
        self.special = list(dict.fromkeys([*_SPECIAL.findall(self.begin or ""), *form.special()]))
        require(tokenizer, self.special, "the dialog's protocol")
        ends = [match[0] for match in map(_SPECIAL.search, [form.end, form.more]) if match]
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
        unwritten(messages, written, "the dialog's protocol has no way to write")
        if tools and not self.form.tools:
            raise DataError("the dialog's protocol has no way to write tool definitions")
        turns = list(self._turns(messages, tools or []))
        pieces = [Piece(self.begin or "")]
        for turn, after in zip(turns, [*turns[1:], None], strict=True):
            speaks = turn.role == "assistant"
            follows = speaks and after is not None and after.role == "assistant"
            goes_on = self.form.more and (turn.to_ipython or follows)
            parts = (FORMATTING, CONTENT, TERMINATION) if speaks else (OTHER, OTHER, OTHER)
            end = self.form.more if goes_on else self.form.end
            stop = max(match.end() for match in _SPECIAL.finditer(end))
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
