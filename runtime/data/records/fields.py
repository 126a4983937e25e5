"""Fields of records by a data set's names, and what to write in the dataset for other names."""

import json
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ...errors import DataError
from ..dialogs.messages import ROLES, normal, tool_schemas

Message = dict[str, Any]
Text = str | list[Message]

UNREAD = ("images", "image", "videos", "video", "audio", "audios", "chat_template_kwargs")
"""Fields that change what a dialog says, and that cannot be rendered here."""
PROMPTS = ("instruction", "question", "query", "problem", "input")
COMPLETIONS = ("output", "response", "answer", "solution", "completion")
_DIALOGS = ("messages", "conversations", "conversation", "dialog", "dialogue", "turns", "chat")
# How a text begins that is a list of messages, in JSON or as a Python literal.
_WRITTEN = re.compile(r"""\s*\[\s*\{\s*['"](role|content|from|value)['"]\s*:""")


@dataclass(frozen=True)
class Fields:
    """Reads a record's fields by the data set's names.

    Args:
        names: default name → the data set's name, if they differ. `role` and `content` are fields
            of messages; if `role` is renamed, the role names in `ROLES` are also known.
        ignored: keys of messages to leave out.
    """

    names: Mapping[str, str] = field(default_factory=dict)
    ignored: Sequence[str] = ()

    def name(self, key: str) -> str:
        return self.names.get(key) or key

    def get(self, record: Mapping[str, Any], key: str) -> Any:
        return record.get(self.name(key))

    def tools(self, record: Mapping[str, Any]) -> list[dict[str, Any]] | None:
        """The tool definitions, including those of the older `functions`.

        Raises: DataError
        """
        tools, functions = self.get(record, "tools"), record.get("functions")
        if tools or not functions or "tools" in self.names:
            return tool_schemas(tools)
        return [{"type": "function", "function": each} for each in tool_schemas(functions) or []]

    def text(self, record: Mapping[str, Any], key: str) -> Text | None:
        """Plain text or messages; None if the field is missing or null.

        A single message, and a list of messages as JSON text, count as a list.

        Raises: DataError
        """
        value, name = self.get(record, key), self.name(key)
        if isinstance(value, str):
            require_unicode(value, name)
            if not _WRITTEN.match(value):
                return value
            value = _list_in(value, name)
        if value is None:
            return None
        if isinstance(value, Mapping):
            value = [value]
        return normal(self._renamed(value), name)

    def system(self, record: Mapping[str, Any], messages: list[Message]) -> list[Message]:
        """Messages preceded by the record's own system prompt, if it has one.

        Raises: DataError: the messages begin with another one.
        """
        name, text = self.name("system"), self.get(record, "system")
        if not isinstance(text, str) or not text.strip():
            if text and not isinstance(text, str):
                raise DataError(f"`{name}` is not a text")
            return messages
        require_unicode(text, name)
        if messages and messages[0]["role"] == "system":
            if messages[0]["content"].strip() != text.strip():
                raise DataError(f"`{name}` is not the same system prompt as in the messages")
            return messages
        return [{"role": "system", "content": text}, *messages]

    def is_dialog(self, record: Mapping[str, Any]) -> bool:
        """Whether a record's plain texts are messages: it has a system prompt or tools."""
        text = self.get(record, "system")
        system = isinstance(text, str) and bool(text.strip())
        return system or bool(self.tools(record))

    def require_readable(self, record: Mapping[str, Any]) -> None:
        """Raises: DataError: the record has content that cannot be rendered, such as images."""
        for key in UNREAD:
            if record.get(key) and key not in self.names.values():
                raise DataError(
                    f"the record has `{key}`, which is not rendered",
                    f"remove such records, or `{key}`, from the data set",
                )

    def missing(self, record: Mapping[str, Any], wanted: str, help: str | None = None) -> DataError:
        """The error for a record that lacks the fields it should be read from.

        Args:
            help: what to do; without it, the names of other fields that look like a prompt, an
                answer or messages.
        """
        empty = [name for name in re.findall(r"`(\w+)`", wanted) if record.get(name, "") is None]
        if empty:
            return DataError(
                f"`{empty[0]}` is null",
                "remove such records from the data set, or give it a value",
            )
        there = ", ".join(map(str, list(record)[:8])) or "nothing"
        help = proposal(record) if help is None else help
        return DataError(f"no {wanted}; the fields are {there}", help)

    def named_otherwise(
        self, record: Mapping[str, Any], like: Mapping[str, Callable[[Any], bool]], otherwise: str
    ) -> str:
        """Help for a record without some fields: other fields that look like these.

        Args:
            like: field → whether a value looks like it.
            otherwise: the help if no field does.
        """
        named: dict[str, str] = {}
        others = {n: v for n, v in record.items() if n not in {self.name(key) for key in like}}
        lacking = [key for key in like if self.name(key) not in record]
        for key in lacking:
            found = next((name for name, value in others.items() if like[key](value)), None)
            if found is None:
                return otherwise
            named[key] = found
        return f"write `{_fields(named)}` in the dataset, if that is what the field says"

    def _renamed(self, messages: object) -> object:
        """Messages with `role` and `content` in place of the data set's names for them."""
        if not isinstance(messages, Sequence):
            return messages
        return [self._message(one) if isinstance(one, Mapping) else one for one in messages]

    def _message(self, message: Mapping[str, Any]) -> Message:
        made = {str(key): value for key, value in message.items() if key not in self.ignored}
        role, content = self.names.get("role"), self.name("content")
        if role and role in made:
            said = made.pop(role)
            made["role"] = ROLES.get(said, said) if _text(said) else said
        if content != "content" and content in made:
            made["content"] = made.pop(content)
        if "from" in made and "role" not in made:
            raise DataError(
                "messages have `from` instead of a role",
                'write `fields = { role = "from", content = "value" }` in the dataset: '
                f"{_translated()}",
            )
        return made


def _text(value: object) -> bool:
    return isinstance(value, str)


def _translated() -> str:
    """Role names in ShareGPT data sets."""
    return "human is read as user, gpt as assistant"


def _list_in(text: str, name: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        raise DataError(
            f"`{name}` is a text that looks like a list of messages but is not JSON",
            "write it as JSON, with double quotes: `json.dumps(messages)` in Python",
        ) from None


def require_unicode(text: str, name: str) -> None:
    """Raises: DataError: a text of the field `name` cannot be written as UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise DataError(f"the text in `{name}` is not valid Unicode: a lone surrogate") from None


def proposal(
    record: Mapping[str, Any], asked: str = "messages", known: Collection[str] = ()
) -> str:
    """What to write in the dataset to read a record whose fields have other names; "" if unknown.

    Args:
        asked: the field that a list of messages may be meant for.
        known: fields whose content is known.
    """
    for name in (*_DIALOGS, *record):
        keys = _message_keys(record.get(name)) if name not in known else None
        if keys is not None:
            named = {asked: name, **keys}
            changed = {key: value for key, value in named.items() if key != value}
            more = f": {_translated()}" if keys["role"] == "from" else ""
            return f"write `{_fields(changed)}` in the dataset{more}" if changed else ""
    prompt = next((name for name in ("prompt", *PROMPTS) if _text(record.get(name))), None)
    completion = next((name for name in COMPLETIONS if _text(record.get(name))), None)
    if prompt == "instruction" and record.get("input"):
        return (
            "`instruction` and `input` are one prompt: join them in the records, as "
            "docs/data.md shows, since a field cannot be read from two"
        )
    if not prompt:
        return ""
    named = {"prompt": prompt}
    if completion and "chosen" not in record:
        named["completion"] = completion
    changed = {key: value for key, value in named.items() if key != value}
    return f"write `{_fields(changed)}` in the dataset" if changed else ""


def suggested(record: Mapping[str, Any], kind: str) -> dict[str, str]:
    """What `fields` of a data set has to say for it to read such records: default name → name.

    {} if the default names are right, or nothing is known.
    """
    if kind == "preferences" or "messages" in record:
        keys = _message_keys(record.get("chosen" if kind == "preferences" else "messages"))
        named = keys or {}
    else:
        for name in (*_DIALOGS, *record):
            if (keys := _message_keys(record.get(name))) is not None:
                named = {"messages": name, **keys}
                break
        else:
            prompt = next((n for n in ("prompt", *PROMPTS) if _text(record.get(n))), None)
            completion = next((n for n in COMPLETIONS if _text(record.get(n))), None)
            named = {"prompt": prompt, "completion": completion} if prompt and completion else {}
    return {key: name for key, name in named.items() if key != name}


def _message_keys(value: object) -> dict[str, str] | None:
    """The names for role and content in messages, if a value is a list of messages."""
    if not isinstance(value, list) or not value or not isinstance(value[0], Mapping):
        return None
    role = next((key for key in ("role", "from") if key in value[0]), None)
    content = next((key for key in ("content", "value", "text") if key in value[0]), None)
    return {"role": role, "content": content} if role and content else None


def _fields(named: Mapping[str, str]) -> str:
    pairs = ", ".join(f"{key} = {json.dumps(value)}" for key, value in named.items())
    return f"fields = {{ {pairs} }}"
