"""Whoever has to know attributes asks the one schema: these tests walk all attributes of all
blocks, groups included, and ask everyone for each."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from json_specs import as_json, as_text, meaning
from jsonschema import Draft202012Validator
from lsp_files import at
from lsprotocol import types

from etude import build
from etude.lsp.completion import completion
from etude.lsp.hover import hover
from etude.lsp.navigation import rename
from etude.schema import spec_schema
from etude.spec.findings.diagnostics import Report
from etude.spec.load import loads
from etude.spec.record import replace
from etude.spec.schema import group_kinds as g
from etude.spec.schema import kinds as k
from etude.spec.schema import number_kinds as nk
from etude.spec.schema import recipe as r
from etude.spec.schema.convert_schedule import ScheduleOf
from etude.spec.schema.documentation import documentation

SCHEMA = spec_schema()
FILLED = {"gate": "require needle >= 90%"}
"""What a block needs beside its attributes."""


class Place(NamedTuple):
    """A block, or a group in one.

    Attributes:
        path: how a variant begins that changes it, `x.experts`; "" where none can.
        head: what stands before its statements, from the block on, and `tail`, what stands behind.
        kind: of a group: that of the attribute whose value it is.
    """

    model: type[r.Declaration]
    path: str
    head: str
    tail: str
    kind: k.Kind | None = None

    def has(self, name: str) -> bool:
        """Whether the group has the attribute, if not all of its kinds do."""
        own = self.kind.own.get(name) if isinstance(self.kind, g.Tagged) else None
        return own is None or f"= {own} {{" in self.head

    def spec(self, *statements: str, more: str = "") -> str:
        header = "" if self.head.startswith("recipe ") else "recipe all {}\n"
        lines = "".join(f"  {line}\n" for line in statements)
        return f"{header}{more}{self.head}\n{lines}{self.tail}\n"


class Case(NamedTuple):
    place: Place
    name: str
    attribute: r.Attribute

    @property
    def kind(self) -> k.Kind:
        return self.attribute.kind

    @property
    def others(self) -> list[str]:
        """The other attributes that its block has to have."""
        return _required(self.place.model, self.name)

    def spec(self, *statements: str, more: str = "") -> str:
        return self.place.spec(*self.others, *statements, more=more)


def _required(model: type[r.Declaration], but: str = "") -> list[str]:
    of = r.attributes(model).items()
    return [known.kind.written(n) for n, known in of if known.required and n != but]


def _groups(place: Place) -> Iterator[Place]:
    """A place and the groups in it."""
    yield place
    for name, attribute in r.attributes(place.model).items():
        kind = attribute.kind
        others = "".join(f"  {line}\n" for line in _required(place.model, name))
        path = f"{place.path}.{name}" if place.path.count(".") == 0 and place.path else ""
        heads = {
            g.Group: [f"{name} = {{"],
            g.Tagged: [f"{name} = {tag} {{" for tag in getattr(kind, "tags", ())],
            g.Optimizers: [f"{name} = {tag} {{" for tag in getattr(kind, "tags", ())],
            g.Block: [f"gate seq_len {{\n  {FILLED['gate']}"],
        }.get(type(kind), [])
        path = "" if isinstance(kind, g.Block) else path
        for head in heads:
            before = f"{place.head}\n{others}{head}"
            inner = Place(kind.model, path, before, f"}}\n{place.tail}", kind)
            yield from _groups(inner)


def _places() -> Iterator[Place]:
    for keyword, model in r.BLOCKS.items():
        path = "recipe" if keyword == "recipe" else "x"
        yield from _groups(Place(model, path, f"{keyword} x {{", "}"))
    for kind, model in r.STAGES.items():
        yield from _groups(Place(model, "x", f"stage x: {kind} {{", "}"))


PLACES = list(_places())
CASES = [
    Case(place, name, attribute)
    for place in PLACES
    for name, attribute in {**r.attributes(place.model), **r.statements(place.model)}.items()
    if place.has(name)
]
each = pytest.mark.parametrize(
    "case", CASES, ids=[f"{'-'.join(c.place.head.split())}-{c.name}" for c in CASES]
)


def said(text: str, *sets: str) -> Any:
    """What a spec means, whatever its places."""
    report = Report()
    recipe = loads(text, report, sets=sets)
    assert recipe, [d.message for d in report.ordered()]
    return meaning(replace(recipe, sets=[]))


def labels(folder: Path, text: str) -> set[str]:
    return {item.label for item in completion(*at(folder, text))}


def test_every_model_with_attributes_is_walked() -> None:
    models = {m for m in vars(r).values() if isinstance(m, type) and issubclass(m, r.Declaration)}
    shared = {r.Training, r.DialogTraining, r.PreferenceTraining, r.Measuring}
    written = {r.Polyak}  # `polyak every N steps over M`, whose attributes have no names
    assert {m for m in models if r.attributes(m)} - shared - written == {p.model for p in PLACES}


@each
def test_the_example_can_be_read(case: Case) -> None:
    assert said(case.spec(case.kind.written(case.name)))


@each
def test_completion_offers_it_and_what_it_takes(case: Case, tmp_path: Path) -> None:
    offered = labels(tmp_path, case.place.spec("¦"))
    if isinstance(case.kind, g.Filters | g.Alike):
        assert "drop" in offered
        return
    assert case.name in offered
    if case.kind.statement:
        return
    taken = labels(tmp_path, case.spec(f"{case.name} = ¦", more="let something = 1\n"))
    assert {*case.kind.choices, "something"} <= taken
    if isinstance(case.kind, g.Tagged):
        assert {f"{tag} {{ … }}" for tag in case.kind.tags} <= taken
    if case.kind.units and not isinstance(case.kind, nk.Wholes):
        assert set(case.kind.units) <= labels(tmp_path, case.spec(f"{case.name} = 8 ¦"))


@each
def test_completion_offers_it_to_variants(case: Case, tmp_path: Path) -> None:
    if not case.place.path or case.name in r.statements(case.place.model):
        return
    text = case.spec() + "variant v {\n  " + case.place.path
    assert case.name in labels(tmp_path, f"{text}.¦\n}}\n")
    taken = labels(tmp_path, f"{text}.{case.name} = ¦\n}}\n")
    assert {*case.kind.choices, "default"} <= taken


@each
def test_hover_says_what_it_means(case: Case, tmp_path: Path) -> None:
    if isinstance(case.kind, g.Filters | g.Alike):
        return  # sentences, whose words are no names of attributes
    written = case.kind.written(case.name)
    shown = hover(*at(tmp_path, case.spec("¦" + written)))
    entry = documentation(case.place.model, case.name)
    assert entry
    assert entry.meaning
    assert shown
    assert isinstance(shown.contents, types.MarkupContent)
    assert entry.meaning in shown.contents.value


@each
def test_a_rename_reaches_what_it_refers_to(case: Case, tmp_path: Path) -> None:
    for keyword in case.kind.refers:
        name = re.findall("[a-z]+", case.kind.example)[0]
        head = f"stage {name}: train" if keyword == "stage" else f"{keyword} {name}"
        text = case.spec(case.kind.written(case.name), more=f"{head} {{ }}\n")
        analysis, path, _ = at(tmp_path, text)
        edits = rename([analysis], path, text.index(f" {name}") + 1, "renamed")[path.as_uri()]
        lines = {edit.range.start.line for edit in edits}
        own = text[: text.index(case.kind.written(case.name))].count("\n")
        assert own in lines, keyword
        if case.place.path:
            value = f"{case.place.path}.{case.name} = {case.kind.example}"
            text = case.spec(more=f"{head} {{ }}\n") + f"variant v {{\n{value}\n}}\n"
            analysis, path, _ = at(tmp_path, text)
            edits = rename([analysis], path, text.index(f" {name}") + 1, "renamed")
            lines = {edit.range.start.line for edit in edits[path.as_uri()]}
            assert text[: text.index(value)].count("\n") in lines, keyword


@each
def test_a_change_is_what_the_edited_text_would_be(case: Case) -> None:
    if not case.place.path or isinstance(case.kind, g.Block | g.Filters):
        return  # gates and filters are changed by leaving them out
    value = "true" if isinstance(case.kind, g.Mark) else case.kind.example
    changed = said(case.spec(), f"{case.place.path}.{case.name} = {value}")
    assert changed == said(case.spec(case.kind.written(case.name)))


@each
def test_it_can_be_left_out_by_a_change(case: Case) -> None:
    if not case.place.path or case.attribute.required or isinstance(case.kind, g.Filters):
        return
    text = case.spec(case.kind.written(case.name))
    assert said(text, f"{case.place.path}.{case.name} = default") == said(case.spec())


@each
def test_json_has_it_and_its_schema_knows_it(case: Case) -> None:
    text = case.spec(case.kind.written(case.name))
    form = as_json(text)
    assert said(form) == said(text) == said(as_text(form))
    Draft202012Validator(SCHEMA).validate(json.loads(form))
    assert meaning(build.Recipe.model_validate_json(form).bound().recipe) == said(text)
    known = SCHEMA if case.place.model is r.Header else SCHEMA["$defs"][case.place.model.__name__]
    entry = documentation(case.place.model, case.name)
    assert entry
    assert entry.meaning in known["properties"][case.name]["description"]


def test_what_excludes_each_other_and_what_it_belongs_to_are_attributes() -> None:
    for model in {case.place.model for case in CASES}:
        known = r.attributes(model)
        assert {name for way in model.ways for name in way} <= known.keys()
        assert {name for of in known.values() for name in of.needs} <= known.keys()


def test_schedules_take_what_their_operands_do() -> None:
    kinds: list[Any] = [c.kind for c in CASES if isinstance(c.kind, ScheduleOf)]
    assert all(kind.units == kind.operand.units for kind in kinds)
    assert len({type(kind.operand) for kind in kinds}) == 12
