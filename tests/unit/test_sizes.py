"""Functions of one screen and modules of a few: what is longer says why, or is listed here."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
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

FUNCTIONS: set[str] = set()
MODULES = {"test_spec_codes"}
"""What is still longer. A name leaves as soon as it is not, and none may come."""


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


@pytest.fixture(scope="module")
def long_functions() -> set[str]:
    return {
        f"{file.stem}.{name}"
        for file in modules(*FOLDERS)
        for name, lines, excused in functions(file.read_text(encoding="utf-8"))
        if lines > FUNCTION and not excused
    }


@pytest.fixture(scope="module")
def long_modules() -> set[str]:
    return {
        file.stem
        for file in modules(*FOLDERS, "tests", "docs", "benchmarks")
        if len(file.read_text(encoding="utf-8").splitlines()) > MODULE
    }


def test_no_function_is_longer_than_a_screen(long_functions: set[str]) -> None:
    assert long_functions - FUNCTIONS == set()


def test_no_module_is_longer_than_a_few_screens(long_modules: set[str]) -> None:
    assert long_modules - MODULES == set()


def test_what_is_no_longer_long_is_not_listed(
    long_functions: set[str], long_modules: set[str]
) -> None:
    assert (FUNCTIONS - long_functions, MODULES - long_modules) == (set(), set())


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
