"""Attributes that a spec leaves open: one error each, until they are given."""

import json

import pytest
from json_specs import as_json, as_text
from jsonschema import Draft202012Validator
from specs import HEAD, check, stage

from etude.schema import spec_schema
from etude.spec.findings.diagnostics import Diagnostic, Report
from etude.spec.load import bound, reads

WHY = "the paper gives the rate of an adapter"
OPEN = HEAD + stage(lr=None, body=f'  open lr "{WHY}"')


def errors(text: str, *sets: str) -> list[Diagnostic]:
    report = Report()
    bound(reads(text), report, sets=sets)
    return report.errors


def test_an_open_attribute_is_one_error_with_its_reason() -> None:
    (found,) = check(OPEN)
    assert (found.code, found.message) == ("E335", f"`lr` is not set yet: {WHY}")
    assert found.span
    assert OPEN[found.span.start : found.span.end] == "lr"
    assert found.help == "replace this line by `lr = …`"


@pytest.mark.parametrize(
    ("text", "opened"),
    [
        (HEAD + stage(steps=None, lr=None, body='open lr "a", open steps "b"'), ["lr", "steps"]),
        (HEAD + stage(optimizer='adamw { open eps "c" }'), ["eps"]),
        (HEAD + stage() + 'tokenizer t { open hub "d" }', ["hub"]),
        (HEAD.replace("ffn = 128", 'open ffn "e"') + stage(), ["ffn"]),
        (HEAD + stage(body='open lr "given, and open all the same"'), ["lr"]),
    ],
)
def test_every_block_and_group_can_leave_attributes_open(text: str, opened: list[str]) -> None:
    found = errors(text)
    assert [each.code for each in found] == ["E335"] * len(opened)
    assert [each.message.split("`")[1] for each in found] == opened


def test_a_change_fills_it_in() -> None:
    assert errors(OPEN, "first.lr=1e-5") == []
    assert errors(OPEN + "variant hot { first.lr = 1e-5 }\n")[0].code == "E335"


def test_what_is_no_attribute_cannot_be_open() -> None:
    (found,) = errors(HEAD + stage(body='open rate "?"'))
    assert (found.code, "no attribute `rate`" in found.message) == ("E308", True)


def test_a_source_may_be_called_open() -> None:
    text = HEAD.replace("dataset web", "dataset open") + stage(data="{ open 50%, math 50% }")
    assert errors(text) == []


def test_without_a_reason_it_says_what_is_missing() -> None:
    (found,) = errors(HEAD + stage(body="open clip"))
    assert found.code in ("E101", "E311")


def test_json_has_them_by_their_names() -> None:
    text = HEAD + stage(lr=None, optimizer='adamw { open eps "c" }', body='open lr "why"')
    made = json.loads(as_json(text))
    first = made["stages"]["first"]
    assert (first["open"], first["optimizer"]["open"]) == ({"lr": "why"}, {"eps": "c"})
    Draft202012Validator(spec_schema()).validate(made)
    assert [each.message for each in errors(as_json(text))] == [
        "`eps` is not set yet: c",
        "`lr` is not set yet: why",
    ]
    assert 'open lr "why"' in as_text(as_json(text))
    first["open"]["lr"] = 3
    assert errors(json.dumps(made))[0].code == "E133"
