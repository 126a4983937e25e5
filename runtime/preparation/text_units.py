"""Documents of files tokenized in units, and joined without being copied.

A unit holds the tokens of its documents and the length of each. The data set's shards are these
files, linked into its folder, and the places of each split's documents in them (see `placed`): so
joining the units reads lengths, but no tokens. A unit also has the checksum of its tokens, which
becomes the file's.
"""

import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from ...compiler.plan.plan import DatasetJob
from ..data.reading import readers
from ..data.reading.bad_lines import BadLines
from ..data.reading.sites import Sites
from ..data.reading.stretches import Stretch, lines_before, together
from ..data.tokens.fim import Fim
from ..data.tokens.placed import Places, TokenFile, write_placed
from ..data.tokens.shards import kinds, tokenized
from ..disk import write
from ..run_folder.recorder import OnEvent
from ..run_folder.store import SUMS
from .units import Stop, each

_LENGTHS = 2**20
"""The most documents joined at once."""


@dataclass(frozen=True)
class Texts:
    """Tokenizes the texts of a data set in units; see `Task`.

    Attributes:
        units: the input of each.
        tokenizer_json: the tokenizer.
        fim: which documents are rearranged.
    """

    units: tuple[tuple[Stretch, ...], ...]
    source: Mapping[str, Any]
    bad_lines: int
    root: Path
    tokenizer_json: str
    fim: Fim | None = None

    @cached_property
    def tokenizer(self) -> Tokenizer:
        return Tokenizer.from_str(self.tokenizer_json)

    def __len__(self) -> int:
        return len(self.units)

    def identity(self, number: int) -> Any:
        return [stretch.identity for stretch in self.units[number]]

    def bytes(self, number: int) -> int | None:
        sizes = [stretch.file.size for stretch in self.units[number]]
        return None if None in sizes else sum(filter(None, sizes))

    def make(self, number: int, folder: Path, stop: Stop) -> dict[str, Any] | None:
        bad_lines: list[str] = []
        lines: list[int] = []
        sites: dict[str, int] = {}

        def count(found: Sites) -> None:
            sites.update(kept=found.kept, dropped=found.dropped)

        stretches = self.units[number]
        bad = _BadLines(self.bad_lines, bad_lines, stretches[0])
        texts = readers.read_stretches(
            stretches, self.source, bad, root=self.root, on_lines=lines.append, on_sites=count
        )
        documents = tokens = 0
        digest = sha256()
        with (folder / "tokens").open("wb") as one, (folder / "lengths").open("wb") as other:
            for batch in tokenized(texts, self.tokenizer, fim=self.fim):
                one.write(batch.tokens.data)
                digest.update(batch.tokens.data)
                other.write(batch.lengths.astype("<i8").data)
                documents, tokens = documents + len(batch.lengths), tokens + len(batch.tokens)
                if stop():
                    return None
        return {
            "documents": documents,
            "tokens": tokens,
            "dtype": kinds(self.tokenizer)["dtype"].name,
            "sha256": digest.hexdigest(),
            "lines": sum(lines),
            "bad_lines": bad_lines,
            "sites": sites,
        }

    def sizes(self, unit: Mapping[str, Any]) -> dict[str, int]:
        itemsize = np.dtype(unit["dtype"]).itemsize
        return {"tokens": unit["tokens"] * itemsize, "lengths": unit["documents"] * 8}


class _BadLines(BadLines):
    """Bad lines of a stretch, numbered from its beginning; the error for the one that stops the run
    gives its number in the file."""

    def __init__(self, allowed: int, found: list[str], stretch: Stretch) -> None:
        super().__init__(allowed, found.append)
        self._stretch = stretch

    def report(
        self, place: str, reason: str, help: str = "", *, rest_is_lost: bool = False
    ) -> None:
        if self.count >= (self.allowed or 0) and _numbered_lines(self._stretch.identity):
            name = self._stretch.file.name
            place = _moved(place, name, lines_before(self._stretch))
        super().report(place, reason, help, rest_is_lost=rest_is_lost)


def _numbered_lines(identity: list[Any]) -> bool:
    """Whether a stretch numbers its lines and does not begin with the first."""
    name, first, _ = identity
    return first > 0 and not name.lower().endswith(".parquet")


def _moved(place: str, name: str, lines: int) -> str:
    """A place in a file, and the text after it, with `lines` more lines before it."""
    found = re.fullmatch(r"(\d+)(.*)", place.removeprefix(f"{name}:"), re.DOTALL)
    return f"{name}:{int(found[1]) + lines}{found[2]}" if found else place


def texts_of(job: DatasetJob, tokenizer: Tokenizer, root: Path) -> Texts | None:
    """The task that tokenizes a data set's files in units; None if it is read as a whole: a sample,
    from the Hub, small enough for one unit, or with only some of its documents.

    Raises: DataError: no file is found, or one cannot be read.
    """
    source = job.source
    if source["kind"] != "files" or any(source.get(key) for key in ("documents", "skip", "deal")):
        return None
    found = tuple(together(readers.find(list(source["files"]), root)))
    if len(found) < 2:
        return None
    fim = Fim.of(job.fim, tokenizer, seed=job.seed, name=job.name)
    return Texts(found, source, job.bad_lines, root, tokenizer.to_str(), fim)


def join(task: Texts, job: DatasetJob, folder: Path, on_event: OnEvent) -> dict[str, Any]:
    """Writes the shards of all units into `folder/result`, and their checksums into `folder`.

    Returns: the contents of `shards.json`.
    Raises:
        DataError: there are no documents, or more bad lines than the data set allows.
        OSError: writing failed.
    """
    about = {"job": job.id, "dataset": job.name}
    bad = BadLines(job.bad_lines, lambda m: on_event({"event": "bad_line", **about, "message": m}))
    sites = {"kept": 0, "dropped": 0}
    files: list[TokenFile] = []
    sums: dict[str, str] = {}
    result = folder / "result"
    known = kinds(task.tokenizer)

    def batches() -> Iterator[Places]:
        lines: dict[str, int] = {}
        first = 0
        for path, unit in each(task, folder, job.id):
            _report(unit, lines, bad)
            for key, count in unit["sites"].items():
                sites[key] += count
            if not unit["tokens"]:
                continue
            name = f"tokens-{len(files):06}.bin"
            _linked(path / "tokens", result / name)
            files.append(TokenFile(name, unit["tokens"], unit["dtype"]))
            sums[name] = unit["sha256"]
            yield from _places(path / "lengths", first)
            first += unit["tokens"]

    summary = write_placed(
        batches(),
        files,
        result,
        holdout=Fraction(job.holdout),
        seed=job.seed,
        name=job.name,
        **known,
    )
    write(folder / SUMS, json.dumps(sums))
    if job.source.get("sites"):
        on_event({"event": "sites", **about, **sites})
    return summary


def _report(unit: Mapping[str, Any], lines: dict[str, int], bad: BadLines) -> None:
    """Counts a unit's bad lines by their files; `lines` counts each file's lines so far."""
    identity = unit["of"][0]
    name = identity[0]
    for message in unit["bad_lines"]:
        if _numbered_lines(identity):
            message = _moved(message, name, lines.get(name, 0))
        place, _, reason = message.partition(": ")
        bad.report(place, reason)
    lines[name] = lines.get(name, 0) + unit["lines"]


def _linked(file: Path, name: Path) -> None:
    """Gives a file another name; copies it if the file system has no links."""
    name.unlink(missing_ok=True)
    try:
        os.link(file, name)
    except OSError:
        shutil.copyfile(file, name)


def _places(path: Path, first: int) -> Iterator[Places]:
    with path.open("rb") as file:
        while len(lengths := np.fromfile(file, "<i8", _LENGTHS)):
            begins = first + np.cumsum(lengths) - lengths
            yield Places(begins, lengths)
            first += int(lengths.sum())
