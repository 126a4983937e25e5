"""Tokenizer and dataset jobs: what every training needs before it, made without torch."""

import hashlib
import json
import platform
import shutil
from collections.abc import Iterator, Mapping
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any

from ..compiler.plan import DatasetJob, TokenizerJob
from .data import readers, tokenizer
from .data.shards import write_shards
from .errors import DataError
from .recorder import OnEvent
from .store import disk

_SAMPLED = 65_536


def fingerprint(source: Mapping[str, Any], root: Path) -> str:
    """A digest of what a source's documents are drawn from.

    For files: names, sizes, and the first and last 64 KiB; for the samples from the running Python:
    its version. With it a job whose data has changed is another job.

    Raises: DataError: nothing is found where the source says.
    """
    digest = hashlib.sha256()
    if source["kind"] == "sample":
        digest.update(platform.python_version().encode())
    elif source["kind"] == "files":
        for file in readers.find(list(source["files"]), root):
            digest.update(file.name.encode())
            if "://" in file.name:
                continue
            try:
                with file.open() as stream:
                    digest.update(stream.read(_SAMPLED))
                    size = stream.seek(0, 2)
                    stream.seek(max(size - _SAMPLED, 0))
                    digest.update(stream.read())
                    digest.update(str(size).encode())
            except OSError as problem:
                reason = (problem.strerror or str(problem)).lower()
                raise DataError(f"{file.name} cannot be read: {reason}") from None
    return digest.hexdigest()


def job_fingerprint(job: TokenizerJob | DatasetJob, root: Path) -> str:
    """The digest of everything outside the plan that the job's result depends on."""
    if isinstance(job, DatasetJob):
        return fingerprint(job.source, root)
    if job.tokenizer["kind"] == "file":
        return fingerprint_file(root / job.tokenizer["file"])
    return "".join(fingerprint(d["source"], root) for d in job.datasets.values())


def fingerprint_file(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as problem:
        reason = (problem.strerror or str(problem)).lower()
        raise DataError(f"the tokenizer {path} cannot be read: {reason}") from None


def make_tokenizer(job: TokenizerJob, folder: Path, root: Path, on_event: OnEvent) -> None:
    """Trains or loads a tokenizer and saves it in `folder/result`."""
    settings = job.tokenizer
    if settings["kind"] == "train":
        texts = chain.from_iterable(
            _read(name, data["source"], data["bad_lines"], root, job.id, on_event)
            for name, data in job.datasets.items()
        )
        made = tokenizer.train(texts, vocab=settings["vocab"])
    elif settings["kind"] == "file":
        made = tokenizer.load(root / settings["file"])
    elif settings["kind"] == "hub":
        made = tokenizer.from_hub(settings["repo"])
    else:
        made = tokenizer.byte_level()
    tokenizer.special(made)
    result = _empty(folder)
    with disk(result):
        tokenizer.save(made, result)


def make_dataset(
    job: DatasetJob, inputs: Mapping[str, Path], folder: Path, root: Path, on_event: OnEvent
) -> None:
    """Tokenizes a dataset into memory-mapped shards in `folder/result`."""
    if "tokenizer" not in inputs:
        raise DataError(
            "the recipe declares no tokenizer, so its data cannot be tokenized",
            "add one: tokenizer words { train = { on [DATASET], vocab 32000 } }",
        )
    made = tokenizer.load(inputs["tokenizer"] / "tokenizer.json")
    result = _empty(folder)

    def progress(documents: int, tokens: int) -> None:
        on_event({"event": "tokenized", "job": job.id, "documents": documents, "tokens": tokens})

    with disk(result):
        summary = write_shards(
            _read(job.name, job.source, job.bad_lines, root, job.id, on_event),
            made,
            result,
            holdout=Fraction(job.holdout),
            seed=job.seed,
            name=job.name,
            progress=progress,
        )
    on_event(
        {
            "event": "dataset",
            "job": job.id,
            "documents": summary["documents"],
            "tokens": summary["tokens"],
        }
    )


def _read(
    name: str, source: Mapping[str, Any], bad_lines: int, root: Path, job: str, on_event: OnEvent
) -> Iterator[str]:
    def bad(message: str) -> None:
        on_event({"event": "bad_line", "job": job, "dataset": name, "message": message})

    return readers.read(source, root=root, bad_lines=bad_lines, on_bad=bad)


def _empty(folder: Path) -> Path:
    result = folder / "result"
    shutil.rmtree(result, ignore_errors=True)
    result.mkdir(parents=True)
    return result


def write_json(folder: Path, name: str, content: Any) -> None:
    """Writes `folder/result/NAME`, in an empty result folder."""
    result = _empty(folder)
    with disk(result):
        (result / name).write_text(json.dumps(content, indent=1) + "\n")
