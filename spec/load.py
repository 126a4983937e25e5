"""Loads a recipe from files: reading, `use`, parsing, binding."""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from . import syntax as s
from .findings.diagnostics import Diagnostic, Report, did_you_mean
from .schema.bind import bind
from .schema.changes import changed
from .schema.kept import Kept
from .schema.recipe import Recipe
from .source import Source, Span
from .text.parse import parse

MAX_BYTES = 1_000_000
MAX_DEPTH = 64
JSON = ".json"
"""The file extension of specs in JSON."""
COUNTS = ".counts.json"
"""The ending of the file of counts beside a spec, in place of its own."""
_CONFIGURATIONS = (".yaml", ".yml", ".toml")
DATA = "data"
_DATA = {
    'name it in a spec: dataset mine {{ files = "{}" }}': (
        *(".jsonl", ".ndjson", ".parquet", ".csv", ".tsv", ".arrow", ".gz", ".zst"),
    ),
    'name it in a spec: dataset mine {{ tokenized = "{}" }}': (".bin", ".npy"),
    "recompress it with zstd, and name that file in a spec": (".bz2", ".xz"),
}
OTHERS = {
    **{ending: (DATA, help) for help, endings in _DATA.items() for ending in endings},
    **dict.fromkeys(
        _CONFIGURATIONS,
        (
            "a configuration of another program",
            "`etude import {}` converts one of torchtitan, nanotron or axolotl",
        ),
    ),
}
"""File name endings of what is given in place of a spec: what it is, and what to do with it."""
_TEXT = re.compile(r"(?:\s|#[^\n]*)*[A-Za-z]")
"""How a spec in text form begins, after comments."""


class Sources(NamedTuple):
    """The contents of all files of a spec.

    Attributes:
        items: the statements of all files, in order.
        where: the beginning of the main file, if there is one.
        findings: what was wrong while reading them.
        kept: what blocks declared in earlier readings, in an editor.
        folder: the folder of the main file, if there is one.
        counts: the file of counts beside it, if there is a main file.
    """

    items: Sequence[s.Item]
    where: Span | None = None
    findings: Sequence[Diagnostic] = ()
    kept: Kept | None = None
    folder: Path | None = None
    counts: Path | None = None

    def more(self, name: str, text: str) -> "Sources":
        """The same plus the statements of another text, which a command adds."""
        report = Report()
        items = [*self.items, *parse(Source(name, text), report)]
        return self._replace(items=items, findings=[*self.findings, *report.diagnostics])


def load(
    path: Path, report: Report, *, variant: str = "", sets: Sequence[str] = ()
) -> Recipe | None:
    """The recipe in a file and in the files that it `use`s. Touches no other file.

    Args:
        report: takes the findings; with an error among them, None is returned.
        variant: a variant of the recipe; "" for none.
        sets: changes on top of it, as for `--set`: `pretrain.lr=1e-3`.
    """
    return bound(read(path), report, variant=variant, sets=sets)


def loads(
    text: str, report: Report, *, name: str = "<text>", variant: str = "", sets: Sequence[str] = ()
) -> Recipe | None:
    """The recipe in a text, or in its JSON form; it cannot `use` files."""
    return bound(reads(text, name=name), report, variant=variant, sets=sets)


def read(path: Path) -> Sources:
    """The statements of a file and of the files that it `use`s. Touches no other file."""
    report = Report()
    files = Files(report, path.parent)
    items = files.read(path, None)
    counts = path.with_suffix(COUNTS) if path.name else None  # `.` is no file, as is said
    return Sources(items, files.start, report.diagnostics, folder=path.parent, counts=counts)


def reads(text: str, *, name: str = "<text>") -> Sources:
    """The statements of a text, which cannot `use` files."""
    report = Report()
    source = Source(name, text)
    items = no_use(statements(source, report), report)
    return Sources(items, Span(source, 0, 0), report.diagnostics)


def bound(
    sources: Sources,
    report: Report,
    *,
    part: bool = False,
    variant: str = "",
    sets: Sequence[str] = (),
) -> Recipe | None:
    """The recipe that statements declare, or None if the report has an error.

    Args:
        report: takes the findings of the sources, too.
        part: the statements are from a file that specs `use`; nothing is reported as missing.
    """
    for found in sources.findings:
        report.take(found)
    broken = part or bool(report.failures)
    if broken and not sources.items:
        return None
    items = changed(sources.items, report, variant=variant, sets=sets)
    recipe = bind(
        items,
        report,
        broken=broken,
        where=sources.where,
        variant=variant,
        sets=sets,
        kept=sources.kept,
    )
    return None if report.failures else recipe


def no_use(items: Sequence[s.Item], report: Report) -> Sequence[s.Item]:
    """The statements of a text without a file; reports those that bring in files."""
    for item in items:
        if isinstance(item, s.Use):
            report.add("E121", "a text that is not in a file cannot `use` files", item.span)
    return items


def in_json(source: Source) -> bool:
    """Whether a spec is in its JSON form: by its name or, if that does not tell, by its beginning:
    no text begins with a brace."""
    begins = source.text.lstrip().startswith("{")
    return source.name.endswith(JSON) or (begins and not source.name.endswith(".etude"))


def is_misnamed(source: Source, report: Report) -> bool:
    """Reports a file whose extension is that of the other form."""
    path = Path(source.name)
    if path.suffix == ".etude" and source.text.lstrip().startswith("{"):
        form, right = "JSON", JSON
    elif path.suffix == JSON and _TEXT.match(source.text):
        form, right = "a text", ".etude"
    else:
        return False
    report.add(
        "E110",
        f"this spec is {form}, but its file name ends in {path.suffix}",
        Span(source, 0, 1),
        help=f"rename the file to `{path.with_suffix(right).name}`",
    )
    return True


def statements(
    source: Source, report: Report, parse: Callable[[Source, Report], Sequence[s.Item]] = parse
) -> Sequence[s.Item]:
    """The statements of a source: a text, or a spec in JSON."""
    if is_misnamed(source, report):
        return []
    if not in_json(source):
        return parse(source, report)
    from .json import from_json  # only for JSON: checking a spec may take only 0.1 s

    return from_json.statements(source, report)


class Files:
    """Reads a file and the files that it `use`s.

    Args:
        root: the folder that `use` must not leave.
        texts: resolved path → text that replaces the file's, as in an editor.
        parse: reads the statements of a source in text form.

    Attributes:
        trees: resolved path → every file that was read and its statements.
    """

    def __init__(
        self,
        report: Report,
        root: Path,
        texts: Mapping[Path, str] | None = None,
        parse: Callable[[Source, Report], Sequence[s.Item]] = parse,
    ) -> None:
        self.report = report
        self.root = root.resolve()
        self.texts = texts or {}
        self.parse = parse
        self.trees: dict[Path, tuple[Source, Sequence[s.Item]]] = {}
        self.open: list[Path] = []
        self.done: set[Path] = set()
        self.start: Span | None = None

    def read(self, path: Path, use: Span | None) -> list[s.Item]:
        """The statements of a file, with those of the files that it uses in place of each `use`."""
        text = self._text(path, use)
        if text is None:
            return []
        resolved = path.resolve()
        self.open.append(resolved)
        items: list[s.Item] = []
        source = Source(str(path), text)
        self.start = self.start or Span(source, 0, 0)
        found = statements(source, self.report, self.parse)
        self.trees[resolved] = source, found
        for item in found:
            if isinstance(item, s.Use):
                items += self._use(path, item)
            else:
                items.append(item)
        self.open.pop()
        self.done.add(resolved)
        return items

    def _use(self, path: Path, item: s.Use) -> list[s.Item]:
        target = path.parent / item.file.value
        try:
            resolved = target.resolve()
        except (OSError, ValueError, RuntimeError) as problem:  # null characters, circular links
            reason = str(problem).lower()
            self.report.add("E124", f"this file cannot be found: {reason}", item.file.span)
            return []
        if not resolved.is_relative_to(self.root):
            self.report.add(
                "E122",
                "a spec uses only files inside its own folder",
                item.file.span,
                help="move the file to the folder of the main file, or below it",
            )
            return []
        if resolved in self.open:
            chain = " → ".join(p.name for p in [*self.open[self.open.index(resolved) :], resolved])
            self.report.add("E123", f"these files use each other: {chain}", item.file.span)
            return []
        if resolved in self.done:
            return []
        if len(self.open) >= MAX_DEPTH:
            self.report.add(
                "E123", f"files use each other more than {MAX_DEPTH} deep", item.file.span
            )
            return []
        return self.read(target, item.file.span)

    def _text(self, path: Path, use: Span | None) -> str | None:
        if self.texts and (text := self.texts.get(path.resolve())) is not None:
            return _with_line_feeds(text)
        return read_text(path, self.report, use)


def _nearby(path: Path) -> str:
    """Advice to name an existing file with a similar name or in a folder nearby."""
    if path.parts[:1] == ("~",) or "~" in path.parts:
        return "`~` is not expanded: write a path relative to the file's folder"
    try:
        names = [each.name for each in path.parent.iterdir() if each.suffix in (".etude", JSON)]
        above = [each / path.name for each in path.parents[1:3] if (each / path.name).is_file()]
    except OSError:
        return ""
    near = did_you_mean(path.name, names)
    if near.startswith("did"):
        return near
    return (
        f"there is {above[0]}: paths are relative to the file that contains them" if above else ""
    )


def _inside(folder: Path) -> str:
    """Advice to someone who named a folder in place of a spec."""
    if (folder / "plan.json").is_file():
        return (
            f"this is the folder of a run: `etude status {folder}` shows its progress, and the "
            "command that started it, with its spec, continues it"
        )
    try:
        names = sorted(each.name for each in folder.iterdir() if each.suffix == ".etude")
    except OSError:
        names = []
    return f"name a spec in it: {folder / names[0]}" if names else "name a file that has a spec"


def _with_line_feeds(text: str) -> str:
    """The text with line feeds in place of lone carriage returns, as the grammar needs; all
    places stay."""
    return re.sub(r"\r(?!\n)", "\n", text) if "\r" in text else text


def read_text(path: Path, report: Report, use: Span | None = None) -> str | None:
    """The text of a file; None, with the reason in the report, if it cannot be read.

    Args:
        use: the statement that brings the file in.
    """
    try:
        with path.open("rb") as file:
            data = b"" if path.suffix in OTHERS else file.read(MAX_BYTES + 1)
    except IsADirectoryError:
        report.add("E124", f"{path} cannot be read: is a directory", use, help=_inside(path))
        return None
    except FileNotFoundError:
        report.add("E124", f"there is no file {path}", use, help=_nearby(path))
        return None
    except OSError as problem:
        reason = (problem.strerror or str(problem)).lower()
        report.add("E124", f"{path} cannot be read: {reason}", use)
        return None
    if other := OTHERS.get(path.suffix):
        what, help = other
        report.add("E110", f"{path} is {what}, not a spec", use, help=help.format(path))
        return None
    if len(data) > MAX_BYTES:
        report.add("E125", f"{path} is larger than 1 MB, the limit for specs", use)
        return None
    try:
        return _with_line_feeds(data.decode("utf-8-sig"))
    except UnicodeDecodeError as problem:
        line = data[: problem.start].count(b"\n") + 1
        report.add("E126", f"{path} is not UTF-8 text (line {line})", use, help="save it as UTF-8")
        return None
