"""Chooses the renderer for the dialogs of a protocol, and lists the special tokens it needs.

Two protocols are built in (`protocols`). A recipe may also define its own, or use the Jinja
template of a Hugging Face tokenizer (`dialog_template`).
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from ...errors import DataError
from .format_renderer import FormatRenderer
from .protocols import format_of
from .rendering import Renderer


def renderer(settings: Mapping[str, Any], tokenizer: Tokenizer, root: Path) -> Renderer:
    """The renderer of the protocol that `settings` describe.

    Args:
        settings: `{"protocol": "llama3"}`, `{"protocol": "chatml"}`, `{"template": "file.jinja"}`
            or `{"header": "<|{role}|>", "end_of_turn": "<|end|>"}`, the latter optionally with
            `end_of_message` and `roles`. `system` is the system prompt of dialogs without one.
        root: the folder that the template's path is relative to.

    Raises:
        DataError: an unknown protocol, a broken template, or a tokenizer that lacks special
            tokens.
    """
    if "template" in settings:
        from .dialog_template import TemplateRenderer  # jinja, which other protocols do without

        return TemplateRenderer(read_template(settings, root), settings, tokenizer)
    return FormatRenderer(format_of(settings), settings.get("system"), tokenizer)


def special_tokens(settings: Mapping[str, Any]) -> list[str]:
    """The special tokens of a protocol, without a tokenizer; [] for a Jinja template.

    Excludes the tokens at the beginning and end of a text, which every tokenizer has.

    Raises:
        DataError: an unknown protocol.
    """
    return [] if "template" in settings else format_of(settings).special()


def needed_tokens(settings: Mapping[str, Any], root: Path) -> list[str]:
    """The special tokens to add to a tokenizer made for a protocol.

    For a Jinja template: every token of the form `<|…|>` in its text.

    Raises:
        DataError: an unknown protocol, or the template cannot be read.
    """
    if "template" not in settings:
        return special_tokens(settings)
    found = re.findall(r"<\|[^|<>\s{}'\"]+\|>", read_template(settings, root))
    return list(dict.fromkeys(found))


def _in_settings(text: str, path: Path) -> str:
    """The chat template in a tokenizer_config.json; of several, the one called `default`.

    Raises: DataError: there is none.
    """
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    template = found.get("chat_template") if isinstance(found, dict) else None
    if isinstance(template, list):
        named = {
            each.get("name"): each.get("template") for each in template if isinstance(each, dict)
        }
        template = named.get("default")
    if isinstance(template, str) and template:
        return template
    raise DataError(
        f"{path} has no `chat_template`" + (" called `default`" if found else ""),
        "name a tokenizer_config.json that has one, or a Jinja file, as `template` in the dialog",
    )


def read_template(settings: Mapping[str, Any], root: Path) -> str:
    """The text of a Jinja template, which may be in a tokenizer_config.json.

    Raises:
        DataError: the file cannot be read, or is JSON without a chat template.
    """
    path = root / settings["template"]
    try:
        text = path.read_text(encoding="utf-8")
        return _in_settings(text, path) if path.suffix == ".json" else text
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise DataError(
            f"the chat template {path} cannot be read: {reason}",
            "name a Jinja file, such as the chat_template.jinja of a Hugging Face model, as "
            "`template` in the dialog",
        ) from None
