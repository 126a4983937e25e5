"""Checks of a spec's surroundings: whether the files that it names exist and are usable.

These findings come after the passes and are never part of a plan, which is the same on every
machine. Only names and small files are read, to keep checks fast.
"""

import glob
import os
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from ...spec.findings.allows import silence
from ...spec.findings.diagnostics import Report
from ...spec.schema import recipe as r
from ...spec.source import Span
from ..program import Scheduled, WeightsStage
from .data_files import ENDINGS, FIELDS, SPLIT, URL, Matched, ending, way_out
from .urls import in_store, shown

MOST_FILES = 1000
"""The number of files matching a pattern that are examined."""
MUCH = 2**32
"""File size in bytes that takes one process many minutes to tokenize."""
CONFIG = "config.json"
_REPOSITORY = re.compile(r"\w[\w.-]*/\w[\w.-]*")
_ON_HUB = re.compile(
    r"(?:https?://(?:huggingface|hf)\.co/|hf://)(?:datasets/)?"
    r"(\w[\w.-]*/\w[\w.-]*)/?(?:tree/[\w.-]+/?)?$"
)


def matched(pattern: str, root: Path) -> list[str]:
    """The first files that a pattern matches, in no particular order; or the path that it names."""
    try:
        if os.path.lexists(root / pattern):
            return [pattern]
        found = glob.iglob(pattern, root_dir=root, recursive=True)
        return list(islice((each for each in found if not (root / each).is_dir()), MOST_FILES))
    except (OSError, ValueError):  # the name is too long, or contains a null character
        return []


def surroundings(
    program: Scheduled, root: Path, report: Report, *, matched: Matched = matched
) -> None:
    """Adds findings about files on this machine, minus those that the spec allows.

    Args:
        program: after the passes.
        root: the folder of the main file; the spec's paths are relative to it.
        matched: finds files; an editor caches the results for a while.
    """
    data_files(program, root, report, matched)
    if program.recipe.verifiers:
        from .answers import check_answers  # most recipes have none

        check_answers(program, root, report, matched)
    if any(each.fim for each in program.recipe.datasets.values()):
        from .fill_in import check_fill_in  # likewise

        check_fill_in(program, root, report)
    for look in LOOKS:
        look(program, root, report)
    silence(report, program.recipe.allowances, whole=False)


class Named(NamedTuple):
    """A path in a spec.

    Attributes:
        what: its owner, for people: "data set `web`".
        example: a path that would do, for advice.
        folder: whether it should be a folder.
    """

    path: str
    what: str
    span: Span | None
    example: str
    folder: bool = False


def data_files(program: Scheduled, root: Path, report: Report, matched: Matched) -> None:
    """Files of data sets: each pattern must match some, and they must be readable."""
    for name, dataset in program.recipe.datasets.items():
        if dataset.tokenized:
            from .token_data import check_tokens  # most recipes have none

            for pattern in dataset.tokenized:
                if _home(pattern, f"the data set `{name}`", dataset.at("tokenized"), report):
                    break
            else:
                check_tokens(dataset, root, report, matched)
        there: list[str] = []
        for pattern in dataset.files or ():
            if URL in pattern or "{round}" in pattern:
                continue
            if _home(pattern, f"the data set `{name}`", dataset.at("files"), report):
                continue
            found = matched(pattern, root)
            there += found
            if found:
                _of_use(dataset, pattern, found, root, report)
            elif not dataset.awaited:
                magic = glob.has_magic(pattern)
                what = f"no file matches `{pattern}`" if magic else f"there is no file `{pattern}`"
                report.add(
                    "N657",
                    f"{what} of the data set `{name}`",
                    dataset.at("files"),
                    help=_beside(dataset, pattern, root, matched) or _needed(root, pattern),
                )

        if dataset.kind == "documents":
            _one_stream(dataset, there, root, report)


def _one_stream(dataset: r.Dataset, names: list[str], root: Path, report: Report) -> None:
    """Warns about a file that one process has to read while all others wait."""
    sizes = {}
    for name in names:
        with suppress(OSError):
            sizes[name] = (root / name).stat().st_size
    whole = [name for name in sizes if ending(name) not in SPLIT]
    largest = max(whole, key=lambda name: sizes[name], default=None)
    if largest is None or sizes[largest] < MUCH or 2 * sizes[largest] <= sum(sizes.values()):
        return
    share = f"{100 * sizes[largest] // sum(sizes.values())}%"
    report.add(
        "W678",
        f"`{largest}` is {share} of the data set `{dataset.name}`, and cannot be split: one "
        "process tokenizes it",
        dataset.at("files"),
        help="unpack it, or write it again in several files; JSON lines that are not compressed "
        "and Parquet are read by many processes at once",
    )


def _of_use(dataset: r.Dataset, pattern: str, found: list[str], root: Path, report: Report) -> None:
    """Reports the first file that a run would reject."""
    records = dataset.kind != "documents" or any(each.file for each in dataset.filters)
    for name in found:
        path = root / name
        if path.is_dir():
            report.add(
                "E494",
                f"`{name}` of the data set `{dataset.name}` is a folder, not a file",
                dataset.at("files"),
                help=f'name the files in it: `files = "{pattern.rstrip("/")}/**/*.jsonl"`',
            )
        elif not os.access(path, os.R_OK):
            report.add(
                "E494",
                f"`{name}` of the data set `{dataset.name}` cannot be read",
                dataset.at("files"),
                help=_unreadable(path),
            )
        elif ending(name) not in (FIELDS if records else ENDINGS):
            kind = Path(name).suffix.lower()
            report.add(
                "E493",
                f"{dataset.kind} cannot be read from `{name}`, which `{pattern}` matches",
                dataset.at("files"),
                help=way_out(name, kind, records=records),
            )
        else:
            continue
        return


def other_files(program: Scheduled, root: Path, report: Report) -> None:
    """Tokenizers, templates, lists of sites, folders of tasks: present, and of the right kind."""
    for named in _named(program):
        if URL in named.path:
            _remote(
                named.path,
                named.what,
                named.span,
                report,
                f"download it, and write a path such as `{named.example}`",
            )
            continue
        if _home(named.path, named.what, named.span, report):
            continue
        try:
            path = root / named.path
            there = os.path.lexists(path)
            folder = path.is_dir()
        except (OSError, ValueError):
            there = folder = False
        if not there:
            kind = "folder" if named.folder else "file"
            report.add(
                "N657",
                f"there is no {kind} `{named.path}` of {named.what}",
                named.span,
                help=_needed(root, named.path),
            )
        elif folder != named.folder:
            wrong, right = ("folder", "file") if folder else ("file", "folder")
            report.add(
                "E494",
                f"`{named.path}` of {named.what} is a {wrong}, not a {right}",
                named.span,
                help=f"write a path such as `{named.example}`",
            )
        elif not os.access(root / named.path, os.R_OK):
            report.add(
                "E494",
                f"`{named.path}` of {named.what} cannot be read",
                named.span,
                help=_unreadable(root / named.path),
            )


def _named(program: Scheduled) -> Iterator[Named]:
    recipe = program.recipe
    for tokenizer in recipe.tokenizers.values():
        if tokenizer.file:
            yield Named(
                tokenizer.file,
                f"the tokenizer `{tokenizer.name}`",
                tokenizer.at("file"),
                "tokenizer/tokenizer.json",
            )
    for dialog in recipe.dialogs.values():
        if dialog.template:
            yield Named(
                dialog.template, f"the dialog `{dialog.name}`", dialog.at("template"), "chat.jinja"
            )
    for verifier in recipe.verifiers.values():
        if verifier.schema:
            yield Named(
                verifier.schema,
                f"the verifier `{verifier.name}`",
                verifier.at("schema"),
                "answer.schema.json",
            )
    for dataset in recipe.datasets.values():
        for each in dataset.filters:
            if each.file:
                yield Named(each.file, f"a filter of `{dataset.name}`", each.at(), "sites.txt")
    for name, stage in recipe.stages.items():
        if isinstance(stage, r.Measuring) and stage.tasks:
            yield Named(stage.tasks, f"the tasks of `{name}`", stage.at("tasks"), "tasks", True)


def weights_folders(program: Scheduled, root: Path, report: Report) -> None:
    """Folders of published weights: present, with a configuration and all files of the weights."""
    for stage in program.stages.values():
        if not isinstance(stage, WeightsStage) or "folder" not in stage.source:
            continue
        model = program.recipe.models[stage.name]
        span, written = model.at("weights"), stage.source["folder"]
        folder = root / written
        if _home(written, f"the model `{model.name}`", span, report):
            continue
        if in_store(written):
            continue
        if URL in written:
            _remote(
                written,
                f"the model `{model.name}`",
                span,
                report,
                _repository("hub", written) or "download the weights, and write their folder",
            )
        elif not os.path.lexists(folder):
            hub = f'; for the repository on the Hub write `hub = "{written}"`'
            report.add(
                "N657",
                f"there is no folder `{written}` of the model `{model.name}`",
                span,
                help=_needed(root, written) + (hub if _REPOSITORY.fullmatch(written) else ""),
            )
        elif not folder.is_dir():
            report.add(
                "E494",
                f"`{written}` of the model `{model.name}` is a file, not a folder",
                span,
                help=f"write the folder that holds {CONFIG} and *.safetensors",
            )
        else:
            from .weights_folder import report_lacking  # most recipes have no weights

            report_lacking(folder, written, model, report)


def repositories(program: Scheduled, root: Path, report: Report) -> None:
    """Hub repositories: given by name, not by URL."""
    recipe = program.recipe
    for block in (*recipe.models.values(), *recipe.tokenizers.values(), *recipe.datasets.values()):
        if block.hub and URL in block.hub:
            kind = type(block).__name__.lower()
            report.add(
                "E494",
                f"`{block.hub}` of the {kind} `{block.name}` is a URL, not a repository",
                block.at("hub"),
                help=_repository("hub", block.hub) or 'write its name: `hub = "OWNER/NAME"`',
            )


def _remote(path: str, what: str, span: Span | None, report: Report, help: str) -> None:
    """Reports a URL where only local files are supported: object stores work only in `files` of
    data sets and `weights` of models."""
    report.add(
        "E494",
        f"`{shown(path)}` of {what} is a URL, but must be a local path",
        span,
        help=help,
    )


def _repository(attribute: str, url: str) -> str:
    """The advice to use the name of a repository instead of its URL; "" for other URLs."""
    found = _ON_HUB.match(url)
    return f'write `{attribute} = "{found[1]}"`' if found else ""


def weights_configurations(program: Scheduled, root: Path, report: Report) -> None:
    """Compares the configurations of published weights with their models."""
    if any(isinstance(stage, WeightsStage) for stage in program.stages.values()):
        from .published_weights import check_published  # most recipes have none

        check_published(program, root, report)


def _beside(dataset: r.Dataset, pattern: str, root: Path, matched: Matched) -> str:
    """The advice for a path that is relative to the file that contains it, not to the main one."""
    span = dataset.at("files")
    folder = Path(span.source.name).parent if span else root
    if os.path.isabs(pattern) or os.path.abspath(folder) == os.path.abspath(root):
        return ""
    if not matched(pattern, folder):
        return ""
    meant = Path(os.path.relpath(folder, root)) / pattern
    return (
        f'paths are relative to the folder of the main file: write `files = "{meant.as_posix()}"`'
    )


def _home(path: str, what: str, span: Span | None, report: Report) -> bool:
    """Reports a path that only a shell understands."""
    if not path.startswith("~"):
        return False
    report.add(
        "E494",
        f"`{path}` of {what} begins with `~`, which only a shell expands",
        span,
        help=f'write a path relative to the folder of the spec, or "{os.path.expanduser(path)}"',
    )
    return True


def _needed(root: Path, path: str) -> str:
    full = os.path.normpath(os.path.abspath(root / path))
    return f"looked for {full}; a run needs it before its first job"


def _unreadable(path: Path) -> str:
    reason = "this user may not read it" if path.exists() else "it is a broken link"
    return f"{path.absolute()}: {reason}"


LOOKS: tuple[Callable[[Scheduled, Path, Report], None], ...] = (
    other_files,
    repositories,
    weights_folders,
    weights_configurations,
)
"""The other checks, in this order."""
