"""No class declares an attribute twice: Python keeps the last one and says nothing."""

import ast
from collections.abc import Iterator
from pathlib import Path

from test_sizes import FOLDERS, modules


def twice(text: str) -> Iterator[str]:
    """Attributes that a class declares more than once, as `Class.name`."""
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.ClassDef):
            continue
        declared = [
            each.target.id
            for each in node.body
            if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name)
        ]
        for name in {name for name in declared if declared.count(name) > 1}:
            yield f"{node.name}.{name}"


def test_no_attribute_is_declared_twice() -> None:
    found = {name for file in modules(*FOLDERS) for name in twice(Path(file).read_text("utf-8"))}
    assert found == set()


def test_one_that_is_would_be_found() -> None:
    text = "class A:\n    one: int\n    two: int = 1\n\n    one: str = ''\n"
    assert list(twice(text)) == ["A.one"]
