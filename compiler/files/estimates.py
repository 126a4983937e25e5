"""Estimates how much data a source has, before anything is tokenized: from the sizes of its files.

The estimates are for people. A run counts first, and plans again.
"""

import glob
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from ...spec.quantity import counted
from ...spec.schema import recipe as r
from .data_files import URL

BYTES_PER_TOKEN = 4
"""Of text. Byte-pair encodings with 32,000 to 200,000 tokens take 4 to 5 bytes of English (Llama 3,
arXiv:2407.21783 §3.2: 4.4 characters), and fewer of code and other languages."""
BYTES_PER_ID = 2
UNPACKED = {".gz": 3, ".zst": 3, ".parquet": 3}
"""Ending → how much larger the text is than the file, about."""
RECORD = 2000
"""Bytes of a record of which no line can be read."""
GUESS = 100_000
"""Records of a source of which nothing is known. Few would make stages so short that schedules and
evaluations of a right spec do not fit into them."""
_READ = 65_536
_MOST_FILES = 10_000


class Estimate(NamedTuple):
    """About how much a source has.

    Attributes:
        said: what it was estimated from, for people.
    """

    tokens: Fraction
    records: Fraction
    said: str


def estimate(dataset: r.Dataset, folder: Path | None, *, by_bytes: bool) -> Estimate:
    """About how much of a source stages train on, without what is held out.

    Args:
        folder: that of the spec; None: there is none.
        by_bytes: whether its tokenizer makes a token of every byte.
    """
    sizes = _sizes(dataset.files or dataset.tokenized or [], folder)
    per_token = 1 if by_bytes else BYTES_PER_ID if dataset.tokenized else BYTES_PER_TOKEN
    if sizes:
        each = _line(next(iter(sizes)))
        text = sum(n * _unpacked(name) for name, n in sizes.items())
        records = max(Fraction(text, each), Fraction(1))
        said = f"estimated from {_megabytes(sum(sizes.values()))} of files"
    else:
        each, records = RECORD, Fraction(dataset.documents or GUESS)
        said = f"a guess, with {counted(records, 'records')} of {RECORD:,} bytes"
    if dataset.documents:
        records = min(records, Fraction(dataset.documents))
    records *= 1 - dataset.holdout
    if dataset.deal:
        hands, first, last = dataset.deal
        records *= Fraction(last - first + 1, hands)
    records = max(records, Fraction(1))
    return Estimate(records * each / per_token, records, said)


def _sizes(patterns: list[str], folder: Path | None) -> dict[str, int]:
    """Path → bytes of the local files that patterns match."""
    found: dict[str, int] = {}
    if folder is None:
        return found
    for pattern in patterns:
        if URL in pattern or "{round}" in pattern:
            continue
        try:
            names = [pattern] if (folder / pattern).is_file() else []
            names = names or glob.iglob(pattern, root_dir=folder, recursive=True)
            for name in islice(names, _MOST_FILES):
                path = folder / name
                if path.is_file():
                    found[str(path)] = path.stat().st_size
        except (OSError, ValueError):
            continue
    return found


def _unpacked(name: str) -> int:
    return next((n for end, n in UNPACKED.items() if name.lower().endswith(end)), 1)


def _line(name: str) -> int:
    """Bytes of a record, by the first lines of a file of lines."""
    if not name.lower().endswith((".jsonl", ".ndjson", ".csv", ".tsv")):
        return RECORD
    try:
        with open(name, "rb") as file:
            begin = file.read(_READ)
    except OSError:
        return RECORD
    lines = begin.count(b"\n")
    return max((begin.rfind(b"\n") + 1) // lines, 1) if lines else max(len(begin), 1)


def _megabytes(size: int) -> str:
    for unit, scale in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size >= scale:
            return f"{size / scale:.3g} {unit}"
    return f"{size} bytes"
