"""Files for the tests of the language server: texts with the cursor marked ¦."""

from pathlib import Path

from specs import HEAD, stage

from etude.lsp.project import Analysis, Project

SPEC = (
    HEAD.replace("sample = python_docs", "sample = python_docs, tokens = 3200")
    + "let peak = 1e-3\n"
    + stage(lr="0 -> peak for 10 steps then -> 1e-5 cosine over 200 steps")
)


def opened(folder: Path, text: str, name: str = "spec.etude") -> tuple[Project, Path, int]:
    """A project in which a text is open, its path, and where its ¦ stood."""
    project = Project()
    path = (folder / name).resolve()
    offset = text.find("¦")
    project.open(path, text.replace("¦", ""))
    return project, path, offset


def at(folder: Path, text: str) -> tuple[Analysis, Path, int]:
    project, path, offset = opened(folder, text)
    analysis = project.analysis(path)
    assert analysis is not None
    return analysis, path, offset
