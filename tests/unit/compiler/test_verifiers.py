"""Verifiers as declared: settings that fit their kind, and what the plan has of them."""

import pytest
from specs import HEAD, check, only, parsed, place

from etude.compiler.lowering.verifiers import planned


def found(text: str):
    """The one finding about a verifier, whose place `¦` marks."""
    before = text.partition("¦")[0]
    spec = HEAD + f"verifier v {{ {text.replace('¦', '')} }}\n" + STAGE
    finding = only(check(spec))
    line, column = HEAD.count("\n") + 1, len("verifier v { ") + len(before) + 1
    assert place(finding) == ((line, column) if "¦" in text else (line, 1))
    return finding


STAGE = """stage first: train {
  model = tiny, steps = 1, seq_len = 16, batch = 1 seq, lr = 1e-3, data = web
}
"""


@pytest.mark.parametrize(
    ("text", "code", "message", "help"),
    [
        ('kind = math, pattern = ¦"a"', "E524", "kind `math` has no `pattern`", "`regex` and"),
        ('kind = math, schema = ¦"a"', "E524", "has no `schema`", "`json_schema` has it"),
        ("kind = regex", "E524", "needs `pattern`", "write `pattern = "),
        ("kind = choice", "E524", "needs `options`", "write `options = "),
        ("kind = length", "E524", "needs `most` or `least`", "write `most = 100 words`"),
        ("kind = json_schema", "E524", "needs `schema`", "write `schema = "),
        ('kind = choice, options = ¦["A"]', "E524", "leaves no choice", "at least two"),
        ("kind = length, most = 2, least = ¦3", "E524", "no answer has 3 words or more", "`least"),
        ('kind = regex, pattern = ¦"a("', "E526", "no regular expression", "backslash"),
        ('kind = exact, extract = ¦"a"', "E526", "has no group", "parentheses"),
        ("kind = ¦maths", "E202", "`maths` is not one of", "`math`"),
    ],
)
def test_settings_that_do_not_fit(text, code, message, help):
    finding = found(text)
    assert finding.code == code
    assert message in finding.message
    assert help in finding.help


def test_a_plan_has_the_settings_that_are_not_default():
    recipe = parsed(
        HEAD
        + 'verifier gsm { kind = exact, extract = "#### (.*)" }\n'
        + "verifier brief { kind = length, most = 100 words }\n"
        + 'verifier shape { kind = json_schema, schema = "a.json" }\n'
        + STAGE
    )
    assert [planned(recipe, name).model_dump() for name in ("gsm", "brief", "shape")] == [
        {"kind": "exact", "extract": "#### (.*)"},
        {"kind": "length", "most": 100},
        {"kind": "json_schema", "schema_file": "a.json"},
    ]
    assert planned(recipe, "gsm").compares
    assert not planned(recipe, "brief").compares
