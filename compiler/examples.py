"""Checks the examples of the registry: for `etude explain`, the documentation and the tests."""

from pathlib import Path
from tempfile import TemporaryDirectory

from ..spec import syntax as s
from ..spec.findings.codes import FOLDER, MAIN, Example, Rule
from ..spec.findings.diagnostics import Diagnostic, Report
from ..spec.load import Files, Sources, no_use
from ..spec.record import replace
from ..spec.source import Source, Span
from ..spec.text.parse import parse
from .driver import analyse


def findings(example: Example, folder: Path | None = None) -> list[Diagnostic]:
    """The findings in an example, without those in its frame.

    Args:
        folder: the folder of the main file, for an example that commands have created there, or
            that is about files next to it.
    """
    report = Report()
    items = list(parse(Source("frame", frame(example.frame)), report)) if example.frame else []
    if "" in example.texts:
        source = Source(MAIN, example.texts[""])
        start = Span(source, 0, 0)
        items += no_use(parse(source, report), report)
    else:
        texts = {
            ((folder or Path()) / name).resolve(): text for name, text in example.texts.items()
        }
        files = Files(report, folder or Path(), texts)
        items += files.read((folder or Path()) / MAIN, None)
        start = files.start
    sources = Sources(items, start, report.diagnostics, folder=folder)
    found = analyse(sources, root=folder, each_variant="always").report.ordered()
    return [d for d in found if not d.span or d.span.source.name != "frame"]


def wrong(of: Rule) -> list[Diagnostic]:
    """The findings in the wrong example of a page; in an empty folder if it is about files."""
    if of.wrong.shell or not of.wrong.texts:
        return []
    found = findings(of.wrong)
    if any(d.code == of.code for d in found):
        return found
    with TemporaryDirectory() as name:
        folder = Path(name).resolve()
        there = findings(of.wrong, folder)
    return [replace(d, help=d.help.replace(str(folder), "/home/me")) for d in there]


def frame(name: str) -> str:
    """The text of a frame, including the frames that it builds on.

    Raises: OSError: no frame has this name.
    """
    text = (FOLDER / f"{name}.etude").read_text(encoding="utf-8")
    first, _, rest = text.partition("\n")
    if first.startswith("use "):
        return frame(first.removeprefix('use "').removesuffix('.etude"')) + rest
    return text


def beside(name: str) -> str:
    """The declarations of a frame, as a list: "recipe `example`, model `tiny`, …"; "" for none."""
    if not name:
        return ""
    blocks = [
        item
        for item in parse(Source("frame", frame(name)), Report())
        if isinstance(item, s.Block) and item.labels
    ]
    return ", ".join(
        f"{block.keyword.name} `{label.name if isinstance(label, s.Word) else label.text}`"
        for block in blocks
        for label in block.labels[:1]
    )
