"""The file of counts beside a spec: how much data tokenizing has made of each source.

`etude prepare` writes `NAME.counts.json` beside `NAME.etude`; planning reads it, so that lengths in
epochs of data that nobody has counted are known before training.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...spec.load import COUNTS

Counts = Mapping[str, tuple[int, ...]]
"""Identity of a source in a stage → its numbers, see `schedule/counts.py`."""
FORMAT = 1


def counts_path(spec: Path) -> Path:
    """The file of counts of a spec."""
    return spec.with_suffix(COUNTS)


def read_counts(path: Path | None) -> Counts:
    """The counts in a file; none if it is not there, or not one of this format: it is written
    again."""
    try:
        found: Any = json.loads(path.read_bytes()) if path else {}
    except (OSError, ValueError):
        return {}
    if not isinstance(found, dict) or found.get("etude_counts") != FORMAT:
        return {}
    counts = found.get("counts")
    known = {}
    for identity, each in counts.items() if isinstance(counts, dict) else ():
        numbers = each.get("numbers") if isinstance(each, dict) else None
        if isinstance(numbers, list) and numbers and all(_positive(n) for n in numbers):
            known[identity] = tuple(numbers)
    return known


def write_counts(path: Path, more: Mapping[str, dict[str, Any]]) -> None:
    """Adds counts to a file, or replaces those that are there.

    Args:
        more: identity → `numbers`, and for people `stage`, `dataset` and `unit`.

    Raises: OSError: it cannot be written.
    """
    try:
        before = json.loads(path.read_bytes())["counts"] if read_counts(path) else {}
    except (OSError, ValueError, KeyError):
        before = {}
    content = {"etude_counts": FORMAT, "counts": {**before, **more}}
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    partial.replace(path)


def _positive(number: Any) -> bool:
    return isinstance(number, int) and not isinstance(number, bool) and number > 0
