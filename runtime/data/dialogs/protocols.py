"""Protocols of headers and ends: the built-in ones, and those that recipes define.

`llama3` is the published prompt format of Llama 3.1, by these rules:

- A message is `<|start_header_id|>ROLE<|end_header_id|>`, two line feeds, its text without
  surrounding white space, and `<|eot_id|>`. The text begins with `<|begin_of_text|>`.
- A message of the assistant ends with `<|eom_id|>` if its turn continues: if it is sent to
  `ipython`, or if another message of the assistant follows.
- A message to `ipython` without tool calls is code and begins with `<|python_tag|>`. A tool call
  is a separate message to `ipython`: `{"name": …, "parameters": …}`. A tool's answer is a message
  of the role `ipython` (`tool` is the same).
- Tool definitions are in the system message before its text, after `Environment: ipython`, as
  JSON indented by 4. No line gives a date.

`chatml` is `<|im_start|>ROLE`, a line feed, the text unchanged, `<|im_end|>`, a line feed.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ...errors import DataError
from ..tokens.tokenizer import BOS

IPYTHON = "ipython"
TOOL_INTRODUCTION = (
    "You can call the functions below. To call one, answer with nothing but a JSON object:\n"
    '{"name": name of the function, "parameters": object of argument names and values}\n'
    "Write values, not variables.\n\n"
)
SPECIAL = re.compile(r"<\|[^|<>\s]+\|>|<[^<>|\s]+>|\[/?[A-Z][A-Z_]*\]")
"""Special tokens in the texts of a protocol."""


@dataclass(frozen=True)
class Format:
    """A protocol of headers and ends.

    Attributes:
        begin: what the text begins with; None for the tokenizer's beginning of text.
        header: contains `{role}`.
        end: ends a turn.
        more: ends a message after which the assistant's turn continues; "" if there is none.
        code: begins a message to ipython that is not a tool call.
        tools: whether the protocol can write tool definitions and calls.
        strip: whether white space around a text is removed.
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
        return list(dict.fromkeys(SPECIAL.findall(" ".join(texts))))

    def shown(self, role: str) -> str:
        """The role's name in headers."""
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


def format_of(settings: Mapping[str, Any]) -> Format:
    """The protocol for these settings, in the form that `dialog.renderer` takes.

    Raises: DataError: there is no such protocol, or it has nothing that ends a turn.
    """
    if "protocol" in settings:
        if settings["protocol"] not in PROTOCOLS:
            raise DataError(
                f"there is no dialog protocol `{settings['protocol']}`",
                f"write one of {', '.join(PROTOCOLS)}, a `template`, or your own `header` and "
                "`end_of_turn`",
            )
        return PROTOCOLS[settings["protocol"]]
    header, end = settings.get("header") or "", settings.get("end_of_turn") or ""
    more = settings.get("end_of_message") or ""
    if "{role}" not in header:
        raise DataError(
            f"the dialog's header `{header}` does not contain the role",
            'write {role} in its place, as in header = "<|{role}|>"',
        )
    for name, text in [("end_of_turn", end), ("end_of_message", more or None)]:
        if text is not None and not SPECIAL.search(text):
            raise DataError(
                f"the dialog's {name} `{text}` contains no special token, so it could not be "
                "distinguished from text",
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
