"""Texts, JSON and models of Python say the same recipe, over the whole language."""

import json
import random
from typing import Any

import pytest
from any_spec import Writer, any_spec
from hypothesis import given, settings
from hypothesis import strategies as st
from json_specs import as_json, as_text, bound
from jsonschema import Draft202012Validator
from test_changes import RIGHT, SLOTS, outcome, spec

from etude.build import Recipe
from etude.schema import spec_schema
from etude.spec import syntax as s
from etude.spec.findings.diagnostics import Report
from etude.spec.load import loads
from etude.spec.record import Record, fields
from etude.spec.schema import recipe as r
from etude.spec.schema.kinds import Kind
from etude.spec.source import Source, Span
from etude.spec.text.format import format_text
from etude.spec.text.parse import parse
from etude.spec.text.to_text import text as written

RANDOM = st.integers(0, 2**32).map(random.Random)
SCHEMA = Draft202012Validator(spec_schema())


def without_uses(text: str) -> str:
    """A text that can be bound without other files."""
    return "".join(line for line in text.splitlines(True) if not line.startswith('use "'))


def said(text: str) -> Any:
    """What a text declares."""
    return bound(without_uses(text))


@settings(max_examples=60, deadline=None)
@given(RANDOM)
def test_text_json_and_text_again_are_the_same_recipe(chance: random.Random) -> None:
    text = any_spec(chance)
    recipe = said(text)
    assert recipe[0] == "Recipe", recipe
    form = as_json(text)
    again = as_text(form)
    assert said(again) == recipe
    assert as_json(again) == form
    assert as_json(form) == form
    assert as_text(again) == again
    assert bound(as_json(without_uses(text))) == recipe


@settings(max_examples=40, deadline=None)
@given(RANDOM)
def test_layout_and_the_way_through_statements_change_no_recipe(chance: random.Random) -> None:
    text = any_spec(chance)
    recipe = said(text)
    report = Report()
    made = format_text(Source("<text>", text), report)
    assert made
    assert said(made) == recipe
    assert said(written(parse(Source("<text>", text), report))) == recipe


@settings(max_examples=30, deadline=None)
@given(RANDOM)
def test_the_json_follows_the_schema_and_is_that_of_the_models(chance: random.Random) -> None:
    form = as_json(any_spec(chance))
    SCHEMA.validate(json.loads(form))
    recipe = Recipe.model_validate_json(form)
    dumped = recipe.model_dump_json()
    SCHEMA.validate(json.loads(dumped))
    assert Recipe.model_validate_json(dumped) == recipe
    assert said(recipe.text()) == said(as_text(form))


@settings(max_examples=25, deadline=None)
@given(st.lists(RIGHT, max_size=6).map(dict))
def test_the_plan_is_the_same_whatever_the_form(changes: dict[str, str]) -> None:
    text = spec(SLOTS | changes)
    plan = outcome(text)
    form = as_json(text)
    assert outcome(form) == plan
    assert outcome(as_text(form)) == plan
    assert outcome(Recipe.model_validate_json(form).model_dump_json()) == plan


def reached(of: Any) -> set[tuple[type, str]]:
    """The attributes that a recipe gives, with their models."""
    found: set[tuple[type, str]] = set()
    if isinstance(of, Record) and not isinstance(of, Source):
        if isinstance(of, r.Declaration):
            found |= {(type(of), name) for name in of.places if name in r.attributes(type(of))}
        for name in fields(of):
            if name not in ("statements", "main", "places", "lets"):
                found |= reached(getattr(of, name))
    elif isinstance(of, dict | list | tuple) and not isinstance(of, Span):
        for each in of.values() if isinstance(of, dict) else of:
            found |= reached(each)
    return found


def nodes(of: Any) -> set[type]:
    """The kinds of nodes in a syntax tree."""
    if not isinstance(of, tuple) or isinstance(of, Span):
        return set()
    own = {type(of)} if hasattr(of, "_fields") else set()
    return own.union(*map(nodes, of))


MODELS = [
    *(
        of
        for of in vars(r).values()
        if isinstance(of, type) and issubclass(of, r.Declaration) and r.attributes(of)
    ),
]
ABSTRACT = {r.Training, r.DialogTraining, r.PreferenceTraining, r.Measuring}
"""Models of no block: each kind of stage is reached by itself."""


@pytest.fixture(scope="module")
def many() -> list[str]:
    return [any_spec(random.Random(seed)) for seed in range(120)]


def test_the_specs_reach_every_attribute_of_the_language(many: list[str]) -> None:
    wanted = {(of, name) for of in MODELS if of not in ABSTRACT for name in r.attributes(of)}
    found: set[tuple[type, str]] = set()
    for text in many:
        found |= reached(loads(without_uses(text), Report()))
    assert {f"{of.__name__}.{name}" for of, name in wanted - found} == set()


def test_the_specs_reach_everything_that_can_be_written(many: list[str]) -> None:
    kinds = {of for of in vars(s).values() if isinstance(of, type) and hasattr(of, "_fields")}
    kinds -= {Span, s.Open}  # an open attribute is an error: tests/unit/spec/test_open.py
    found = set[type]().union(*(nodes(parse(Source("<text>", text), Report())) for text in many))
    assert {kind.__name__ for kind in kinds - found} == set()
    everything = "".join(many)
    for words in (
        "extend",
        "because",
        "contradicted",
        "cite",
        "assumed",
        "of start",
        "default",
        "previous.",
        "variant ",
        "rounds ",
        "expect ",
        "until",
        "exponential",
        "inverse",
        "inverse_sqrt",
        "last with",
        "where",
        "similar",
        "within",
        " at ",
        "bytes",
        "awaited",
    ):
        assert words in everything


def test_an_attribute_that_nobody_has_told_about_is_noticed() -> None:
    class Unheard(Kind):
        pass

    class Newer(r.Model):
        unheard: int | None = r.attribute(Unheard(), None, doc="is new")

    with pytest.raises(KeyError, match="unheard"):
        Writer(random.Random(1)).value(Newer, "unheard")
