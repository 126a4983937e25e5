"""Chooses the renderer for the dialogs of a protocol, and lists the special tokens it needs.

Two protocols are built in (`protocols`). A recipe may also define its own, or use the Jinja
template of a Hugging Face tokenizer (`dialog_template`).
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from ..errors import DataError
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
