"""Reads the documents of a data set, whatever it is kept in, in an order that never changes."""

import glob
import os
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from ..errors import DataError
from . import samples
from .bad_lines import BadLines
from .formats import SUFFIXES, File, documents, suffix, unreadable


def read(
    source: Mapping[str, Any],
    *,
    root: Path,
    bad_lines: int = 0,
    on_bad: Callable[[str], None] | None = None,
) -> Iterator[str]:
    """Yields the texts of a data set's documents.

    Args:
        source: one of
            `{"kind": "files", "files": [patterns], "text": "text"}`: glob patterns, relative to
            `root` or absolute, or fsspec URLs; the files of all patterns, each once, local ones
            first, ordered by name;
            `{"kind": "hub", "repo": "org/name", "config": null, "split": "train",
            "text": "text"}`: a Hugging Face data set, or a folder below `root` that holds one;
            `{"kind": "sample", "sample": name, "documents": count or null, "seed": seed}`:
            see `samples`.
        root: the folder that relative patterns and paths start from.
        bad_lines: how many lines that are no document (not JSON, not UTF-8, no text, an empty
            text, a damaged file's rest) are skipped.
        on_bad: called with the message of each skipped line.

    Raises:
        DataError: nothing found, not readable, or more bad lines than allowed.
    """
    bad = BadLines(bad_lines, on_bad)
    field = source.get("text") or "text"
    match source["kind"]:
        case "files":
            for file in find(source["files"], root):
                yield from documents(file, field, bad)
        case "hub":
            yield from _hub(source, field, root, bad)
        case "sample":
            yield from samples.documents(
                source["sample"], count=source.get("documents"), seed=source.get("seed") or 0
            )
        case kind:
            raise DataError(
                f"a data set of the kind `{kind}` cannot be read",
                "write `files`, `hub` or `sample` in the dataset",
            )


def find(patterns: list[str], root: Path) -> list[File]:
    """All files that the patterns name, each once, local files first, ordered by name.

    Raises:
        DataError: a pattern that names no file, or one that is no known kind of file.
    """
    local: dict[str, File] = {}
    remote: dict[str, File] = {}
    for pattern in patterns:
        if "://" in pattern:
            remote |= _find_remote(pattern)
        else:
            local |= _find_local(pattern, root)
    return [found[key] for found in (local, remote) for key in sorted(found)]


def _find_local(pattern: str, root: Path) -> dict[str, File]:
    literal = os.path.lexists(root / pattern)
    names = [pattern] if literal else glob.glob(pattern, root_dir=root, recursive=True)
    paths = [root / name for name in names]
    if not literal:
        paths = [path for path in paths if not path.is_dir()]
    if not paths:
        raise DataError(f"no file matches `{pattern}` in {root}", _PATTERN_HELP)
    found = {}
    for path in paths:
        full = os.path.normpath(os.path.abspath(path))
        shown = _shown(os.path.relpath(full, os.path.abspath(root)), full)
        _require_regular(path, shown, pattern)
        _require_suffix(shown, pattern)
        found[full] = File(shown, partial(path.open, "rb"))
    return found


def _find_remote(pattern: str) -> dict[str, File]:
    import fsspec

    # Every file system has errors of its own, so that all of them are caught here.
    try:
        system, path = fsspec.url_to_fs(pattern)
        names = system.glob(path) if glob.has_magic(path) else [path]
        names = [str(name) for name in names if not system.isdir(str(name))]
    except Exception as error:
        raise unreadable(pattern, error) from error
    if not names:
        raise DataError(f"no file matches `{pattern}`", _PATTERN_HELP)
    found = {}
    for name in names:
        url = str(system.unstrip_protocol(name))
        _require_suffix(url, pattern)
        found[url] = File(url, partial(system.open, name, "rb"), Exception)
    return found


_PATTERN_HELP = (
    "correct `files` in the dataset: patterns are relative to the recipe's folder, `*` stands "
    'for part of a name and `**` for any folders, as in "corpus/**/*.jsonl.zst"'
)


def _shown(relative: str, full: str) -> str:
    """A path as messages show it: relative where it is below the root, and always printable."""
    name = full if relative.startswith(os.pardir) else relative
    return os.fsencode(name).decode(errors="replace")


def _require_regular(path: Path, name: str, pattern: str) -> None:
    try:
        path.stat()
    except OSError as error:
        raise unreadable(name, error) from error
    if path.is_dir():
        raise DataError(
            f"{name} is a folder, not a file",
            f'name the files in it, as in `files = "{pattern.rstrip("/")}/**/*.jsonl"`',
        )
    if not path.is_file():
        raise DataError(f"{name} is no regular file", "name files that hold documents")


def _require_suffix(name: str, pattern: str) -> None:
    if suffix(name) is None:
        matched = "" if name == pattern else f", which `{pattern}` matches,"
        raise DataError(
            f"{name}{matched} is of no known kind; documents are read from {', '.join(SUFFIXES)}",
            "rename or convert the file, or narrow the pattern in `files`",
        )


def _hub(source: Mapping[str, Any], field: str, root: Path, bad: BadLines) -> Iterator[str]:
    repo, split = source["repo"], source.get("split") or "train"
    dataset = _load(repo, source.get("config"), split, root)
    columns = list(dataset.column_names)
    if field not in columns:
        raise DataError(
            f"{repo} has no column `{field}`; there is {', '.join(columns) or 'none'}",
            'name the column with the text in the dataset, as in `fields = { text = "content" }`',
        )
    row = 0
    for batch in dataset.select_columns([field]).iter(1000):
        for value in batch[field]:
            row += 1
            text = bad.checked(value, field, f"{repo}[{split}]:{row}")
            if text is not None:
                yield text


def _load(repo: str, config: str | None, split: str, root: Path) -> Any:
    import datasets

    folder = root / repo
    saved = [folder / name for name in ("state.json", "dataset_dict.json")]
    # The library passes on whatever its file systems, parsers and the network raise.
    try:
        if any(path.is_file() for path in saved):
            dataset = datasets.load_from_disk(str(folder))
        else:
            where = str(folder) if folder.is_dir() else repo
            dataset = datasets.load_dataset(where, config, split=split)
    except ConnectionError as error:
        raise DataError(
            f"the Hugging Face data set {repo} is not on this machine and the Hub is out of reach",
            "load it once where there is a network and the same Hugging Face cache "
            f'(`datasets.load_dataset("{repo}")`), or copy its files here and name them as `files`',
        ) from error
    except Exception as error:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise DataError(
            f"the Hugging Face data set {repo} cannot be loaded: {reason}",
            "check its name, `config` and `split`, and whether it needs `hf auth login`",
        ) from error
    if not isinstance(dataset, dict):
        return dataset
    if split not in dataset:
        raise DataError(
            f"{repo} has no split `{split}`; there is {', '.join(map(str, dataset))}",
            "name one of them as `split` in the dataset",
        )
    return dataset[split]
