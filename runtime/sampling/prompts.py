"""Prompts as tokens, and answers as the messages that training renders."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from ...compiler.as_written import counted
from ...compiler.plan.plan import PromptWindow
from ..data.dialogs.dialog import renderer
from ..data.dialogs.encode import Piece
from ..data.order.permutation import Permutation, digest
from ..data.records.records import Preference
from ..data.records.shards import Record
from ..data.records.tokens import Tokens
from ..data.tokens.tokenizer import special
from ..errors import DataError

Message = dict[str, Any]


@dataclass(frozen=True)
class Prompt:
    """The prompt that a model continues.

    Attributes:
        place: as messages show it ("prompts.jsonl:3").
        messages: of a dialog, or None for plain text.
        tools: offered by the dialog.
        text: the plain text, or "".
        tokens: int32, shape (n,), including the assistant's header.
    """

    place: str
    messages: list[Message] | None
    tools: list[dict[str, Any]] | None
    text: str
    tokens: np.ndarray


class Protocol:
    """How a model reads prompts and ends its answers.

    Args:
        dialog: settings of the dialog protocol.
        tokenizer: the model's.
        root: the folder of the spec, which a template's path is relative to.

    Attributes:
        stop: ids that each end an answer.

    Raises: DataError: the protocol and the tokenizer are incompatible.
    """

    def __init__(self, dialog: Mapping[str, Any], tokenizer: Tokenizer, root: Path) -> None:
        self._tokenizer = tokenizer
        self._renderer = renderer(dialog, tokenizer, root)
        self._tokens = Tokens(tokenizer, self._renderer)
        ids = special(tokenizer)
        self._begin = [] if ids.bos is None else [ids.bos]
        self.stop = frozenset([*self._renderer.stop, ids.eos])
        form = getattr(self._renderer, "form", None)
        more = form.more if form else ""
        self._goes_on = {i for i in self.stop if more and (tokenizer.id_to_token(i) or "") in more}
        self._code = tokenizer.token_to_id(form.code) if form and form.code else None

    def prompt(self, record: Mapping[str, Any], place: str) -> Prompt:
        """A record of prompts.jsonl as tokens.

        Raises: DataError: the prompt is empty or not a dialog.
        """
        messages, tools = record.get("messages"), record.get("tools") or None
        if messages is None:
            text = record.get("prompt")
            if not isinstance(text, str) or not text.strip():
                raise DataError(f"{place}: the prompt is empty", "write one, or remove the line")
            return Prompt(place, None, None, text, _array([*self._begin, *self._encode(text)]))
        try:
            tokens = self._renderer.render(messages, tools=tools, prompt=True).ids
        except DataError as problem:
            raise _placed(problem, place) from None
        return Prompt(place, messages, tools, "", _array(tokens))

    def answer(self, tokens: list[int]) -> tuple[str, Message, bool]:
        """A generated answer: its text, the assistant's message, and whether the model ended it.

        A message that the model ends so that the turn continues goes to a tool: it is a tool call,
        or code if it begins with the code mark.
        """
        finished = bool(tokens) and tokens[-1] in self.stop
        content = tokens[:-1] if finished else tokens
        text = self._tokenizer.decode(content, skip_special_tokens=True)
        message: Message = {"role": "assistant", "content": text}
        if finished and tokens[-1] in self._goes_on:
            called = None if self._code in content else _call(text)
            message |= {"content": "", "tool_calls": [called]} if called else {"to": "ipython"}
        return text, message, finished

    def whole(self, prompt: Prompt, message: Message) -> np.ndarray:
        """Prompt and answer as a reward model is trained on them: int64, shape (n,).

        An answer without text, which no dialog can hold, is the prompt and an end of turn.

        Raises: DataError: the protocol cannot write the answer.
        """
        if prompt.messages is not None and not said(message):
            return np.append(prompt.tokens, self._renderer.stop[0]).astype(np.int64)
        return self._answered(prompt, message).tokens

    def stepped(self, prompt: Prompt, message: Message, separator: str) -> Record:
        """The same as `whole`, the answer cut into its steps, which are the record's branches.

        Raises: DataError: the protocol cannot write the answer.
        """
        if prompt.messages is not None and not said(message):
            tokens = self.whole(prompt, message)
            return Record(tokens, np.zeros(len(tokens), np.uint8), (len(tokens) - 1, 1))
        return self._answered(prompt, message, separator)

    def _answered(self, prompt: Prompt, message: Message, separator: str | None = None) -> Record:
        text = prompt.text if prompt.messages is None else prompt.messages
        answer = message["content"] if prompt.messages is None else [message]
        answered = Preference(text, [answer], prompt.tools)
        try:
            if separator:
                return self._tokens.stepped(answered, separator)
            return self._tokens.preference(answered)
        except DataError as problem:
            raise _placed(problem, prompt.place) from None

    def _encode(self, text: str) -> list[int]:
        """Token ids of a text, with special tokens neither added nor recognised."""
        return self._renderer.encoder.encode([Piece(text, free=True)]).ids


def said(message: Message) -> bool:
    """Whether a message has any content."""
    return bool(message["content"].strip() or message.get("tool_calls"))


def read(
    path: Path,
    protocol: Protocol,
    *,
    context: int | None,
    limit: int | None = None,
    numbers: Sequence[int] | None = None,
) -> list[Prompt]:
    """The prompts of a file of JSON lines, in order.

    Args:
        context: the most tokens that the model can read.
        limit: the most prompts.
        numbers: the records to take, in this order; None: all.

    Raises: DataError: there are none, or one is damaged, empty, or leaves no room for an answer.
    """
    found: dict[int, Prompt] = {}
    wanted = None if numbers is None else set(numbers)
    for number, record in enumerate(records(path)):
        if limit is not None and number >= limit:
            break
        if wanted is not None and number not in wanted:
            continue
        place = str(record.get("place") or f"{path.name}:{number + 1}")
        prompt = protocol.prompt(record, place)
        if context is not None and len(prompt.tokens) >= context:
            raise DataError(
                f"{place}: the prompt has {counted(len(prompt.tokens), 'tokens')}, so the "
                f"context of {context} of the model leaves no room for an answer",
                "shorten or remove it, or use a model with a longer context",
            )
        found[number] = prompt
    if not found:
        raise DataError("there are no prompts to sample answers to", "add some to the dataset")
    return [found[number] for number in (found if numbers is None else numbers)]


def in_window(path: Path, window: PromptWindow) -> list[int]:
    """The records that a window takes from a file of prompts, in its order.

    Raises: DataError: the file has none, or cannot be read.
    """
    count = sum(1 for _ in records(path))
    if not count:
        raise DataError("there are no prompts to sample answers to", "add some to the dataset")
    places = np.arange(window.first, window.first + window.count)
    found = np.empty(window.count, np.int64)
    for epoch in range(places[0] // count, places[-1] // count + 1):
        inside = places // count == epoch
        order = Permutation(count, digest(window.seed, epoch))
        found[inside] = order(places[inside] - epoch * count)
    return found.tolist()


def records(path: Path) -> Iterator[dict[str, Any]]:
    """The records of a file of prompts, in order.

    Raises: DataError: it cannot be read.
    """
    try:
        with path.open(encoding="utf-8") as file:
            for line in file:
                record = json.loads(line)
                if not isinstance(record, dict):
                    raise ValueError("a line is not a JSON object")
                yield record
    except (OSError, ValueError) as problem:
        raise DataError(
            f"the prompts {path} cannot be read: {problem}",
            f"remove {path.parent}; the next run rebuilds it",
        ) from None


def _call(text: str) -> dict[str, Any] | None:
    """The tool call in a text, in the form of data sets; None if it is not one."""
    try:
        call = json.loads(text)
    except ValueError:
        return None
    if not isinstance(call, dict) or not isinstance(call.get("name"), str):
        return None
    if not isinstance(call.get("parameters"), dict):
        return None
    function = {"name": call["name"], "arguments": call["parameters"]}
    return {"type": "function", "function": function}


def _array(tokens: list[int]) -> np.ndarray:
    return np.asarray(tokens, np.int32)


def _placed(problem: DataError, place: str) -> DataError:
    return DataError(f"{place}: {problem.message}", problem.help or "fix the line, or drop it")
