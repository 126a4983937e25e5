"""The fields of records in keys and counts, which stay what they are when fields are added."""

from collections.abc import Collection
from typing import Any

from ..spec.record import fields
from ..spec.schema import recipe as r

_FIRST = ("text", "messages", "prompt", "completion", "chosen", "rejected", "edited", "tools")
"""Fields that keys have always had."""
COUNTED = (*_FIRST, "system", "role", "content", "answer", "label", "ignore")
"""Fields that counts have always had."""


def fields_of(given: r.Fields, always: Collection[str] = _FIRST) -> dict[str, Any]:
    """The names that a data set has for fields: of those that came later, what differs from the
    default.

    Args:
        always: the fields that are there whatever they say.
    """
    usual = {name: each.default for name, each in fields(r.Fields).items()}
    named = {name: getattr(given, name) for name in r.FIELDS}
    return {n: name for n, name in named.items() if n in always or name != usual[n]}
