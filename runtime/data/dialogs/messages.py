"""Messages of dialogs from data sets, checked and normalized."""

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from ...errors import DataError

DESTINATIONS = ("user", "ipython")
THOUGHTS = ("reasoning_content", "reasoning", "thinking")
"""Keys of the assistant's messages that hold its thoughts."""
METADATA = frozenset(
    [
        *("annotations", "country", "created", "created_at", "date", "finish_reason", "hash"),
        *("hashed_ip", "header", "id", "index", "lang", "language", "message_id", "meta"),
        *("metadata", "model", "model_name", "name", "parent_id", "rating", "redacted", "score"),
        *("source", "state", "status", "stop_reason", "timestamp", "token_count", "tokens"),
        *("tool_call_id", "toxic", "turn", "turn_identifier", "updated_at", "url", "usage"),
        "uuid",
    ]
)
"""Keys of messages that describe a message and are not part of its text."""
ROLES = {
    "human": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "observation": "tool",
    "function_response": "tool",
}
"""Role names in ShareGPT data sets → role names of protocols."""
_SHAREGPT = (
    "name the field with the role, so that roles are translated, human to user and gpt to "
    'assistant: write `fields = { role = "role" }` in the dataset'
)
_CALL = ("name", "id", "type", "index", "description", "strict")
"""Keys of a tool call other than its arguments."""
_LEARNED = ("weight", "train", "training", "loss")
"""Keys that tell whether a message is learned."""


def normal(messages: object, what: str = "messages") -> list[dict[str, Any]]:
    """Messages in normal form: `content` is text, and keys without a value are left out.

    Content may be a text, null, or a list of texts `{"type": "text", "text": "…"}`, which are
    joined. Null counts as missing. A `function_call` becomes one of `tool_calls`, and the role
    `function` becomes `tool`. Any mark that a message is not learned becomes `"weight": 0`; marks
    that it is learned are left out.

    Raises:
        DataError: not a list of messages, a message without a role, or unsupported content.
    """
    if not isinstance(messages, Sequence) or isinstance(messages, str | bytes):
        raise DataError(f"`{what}` is not a list of messages")
    return [_message(message, f"message {number}") for number, message in enumerate(messages, 1)]


def _message(message: object, place: str) -> dict[str, Any]:
    if not isinstance(message, Mapping):
        raise DataError(f'{place} is not an object such as {{"role": "user", "content": "…"}}')
    made = {str(key): value for key, value in message.items() if value is not None}
    if not isinstance(made.get("role"), str):
        raise DataError(f"{place} has no role")
    place = f"{place} ({made['role']})"
    made["content"] = _content(made.get("content", ""), place)
    if made["role"] == "function":
        made["role"] = "tool"
    if called := made.pop("function_call", None):
        if made.get("tool_calls"):
            raise DataError(f"{place} has both `function_call` and `tool_calls`")
        made["tool_calls"] = [{"type": "function", "function": called}]
    if "tool_calls" in made and not made["tool_calls"]:
        del made["tool_calls"]
    return _weighted(made, place)


def _weighted(message: dict[str, Any], place: str) -> dict[str, Any]:
    """The message with `weight` if it is not learned, and no other such key."""
    said = {key: message.pop(key) for key in _LEARNED if key in message}
    for key, value in said.items():
        if value not in (0, 1):
            raise DataError(
                f"{place} has `{key}` {json.dumps(value, default=str)}; a message is learned (1 or "
                "true) or not (0 or false)"
            )
        if value is True and message["role"] != "assistant":
            raise DataError(
                f"{place} has `{key}` true, but only the assistant's messages are learned"
            )
    if len(set(map(bool, said.values()))) > 1:
        raise DataError(f"{place}: {' and '.join(map('`{}`'.format, said))} contradict each other")
    return {**message, "weight": 0} if said and not all(said.values()) else message


def excluded(messages: Sequence[Mapping[str, Any]]) -> set[int]:
    """The numbers, from 0, of messages in normal form that are not learned."""
    return {number for number, message in enumerate(messages) if message.get("weight") == 0}


def unweighted(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The messages without `weight`, which is not rendered."""
    return [{k: v for k, v in message.items() if k != "weight"} for message in messages]


def _content(content: object, place: str) -> str:
    if isinstance(content, list | tuple):
        parts = [part.get("text") if isinstance(part, Mapping) else None for part in content]
        texts = [part for part in parts if isinstance(part, str)]
        if len(texts) != len(parts):
            raise DataError(f"{place} has content that is not text")
        content = "".join(texts)
    if not isinstance(content, str):
        raise DataError(f"{place} has content that is not text")
    try:
        content.encode()
    except UnicodeEncodeError:
        raise DataError(f"{place} is not valid Unicode: a lone surrogate") from None
    return content


def check(
    messages: Sequence[Mapping[str, Any]], roles: Sequence[str] | None, *, prompt: bool
) -> None:
    """Checks the order of a dialog in normal form.

    Args:
        roles: the protocol's; None if only a template knows them.
        prompt: whether the assistant answers next, instead of having the last word.

    Raises:
        DataError: no messages, an unknown role, an empty message, or the wrong end.
    """
    if not messages:
        raise DataError("the prompt is empty" if prompt else "the dialog has no messages")
    for number, message in enumerate(messages, 1):
        role = message["role"]
        place = f"message {number}"
        if roles is not None and role not in roles:
            raise DataError(
                f"{place} has the unknown role `{role}`; the protocol knows {', '.join(roles)}",
                _SHAREGPT if role in ROLES else "",
            )
        filled = message["content"].strip() or (role == "assistant" and _called(message))
        if role in ("user", "assistant") and not filled:
            raise _empty(message, f"{place} ({role})")
        to = message.get("to")
        if role == "assistant" and to is not None and to not in DESTINATIONS:
            raise DataError(
                f"{place} goes to `{to}`; messages of the assistant go to "
                f"{' or '.join(DESTINATIONS)}"
            )
    last = messages[-1]["role"]
    if prompt and last == "assistant":
        raise DataError("the prompt ends with a message of the assistant")
    if not prompt and last != "assistant":
        raise DataError(f"the dialog ends with a message of `{last}`, not of the assistant")


def _empty(message: Mapping[str, Any], place: str) -> DataError:
    """The error for a message without content, which may have another text."""
    known = {"role", "content", "weight", "to", "tool_calls", *METADATA}
    others = [key for key, value in message.items() if key not in known and value]
    if not others:
        return DataError(f"{place} is empty")
    return DataError(
        f"{place} has no `content`, only `{others[0]}`, which is not an answer",
        "write the answer to `content`, or remove such records from the data set",
    )


def _called(message: Mapping[str, Any]) -> bool:
    return any(message.get(key) for key in ("tool_calls", *THOUGHTS))


def unwritten(messages: Sequence[Mapping[str, Any]], written: Collection[str], what: str) -> None:
    """Checks that a protocol can write everything in messages in normal form.

    Args:
        written: keys that it writes besides role and content.
        what: begins the message: "the dialog's protocol has no way to write".

    Raises:
        DataError: a key with a value is neither written nor metadata, or names distinguish speakers
            of one role.
    """
    speakers: dict[str, str] = {}
    for number, message in enumerate(messages, 1):
        role, place = message["role"], f"message {number} ({message['role']})"
        known = {"role", "content", "weight", *METADATA}
        for key, value in message.items():
            if key in written and (key != "tool_calls" or role == "assistant"):
                continue
            # Tables and APIs fill missing values with these.
            empty = value is False or value in ("", [], {})
            if key in known or empty or (key == "to" and value == "user"):
                continue
            raise DataError(
                f"{place} has `{key}`, which {what}",
                "use a chat template that renders it (`template` in the dialog); or, if it "
                f'should not be learned, write `fields = {{ ignore = "{key}" }}` in the dataset',
            )
        name = message.get("name")
        if "name" in written or role in ("tool", "ipython") or not isinstance(name, str):
            continue
        if speakers.setdefault(role, name) != name:
            raise DataError(
                f"{place} is by `{name}`, another one before it by `{speakers[role]}`: names "
                f"are what {what}",
                "use a chat template that renders names, or write them into the content",
            )


def calls(message: Mapping[str, Any], place: str) -> list[tuple[str, str]]:
    """The name and the arguments, as JSON text of an object, of each of a message's tool calls.

    A call is `{"type": "function", "function": {"name": "…", "arguments": {…}}}`, or just the value
    of `function`. The arguments are an object or its JSON text, which is left as it is.

    Raises:
        DataError: another form.
    """
    found = message.get("tool_calls", [])
    if not isinstance(found, list | tuple):
        raise DataError(f"{place}: `tool_calls` is not a list")
    return [_call(call, place) for call in found]


def _call(call: object, place: str) -> tuple[str, str]:
    function = call.get("function", call) if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise DataError(f"{place} has a tool call without a name")
    arguments = function.get("arguments")
    if arguments is None:
        others = [key for key in function if key not in _CALL and function[key]]
        if others:
            raise DataError(
                f"{place}: the call of `{function['name']}` has `{others[0]}`, but no `arguments`"
            )
        arguments = {}
    if isinstance(arguments, str):
        try:
            parsed = json.loads(arguments)
        except ValueError:
            parsed = None
        if isinstance(parsed, dict):
            return function["name"], arguments
    elif isinstance(arguments, Mapping):
        return function["name"], json.dumps(arguments, ensure_ascii=False)
    raise DataError(f"{place}: the arguments of `{function['name']}` are not a JSON object")


def text(messages: Sequence[Mapping[str, Any]]) -> str:
    """Everything that the messages say, for comparing them."""
    said = []
    for message in messages:
        said += [message["content"]] if message["content"] else []
        said += [f"{name}({arguments})" for name, arguments in calls(message, "message")]
    return "\n".join(said)


def tool_schemas(tools: object) -> list[dict[str, Any]] | None:
    """Tool definitions: a list of JSON schemas, or the JSON text of one.

    Raises:
        DataError: another form.
    """
    if isinstance(tools, str):
        try:
            tools = json.loads(tools)
        except ValueError:
            raise DataError("`tools` is not a list of JSON schemas") from None
    if not tools:
        return None
    if not isinstance(tools, list | tuple) or not all(isinstance(t, Mapping) for t in tools):
        raise DataError("`tools` is not a list of JSON schemas")
    return [dict(tool) for tool in tools]
