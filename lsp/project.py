"""The texts that an editor shows, and the specs that they are part of."""

import logging
import re
from collections.abc import Sequence
from functools import cache, cached_property
from pathlib import Path

from ..compiler.driver import analyse
from ..compiler.files.counts_file import counts_path
from ..compiler.files.surroundings import matched
from ..compiler.plan.provenance import Origin, provenance
from ..compiler.program import Resolved
from ..spec import syntax as s
from ..spec.findings.diagnostics import Diagnostic, Report
from ..spec.load import MAX_BYTES, Files, Sources, bound
from ..spec.schema.kept import Kept
from ..spec.source import Source
from .names import Names
from .parsing import Parser
from .positions import Lines

_MARK = re.compile(r'recipe[ \t]+[A-Za-z_]|use[ \t]+"([^"\n]+)"')
log = logging.getLogger(__name__)
MAX_FILES_SEARCHED = 300
"""How many files of a folder are searched for one that uses another."""


class Analysis:
    """A spec with all its files, as far as they can be parsed.

    Attributes:
        main: the file with the `recipe` block, or a part on its own.
        trees: path → statements, for every file of the spec.
        diagnostics: what is wrong.
        program: the stages with all that the passes resolved before one of them found an error.
    """

    def __init__(
        self,
        main: Path,
        trees: dict[Path, tuple[Source, Sequence[s.Item]]],
        diagnostics: list[Diagnostic],
        program: Resolved | None,
        encoding: str,
    ) -> None:
        self.main = main
        self.trees = trees
        self.diagnostics = diagnostics
        self.program = program
        self.encoding = encoding
        self._lines: dict[Path, Lines] = {}

    @cached_property
    def names(self) -> Names:
        """What all files of the spec declare, and where it is referred to."""
        return Names(items for _, items in self.trees.values())

    @cached_property
    def origins(self) -> dict[tuple[str, str], Origin]:
        """Where every resolved value was written, by block and attribute."""
        return provenance(self.program) if self.program else {}

    @cached_property
    def paths(self) -> dict[Source, Path]:
        """The path of each source."""
        return {source: path for path, (source, _) in self.trees.items()}

    def lines(self, path: Path) -> Lines:
        """Where the lines of a file begin, in the client's encoding."""
        if path not in self._lines:
            self._lines[path] = Lines(self.trees[path][0].text, self.encoding)
        return self._lines[path]

    def source(self, path: Path) -> Source:
        """The text of a file when the spec was analysed."""
        return self.trees[path][0]

    def items(self, path: Path) -> Sequence[s.Item]:
        """The statements of a file."""
        return self.trees[path][1]


class Project:
    """Open texts by resolved path, and the analyses of their specs.

    Attributes:
        encoding: what columns count, see `Lines`.
        folders: the editor's folders; specs outside them are not searched for.
    """

    def __init__(self) -> None:
        self.texts: dict[Path, str] = {}
        self.encoding = "utf-16"
        self.folders: list[Path] = []
        self._parsers: dict[tuple[Path, Path], Parser] = {}
        self._kept: dict[Path, Kept] = {}
        self._analyses: dict[Path, Analysis] = {}
        self._mains: dict[Path, list[Path]] = {}
        self._matched = cache(matched)

    def open(self, path: Path, text: str) -> None:
        """Takes a text from the editor, which replaces the file's on disk."""
        text = text.removeprefix("\ufeff")
        if path not in self.texts or _shape(self.texts[path]) != _shape(text):
            self.forget()
        self.texts[path] = text
        self._analyses = {m: of for m, of in self._analyses.items() if path not in of.trees}

    def close(self, path: Path) -> None:
        """Forgets the text of a closed file: the one on disk counts again."""
        self.texts.pop(path, None)
        self._parsers = {of: parser for of, parser in self._parsers.items() if path not in of}
        self._kept.pop(path, None)
        self.forget()

    def forget(self) -> None:
        """Drops everything cached: files on disk may have changed."""
        self._analyses = {}
        self._mains = {}
        self._matched = cache(matched)

    def analysis(self, path: Path) -> Analysis | None:
        """The spec that a file is part of: the first if several use it."""
        return next(iter(self.analyses(path)), None)

    def analyses(self, path: Path) -> list[Analysis]:
        """The specs that a file is part of."""
        if path not in self._mains:
            self._mains[path] = self._found(path)
        return [of for main in self._mains[path] if path in (of := self.whole(main)).trees]

    def whole(self, main: Path) -> Analysis:
        """The spec whose main file, or only part, is `main`."""
        if main not in self._analyses:
            self._analyses[main] = self._analyse(main)
        return self._analyses[main]

    def _found(self, path: Path) -> list[Path]:
        """The main files of the specs that a file is part of; the file itself if none uses it."""
        reach = {of: self._reach(of) for of in self._candidates(path)}
        users = [of for of, used in reach.items() if of != path and path in used]
        first = [of for of in users if not any(of in reach[other] - {other} for other in users)]
        return first or [path]

    def _candidates(self, path: Path) -> list[Path]:
        """Files that may use a file: those above it that are open or in the editor's folders."""
        files = [other for other in self.texts if path.is_relative_to(other.parent)]
        for folder in path.parents:
            if not any(folder.is_relative_to(of) for of in self.folders or [path.parent]):
                break
            try:
                files += sorted(folder.glob("*.etude"))[:MAX_FILES_SEARCHED]
            except OSError:
                continue
        return list(dict.fromkeys(files[:MAX_FILES_SEARCHED]))

    def _reach(self, main: Path) -> set[Path]:
        """A file and all that it uses, as far as is known without parsing."""
        reached: set[Path] = set()
        ahead = [main]
        while ahead and len(reached) < MAX_FILES_SEARCHED:
            path = ahead.pop()
            if path in reached:
                continue
            reached.add(path)
            try:
                ahead += [(path.parent / used).resolve() for used in _shape(self._text(path))[1]]
            except (OSError, ValueError, RuntimeError):  # `check` reports it
                continue
        return reached

    def _text(self, path: Path) -> str:
        """Raises: OSError: the file cannot be read."""
        if path in self.texts:
            return self.texts[path]
        with path.open("rb") as file:
            return file.read(MAX_BYTES).decode("utf-8", "replace")

    def _analyse(self, main: Path) -> Analysis:
        reading = Report()

        def parse(source: Source, report: Report) -> tuple[s.Item, ...]:
            file = main, Path(source.name).resolve()
            return self._parsers.setdefault(file, Parser()).parse(source, report)

        files = Files(reading, main.parent, self.texts, parse)
        kept = self._kept.setdefault(main, Kept())
        kept.forget()
        items = files.read(main, None)
        sources = Sources(
            items, files.start, reading.diagnostics, kept, main.parent, counts_path(main)
        )
        if not any(_shape(source.text)[0] for source, _ in files.trees.values()):
            report = Report()
            bound(sources, report, part=True)
            return Analysis(main, files.trees, report.diagnostics, None, self.encoding)
        analysed = analyse(
            sources,
            root=main.parent,
            each_variant="bound",
            matched=self._matched,
            crashed=log.exception,
        )
        program = analysed.reached
        if program and not isinstance(program, Resolved):
            program = Resolved(**vars(program), stages={})
        return Analysis(main, files.trees, analysed.report.diagnostics, program, self.encoding)


def _shape(text: str) -> tuple[bool, tuple[str, ...]]:
    """Whether a text has a `recipe` block, as main files do, and the files that it uses."""
    recipe, used = False, []
    for match in _MARK.finditer(text):
        if not text[text.rfind("\n", 0, match.start()) + 1 : match.start()].strip():
            recipe = recipe or match[1] is None
            used += [match[1]] if match[1] else []
    return recipe, tuple(used)
