"""Reads the documents of a data set, in any format, in a fixed order."""

import glob
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any, TypeVar

from ....compiler.files.store_access import matching, opened
from ....compiler.files.urls import has_secret, secret
from ...errors import DataError
from ..samples import samples
from .bad_lines import BadLines
from .formats import (
    SUFFIXES,
    Document,
    Row,
    documents,
    rows,
    suffix,
)
from .sites import Sites
from .streams import File, unreadable
from .stretches import Stretch
from .tables import records, require_column

Item = TypeVar("Item")


def read(
    source: Mapping[str, Any],
    *,
    root: Path,
    bad_lines: int = 0,
    on_bad: Callable[[str], None] | None = None,
    on_sites: Callable[[Sites], None] | None = None,
) -> Iterator[str]:
    """Yields the texts of a data set's documents.

    Args:
        source: see `read_documents`.
        root: the folder that patterns and paths are relative to.
        bad_lines: how many lines that are not documents (not JSON, not UTF-8, no text, an empty
            text, the rest of a damaged file) may be skipped.
        on_bad: called with the message of each skipped line.
        on_sites: called at the end if there are lists of sites, with their counts.

    Raises:
        DataError: nothing found, not readable, or more bad lines than allowed.
    """
    bad = BadLines(bad_lines, on_bad)
    for document in read_documents(source, bad, root=root, on_sites=on_sites):
        yield document.text


def read_documents(
    source: Mapping[str, Any],
    bad: BadLines,
    *,
    root: Path,
    on_sites: Callable[[Sites], None] | None = None,
) -> Iterator[Document]:
    """Yields a data set's documents.

    Args:
        source: one of
            `{"kind": "files", "files": [patterns], "text": "text"}`: glob patterns, relative to
            `root` or absolute, or fsspec URLs; the files of all patterns, each once, local ones
            first, ordered by name;
            `{"kind": "hub", "repo": "org/name", "config": null, "split": "train",
            "text": "text"}`: a Hugging Face data set, or a folder below `root` with one;
            `{"kind": "sample", "sample": name, "documents": count or null, "seed": seed}`:
            see `samples`.
            Files and Hub data sets may have `"sites": [rules]`, see `sites`. Any source may have
            `"deal": [hands, first, last]`: documents are dealt out in turn to this many hands, and
            only those of hands first to last, counted from 1, are read.
        bad, root, on_sites: see `read`.

    Raises:
        DataError: nothing found, not readable, or more bad lines than allowed.
    """
    yield from _dealt(_documents(source, root, bad, on_sites), source)


def read_stretches(
    stretches: Sequence[Stretch],
    source: Mapping[str, Any],
    bad: BadLines,
    *,
    root: Path,
    on_lines: Callable[[int], None],
    on_sites: Callable[[Sites], None] | None = None,
) -> Iterator[str]:
    """Yields the texts of stretches of the files of a data set; see `read_documents`.

    Args:
        on_lines: called with the number of lines read, after each piece of a larger file's stretch.
            Places of documents and bad lines count from the stretch's beginning.
    """
    sites = Sites(source.get("sites") or (), root)
    for stretch in stretches:
        for document in _of_file(stretch, source, sites, bad, on_lines):
            yield document.text
    if sites.fields and on_sites is not None:
        on_sites(sites)


def _of_file(
    stretch: Stretch,
    source: Mapping[str, Any],
    sites: Sites,
    bad: BadLines,
    on_lines: Callable[[int], None] | None = None,
) -> Iterator[Document]:
    keeps = partial(sites.keeps, bad=bad) if sites.fields else None
    yield from documents(
        stretch, _text_field(source), bad, further=sites.fields, keeps=keeps, on_lines=on_lines
    )


def _text_field(source: Mapping[str, Any]) -> str:
    return (source.get("fields") or {}).get("text") or source.get("text") or "text"


def _documents(
    source: Mapping[str, Any], root: Path, bad: BadLines, on_sites: Callable[[Sites], None] | None
) -> Iterator[Document]:
    field = _text_field(source)
    sites = Sites(source.get("sites") or (), root)
    keeps = partial(sites.keeps, bad=bad) if sites.fields else None
    match source["kind"]:
        case "files":
            for file in find(source["files"], root):
                yield from _of_file(Stretch(file), source, sites, bad)
        case "hub":
            columns = list(dict.fromkeys([field, *sites.fields]))
            for row in _hub(source, columns, root):
                if keeps is None or keeps(row):
                    text = bad.checked(row.fields[field], field, row.place)
                    if text is not None:
                        yield Document(row.place, text)
        case "sample":
            texts = samples.documents(
                source["sample"], count=_last(source), seed=source.get("seed") or 0
            )
            for number, text in enumerate(texts, 1):
                yield Document(f"{source['sample']}:{number}", text)
        case kind:
            raise DataError(
                f"a data set of kind `{kind}` cannot be read",
                "write `files`, `hub` or `sample` in the dataset",
            )
    if sites.fields and on_sites is not None:
        on_sites(sites)


def read_rows(
    source: Mapping[str, Any],
    form: str,
    bad: BadLines,
    *,
    root: Path,
    results: Sequence[Path] = (),
) -> Iterator[Row]:
    """Yields the records of a data set of dialogs, preferences, ratings or prompts.

    Args:
        source: as for `read`; or `{"kind": "job", "file": name}`, this file in each of `results`.
        form: "dialogs", "preferences", "ratings" or "prompts", for samples.
        results: folders of the jobs that the records come from.

    Raises:
        DataError: as `read`.
    """
    yield from _dealt(_rows(source, form, bad, root, results), source)


def _last(source: Mapping[str, Any]) -> int | None:
    """How many documents or records are read, including skipped ones; None: all."""
    documents = source.get("documents")
    return None if documents is None else documents + source.get("skip", 0)


def _dealt(items: Iterator[Item], source: Mapping[str, Any]) -> Iterator[Item]:
    """Items within the source's `skip` and `documents`, of the selected hands."""
    hands, first, last = source.get("deal") or (1, 1, 1)
    for number, item in enumerate(islice(items, source.get("skip", 0), _last(source))):
        if first <= number % hands + 1 <= last:
            yield item


def _rows(
    source: Mapping[str, Any], form: str, bad: BadLines, root: Path, results: Sequence[Path]
) -> Iterator[Row]:
    match source["kind"]:
        case "files":
            for file in find(source["files"], root):
                yield from rows(file, bad, example="messages")
        case "hub":
            yield from _hub(source, None, root)
        case "sample":
            sampled = samples.records(
                source["sample"],
                form,
                count=_last(source),
                seed=source.get("seed") or 0,
            )
            for number, fields in enumerate(sampled, 1):
                yield Row(f"{source['sample']}:{number}", fields)
        case "job":
            for folder in results:
                path = folder / source["file"]
                yield from rows(File(str(path), partial(path.open, "rb")), bad)
        case kind:
            raise DataError(
                f"a data set of kind `{kind}` cannot be read",
                "write `files`, `hub` or `sample` in the dataset",
            )


class NoFile(DataError):
    """A pattern matches no file.

    Attributes:
        pattern: the pattern.
    """

    def __init__(self, pattern: str, where: str = "", attribute: str = "files") -> None:
        found = f"no file matches `{pattern}`{where}"
        if not glob.has_magic(pattern):
            found = f"there is no file `{pattern}`{where}"
        super().__init__(found, f"correct `{attribute}` in the dataset: {_PATTERN_HELP}")
        self.pattern = pattern


def find(patterns: list[str], root: Path) -> list[File]:
    """All files that match the patterns, each once, local files first, ordered by name.

    Raises:
        DataError: a pattern matches no file, or a file of an unknown kind.
    """
    local: dict[str, File] = {}
    remote: dict[str, File] = {}
    for pattern in patterns:
        if "://" in pattern:
            remote |= _find_remote(pattern)
        else:
            local |= find_local(pattern, root)
    return [found[key] for found in (local, remote) for key in sorted(found)]


def find_local(pattern: str, root: Path, attribute: str = "files") -> dict[str, File]:
    """The files on this machine that match a pattern, by absolute path; those of `files` are of a
    known kind.

    Raises: DataError: there is none, or one is not a readable file.
    """
    literal = os.path.lexists(root / pattern)
    names = [pattern] if literal else glob.glob(pattern, root_dir=root, recursive=True)
    paths = [root / name for name in names]
    if not literal:
        paths = [path for path in paths if not path.is_dir()]
    if not paths:
        where = "" if os.path.isabs(pattern) else f" in {os.path.abspath(root)}"
        raise NoFile(pattern, where, attribute)
    found = {}
    for path in paths:
        full = os.path.normpath(os.path.abspath(path))
        shown = _shown(os.path.relpath(full, os.path.abspath(root)), full)
        size = _require_regular(path, shown, pattern, attribute)
        if attribute == "files":
            _require_suffix(shown, pattern)
        found[full] = File(shown, partial(path.open, "rb"), size=size)
    return found


def _find_remote(pattern: str) -> dict[str, File]:
    if has_secret(pattern):
        raise DataError(*secret(pattern, "a data set"))
    # Each file system raises its own exceptions, so catch all of them.
    try:
        system, _ = opened(pattern)
        sizes = matching(pattern)
    except Exception as error:
        raise unreadable(pattern, error) from error
    if not sizes:
        raise NoFile(pattern)
    found = {}
    for url, size in sizes.items():
        _require_suffix(url, pattern)
        found[url] = File(url, partial(system.open, url, "rb"), Exception, size)
    return found


_PATTERN_HELP = (
    "patterns are relative to the recipe's folder, `*` stands "
    'for part of a name and `**` for any folders, as in "corpus/**/*.jsonl.zst"'
)


def _shown(relative: str, full: str) -> str:
    """A path as messages show it: relative if it is below the root, and always printable."""
    name = full if relative.startswith(os.pardir) else relative
    return os.fsencode(name).decode(errors="replace")


def _require_regular(path: Path, name: str, pattern: str, attribute: str) -> int:
    """Returns: the size in bytes. Raises: DataError: it is not a readable file."""
    try:
        size = path.stat().st_size
    except OSError as error:
        raise unreadable(name, error) from error
    if path.is_dir():
        raise DataError(
            f"{name} is a folder, not a file",
            f'name the files in it, as in `{attribute} = "{pattern.rstrip("/")}/**/'
            f'{"*.jsonl" if attribute == "files" else "*.ds"}"`',
        )
    if not path.is_file():
        raise DataError(f"{name} is not a regular file", "name files with documents")
    return size


def _require_suffix(name: str, pattern: str) -> None:
    if suffix(name) is None:
        matched = "" if name == pattern else f", which `{pattern}` matches,"
        raise DataError(
            f"{name}{matched} has an unknown format; supported formats: {', '.join(SUFFIXES)}",
            "rename or convert the file, or narrow the pattern in `files`",
        )


def _hub(source: Mapping[str, Any], columns: Sequence[str] | None, root: Path) -> Iterator[Row]:
    repo, split = source["repo"], source.get("split") or "train"
    dataset = _load(repo, source.get("config"), split, root)
    there = list(dataset.column_names)
    for column in columns or ():
        require_column(there, column, repo)
    needed = dataset.select_columns(list(columns or there)).with_format("arrow")
    found = chain.from_iterable(map(records, needed.iter(1000)))
    for number, fields in enumerate(found, 1):
        yield Row(f"{repo}[{split}]:{number}", fields)


def _load(repo: str, config: str | None, split: str, root: Path) -> Any:
    import datasets

    folder = root / repo
    saved = [folder / name for name in ("state.json", "dataset_dict.json")]
    # The library passes on whatever its file systems, its parsers and the network raise.
    try:
        if any(path.is_file() for path in saved):
            dataset = datasets.load_from_disk(str(folder))
        else:
            where = str(folder) if folder.is_dir() else repo
            dataset = datasets.load_dataset(where, config, split=split)
    except ConnectionError as error:
        raise DataError(
            f"the Hugging Face data set {repo} is not on this machine, and the Hub cannot be "
            "reached",
            "load it once on a machine with a network and the same Hugging Face cache "
            f'(`datasets.load_dataset("{repo}")`), or copy its files here and name them in '
            "`files`",
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
            f"{repo} has no split `{split}`; its splits are {', '.join(map(str, dataset))}",
            "name one of them as `split` in the dataset",
        )
    return dataset[split]
