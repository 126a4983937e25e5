"""No module imports another that imports it, by whatever way and wherever the import stands."""

import ast
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
FOLDERS = ("spec", "compiler", "runtime", "authoring", "lsp", "pages", "cli", "etude")
"""The packages; all but the last are installed in `etude`, as pyproject.toml says."""


def modules() -> dict[str, Path]:
    """Dotted names, as they are imported, and their files."""
    names = {}
    for folder in FOLDERS:
        for file in sorted((ROOT / folder).rglob("*.py")):
            parts = file.relative_to(ROOT).with_suffix("").parts
            parts = parts if folder == "etude" else ("etude", *parts)
            names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return names


def imported(name: str, text: str, known: Mapping[str, Path]) -> Iterator[str]:
    """The modules of etude that one imports: at its top, in functions, and for its types alone."""
    package = name.split(".")
    if known[name].name != "__init__.py":
        package.pop()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (each.name for each in node.names if each.name in known)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *filter(None, [node.module])])
            inner = [f"{base}.{each.name}" for each in node.names]
            yield from (module for module in inner if module in known)
            if base in known and not all(module in known for module in inner):
                yield base


def circle(graph: Mapping[str, set[str]]) -> list[str]:
    """Some modules of which each imports the one before it, the first the last; [] without any."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as found:
        return found.args[1]
    return []


def test_no_circle_of_modules() -> None:
    known = modules()
    graph = {
        name: {*imported(name, file.read_text(encoding="utf-8"), known)}
        for name, file in known.items()
    }
    assert len(graph) > 300
    assert "etude.spec.record" in graph["etude.spec.source"]
    assert circle(graph) == []


@pytest.mark.parametrize(
    "text",
    [
        "from . import b",
        "from .b import thing",
        "from etude.x.b import thing",
        "import etude.x.b",
        "def later():\n    from .b import thing",
        "if TYPE_CHECKING:\n    from . import b",
    ],
)
def test_every_way_to_import_counts(text: str) -> None:
    known = {"etude.x": Path("__init__.py"), "etude.x.a": Path("a.py"), "etude.x.b": Path("b.py")}
    others = {"etude.x": "", "etude.x.a": text, "etude.x.b": "from ..x.a import thing"}
    graph = {name: {*imported(name, of, known)} for name, of in others.items()}
    assert set(circle(graph)) == {"etude.x.a", "etude.x.b"}
    assert circle(graph | {"etude.x.b": set()}) == []
