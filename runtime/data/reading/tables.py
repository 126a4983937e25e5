"""Rows of tables: Parquet, Arrow, CSV, and what the library `datasets` saves.

A table has the same fields in every row. So an object in a row of Parquet or Arrow contains, as
nulls, the fields that only other rows' objects have there. They are left out: a record is what it
was before it became a table. An object's own nulls cannot be told from these, except in JSON
columns, whose texts are read unchanged.
"""

import codecs
import csv
import json
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from ....compiler.as_written import counted
from ...errors import DataError
from .bad_lines import BadLines
from .streams import Damaged, File, chunks, first_line, lines, unreadable

if TYPE_CHECKING:
    import pyarrow as pa

Cleaner = Callable[[Any], Any]

_ROWS = 256
# By default, the csv module limits a cell to 131,072 characters.
_CELL = 2**31 - 1


def parquet(
    file: File, columns: Sequence[str] | None, *, groups: tuple[int, int | None] = (0, None)
) -> Iterator[dict[str, Any]]:
    """The rows of a Parquet file.

    Args:
        columns: the columns needed; None for all.
        groups: the first row group to read, and the first not to read; None: to the end.

    Raises:
        Damaged: the file is invalid.
        DataError: there is no such column, or the file cannot be read.
    """
    import pyarrow.parquet as pq

    def batches() -> "Iterator[pa.RecordBatch]":
        with file.open() as stream:
            table = pq.ParquetFile(stream)
            _require(table.schema_arrow.names, columns, file.name)
            numbers = list(range(table.num_row_groups))[slice(*groups)]
            needed = columns and list(columns)
            yield from table.iter_batches(_ROWS, row_groups=numbers, columns=needed)

    yield from _read(file, batches, "Parquet")


def arrow(file: File, columns: Sequence[str] | None) -> Iterator[dict[str, Any]]:
    """The rows of an Arrow file, or of a stream as cached by `datasets`. Otherwise as `parquet`."""
    import pyarrow as pa

    def batches() -> "Iterator[pa.RecordBatch]":
        with file.open() as stream:
            whole = stream.read(6) == b"ARROW1"
            stream.seek(0)
            table = pa.ipc.open_file(stream) if whole else pa.ipc.open_stream(stream)
            _require(table.schema.names, columns, file.name)
            numbered = range(table.num_record_batches) if whole else ()
            found = map(table.get_batch, numbered) if whole else iter(table)
            for batch in found:
                yield batch.select(list(columns)) if columns else batch

    yield from _read(file, batches, "Arrow")


def _read(
    file: File, batches: "Callable[[], Iterator[pa.RecordBatch]]", kind: str
) -> Iterator[dict[str, Any]]:
    import pyarrow as pa

    try:
        for batch in batches():
            # Arrow trusts the borders of texts that a file names, and would read any memory.
            batch.validate(full=True)
            yield from records(batch)
    except DataError:
        raise
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise Damaged(f"damaged {kind} file: {first_line(error)}") from error
    except file.failures as error:
        # Arrow reports damage inside a file as an OSError without an error number.
        if isinstance(error, OSError) and error.errno is None:
            raise Damaged(f"damaged {kind} file: {first_line(error)}") from error
        raise unreadable(file.name, error) from error


def records(table: "pa.RecordBatch | pa.Table") -> Iterator[dict[str, Any]]:
    """The rows of a table, without the nulls that it adds to objects."""
    cleaners = {field.name: _cleaner(field.type) for field in table.schema}
    for row in table.to_pylist():
        yield {
            name: value if (clean := cleaners[name]) is None or value is None else clean(value)
            for name, value in row.items()
        }


def _cleaner(kind: "pa.DataType") -> Cleaner | None:
    """A function that restores a type's original values; None if they are unchanged."""
    import pyarrow as pa

    if pa.types.is_struct(kind):
        fields = {field.name: _cleaner(field.type) for field in kind.fields}
        return lambda value: {
            name: item if (clean := fields[name]) is None else clean(item)
            for name, item in value.items()
            if item is not None
        }
    if pa.types.is_map(kind):
        # A map lists the keys it has: a null in it is original.
        clean = _maybe(_cleaner(kind.item_type))
        return lambda value: {key: clean(item) for key, item in value}
    if isinstance(kind, pa.JsonType):
        return _parsed
    if isinstance(kind, pa.BaseExtensionType):
        return _cleaner(kind.storage_type)
    inner = getattr(kind, "value_type", None)
    if inner is None or (each := _cleaner(inner)) is None:
        return None
    if pa.types.is_dictionary(kind):
        return each
    item = _maybe(each)
    return lambda value: [item(one) for one in value]


def _maybe(clean: Cleaner | None) -> Cleaner:
    """A cleaner that leaves null as it is."""
    if clean is None:
        return lambda value: value
    return lambda value: None if value is None else clean(value)


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def csv_rows(
    file: File, columns: Sequence[str] | None, delimiter: str, bad: BadLines
) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows of a file of comma-separated values, with the numbers of the lines they end in.

    The first line names the columns. All values are texts; an empty one is null, because CSV has no
    other null.

    Args:
        bad: counts rows whose number of values differs from the number of columns.

    Raises: as `parquet`.
    """
    csv.field_size_limit(_CELL)
    # Invalid UTF-8 becomes lone surrogates, which no text may contain: they are found where the
    # text is used.
    decoded = (
        (line.removeprefix(codecs.BOM_UTF8) if number == 0 else line).decode(
            errors="surrogateescape"
        )
        + "\n"
        for number, line in enumerate(lines(chunks(file)))
    )
    reader = csv.reader(decoded, delimiter=delimiter, strict=True)
    try:
        names = next(reader, [])
        _require(names, columns, file.name)
        for values in reader:
            if len(values) == len(names):
                pairs = zip(names, (value or None for value in values), strict=True)
                yield reader.line_num, dict(pairs)
            elif values:
                bad.report(
                    f"{file.name}:{reader.line_num}",
                    f"{counted(len(values), 'values')} for {counted(len(names), 'columns')}",
                )
    except csv.Error as error:
        raise Damaged(f"damaged CSV: {first_line(error)}") from error


def _require(there: Sequence[str], columns: Sequence[str] | None, name: str) -> None:
    for column in columns or ():
        require_column(there, column, name)


def require_column(there: Sequence[str], column: str, name: str) -> None:
    """Raises: DataError: a table lacks a column."""
    if column not in there:
        raise DataError(
            f"{name} has no column `{column}`; its columns: {', '.join(there) or 'none'}",
            'name the column in the dataset, as in `fields = { text = "content" }`',
        )
