"""Awaited data sets: writes the candidates to label, and stops the run until the file arrives."""

import json
from collections.abc import Iterator, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

from ...compiler.plan.plan import DatasetJob
from ..data.reading import readers
from ..data.records.records import RANKS, Fields, dump
from ..disk import disk, move, write
from ..errors import DataError, Stopped

_HELP = "then run again: everything finished so far is kept"


def require(job: DatasetJob, root: Path, inputs: Mapping[str, Path], labels: Path | None) -> None:
    """Stops the run if files of an awaited data set are missing.

    First writes the draws of the job's input `candidates` to `LABELS/NAME.jsonl`, to be labelled.

    Args:
        root: the folder that the files' patterns are relative to.
        labels: the folder for candidates to label.

    Raises:
        Stopped: files are missing.
        DataError: the search fails, or the candidates cannot be read.
    """
    patterns = list(missing(job.source, root)) if job.awaited else []
    if not patterns:
        return
    wanted = " and ".join(f"`{pattern}`" for pattern in patterns)
    where = "" if all("://" in pattern for pattern in patterns) else f" into {root}"
    message = f"the run waits for the data set `{job.name}`: put {wanted}{where}"
    if "candidates" not in inputs or labels is None:
        raise Stopped(message, _HELP)
    path = labels / f"{job.name}.jsonl"
    fields = Fields(job.source.get("fields") or {})
    _write(path, candidates(inputs["candidates"], fields), fields)
    ranks = ", ".join(f"`{fields.name(rank)}`" for rank in RANKS)
    raise Stopped(
        f"{message}; the candidates to label are in {path}",
        f"fill in {ranks} there (a response, or its index, from 0; one of "
        f"`{fields.name('edited')}` and `{fields.name('rejected')}` may stay null), {_HELP}",
    )


def missing(source: Mapping[str, Any], root: Path) -> Iterator[str]:
    """The patterns of a source that no file matches."""
    for pattern in source.get("files") or ():
        try:
            readers.find([pattern], root)
        except readers.NoFile as problem:
            yield problem.pattern


def candidates(folder: Path, fields: Fields) -> Iterator[dict[str, Any]]:
    """A sample job's draws as unordered preferences, one per prompt.

    Equal responses to a prompt are merged. A response is the text of its message, or a list with
    the message if it is more than text.

    Raises: DataError: the job's `draws.jsonl` cannot be read.
    """
    path = folder / "draws.jsonl"
    try:
        with path.open(encoding="utf-8") as file:
            draws = map(json.loads, file)
            for _, group in groupby(draws, key=lambda draw: draw["prompt"]):
                if record := _unlabelled(list(group), fields):
                    yield record
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"the draws in {path} are damaged: {error}",
            "remove that folder; the next run draws them again",
        ) from None


def _unlabelled(draws: list[dict[str, Any]], fields: Fields) -> dict[str, Any] | None:
    responses: list[Any] = []
    for draw in draws:
        response = _response(draw)
        if draw["text"].strip() and response not in responses:
            responses.append(response)
    if not responses:
        return None
    first = draws[0]
    if not first["messages"]:
        raise DataError(
            "the candidates to be labelled answer plain prompts, which the draws do not contain",
            "write the prompts as messages",
        )
    record = {fields.name("prompt"): first["messages"][:-1], "responses": responses}
    if first.get("tools"):
        record[fields.name("tools")] = first["tools"]
    return record | {fields.name(rank): None for rank in ("chosen", "rejected", "edited")}


def _response(draw: Mapping[str, Any]) -> Any:
    messages = draw["messages"]
    if messages and set(messages[-1]) - {"role", "content"}:
        return messages[-1:]
    return draw["text"]


def _write(path: Path, records: Iterator[dict[str, Any]], fields: Fields) -> None:
    """Writes the file, unless it holds the same candidates, perhaps already labelled.

    A file with other candidates is kept under another name, as it may contain someone's work.
    """
    made = [dict(record) for record in records]
    if _same(path, made, (fields.name("prompt"), "responses")):
        return
    with disk(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            taken = (path.with_suffix(f".{n}.jsonl") for n in range(1, 10**6))
            move(path, next(each for each in taken if not each.exists()))
        # All ranks of a gang may write at the same time, with the same content.
        write(path, "".join(map(dump, made)))


def _same(path: Path, made: list[dict[str, Any]], keys: tuple[str, ...]) -> bool:
    try:
        with path.open(encoding="utf-8") as file:
            there = [json.loads(line) for line in file if line.strip()]
        pairs = zip(there, made, strict=True)
        return all(old[key] == new[key] for old, new in pairs for key in keys)
    except (OSError, ValueError, KeyError, TypeError):
        return False
