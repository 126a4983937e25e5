"""Cuts large files into stretches, and groups small ones, to be read by several processes.

JSON lines are cut at the first line end after a multiple of `LARGE` bytes, Parquet between row
groups. Nothing else is cut: a compressed stream can be read only from its beginning, and so can a
JSON array or quoted values. The cuts depend only on the files' sizes.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import IO

from ....compiler.files.data_files import SPLIT, ending
from .streams import File, unreadable

LARGE = 2**28
"""Approximate bytes per stretch: a minute of work, or a few."""
SMALL = 2**22
"""Files up to this many bytes are grouped."""
_READ = 1 << 20


@dataclass(frozen=True)
class Stretch:
    """The part of a file that one process reads.

    Attributes:
        first: the byte, or the row group, at which it begins. A line belongs to the stretch that it
            begins in.
        last: where the next one begins; None: at the end of the file.
        before: rows of a table before it.
    """

    file: File
    first: int = 0
    last: int | None = None
    before: int = 0

    @property
    def whole(self) -> bool:
        return self.first == 0 and self.last is None

    @property
    def identity(self) -> list[object]:
        """The same as JSON, as far as it distinguishes stretches of a data set."""
        return [self.file.name, self.first, self.last]


def together(files: Sequence[File]) -> list[tuple[Stretch, ...]]:
    """The work of one process each, in the order of the files: a stretch of a large file, one file,
    or several small ones.

    Raises: DataError: a file cannot be read.
    """
    found: list[tuple[Stretch, ...]] = []
    taken = SMALL  # bytes of small files in the last group
    for file in files:
        size = SMALL if file.size is None else file.size
        if size < SMALL and taken + size <= SMALL:
            found[-1] += (Stretch(file),)
            taken += size
            continue
        found += [(each,) for each in (cut(file) if size > LARGE else [Stretch(file)])]
        taken = size if size < SMALL else SMALL
    return found


def cut(file: File) -> list[Stretch]:
    """The stretches of a file, of about `LARGE` bytes each.

    Raises: DataError: it cannot be read.
    """
    kind = ending(file.name)
    if kind not in SPLIT:
        return [Stretch(file)]
    if kind != ".parquet":
        size = file.size or 0
        begins = range(0, size, LARGE)
        return [
            Stretch(file, each, each + LARGE if each + LARGE < size else None) for each in begins
        ]
    return _groups(file)


def _groups(file: File) -> list[Stretch]:
    """Stretches of row groups; the whole file if it is damaged, which its reader reports."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with file.open() as stream:
            table = pq.ParquetFile(stream).metadata
            groups = [table.row_group(number) for number in range(table.num_row_groups)]
            sizes = [
                sum(group.column(c).total_compressed_size for c in range(group.num_columns))
                for group in groups
            ]
            rows = [group.num_rows for group in groups]
    except pa.ArrowException:
        return [Stretch(file)]
    except file.failures as error:
        if isinstance(error, OSError) and error.errno is None:
            return [Stretch(file)]
        raise unreadable(file.name, error) from error
    begins, taken = [0], 0
    for number, size in enumerate(sizes):
        if taken >= LARGE:
            begins.append(number)
            taken = 0
        taken += size
    ends = [*begins[1:], None]
    return [
        Stretch(file, first, last, sum(rows[:first]))
        for first, last in zip(begins, ends, strict=True)
    ]


def content(stretch: Stretch) -> Iterator[bytes]:
    """The lines that begin in a stretch of an uncompressed file, in pieces.

    Raises: DataError: it cannot be read.
    """
    file, last = stretch.file, stretch.last
    try:
        with file.open() as stream:
            place = _first_line(stream, stretch.first)
            if last is not None and place >= last:
                return  # a line of an earlier stretch is longer than this one
            while chunk := stream.read(_READ):
                end = -1
                if last is not None and place + len(chunk) >= last:
                    end = chunk.find(b"\n", max(last - 1 - place, 0))
                if end >= 0:
                    yield chunk[: end + 1]
                    return
                yield chunk
                place += len(chunk)
    except file.failures as error:
        raise unreadable(file.name, error) from error


def _first_line(stream: IO[bytes], first: int) -> int:
    """Seeks to the first line that begins at or after a byte, and returns its position."""
    if not first:
        return 0
    place = stream.seek(first - 1)
    while chunk := stream.read(_READ):
        end = chunk.find(b"\n")
        if end >= 0:
            return stream.seek(place + end + 1)
        place += len(chunk)
    return place


def counted_lines(stretch: Stretch, on_lines: Callable[[int], None]) -> Iterator[bytes]:
    """The content of a stretch; calls `on_lines` with the number of lines in each piece."""
    for chunk in content(stretch):
        on_lines(chunk.count(b"\n"))
        yield chunk


def lines_before(stretch: Stretch) -> int:
    """How many lines of the file begin before a stretch; reads them all.

    Raises: DataError: the file cannot be read.
    """
    if not stretch.first:
        return 0
    before = Stretch(stretch.file, 0, stretch.first)
    return sum(chunk.count(b"\n") for chunk in content(before))
