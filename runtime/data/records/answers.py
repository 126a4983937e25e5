"""Right answers of records of prompts, which verifiers compare with."""

import json
from collections.abc import Mapping
from typing import Any

from ...errors import DataError
from ...verification.instructions import in_record
from .fields import COMPLETIONS, Fields, require_unicode

_OTHERS = (
    "final_answer",
    "ground_truth",
    "reference_answer",
    "answerKey",
    "label",
    "target",
    "expected",
)
"""What data sets also call answers."""


def right_answers(record: Mapping[str, Any], fields: Fields, why: str) -> list[str]:
    """The right answers of a record, of which any will do: its field `answer` has a text, a number,
    or a list of these. A record of IFEval has instructions instead.

    Args:
        why: what needs an answer, for people.

    Raises: DataError: the record has none; the message is only the reason.
    """
    name, value = fields.name("answer"), fields.get(record, "answer")
    if value is None and name not in record:
        value = in_record(record)
    if value is None:
        lacks = "is null" if name in record else "is missing"
        raise DataError(f"`{name}` {lacks}: {why}", _proposal(record, name))
    given = value if isinstance(value, list | tuple) else [value]
    texts = [_text(each, name) for each in given]
    if not texts or not all(text.strip() for text in texts):
        raise DataError(f"`{name}` is empty: {why}", "give it the right answer, or remove the line")
    return texts


def _text(answer: object, name: str) -> str:
    """Raises: DataError: it is neither a text nor a number."""
    if isinstance(answer, str):
        require_unicode(answer, name)
        return answer
    if isinstance(answer, int | float) and not isinstance(answer, bool):
        return json.dumps(answer)
    raise DataError(
        f"`{name}` is neither a text, a number, nor a list of these",
        "write answers as texts",
    )


def _proposal(record: Mapping[str, Any], name: str) -> str:
    """What to write in the dataset to find the answer."""
    for other in (*COMPLETIONS, *_OTHERS):
        if other != name and isinstance(record.get(other), str | int | float | list):
            return f"write `fields = {{ answer = {json.dumps(other)} }}` in the dataset"
    there = ", ".join(map(str, list(record)[:8])) or "nothing"
    return f'write `fields = {{ answer = "FIELD" }}` in the dataset; the fields are {there}'
