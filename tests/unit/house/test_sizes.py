"""Functions of one screen, unless they say why not, and modules of a few."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
FOLDERS = (
    "spec",
    "compiler",
    "runtime",
    "cli",
    "lsp",
    "authoring",
    "pages",
    "etude",
)
FUNCTION, MODULE = 60, 500
"""Lines, at most; a function's begin with `def`."""
REASON = "# Long because "
"""What the line above a function begins with, or its first comment, where it may be longer."""


def modules(*folders: str) -> Iterator[Path]:
    for folder in folders:
        yield from sorted((ROOT / folder).rglob("*.py"))


def functions(text: str) -> Iterator[tuple[str, int, bool]]:
    """Of every function its name, its lines, and whether it says why it is long."""
    lines = text.splitlines()
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        begin = min([node.lineno, *(each.lineno for each in node.decorator_list)])
        comments = [line for line in lines[node.lineno : node.end_lineno] if "# " in line]
        said = (lines[begin - 2] if begin > 1 else "", *comments[:1])
        excused = any(line.strip().startswith(REASON) for line in said)
        yield node.name, (node.end_lineno or node.lineno) - node.lineno + 1, excused


def test_no_function_is_longer_than_a_screen() -> None:
    long = {
        f"{file.stem}.{name}"
        for file in modules(*FOLDERS)
        for name, lines, excused in functions(file.read_text(encoding="utf-8"))
        if lines > FUNCTION and not excused
    }
    assert long == set()


def test_no_module_is_longer_than_a_few_screens() -> None:
    long = {
        str(file.relative_to(ROOT))
        for file in modules(*FOLDERS, "tests", "docs", "benchmarks")
        if len(file.read_text(encoding="utf-8").splitlines()) > MODULE
    }
    assert long == set()


@pytest.mark.parametrize(
    ("above", "inside", "excused"),
    [
        ("", "", False),
        ("# Long because it is a table.", "", True),
        ("", "# Long because it is a table.", True),
        ("# It is a table.", "# A comment.\n    # Long because it is a table.", False),
    ],
)
def test_a_long_function_may_say_why(above: str, inside: str, excused: bool) -> None:
    text = f"{above}\ndef table():\n    {inside}\n" + "    print()\n" * FUNCTION
    ((name, lines, said),) = functions(text)
    assert (name, lines > FUNCTION, said) == ("table", True, excused)
