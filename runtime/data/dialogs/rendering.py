"""The interface of renderers: dialogs as tokens with parts, and a prompt with its answers."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import dropwhile, takewhile
from typing import Any

from ...errors import DataError
from .encode import EXCLUDED, FORMATTING, Encoder, Piece, Rendered, in_steps
from .messages import excluded, normal, unweighted


class Renderer(ABC):
    """Renders the dialogs of one protocol with one tokenizer.

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
        """The tokens of a dialog, whose whole text is tokenized at once.

        Messages that are not learned (`weight` 0, see `messages.normal`) are EXCLUDED.

        Args:
            prompt: the dialog does not end with the assistant, and the assistant's header follows,
                so that a model continues with the answer.

        Raises:
            DataError: the dialog is empty, has an unknown role, an empty message or the wrong
                end, or the protocol cannot write it.
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

    def warnings(self) -> list[str]:
        """Likely problems with the dialogs rendered so far, one sentence each."""
        return []

    @abstractmethod
    def text(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: list[dict[str, Any]] | None = None,
        prompt: bool = False,
    ) -> list[Piece]:
        """The pieces of a dialog in normal form, regardless of what is learned."""


def continuations(
    renderer: Renderer,
    prompt: Sequence[Mapping[str, Any]],
    answers: Sequence[Sequence[Mapping[str, Any]]],
    tools: list[dict[str, Any]] | None = None,
    separator: str | None = None,
) -> tuple[Rendered, list[Rendered]]:
    """The tokens of a prompt, up to the assistant's header, and those of each answer to it.

    The prompt is what a model receives, whatever the protocol would write before an answer. If the
    header begins something that some answer lacks, such as a thought, the prompt ends before it for
    all of them, so that all answers follow the same prompt.

    If an answer's first characters would merge with the prompt's last token, the answer is
    tokenized separately, as a model would write it.

    Args:
        separator: what stands between the steps of an answer; None: it is not cut into steps.

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
                f"message {count + 1} (assistant): the chat template's header for "
                "`add_generation_prompt` differs from that of an answer",
                "make the template write the same header for both",
            )
        pieces = list(_weighted(whole, dialog))
        if separator:
            pieces = in_steps(pieces, separator, count)
        after.append(_answer(renderer, head, start, pieces, cut, count))
    return head, after


def _weighted(pieces: Sequence[Piece], messages: Sequence[Mapping[str, Any]]) -> Iterator[Piece]:
    """The pieces of a dialog in normal form, EXCLUDED for messages that are not learned."""
    skipped = excluded(messages)
    for piece in pieces:
        yield replace(piece, part=EXCLUDED) if piece.message in skipped else piece


def _header(pieces: Sequence[Piece], message: int) -> str:
    """The header of an assistant message."""
    own = dropwhile(lambda piece: piece.message < message, pieces)
    return "".join(p.text for p in takewhile(lambda p: p.part == FORMATTING, own))


def _answer(
    renderer: Renderer, head: Rendered, start: str, whole: list[Piece], cut: int, message: int
) -> Rendered:
    """The tokens of an answer to a prompt.

    Args:
        head: the tokens of the prompt.
        start: the text of the prompt.
        whole: the prompt and the answer, rendered together.
        cut: the length of the answer message's part in the prompt.
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
