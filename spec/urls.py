"""Secrets in URLs: users, passwords and signatures, which no message and no plan may show."""

import re
from collections.abc import Callable

_USER = re.compile(r"(?<=://)[^/?#\s\"]*@")
_SIGNED = re.compile(
    r"(?i)([?&](?:[\w-]*(?:signature|token|secret|password|credential)[\w-]*|sig|key|api_?key|"
    r"AWSAccessKeyId|GoogleAccessId)=)([^&#\s\"]+)"
)
_CONTAINER = re.compile(r"(?i)\babfss?://[^/:@]*@")
"""`abfss://container@account…` names a container, and nothing secret."""


def has_secret(url: str) -> bool:
    """Whether a URL contains a user, a password or a signature."""
    return bool(_SIGNED.search(url)) or bool(_USER.search(url) and not _CONTAINER.search(url))


def shown(text: str) -> str:
    """A text in which URLs are shown with `…` in place of secrets."""
    return _hidden(text, lambda secret: "…")


def masked(text: str) -> str:
    """The same with unchanged length, for excerpts with places marked in them."""
    return _hidden(text, lambda secret: "…" * len(secret))


def _hidden(text: str, mask: Callable[[str], str]) -> str:
    if "://" not in text:
        return text
    if not _CONTAINER.search(text):
        text = _USER.sub(lambda user: mask(user[0][:-1]) + "@", text)
    return _SIGNED.sub(lambda found: found[1] + mask(found[2]), text)
