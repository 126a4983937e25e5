"""Whatever a spec in JSON holds, the answer is a recipe or findings with their places."""

import json
import random
import time
from typing import Any

from any_spec import any_spec
from hypothesis import given, settings
from hypothesis import strategies as st
from json_specs import as_json
from specs import POST_TRAINING

from etude.compiler.driver import analyse
from etude.spec.convert_form import to_text
from etude.spec.findings.codes import known
from etude.spec.findings.diagnostics import Report
from etude.spec.findings.render import render_all
from etude.spec.load import bound, reads
from etude.spec.source import Source

FORM = as_json(POST_TRAINING)
PIECES = [
    "",
    "{",
    "}",
    "[",
    "]",
    '"',
    ",",
    ":",
    "\\",
    "\\u00",
    "null",
    "true",
    "NaN",
    "-1",
    "1e999",
    '"x"',
    '"seed": 1',
    '"let"',
    "\n",
    "\t",
    "\x00",
    "é",
    "//",
    "'",
    "9" * 50,
]
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-5, 10**20)
    | st.floats()
    | st.text(max_size=6)
    | st.sampled_from(
        [
            "web",
            "10 steps",
            "0 -> 1",
            "{ web 1 }",
            "[1..2]",
            "a or b",
            '3 cite "x"',
            "polyak every 2",
            "adamw { }",
            "->",
            "then",
            "x = 3",
            "} stage",
        ]
    ),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["let", "kind", "web", "cite", "sources", "allow", "set", "", "a b", "x[1]"]
            ),
            inner,
            max_size=3,
        )
    ),
    max_leaves=6,
)


def judge(text: str, limit: float = 5) -> None:
    """Loads a text and looks at what is said about it."""
    begin = time.process_time()
    sources = reads(text, name="spec.json")
    report = Report()
    assert (bound(sources, report) is None) == bool(report.errors)
    report = analyse(sources, each_variant="always").report
    lines = text.split("\n")
    for found in report.ordered():
        assert found.code in known()
        assert found.span, found
        assert 1 <= found.span.line <= len(lines)
        assert 1 <= found.span.column <= len(lines[found.span.line - 1]) + 1
        assert found.span.end <= len(text)
    render_all(report.ordered())
    to_text(Source("spec.json", text), Report())
    assert time.process_time() - begin < limit


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, len(FORM)), st.integers(0, 12), st.sampled_from(PIECES)),
        min_size=1,
        max_size=4,
    )
)
def test_damaged_json(damages: list[tuple[int, int, str]]) -> None:
    text = FORM
    for start, length, instead in damages:
        text = text[:start] + instead + text[start + length :]
    judge(text)


@settings(max_examples=100, deadline=None)
@given(st.text(alphabet='{}[]",:\\ntrue0-.e \n\x00é', max_size=80))
def test_any_text_as_json(text: str) -> None:
    judge(text)
    judge('{"etude_spec": 1, ' + text)


def places(of: Any) -> list[tuple[Any, Any]]:
    """Every object or array of JSON, with each of its keys or places."""
    if not isinstance(of, dict | list):
        return []
    keys = list(of) if isinstance(of, dict) else list(range(len(of)))
    return [(of, key) for key in keys] + [each for key in keys for each in places(of[key])]


@settings(max_examples=120, deadline=None)
@given(st.integers(0, 2**32), VALUES, st.booleans())
def test_any_value_in_any_place(seed: int, value: Any, added: bool) -> None:
    chance = random.Random(seed)
    form = json.loads(as_json(any_spec(chance)))
    found = places(form)
    of, key = found[chance.randrange(len(found))]
    if added and isinstance(of, dict):
        of["kind" if chance.random() < 0.3 else "more"] = value
    else:
        of[key] = value
    judge(json.dumps(form, indent=1, ensure_ascii=chance.random() < 0.5))
