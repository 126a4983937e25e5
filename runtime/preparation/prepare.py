"""Tokenizer, dataset and filter jobs, which precede all training and run without torch."""

import hashlib
import json
import platform
import shutil
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from ...compiler.plan.plan import DatasetJob, FilterJob, TokenizerJob
from .. import stopping
from ..data.dialogs import dialog
from ..data.reading import readers
from ..data.reading.sites import Sites
from ..data.tokens import token_files, tokenizer
from ..data.tokens.filter import filter_shards
from ..data.tokens.fim import Fim
from ..data.tokens.shards import write_shards
from ..disk import disk, write
from ..errors import DataError
from ..run_folder.recorder import OnEvent
from . import awaited, text_units, token_units, units
from .prepare_records import RecordMaker

_SAMPLED = 65_536


def fingerprint(source: Mapping[str, Any], root: Path) -> str:
    """A digest of the origin of a source's documents.

    For files: names, sizes, and the first and last 64 KiB; for tokens, see `token_files.digest`;
    for samples from the running Python: its version. It makes a job whose data has changed another
    job.

    Raises: DataError: nothing is found at the source.
    """
    digest = hashlib.sha256()
    if source["kind"] == "sample":
        digest.update(platform.python_version().encode())
    elif source["kind"] == "tokens":
        digest.update(token_files.digest(source, root).encode())
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
    for rule in source.get("sites") or ():
        digest.update(fingerprint_file(root / rule["file"], "list of sites").encode())
    return digest.hexdigest()


def job_fingerprint(
    job: TokenizerJob | DatasetJob,
    root: Path,
    *,
    inputs: Mapping[str, Path] | None = None,
    labels: Path | None = None,
) -> str:
    """The digest of everything outside the plan that the job's result depends on.

    Args:
        inputs: results of the job's inputs; an awaited data set's candidates come from them.
        labels: the folder for candidates to label.

    Raises:
        DataError: something that the result depends on is missing.
        Stopped: it is awaited, see `awaited.require`.
    """
    if isinstance(job, DatasetJob):
        awaited.require(job, root, inputs or {}, labels)
        return fingerprint(job.source, root) + _templates([job.dialog or {}], root)
    parts = [fingerprint(data["source"], root) for data in job.datasets.values()]
    if job.tokenizer["kind"] in ("file", "hub"):
        # Earlier versions ignored the files next to tokenizers.
        parts.append("beside")
    if job.tokenizer["kind"] == "file":
        file = root / job.tokenizer["file"]
        beside = [file.with_name(name) for name in tokenizer.BESIDE]
        parts += [
            fingerprint_file(each) for each in (file, *beside) if each == file or each.is_file()
        ]
    return "".join(parts) + _templates(job.tokenizer.get("dialogs") or [], root)


def _templates(dialogs: Sequence[Mapping[str, Any]], root: Path) -> str:
    """The digests of the dialogs' chat templates."""
    found = [root / dialog["template"] for dialog in dialogs if "template" in dialog]
    return "".join(fingerprint_file(path, "chat template") for path in found)


def fingerprint_file(path: Path, what: str = "tokenizer") -> str:
    """Raises: DataError: the file cannot be read."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as problem:
        reason = (problem.strerror or str(problem)).lower()
        raise DataError(
            f"the {what} {path} cannot be read: {reason}",
            "make sure that the file exists and that you may read it, then run again",
        ) from None


def special_tokens(settings: Mapping[str, Any], root: Path) -> list[str]:
    """The special tokens of a tokenizer made here: the recipe's, and those of dialog protocols.

    Raises: DataError: a chat template cannot be read.
    """
    protocols = [dialog.needed_tokens(each, root) for each in settings.get("dialogs") or ()]
    return [*(settings.get("special") or ()), *chain.from_iterable(protocols)]


def tokenizer_of(settings: Mapping[str, Any], root: Path) -> Tokenizer:
    """A tokenizer that needs no training: from a file, from the Hub, or of bytes.

    Raises: DataError: it cannot be read, or lacks special tokens.
    """
    if settings["kind"] == "file":
        made = tokenizer.load(root / settings["file"])
    elif settings["kind"] == "hub":
        made = tokenizer.from_hub(settings["repo"])
    else:
        made = tokenizer.byte_level(special_tokens(settings, root))
    tokenizer.special(made)
    tokenizer.require(made, list(settings.get("special") or ()), "the recipe")
    return made


def make_tokenizer(job: TokenizerJob, folder: Path, root: Path, on_event: OnEvent) -> None:
    """Trains or loads a tokenizer and saves it in `folder/result`.

    A tokenizer made here has the special tokens in `special` and of the protocols in `dialogs`. A
    loaded one must have those in `special`, and a protocol's wherever it is used.
    """
    settings = job.tokenizer
    if settings["kind"] == "train":
        texts = chain.from_iterable(
            _read(name, data["source"], data["bad_lines"], root, job.id, on_event)
            for name, data in job.datasets.items()
        )
        further = special_tokens(settings, root)
        made = tokenizer.train(texts, vocab=settings["vocab"], special=further)
    else:
        made = tokenizer_of(settings, root)
    result = _empty(folder)
    with disk(result):
        tokenizer.save(made, result)


def make_dataset(
    job: DatasetJob,
    inputs: Mapping[str, Path],
    folder: Path,
    root: Path,
    on_event: OnEvent,
    *,
    labels: Path | None = None,
) -> None:
    """Makes a data set in `folder/result`.

    Documents become token shards, dialogs and preferences record shards, and prompts a file
    `prompts.jsonl` with their messages or text, tools and place.

    Args:
        inputs: `tokenizer`; `from.0`, `from.1`, … if the source is jobs; `candidates` of an awaited
            data set.
        labels: the folder for candidates to label.

    Raises:
        DataError: there is no tokenizer, or the data cannot be read or rendered.
        Stopped: files are awaited, or the disk is full.
    """
    awaited.require(job, root, inputs, labels)
    made = None
    if "tokenizer" in inputs:
        made = tokenizer.load(inputs["tokenizer"] / "tokenizer.json")
    elif job.form != "prompts":
        raise DataError(
            "the recipe declares no tokenizer, so its data cannot be tokenized",
            "add one: tokenizer words { train = { on [DATASET], vocab 32000 } }",
        )
    result = _empty(folder)
    with disk(result):
        if made is not None and job.form == "documents":
            summary = _documents(job, made, folder, root, on_event)
        else:
            summary = RecordMaker(job, inputs, made, root, on_event).write(result)
    counts = {"documents": summary["documents"], "tokens": summary["tokens"]}
    on_event({"event": "dataset", "job": job.id, "form": job.form, **counts})


def _documents(
    job: DatasetJob, made: Tokenizer, folder: Path, root: Path, on_event: OnEvent
) -> dict[str, Any]:
    def progress(documents: int, tokens: int) -> None:
        on_event({"event": "tokenized", "job": job.id, "documents": documents, "tokens": tokens})

    if job.source["kind"] == "tokens":
        checked = token_units.tokens_of(job, made, root)
        units.make(checked, job.id, folder, on_event)
        return token_units.join(checked, job, made, folder, on_event)
    if task := text_units.texts_of(job, made, root):
        units.make(task, job.id, folder, on_event)
        return text_units.join(task, job, folder, on_event)
    return write_shards(
        _read(job.name, job.source, job.bad_lines, root, job.id, on_event),
        made,
        folder / "result",
        holdout=Fraction(job.holdout),
        seed=job.seed,
        name=job.name,
        progress=progress,
        fim=Fim.of(job.fim, made, seed=job.seed, name=job.name),
    )


def make_filter(job: FilterJob, inputs: Mapping[str, Path], folder: Path) -> None:
    """Writes the documents that the rules keep as token shards in `folder/result`.

    Args:
        inputs: `data`, token shards, and the scores under the roles that the rules name.

    Raises: DataError: scores do not match the documents, or no document is left.
    """
    rules = [(inputs[rule.scores], rule.op, rule.value, Fraction(rule.keep)) for rule in job.rules]
    result = _empty(folder)
    with disk(result):
        filter_shards(inputs["data"], result, rules, name=job.name, seed=job.seed)


def _read(
    name: str, source: Mapping[str, Any], bad_lines: int, root: Path, job: str, on_event: OnEvent
) -> Iterator[str]:
    about = {"job": job, "dataset": name}

    def bad(message: str) -> None:
        on_event({"event": "bad_line", **about, "message": message})

    def sites(counts: Sites) -> None:
        on_event({"event": "sites", **about, "kept": counts.kept, "dropped": counts.dropped})

    for text in readers.read(source, root=root, bad_lines=bad_lines, on_bad=bad, on_sites=sites):
        stopping.check(f"`{job}` starts over")
        yield text


def _empty(folder: Path) -> Path:
    result = folder / "result"
    shutil.rmtree(result, ignore_errors=True)
    result.mkdir(parents=True)
    return result


def write_json(folder: Path, name: str, content: Any) -> None:
    """Writes `folder/result/NAME`, in an empty result folder."""
    result = _empty(folder)
    with disk(result):
        write(result / name, json.dumps(content, indent=1) + "\n")
