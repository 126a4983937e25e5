"""Writes syntaxes/etude.tmLanguage.json, with the words and units that the language has:
`python editors/vscode/generate.py`."""

import json
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import Any

# By name: pyright takes the folder `etude` of the tree for the whole package.
keywords: Any = import_module("etude.spec.text.keywords")
UNITS: dict[str, str] = import_module("etude.spec.quantity").UNITS
SUFFIXES: dict[str, Any] = import_module("etude.spec.text.parse").SUFFIXES

TARGET = Path(__file__).with_name("syntaxes") / "etude.tmLanguage.json"
BUILDING = {word for form in keywords.FORMS.values() for word in form if word.isalpha()}
STATEMENTS = {"require", "otherwise", "extend", "keep", "drop", *keywords.CONTINUES_WITH_TEXT}
FLOW = BUILDING - STATEMENTS - set(keywords.SHAPES) - set(keywords.VALUES)
NAME = "[A-Za-z_][A-Za-z0-9_]*"


def _any(words: Iterable[str]) -> str:
    """A pattern for any of the words, longer ones first."""
    return "|".join(sorted((word for word in words if word), key=lambda word: (-len(word), word)))


def _rule(match: str, *names: str) -> dict[str, Any]:
    """A pattern; the names are those of its groups."""
    return {
        "match": match,
        "captures": {str(n): {"name": f"{name}.etude"} for n, name in enumerate(names, 1)},
    }


def _whole(match: str, name: str) -> dict[str, Any]:
    return {"match": match, "name": f"{name}.etude"}


def grammar() -> dict[str, Any]:
    """The grammar that editors colour specs by."""
    text = {
        "name": "string.quoted.double.etude",
        "begin": '"',
        "end": '"|$',
        "patterns": [
            _whole(r'\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})', "constant.character.escape"),
            _whole(r"\\.", "invalid.illegal.escape"),
            _whole(r"\{(?:round|role)\}", "variable.parameter.template"),
        ],
    }
    items: dict[str, Any] = {
        "comment": _whole(r"#.*$", "comment.line.number-sign"),
        "text": text,
        "declaration": _rule(
            rf"(?<=^|[{{,])\s*({_any(keywords.NAMED)})\s+({NAME})(?:\s*(:)\s*({NAME}))?(?=\s*(?:[0-9{{#]|$))",
            "keyword.declaration",
            "entity.name.type",
            "punctuation.separator.kind",
            "storage.type",
        ),
        "bare": _rule(r"\b(expect|gate)\b(?=[^=,\n]*\{)", "keyword.declaration"),
        "use": _rule(r'\b(use)\b(?=\s*")', "keyword.control.import"),
        "let": _rule(rf"\b(let)\s+({NAME})", "keyword.declaration", "variable.other.constant"),
        "allow": _rule(r"\b(allow)\s+([EWN][0-9]{3})\b", "keyword.control", "constant.other.code"),
        "open": _rule(
            rf"\b(open)\s+({NAME})(?=\s*\")", "keyword.control", "variable.other.property"
        ),
        "attribute": _rule(
            rf"({NAME}(?:\s*\.\s*{NAME})*)\s*(=)(?!=)",
            "variable.other.property",
            "keyword.operator.assignment",
        ),
        "quantity": _rule(
            rf"\b([0-9][0-9_]*(?:\.[0-9_]+)?(?:[eE][+-]?[0-9]+)?)({_any(SUFFIXES)})?"
            rf"(?![A-Za-z0-9])(?:\s+({_any(UNITS)})\b)?",
            "constant.numeric",
            "keyword.other.unit.suffix",
            "keyword.other.unit",
        ),
        "number": _whole(r"\b[0-9][0-9A-Za-z_.%]*", "invalid.illegal.number"),
        "flow": _rule(rf"\b({_any(FLOW)})\b", "keyword.control"),
        "statement": _rule(rf"\b({_any(STATEMENTS)})\b", "keyword.other"),
        "shape": _rule(rf"\b({_any(keywords.SHAPES)})\b", "support.function"),
        "constant": _rule(rf"\b({_any(keywords.VALUES)})\b", "constant.language"),
        "operator": _whole(r"->|>=|<=|>|<|=|\.\.", "keyword.operator"),
        "sign": _whole(r"[{}\[\](),.:]", "punctuation"),
        "name": _whole(NAME, "variable.other"),
    }
    return {
        "$schema": "https://json.schemastore.org/tmlanguage.json",
        "name": "etude",
        "scopeName": "source.etude",
        "patterns": [{"include": f"#{name}"} for name in items],
        "repository": items,
    }


def text() -> str:
    return json.dumps(grammar(), indent=2) + "\n"


if __name__ == "__main__":
    TARGET.write_text(text(), encoding="utf-8")
