"""The ranked responses of a record of preferences, and by how much the better is better."""

import json
from collections.abc import Mapping
from typing import Any

from ...errors import DataError
from .fields import Fields, Text

RANKS = ("edited", "chosen", "rejected")
"""Fields of ranked responses, best first."""
RANKED = "ranked"
"""The field of a list of responses, best first."""


def ranked(record: Mapping[str, Any], fields: Fields) -> list[tuple[str, Text]]:
    """The record's names for its responses, and these, the best first.

    Raises: DataError: there are not two.
    """
    offered = fields.get(record, RANKED)
    if offered is not None and fields.name("chosen") not in record:
        return _listed(record, fields, offered)
    found = {rank: _response(record, fields, rank) for rank in RANKS}
    if found["chosen"] is None:
        name = fields.name("chosen")
        if name in record:
            raise DataError(f"`{name}` is null: the record is not labelled yet")
        raise fields.missing(record, f"field `{name}`")
    responses = [(fields.name(rank), text) for rank, text in found.items() if text is not None]
    if len(responses) < 2:
        raise DataError(
            f"no ranking: there is `{fields.name('chosen')}`, but neither "
            f"`{fields.name('rejected')}` nor `{fields.name('edited')}`"
        )
    return responses


def _listed(record: Mapping[str, Any], fields: Fields, offered: Any) -> list[tuple[str, Text]]:
    """The responses of a list, the best first.

    Raises: DataError: it is not a list of two or more.
    """
    name = fields.name(RANKED)
    if not isinstance(offered, list) or len(offered) < 2:
        raise DataError(f"`{name}` is not a list of two or more responses, the best first")
    found = []
    for number in range(len(offered)):
        text = _response({**record, name: offered[number]}, fields, RANKED)
        if text is None:
            raise DataError(f"`{name}[{number}]` is null")
        found.append((f"{name}[{number}]", text))
    return found


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def margin_of(record: Mapping[str, Any], fields: Fields, responses: int) -> float:
    """By how much the better of two responses is better.

    Raises: DataError: the record does not say so.
    """
    name, value = fields.name("margin"), fields.get(record, "margin")
    if value is None:
        help = fields.named_otherwise(
            record,
            {"margin": lambda value: _number(value) and value >= 0},
            f"write in `{name}` by how much the chosen response is better, or train without "
            "`margin`",
        )
        raise fields.missing(record, f"field `{name}`, which the stage's `margin` needs", help)
    if not _number(value) or not 0 <= value < float("inf"):
        shown = json.dumps(value, ensure_ascii=False, default=str)[:40]
        raise DataError(
            f"`{name}` is {shown}, and not a number of 0 or more",
            "write by how much the chosen response is better: 1 for a little, 3 for a lot",
        )
    if responses != 2:
        raise DataError(
            f"`{name}` is that of two responses, and the record has {responses}",
            "leave the others out, or train without `margin`",
        )
    return float(value)


def _response(record: Mapping[str, Any], fields: Fields, rank: str) -> Text | None:
    value = fields.get(record, rank)
    if isinstance(value, int) and not isinstance(value, bool):
        offered = record.get("responses")
        if not isinstance(offered, list) or not 0 <= value < len(offered):
            raise DataError(f"`{fields.name(rank)}` is {value}, which is not one of `responses`")
        return fields.text({fields.name(rank): offered[value]}, rank)
    return fields.text(record, rank)
