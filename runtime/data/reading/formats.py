"""Documents and records in one file: JSON, Parquet, Arrow, CSV or plain text, compressed or not.

A file's suffixes tell its compression and format. Errors in a document count as bad lines (see
`bad_lines`); disk and network failures are errors.
"""

import codecs
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any

from ....compiler.files.data_files import ENDINGS, ending
from ...errors import DataError
from . import tables
from .bad_lines import BadLines
from .streams import Damaged, File, chunks, lines
from .stretches import Stretch, counted_lines

Numbered = Iterator[tuple[int, dict[str, Any]]]
OnLines = Callable[[int], None]
SUFFIXES = ENDINGS
suffix = ending


@dataclass(frozen=True)
class Row:
    """A record of a file: a JSON object, or the columns of a table's row.

    Attributes:
        place: as messages show it ("corpus/a.jsonl:17").
    """

    place: str
    fields: dict[str, Any]


@dataclass(frozen=True)
class Document:
    """A text and its place, as messages show it ("corpus/a.jsonl:17")."""

    place: str
    text: str


def rows(
    file: File, bad: BadLines, *, columns: Sequence[str] | None = None, example: str = "text"
) -> Iterator[Row]:
    """Yields the records of a JSON file or a table in order.

    Args:
        file: its name must end with one of SUFFIXES.
        bad: counts what cannot be used. A damaged compressed stream is used up to the damage; the
            rest counts as one bad line. Blank lines between JSON lines are ignored.
        columns: the columns needed of a table; None for all.
        example: a field's name, for messages.

    Raises:
        DataError: too many bad lines, no such column, or the file cannot be read.
    """
    yield from _rows(Stretch(file), bad, columns, example)


def _rows(
    stretch: Stretch,
    bad: BadLines,
    columns: Sequence[str] | None,
    example: str,
    on_lines: OnLines | None = None,
) -> Iterator[Row]:
    file = stretch.file
    kind = suffix(file.name) or ""
    if kind.startswith(".txt"):
        raise DataError(
            f"{file.name} is a plain text; records with fields are read from JSON, Parquet, "
            "Arrow or CSV",
            "narrow the pattern in `files`, or convert the file",
        )
    number = 0
    try:
        for number, found in _numbered(kind, stretch, columns, example, bad, on_lines):
            yield Row(f"{file.name}:{number}", found)
    except Damaged as error:
        bad.report(f"{file.name}:{number + 1}", str(error), rest_is_lost=True)


def documents(
    stretch: Stretch,
    field: str,
    bad: BadLines,
    *,
    further: Sequence[str] = (),
    keeps: Callable[[Row], bool] | None = None,
    on_lines: OnLines | None = None,
) -> Iterator[Document]:
    """Yields the documents of a file, or of a stretch of it, in order.

    Args:
        field: the field or column with the text (plain text has none).
        further: other fields that `keeps` reads.
        keeps: drops the rows for which it returns false.
        on_lines: called with the number of lines read, after each piece of a stretch of lines.
            Places count from the stretch's beginning; rows of a table from the file's.

    Raises: as `rows`.
    """
    if (suffix(stretch.file.name) or "").startswith(".txt") and keeps is None:
        yield from _text(stretch.file, bad)
        return
    columns = list(dict.fromkeys([field, *further]))
    for row in _rows(stretch, bad, columns, field, on_lines):
        if field not in row.fields:
            missing(row, field, bad, _instead(row))
        elif keeps is None or keeps(row):
            text = bad.checked(row.fields[field], field, row.place)
            if text is not None:
                yield Document(row.place, text)


def missing(row: Row, field: str, bad: BadLines, help: str = "") -> None:
    """Counts a row that lacks a required field; `help` is an alternative."""
    there = ", ".join(map(str, list(row.fields)[:8])) or "nothing"
    bad.report(row.place, f"no field `{field}`; the fields are {there}", help)


def _instead(row: Row) -> str:
    """What to write in the dataset so that a row without the text field can be read."""
    lists = (value for value in row.fields.values() if isinstance(value, list) and value)
    if any(isinstance(value[0], dict) for value in lists):
        return "write `kind = dialogs` in the dataset, for a stage of kind `sft`"
    if "chosen" in row.fields:
        return "write `kind = preferences` in the dataset, for a stage that learns from them"
    texts = [name for name, value in row.fields.items() if isinstance(value, str)]
    found = max(texts, key=lambda name: len(row.fields[name]), default=None)
    return f'name the field in the dataset: `fields = {{ text = "{found}" }}`' if found else ""


def _numbered(
    kind: str,
    stretch: Stretch,
    columns: Sequence[str] | None,
    example: str,
    bad: BadLines,
    on_lines: OnLines | None,
) -> Numbered:
    """Records with their line number, or, in formats without lines, the number of the record."""
    file = stretch.file
    if kind == ".parquet":
        groups = (stretch.first, stretch.last)
        return enumerate(tables.parquet(file, columns, groups=groups), 1 + stretch.before)
    if not stretch.whole:
        content = counted_lines(stretch, on_lines or (lambda lines: None))
        return _json_lines(file, content, example, bad, begins=stretch.first == 0)
    if kind == ".arrow":
        return enumerate(tables.arrow(file, columns), 1)
    if kind.startswith((".csv", ".tsv")):
        return tables.csv_rows(file, columns, "," if kind.startswith(".csv") else "\t", bad)
    read = _json if kind.startswith(".json") and not kind.startswith(".jsonl") else _json_lines
    return read(file, chunks(file), example, bad)


def _json(file: File, content: Iterator[bytes], example: str, bad: BadLines) -> Numbered:
    """The objects of one array, which is read whole, or of JSON lines."""
    begun = b""
    for chunk in content:
        begun += chunk
        if begun.removeprefix(codecs.BOM_UTF8).strip():
            break
    content = chain([begun], content)
    if not begun.removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"["):
        yield from _json_lines(file, content, example, bad)
        return
    whole = b"".join(content).removeprefix(codecs.BOM_UTF8)
    found = _parsed(whole, partial(bad.report, f"{file.name}:1"))
    for number, record in enumerate(found if isinstance(found, list) else [], 1):
        if isinstance(record, dict):
            yield number, record
        else:
            bad.report(f"{file.name}:{number}", _no_object(example))


def _json_lines(
    file: File, content: Iterator[bytes], example: str, bad: BadLines, *, begins: bool = True
) -> Numbered:
    number = 0
    try:
        for number, line in enumerate(lines(content), 1):
            if number == 1 and begins:
                line = line.removeprefix(codecs.BOM_UTF8)
            if not line.strip():
                continue
            report = partial(bad.report, f"{file.name}:{number}")
            record = _parsed(line, report, file.name)
            if isinstance(record, dict):
                yield number, record
            elif record is not _NOTHING:
                report(_no_object(example))
    except Damaged as error:
        bad.report(f"{file.name}:{number + 1}", str(error), rest_is_lost=True)


_NOTHING = object()
"""Stands for what is not JSON."""


def _parsed(text: bytes, report: Callable[[str], None], name: str = "") -> Any:
    try:
        return json.loads(text.decode())
    except UnicodeDecodeError as error:
        report(f"not valid UTF-8: {error.reason} at byte {error.start + 1}")
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, " if error.lineno > 1 else ""
        begun = text.strip() == b"{" and (suffix(name) or "").startswith((".json", ".json."))
        form = "; a .json file has an array of objects, or one object per line" if begun else ""
        what = error.msg.removesuffix(" at")  # as in "Unterminated string starting at"
        report(f"not valid JSON: {what} at {where}character {error.colno}{form}")
    except (ValueError, RecursionError) as error:
        report(f"not usable JSON: {error}")
    return _NOTHING


def _no_object(example: str) -> str:
    return f'not a JSON object such as {{"{example}": "…"}}'


def _text(file: File, bad: BadLines) -> Iterator[Document]:
    content = bytearray()
    try:
        for chunk in chunks(file):
            content += chunk
        text = content.decode("utf-8-sig")
    except Damaged as error:
        line = content.count(b"\n") + 1
        bad.report(f"{file.name}:{line}", str(error), rest_is_lost=True)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        bad.report(f"{file.name}:{line}", f"not valid UTF-8: {error.reason}")
    else:
        if text.strip():
            yield Document(file.name, text)
        else:
            bad.report(f"{file.name}:1", "the file is empty")
