"""Messages of dialogs, as they come in data sets, checked and in one form."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import DataError

DESTINATIONS = ("user", "ipython")


def normal(messages: object, what: str = "messages") -> list[dict[str, Any]]:
    """Messages in one form: `content` is text, keys without a value are left out.

    Content may be a text, null, or a list of texts `{"type": "text", "text": "…"}`, which are
    joined. Data sets in tables fill missing keys with null, so that null counts as missing.

    Raises:
        DataError: no list of messages, or a message without a role or with other content.
    """
    if not isinstance(messages, Sequence) or isinstance(messages, str | bytes):
        raise DataError(f"`{what}` is no list of messages")
    return [_message(message, f"message {number}") for number, message in enumerate(messages, 1)]


def _message(message: object, place: str) -> dict[str, Any]:
    if not isinstance(message, Mapping):
        raise DataError(f'{place} is no object such as {{"role": "user", "content": "…"}}')
    made = {str(key): value for key, value in message.items() if value is not None}
    if not isinstance(made.get("role"), str):
        raise DataError(f"{place} has no role")
    made["content"] = _content(made.get("content", ""), f"{place} ({made['role']})")
    if "tool_calls" in made and not made["tool_calls"]:
        del made["tool_calls"]
    return made


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
        roles: those of the protocol; None where only a template knows them.
        prompt: whether the assistant answers next, instead of having the last word.

    Raises:
        DataError: no messages, an unknown role, an empty message, the wrong end.
    """
    if not messages:
        raise DataError("the prompt is empty" if prompt else "the dialog has no messages")
    for number, message in enumerate(messages, 1):
        role = message["role"]
        place = f"message {number}"
        if roles is not None and role not in roles:
            raise DataError(
                f"{place} has the unknown role `{role}`; the protocol knows {', '.join(roles)}"
            )
        filled = message["content"].strip() or (role == "assistant" and _called(message))
        if role in ("user", "assistant") and not filled:
            raise DataError(f"{place} ({role}) is empty")
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


def _called(message: Mapping[str, Any]) -> bool:
    return bool(message.get("tool_calls") or message.get("reasoning_content"))


def calls(message: Mapping[str, Any], place: str) -> list[tuple[str, str]]:
    """Name and arguments, as the text of a JSON object, of each of a message's tool calls.

    A call is `{"type": "function", "function": {"name": "…", "arguments": {…}}}`, or what stands
    under `function` alone; the arguments are an object or its JSON text, which stays as it is.

    Raises:
        DataError: another form.
    """
    found = message.get("tool_calls", [])
    if not isinstance(found, list | tuple):
        raise DataError(f"{place}: `tool_calls` is no list")
    return [_call(call, place) for call in found]


def _call(call: object, place: str) -> tuple[str, str]:
    function = call.get("function", call) if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise DataError(f"{place} has a tool call without a name")
    arguments = function.get("arguments", {})
    if isinstance(arguments, str):
        try:
            parsed = json.loads(arguments)
        except ValueError:
            parsed = None
        if isinstance(parsed, dict):
            return function["name"], arguments
    elif isinstance(arguments, Mapping):
        return function["name"], json.dumps(arguments, ensure_ascii=False)
    raise DataError(f"{place}: the arguments of `{function['name']}` are no JSON object")


def text(messages: Sequence[Mapping[str, Any]]) -> str:
    """All that messages say, for comparing them."""
    said = []
    for message in messages:
        said += [message["content"]] if message["content"] else []
        said += [f"{name}({arguments})" for name, arguments in calls(message, "message")]
    return "\n".join(said)


def tool_schemas(tools: object) -> list[dict[str, Any]] | None:
    """Tool definitions: a list of JSON schemas, or the JSON text of one.

    Raises:
        DataError: something else.
    """
    if isinstance(tools, str):
        try:
            tools = json.loads(tools)
        except ValueError:
            raise DataError("`tools` is no list of JSON schemas") from None
    if not tools:
        return None
    if not isinstance(tools, list | tuple) or not all(isinstance(t, Mapping) for t in tools):
        raise DataError("`tools` is no list of JSON schemas")
    return [dict(tool) for tool in tools]
