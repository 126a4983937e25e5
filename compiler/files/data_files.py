"""Tells data files by name: what checks, which do not open data, know about the formats.

The ending of a name gives the format and the compression.
"""

import re
from collections.abc import Callable
from pathlib import Path

URL = "://"
Matched = Callable[[str, Path], list[str]]
"""Finds the files that a pattern names below a folder."""
_PACKED = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".txt")
ENDINGS = (
    *_PACKED,
    ".parquet",
    ".arrow",
    *(f"{each}{pack}" for each in _PACKED for pack in (".gz", ".zst")),
)
"""Every ending that can be read."""
TEXTS = tuple(each for each in ENDINGS if each.startswith(".txt"))
"""Plain texts, one document each. They have no fields, so they hold no records."""
FIELDS = tuple(each for each in ENDINGS if each not in TEXTS)
SPLIT = (".jsonl", ".ndjson", ".parquet")
"""Formats that several processes can read at once if files are large."""
_TOKENS = "it has token ids: write `tokenized` instead of `files`"
_WAYS = {
    ".bz2": "recompress it: `bzcat {0} | zstd > {1}.zst`",
    ".bin": _TOKENS,
    ".npy": _TOKENS,
    ".idx": _TOKENS,
    ".ds": _TOKENS,
    ".xz": "recompress it: `xzcat {0} | zstd > {1}.zst`",
    ".zip": "unpack it, and name the files in it",
    ".tar": "unpack it, and name the files in it",
    ".md": "rename it to `{1}.txt`, or narrow the pattern",
    ".xlsx": "save it as `{1}.csv`",
}
"""Ending → what to do with a file `{0}`, named `{1}` without the ending."""
_MAGIC = re.compile(r"[*?\[\]]")


def ending(name: str) -> str | None:
    """The member of ENDINGS that a name ends with, if any, ignoring case."""
    return next((known for known in ENDINGS if name.lower().endswith(known)), None)


def refused(pattern: str, *, records: bool = False) -> str:
    """The unsupported ending shared by all matches of a pattern; "" if names do not tell.

    Args:
        records: whether fields are read.
    """
    name = pattern.rpartition("/")[2].lower()
    tail = _MAGIC.split(name)[-1]
    known = FIELDS if records else ENDINGS
    if tail.endswith(known) or any(each.endswith(tail) for each in known if tail != name):
        return ""
    text = next((each for each in TEXTS if tail.endswith(each)), "")
    before, dot, last = tail.rpartition(".")
    return text or (f".{last}" if dot and last and (before or tail != name) else "")


def way_out(name: str, ending: str, *, records: bool = False) -> str:
    """How to read data with an unsupported ending."""
    known = ", ".join(each for each in (FIELDS if records else ENDINGS) if each.count(".") == 1)
    way = "convert the file" if ending in TEXTS else _WAYS.get(ending, "convert or rename the file")
    way = way.format(name, name[: -len(ending)])
    return f"{way}; supported formats: {known}; line-based files may be compressed (.gz, .zst)"
