"""Records of dialogs, preferences and prompts, in the formats that TRL documents.

A record is *conversational* where its texts are lists of messages, and *standard* where they are
plain text; plain text is rendered without any protocol.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from ..errors import DataError
from .dialog import Renderer, continuation
from .encode import CONTENT, OTHER, TERMINATION, Encoder, Piece, Rendered
from .messages import normal, tool_schemas
from .messages import text as said
from .record_shards import Record
from .tokenizer import special

FIELDS = (
    "text",
    "messages",
    "prompt",
    "completion",
    "chosen",
    "rejected",
    "edited",
    "tools",
)
RANKS = ("edited", "chosen", "rejected")
"""Fields of ranked responses, the best first."""

Message = dict[str, Any]
Text = str | list[Message]


@dataclass(frozen=True)
class Dialog:
    """A prompt, possibly none, and what is learned after it; whole dialogs have no prompt.

    Attributes:
        prompt: plain text; "" for dialogs.
        text: messages, or plain text.
    """

    text: Text
    prompt: str = ""
    tools: list[dict[str, Any]] | None = None


@dataclass(frozen=True)
class Preference:
    """A prompt and at least two different responses, the best first."""

    prompt: Text
    responses: list[Text]
    tools: list[dict[str, Any]] | None = None

    def texts(self) -> list[str]:
        return [r if isinstance(r, str) else said(r) for r in self.responses]


@dataclass(frozen=True)
class Prompt:
    """What a model is to answer."""

    text: Text
    tools: list[dict[str, Any]] | None = None

    def normalized(self) -> dict[str, Any]:
        if isinstance(self.text, str):
            return {"prompt": self.text}
        return {"messages": self.text, "tools": self.tools}


@dataclass(frozen=True)
class Fields:
    """Reads a record's fields by the names that the data set gives them.

    Args:
        names: default name → the data set's name, for those that differ.
    """

    names: Mapping[str, str] = field(default_factory=dict)

    def name(self, key: str) -> str:
        return self.names.get(key) or key

    def get(self, record: Mapping[str, Any], key: str) -> Any:
        return record.get(self.name(key))

    def tools(self, record: Mapping[str, Any]) -> list[dict[str, Any]] | None:
        return tool_schemas(self.get(record, "tools"))

    def text(self, record: Mapping[str, Any], key: str) -> Text | None:
        """Plain text or messages; None where the field is missing or null.

        Raises: DataError
        """
        value = self.get(record, key)
        if value is None or isinstance(value, str):
            if value is not None:
                _require_unicode(value, self.name(key))
            return value
        return normal(value, self.name(key))

    def missing(self, record: Mapping[str, Any], wanted: str) -> DataError:
        there = ", ".join(map(str, list(record)[:8])) or "nothing"
        return DataError(f"no {wanted}; there is {there}")


def dialog(record: Mapping[str, Any], fields: Fields) -> Dialog:
    """A dialog from `messages`, from `prompt` and `completion`, or from plain `text`.

    Raises: DataError: another form; the message is the reason alone.
    """
    tools = fields.tools(record)
    messages = fields.text(record, "messages")
    if messages is not None:
        if isinstance(messages, str):
            raise DataError(f"`{fields.name('messages')}` is no list of messages")
        return Dialog(messages, tools=tools)
    prompt, completion = fields.text(record, "prompt"), fields.text(record, "completion")
    if prompt is None and completion is None:
        text = fields.text(record, "text")
        if not isinstance(text, str):
            wanted = f"`{fields.name('messages')}`, or `{fields.name('prompt')}` and "
            raise fields.missing(record, f"{wanted}`{fields.name('completion')}`")
        if not text.strip():
            raise DataError(f"the text in `{fields.name('text')}` is empty")
        return Dialog(text)
    if prompt is None or completion is None:
        lacking = "prompt" if prompt is None else "completion"
        raise fields.missing(record, f"field `{fields.name(lacking)}`")
    _require_prompt(prompt)
    if isinstance(prompt, str) and isinstance(completion, str):
        if not completion.strip():
            raise DataError("the completion is empty")
        return Dialog(completion, prompt)
    asked, answered = _as_prompt(prompt), _as_response(completion)
    _require_answer(answered, "completion")
    return Dialog([*asked, *answered], tools=tools)


def preference(record: Mapping[str, Any], fields: Fields) -> Preference:
    """A preference from `chosen`, `rejected` and `edited`, with `prompt` or the prompt in each.

    The order is edited > chosen > rejected; one of `edited` and `rejected` may be missing. A
    response may also be the number, from 0, of one of the record's `responses`.

    Raises: DataError: another form, equal responses, no common prompt, a response that is not
        the assistant's; the message is the reason alone.
    """
    tools = fields.tools(record)
    found = {rank: _response(record, fields, rank) for rank in RANKS}
    if found["chosen"] is None:
        name = fields.name("chosen")
        if name in record:
            raise DataError(f"`{name}` is null: the record is not labelled yet")
        raise fields.missing(record, f"field `{name}`")
    responses = [(rank, text) for rank, text in found.items() if text is not None]
    if len(responses) < 2:
        raise DataError(
            f"no ranking: beside `{fields.name('chosen')}` there is neither "
            f"`{fields.name('rejected')}` nor `{fields.name('edited')}`"
        )
    prompt = fields.text(record, "prompt")
    texts: list[Text] = [text for _, text in responses]
    whole = [text for text in texts if isinstance(text, list) and _asks(text)]
    if prompt is None or (whole and len(whole) == len(texts)):
        prompt, texts = _shared(texts)
    elif not (isinstance(prompt, str) and all(isinstance(text, str) for text in texts)):
        prompt, texts = _as_prompt(prompt), list[Text](map(_as_response, texts))
    _require_prompt(prompt)
    for (rank, _), text in zip(responses, texts, strict=True):
        _require_answer(text, fields.name(rank))
    for i, text in enumerate(texts):
        same = next(j for j, other in enumerate(texts) if other == text)
        if same < i:
            raise DataError(
                f"`{fields.name(responses[same][0])}` and `{fields.name(responses[i][0])}` are "
                "equal, so they have no order"
            )
    return Preference(prompt, texts, tools)


def prompt(record: Mapping[str, Any], fields: Fields) -> Prompt:
    """A prompt from `prompt` or `messages`.

    Raises: DataError: there is none, it is empty, or it ends with the assistant's answer.
    """
    text = fields.text(record, "prompt")
    if text is None:
        text = fields.text(record, "messages")
    if text is None:
        raise fields.missing(record, f"field `{fields.name('prompt')}`")
    _require_prompt(text)
    if isinstance(text, list) and text[-1]["role"] == "assistant":
        raise DataError("the prompt ends with a message of the assistant")
    return Prompt(text, fields.tools(record))


def _response(record: Mapping[str, Any], fields: Fields, rank: str) -> Text | None:
    value = fields.get(record, rank)
    if isinstance(value, int) and not isinstance(value, bool):
        offered = record.get("responses")
        if not isinstance(offered, list) or not 0 <= value < len(offered):
            raise DataError(f"`{fields.name(rank)}` is {value}, which is none of `responses`")
        return fields.text({fields.name(rank): offered[value]}, rank)
    return fields.text(record, rank)


def _require_unicode(text: str, name: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise DataError(f"the text in `{name}` is not valid Unicode: a lone surrogate") from None


def _require_prompt(prompt: Text) -> None:
    if isinstance(prompt, str):
        filled = bool(prompt.strip())
    else:
        filled = any(message["role"] != "system" and message["content"].strip()
                     for message in prompt)  # fmt: skip
    if not filled:
        raise DataError("the prompt is empty")


def _require_answer(answer: Text, name: str) -> None:
    if isinstance(answer, str):
        if not answer.strip():
            raise DataError(f"`{name}` is empty")
        return
    if not answer:
        raise DataError(f"`{name}` is empty")
    ends = [answer[0]["role"], answer[-1]["role"]]
    if ends != ["assistant", "assistant"] or any(m["role"] in ("user", "system") for m in answer):
        wrong = next((m["role"] for m in answer if m["role"] != "assistant"), "")
        raise DataError(f"`{name}` has a message of `{wrong}` where the assistant answers")


def _asks(messages: list[Message]) -> bool:
    """Whether messages hold the prompt too."""
    return bool(messages) and messages[0]["role"] in ("system", "user")


def _as_prompt(text: Text) -> list[Message]:
    return [{"role": "user", "content": text}] if isinstance(text, str) else text


def _as_response(text: Text) -> list[Message]:
    return [{"role": "assistant", "content": text}] if isinstance(text, str) else text


def _shared(texts: Sequence[Text]) -> tuple[Text, list[Text]]:
    """The prompt with which all texts begin, and what follows it in each.

    Raises: DataError: they begin differently, or one is but the beginning of another.
    """
    if all(isinstance(text, str) for text in texts):
        common = os.path.commonprefix([str(t) for t in texts])  # noqa: RUF071
        # A response begins at a word, and with the space before it.
        while common and not (common[-1].isspace() or _at_word(common, texts)):
            common = common[:-1]
        common = common[:-1] if common.endswith(" ") else common
        if not common.strip():
            raise DataError("the responses do not begin with the same prompt, and there is none")
        return common, [str(text)[len(common) :] for text in texts]
    if not all(isinstance(text, list) for text in texts):
        raise DataError("some responses are messages and others plain text")
    lists = [text for text in texts if isinstance(text, list)]
    same = takewhile(lambda ms: all(m == ms[0] for m in ms), zip(*lists, strict=False))
    count = len(list(same))
    # A response that is equal to the others' beginning still begins with the assistant.
    while count and any(len(text) <= count for text in lists):
        count -= 1
    while count and lists[0][count - 1]["role"] == "assistant":
        count -= 1
    if not count:
        raise DataError("the responses do not begin with the same prompt, and there is none")
    return lists[0][:count], [text[count:] for text in lists]


def _at_word(common: str, texts: Sequence[Text]) -> bool:
    return all(str(text)[len(common) : len(common) + 1].isspace() for text in texts)


class Tokens:
    """Makes records of tokens.

    Args:
        renderer: of the data set's dialogs; None where there is no protocol.
    """

    def __init__(self, tokenizer: Tokenizer, renderer: Renderer | None) -> None:
        self._renderer = renderer
        self._encoder = renderer.encoder if renderer else Encoder(tokenizer)
        ids = special(tokenizer)
        self._begin = "" if ids.bos is None else tokenizer.id_to_token(ids.bos) or ""
        self._end = tokenizer.id_to_token(ids.eos) or ""

    def dialog(self, dialog: Dialog) -> Record:
        """Raises: DataError: it cannot be rendered."""
        if isinstance(dialog.text, str):
            rendered = self._encoder.encode(
                [Piece(self._begin), Piece(dialog.prompt, free=True), *self._answer(dialog.text)]
            )
        else:
            rendered = self._protocol().render(dialog.text, tools=dialog.tools)
        return _record(rendered)

    def preference(self, preference: Preference) -> Record:
        """Raises: DataError: it cannot be rendered."""
        heads: list[Rendered] = []
        answers: list[Rendered] = []
        for response in preference.responses:
            head, answer = self._continued(preference.prompt, response, preference.tools)
            heads.append(head)
            answers.append(answer)
        return _record(heads[0], *answers)

    def asked(self, prompt: Prompt) -> Rendered:
        """A prompt as a model gets it, with the assistant's header where it is a dialog.

        Raises: DataError: it cannot be rendered.
        """
        if isinstance(prompt.text, str):
            return self._encoder.encode([Piece(self._begin), Piece(prompt.text, free=True)])
        return self._protocol().render(prompt.text, tools=prompt.tools, prompt=True)

    def _continued(
        self, prompt: Text, response: Text, tools: list[dict[str, Any]] | None
    ) -> tuple[Rendered, Rendered]:
        if isinstance(prompt, str) and isinstance(response, str):
            head = [Piece(self._begin), Piece(prompt, free=True)]
            start = self._encoder.encode(head)
            whole = self._encoder.encode([*head, *self._answer(response)])
            if whole.ids[: len(start)] == start.ids:
                return start, whole.cut(len(start))
            return start, self._encoder.encode(self._answer(response))
        return continuation(self._protocol(), _as_prompt(prompt), _as_response(response), tools)

    def _answer(self, text: str) -> list[Piece]:
        return [Piece(text, CONTENT, free=True), Piece(self._end, TERMINATION)]

    def _protocol(self) -> Renderer:
        if self._renderer is None:
            raise DataError("the record is a dialog, and the recipe declares no dialog protocol")
        return self._renderer


def _record(*parts: Rendered) -> Record:
    """One record of a dialog, or of a prompt and its responses."""
    tokens = np.array([number for part in parts for number in part.ids], np.int64)
    codes = np.array(
        [OTHER if len(parts) > 1 and part is parts[0] else code
         for part in parts for code in part.parts],
        np.uint8,
    )  # fmt: skip
    return Record(tokens, codes, tuple(map(len, parts)) if len(parts) > 1 else (), parts)


def dump(record: Mapping[str, Any]) -> str:
    """A record as a line of JSON."""
    return json.dumps(record, ensure_ascii=False) + "\n"
