"""The files of draw jobs: answers as they come, and the result."""

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from ..data.drawn import DRAWS
from ..disk import move, write

SUMMARY = "summary.json"
"""How many prompts were drawn, where some are replaced."""
PARTIAL = "draws.partial.jsonl"
Ranges = list[tuple[int, int]]
"""Ranges of numbers, each from the first up to, but not including, the second."""


def drawn(folder: Path, draws: int) -> Ranges:
    """The draws of an interrupted job: ranges of answer numbers, p × draws + d for draw d of prompt
    p. An answer torn by a crash is cut off."""
    path = folder / PARTIAL
    numbers, end = set(), 0
    if not path.exists():
        return []
    with path.open("rb") as file:
        for line in file:
            if not line.endswith(b"\n"):
                break
            found = json.loads(line)
            numbers.add(found["prompt"] * draws + found["draw"])
            end += len(line)
    os.truncate(path, end)
    return _ranges(sorted(numbers))


def _ranges(numbers: Sequence[int]) -> Ranges:
    ordered = enumerate(numbers)
    groups = [[n for _, n in each] for _, each in groupby(ordered, lambda e: e[1] - e[0])]
    return [(each[0], each[-1] + 1) for each in groups]


def finish(
    folder: Path,
    draws: int,
    scores: Mapping[int, Mapping[str, float]] | None = None,
    summary: Mapping[str, Any] | None = None,
) -> None:
    """Writes the result from all draws, in their order, and moves it into place atomically.

    Args:
        scores: number of an answer → its scores, by the names of verifiers: of those that are
            kept; None: all are kept, and have none.
        summary: what is written beside them.
    """
    ready = folder / "result.partial"
    shutil.rmtree(ready, ignore_errors=True)
    ready.mkdir()
    places: dict[int, int] = {}
    with (folder / PARTIAL).open("rb") as file:
        place = 0
        for line in file:
            found = json.loads(line)
            number = found["prompt"] * draws + found["draw"]
            if scores is None or number in scores:
                places[number] = place
            place += len(line)
        with (ready / DRAWS).open("wb") as result:
            for number, place in sorted(places.items()):
                file.seek(place)
                line = file.readline()
                if scores is not None:
                    found = json.loads(line) | {"scores": scores[number]}
                    line = json.dumps(found, ensure_ascii=False).encode() + b"\n"
                result.write(line)
    if summary is not None:
        write(ready / SUMMARY, json.dumps(summary, indent=1) + "\n")
    move(ready, folder / "result")


def saved(folder: Path) -> Iterator[dict[str, Any]]:
    """The draws of a job that is not finished, in the order in which they were drawn."""
    with (folder / PARTIAL).open(encoding="utf-8") as file:
        yield from map(json.loads, file)


def read_draws(folder: Path) -> Iterator[dict[str, Any]]:
    """The draws in a draw job's result, in order."""
    with (folder / DRAWS).open(encoding="utf-8") as file:
        yield from map(json.loads, file)
