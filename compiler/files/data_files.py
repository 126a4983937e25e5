"""Which files hold data, by their names: what checks, which open no data, know of the formats.

A file's format and compression are read off its ending.
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
"""All that can be read."""
TEXTS = tuple(each for each in ENDINGS if each.startswith(".txt"))
"""Plain texts, a document each. They have no fields: no records are read from them."""
FIELDS = tuple(each for each in ENDINGS if each not in TEXTS)
SPLIT = (".jsonl", ".ndjson", ".parquet")
"""Those that several processes read at once where they are large."""
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
"""Ending → what to do with a file `{0}`, called `{1}` without the ending."""
_MAGIC = re.compile(r"[*?\[\]]")


def ending(name: str) -> str | None:
    """The one of ENDINGS that a name ends with, if any (upper case counts as lower)."""
    return next((known for known in ENDINGS if name.lower().endswith(known)), None)


def refused(pattern: str, *, records: bool = False) -> str:
    """The ending for which all that a pattern matches is refused; "" where names do not tell.

    Args:
        records: fields are read.
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
    """How data can be read whose file has an ending that is refused."""
    known = ", ".join(each for each in (FIELDS if records else ENDINGS) if each.count(".") == 1)
    way = "convert the file" if ending in TEXTS else _WAYS.get(ending, "convert or rename the file")
    way = way.format(name, name[: -len(ending)])
    return f"{way}; supported formats: {known}; line-based files may be compressed (.gz, .zst)"
