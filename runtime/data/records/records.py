"""Records of dialogs, preferences, ratings, solutions and prompts, in formats documented by TRL.

A record is *conversational* if its texts are lists of messages, and *standard* if they are plain
text. Plain text is rendered without a protocol.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import takewhile
from typing import Any

from ...errors import DataError
from ..dialogs.messages import excluded, unweighted
from ..dialogs.messages import text as said
from ..texts import common_start
from .fields import Fields, Message, Text, proposal, require_unicode
from .rankings import RANKS, margin_of, ranked


@dataclass(frozen=True)
class Dialog:
    """A prompt, if any, and what is learned after it; whole dialogs have no prompt.

    Attributes:
        prompt: plain text; "" for dialogs.
        text: messages, or plain text.
    """

    text: Text
    prompt: str = ""
    tools: list[dict[str, Any]] | None = None


@dataclass(frozen=True)
class Preference:
    """A prompt and at least two different responses, best first.

    Attributes:
        names: the record's names for the responses.
        margin: by how much the better of two is better; None: nobody asks.
    """

    prompt: Text
    responses: list[Text]
    tools: list[dict[str, Any]] | None = None
    names: tuple[str, ...] = field(default=(), compare=False)
    margin: float | None = None

    def only(self, kept: Sequence[int]) -> "Preference":
        """The preference with only some of its responses."""
        return replace(
            self,
            responses=[self.responses[number] for number in kept],
            names=tuple(self.names[number] for number in kept if self.names),
        )

    def texts(self) -> list[str]:
        return [r if isinstance(r, str) else said(r) for r in self.responses]


@dataclass(frozen=True)
class Rating:
    """A prompt with one answer, which is good or bad."""

    prompt: Text
    answer: Text
    good: bool
    tools: list[dict[str, Any]] | None = None

    @property
    def alone(self) -> Preference:
        """The prompt and its answer, as the only response of a preference."""
        return Preference(self.prompt, [self.answer], self.tools, ("completion",))


@dataclass(frozen=True)
class Solution:
    """A prompt with one answer in steps, each of which is right or wrong."""

    prompt: Text
    steps: list[str]
    labels: list[bool]
    tools: list[dict[str, Any]] | None = None

    def answered(self, separator: str) -> Preference:
        """The prompt and its answer, as the only response of a preference."""
        text = separator.join(self.steps)
        plain = isinstance(self.prompt, str)
        answer: Text = text if plain else [{"role": "assistant", "content": text}]
        return Preference(self.prompt, [answer], self.tools, ("completions",))


@dataclass(frozen=True)
class Prompt:
    """The prompt for a model to answer.

    Attributes:
        answer: right answers, of which any will do; empty if the record has none, or nobody asks.
    """

    text: Text
    tools: list[dict[str, Any]] | None = None
    answer: list[str] = field(default_factory=list)

    def normalized(self) -> dict[str, Any]:
        """As a line of prompts.jsonl."""
        answer = {"answer": self.answer[0] if len(self.answer) == 1 else self.answer}
        more = answer if self.answer else {}
        if isinstance(self.text, str):
            return {"prompt": self.text, **more}
        return {"messages": self.text, "tools": self.tools, **more}


def dialog(record: Mapping[str, Any], fields: Fields) -> Dialog:
    """A dialog from `messages`, from `prompt` and `completion`, or from plain `text`.

    Raises: DataError: another form; the message is only the reason.
    """
    fields.require_readable(record)
    tools = fields.tools(record)
    messages = fields.text(record, "messages")
    if messages is not None:
        if isinstance(messages, str):
            raise DataError(f"`{fields.name('messages')}` is not a list of messages")
        return Dialog(fields.system(record, messages), tools=tools)
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
    if isinstance(completion, str) and not completion.strip():
        raise DataError("the completion is empty")
    messages = fields.is_dialog(record)
    if isinstance(prompt, str) and isinstance(completion, str) and not messages:
        return Dialog(completion, prompt)
    asked, answered = as_prompt(prompt), as_response(completion)
    _require_answer(answered, "completion")
    return Dialog(fields.system(record, [*asked, *answered]), tools=tools)


def preference(record: Mapping[str, Any], fields: Fields, *, margins: bool = False) -> Preference:
    """A preference from `chosen`, `rejected` and `edited`, or from the list `ranked`, with `prompt`
    or the prompt in each response.

    The order is edited > chosen > rejected; `edited` or `rejected` may be missing. A response may
    also be an index, from 0, into the record's `responses`.

    Args:
        margins: whether to read by how much the better response is better.

    Raises: DataError: another form, equal responses, no common prompt, or a response that is not
        the assistant's; the message is only the reason.
    """
    fields.require_readable(record)
    tools = fields.tools(record)
    responses = ranked(record, fields)
    names = tuple(name for name, _ in responses)
    margin = margin_of(record, fields, len(responses)) if margins else None
    prompt, texts = _asked_and_answered(record, fields, [text for _, text in responses])
    _require_prompt(prompt)
    for name, text in zip(names, texts, strict=True):
        _require_answer(text, name)
        if isinstance(text, list) and excluded(text):
            raise DataError(
                f"a message of `{name}` is marked as not learned, but preferences compare whole "
                "responses",
                "remove the mark, or move the message into the prompt",
            )
    for i, text in enumerate(texts):
        same = texts.index(text)
        if same < i:
            raise equal(names[same], names[i])
    return Preference(prompt, texts, tools, names, margin)


def rating(record: Mapping[str, Any], fields: Fields) -> Rating:
    """A rated answer from `prompt`, `completion` and `label`; or from `messages`, whose last answer
    is rated, and `label`.

    Raises: DataError: another form, or an answer that is not the assistant's; the message is only
        the reason.
    """
    fields.require_readable(record)
    good = label(record, fields)
    messages = fields.text(record, "messages")
    if isinstance(messages, list):
        asked = _asked(messages)
        prompt: Text | None = messages[:asked]
        answer: Text | None = messages[asked:]
    else:
        prompt, answer = fields.text(record, "prompt"), fields.text(record, "completion")
    if prompt is None or answer is None:
        wanted = f"`{fields.name('prompt')}` and `{fields.name('completion')}`"
        raise fields.missing(record, wanted)
    _require_prompt(prompt)
    name = fields.name("completion" if messages is None else "messages")
    _require_answer(answer, name)
    plain = isinstance(prompt, str) and isinstance(answer, str)
    if not plain or fields.is_dialog(record):
        prompt = fields.system(record, unweighted(as_prompt(prompt)))
        answer = as_response(answer)
    if isinstance(answer, list) and excluded(answer):
        raise DataError(
            f"a message of `{name}` is marked as not learned, but ratings are of whole answers",
            "remove the mark, or move the message into the prompt",
        )
    return Rating(prompt, answer, good, fields.tools(record))


def solution(record: Mapping[str, Any], fields: Fields, separator: str) -> Solution:
    """An answer in steps from `prompt`, `completions`, which are its steps, and `labels`, which of
    them are right.

    Args:
        separator: what the steps are joined with.

    Raises: DataError: another form; a step is empty or has the separator in it; there are not as
        many labels as steps. The message is only the reason.
    """
    fields.require_readable(record)
    prompt, name = fields.text(record, "prompt"), fields.name("completions")
    if prompt is None or record.get(name) is None:
        like = {"prompt": _like_prompt, "completions": _like_steps}
        help = fields.named_otherwise(
            record,
            like,
            f"write the question in `{fields.name('prompt')}`, and the steps of its answer in "
            f"`{name}`, as a list of texts",
        )
        raise fields.missing(record, f"`{fields.name('prompt')}` and `{name}`", help)
    _require_prompt(prompt)
    steps = steps_of(record, fields)
    for number, step in enumerate(steps, 1):
        if not step.strip():
            raise DataError(f"step {number} of `{name}` is empty", "remove it, and its label")
        if separator in step:
            raise DataError(
                f"step {number} of `{name}` has the separator {json.dumps(separator)} in it, so "
                "that it would be two",
                "write another `separator` in the stage, which no step has, or make two steps of "
                "it, each with a label",
            )
    if fields.is_dialog(record) or isinstance(prompt, list):
        prompt = fields.system(record, unweighted(as_prompt(prompt)))
    return Solution(prompt, steps, step_labels(record, fields, len(steps)), fields.tools(record))


def steps_of(record: Mapping[str, Any], fields: Fields) -> list[str]:
    """The steps of an answer.

    Raises: DataError: they are no list of texts, there are none, or one is not valid Unicode.
    """
    name = fields.name("completions")
    steps = record.get(name)
    if not isinstance(steps, list) or not all(isinstance(each, str) for each in steps):
        raise DataError(
            f"`{name}` is not a list of texts",
            'write the steps of one answer, each as a text: "completions": ["1 + 1 = 2.", '
            '"So it is 2."]',
        )
    if not steps:
        raise DataError(f"`{name}` has no steps", "remove the line")
    for step in steps:
        require_unicode(step, name)
    return steps


def step_labels(record: Mapping[str, Any], fields: Fields, steps: int) -> list[bool]:
    """Which steps of an answer are right.

    Raises: DataError: the record does not say so of each.
    """
    name = fields.name("labels")
    if name not in record:
        help = fields.named_otherwise(
            record,
            {"labels": lambda value: _like_labels(value) and len(value) == steps},
            f"write a list in `{name}`: true for each step that is right, and false for each that "
            "is wrong",
        )
        raise fields.missing(record, f"field `{name}`", help)
    labels = record[name]
    if not _like_labels(labels):
        raise DataError(
            f"`{name}` is not a list of true and false",
            "write true for each step that is right, and false for each that is wrong",
        )
    if len(labels) != steps:
        raise DataError(
            f"there are {steps} steps, but {len(labels)} labels",
            f"write one label in `{name}` for each step",
        )
    return [bool(each) for each in labels]


def label(record: Mapping[str, Any], fields: Fields) -> bool:
    """Whether a rated answer is good.

    Raises: DataError: the record does not say so.
    """
    name, value = fields.name("label"), fields.get(record, "label")
    if name not in record:
        help = fields.named_otherwise(
            record,
            {"label": _like_label},
            f"write true in `{name}` for an answer that is good, and false for one that is bad",
        )
        raise fields.missing(record, f"field `{name}`", help)
    if _like_label(value):
        return bool(value)
    raise DataError(
        f"`{name}` is {json.dumps(value, ensure_ascii=False, default=str)[:40]}, and not true or "
        "false",
        "write true for an answer that is good, and false for one that is bad",
    )


def _like_label(value: Any) -> bool:
    return value in (0, 1)


def _like_labels(value: Any) -> bool:
    return isinstance(value, list) and all(map(_like_label, value))


def _like_steps(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(each, str) for each in value)


def _like_prompt(value: Any) -> bool:
    messages = isinstance(value, list) and all(isinstance(each, Mapping) for each in value)
    return isinstance(value, str) or (messages and bool(value))


def _asked(messages: Sequence[Message]) -> int:
    """How many messages come before the answer with which a dialog ends."""
    count = len(messages)
    while count and messages[count - 1]["role"] not in ("user", "system"):
        count -= 1
    return count


def equal(one: str, other: str, how: str = "") -> DataError:
    """The error for two equal responses."""
    return DataError(f"`{one}` and `{other}` are equal{how}, so they have no order")


def _asked_and_answered(
    record: Mapping[str, Any], fields: Fields, texts: list[Text]
) -> tuple[Text, list[Text]]:
    """The prompt of a preference and its responses.

    Raises: DataError: there is no common prompt, or `prompt` differs from it.
    """
    prompt = fields.text(record, "prompt")
    whole = all(isinstance(text, list) and _asks(text) for text in texts)
    if prompt is None or whole:
        try:
            shared, texts = _shared(texts)
        except DataError as problem:
            responses = {*map(fields.name, RANKS), "responses"}
            raise DataError(problem.message, proposal(record, "prompt", responses)) from None
        if prompt is not None and not _agrees(prompt, shared):
            raise DataError(
                f"`{fields.name('prompt')}` differs from the prompt with which the responses begin",
                "correct the record, or leave the prompt out of the responses",
            )
        prompt = shared
    plain = isinstance(prompt, str) and all(isinstance(text, str) for text in texts)
    if plain and not fields.is_dialog(record):
        return prompt, texts
    asked = fields.system(record, unweighted(as_prompt(prompt)))
    return asked, list(map(as_response, texts))


def _agrees(prompt: Text, shared: Text) -> bool:
    """Whether a prompt matches what the responses begin with: the same messages, except perhaps the
    system prompt, or the text of the user's first or last message."""
    if isinstance(shared, str):
        return isinstance(prompt, str) and shared.strip() == prompt.strip()
    if isinstance(prompt, str):
        asked = [each["content"].strip() for each in shared if each["role"] == "user"]
        return prompt.strip() in (*asked[:1], *asked[-1:])
    given = unweighted(prompt)
    if given[:1] and given[0]["role"] != "system" and shared[0]["role"] == "system":
        shared = shared[1:]
    return given == unweighted(shared)


def prompt(record: Mapping[str, Any], fields: Fields) -> Prompt:
    """A prompt from `prompt` or `messages`.

    Raises: DataError: it is missing or empty, or ends with the assistant's answer.
    """
    fields.require_readable(record)
    text = fields.text(record, "prompt")
    if text is None:
        text = fields.text(record, "messages")
    if text is None:
        raise fields.missing(record, f"field `{fields.name('prompt')}`")
    if fields.is_dialog(record) or isinstance(text, list):
        text = fields.system(record, unweighted(as_prompt(text)))
    _require_prompt(text)
    if isinstance(text, list) and text[-1]["role"] == "assistant":
        raise DataError("the prompt ends with a message of the assistant")
    return Prompt(text, fields.tools(record))


def _require_prompt(prompt: Text) -> None:
    if isinstance(prompt, str):
        filled = bool(prompt.strip())
    else:
        filled = any(
            message["role"] != "system" and message["content"].strip() for message in prompt
        )
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
        raise DataError(f"`{name}` has a message of `{wrong}` where the assistant should answer")


def _asks(messages: list[Message]) -> bool:
    """Whether messages include the prompt."""
    return bool(messages) and messages[0]["role"] in ("system", "user")


def as_prompt(text: Text) -> list[Message]:
    return [{"role": "user", "content": text}] if isinstance(text, str) else text


def as_response(text: Text) -> list[Message]:
    return [{"role": "assistant", "content": text}] if isinstance(text, str) else text


def _shared(texts: Sequence[Text]) -> tuple[Text, list[Text]]:
    """The prompt that all texts begin with, and the rest of each.

    Raises: DataError: they begin differently, or one is only the beginning of another.
    """
    if all(isinstance(text, str) for text in texts):
        common = common_start([str(text) for text in texts])
        # A response begins at a word, including the space before it.
        while common and not (common[-1].isspace() or _at_word(common, texts)):
            common = common[:-1]
        common = common[:-1] if common.endswith(" ") else common
        if not common.strip():
            raise DataError(
                "the responses do not begin with the same prompt, and the record has none"
            )
        return common, [str(text)[len(common) :] for text in texts]
    if not all(isinstance(text, list) for text in texts):
        raise DataError("some responses are messages and others plain text")
    lists = [text for text in texts if isinstance(text, list)]
    same = takewhile(lambda ms: all(m == ms[0] for m in ms), zip(*lists, strict=False))
    count = len(list(same))
    # A response that equals the others' beginning still begins with the assistant.
    while count and any(len(text) <= count for text in lists):
        count -= 1
    while count and lists[0][count - 1]["role"] == "assistant":
        count -= 1
    if not count:
        raise DataError("the responses do not begin with the same prompt, and the record has none")
    return lists[0][:count], [text[count:] for text in lists]


def _at_word(common: str, texts: Sequence[Text]) -> bool:
    return all(str(text)[len(common) : len(common) + 1].isspace() for text in texts)


def dump(record: Mapping[str, Any]) -> str:
    """A record as a line of JSON."""
    return json.dumps(record, ensure_ascii=False) + "\n"
