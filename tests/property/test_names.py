"""What one part takes for a name, all take: parser, JSON, Python, renames, importers."""

import json
import re
import tempfile
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from lsp_files import at
from specs import HEAD, check, stage

from etude.authoring.writing import name as written_name
from etude.build import Recipe
from etude.lsp.navigation import Refused, rename
from etude.schema import spec_schema
from etude.spec.convert_form import to_json
from etude.spec.findings.diagnostics import Report
from etude.spec.load import loads
from etude.spec.source import Source
from etude.spec.text.keywords import MEANINGS, SHAPES, proposal, why_no_name

SCHEMA = Draft202012Validator(spec_schema())
WORDS = sorted({*MEANINGS, *SHAPES, "keep", "drop", "gate", "stage", "dataset", "expect", "pairs"})
NAMES = st.one_of(
    st.sampled_from(WORDS),
    st.from_regex(r"[a-z_][a-z0-9_]{0,8}", fullmatch=True),
    st.text(max_size=6),
)
SPEC = (
    HEAD
    + "let zzlet = 1e-3\n"
    + "dataset zzdata { sample = arithmetic }\n"
    + "cluster zzcluster { cpus = 1 }\n"
    + stage("zzstage", data="{ zzdata 50%, web 50% }", lr="zzlet", cluster="zzcluster")
    + "variant zzvariant { zzstage.batch = 8 seqs }\n"
    + 'expect {\n  zzstage.steps = 100 within 1% because "x y"\n}\n'
)
KINDS = ("let", "dataset", "cluster", "stage", "variant")
STAND_IN = {kind: f"zz{'data' if kind == 'dataset' else kind}" for kind in KINDS}


def errors(text: str) -> list[str]:
    return [found.code for found in check(text) if found.severity == "error"]


def as_json(text: str) -> str:
    report = Report()
    form = to_json(Source("<text>", text), report)
    assert form, report.errors
    return form


FORM = as_json(SPEC)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=40, deadline=None)
@given(name=NAMES)
@example(name="at")
@example(name="for")
@example(name="round")
def test_a_name_is_one_for_all_or_for_none(kind: str, name: str) -> None:
    if f" {name} " in f" {' '.join(re.findall(r'[a-z_]+', SPEC))} " and not why_no_name(name):
        return  # there may be something else of this name
    stand_in = STAND_IN[kind]
    right = not why_no_name(name)
    text = SPEC.replace(stand_in, name)
    assert (errors(text) == []) == right
    if '"' in name or "\\" in name or not name.isprintable():
        return
    form = FORM.replace(stand_in, name)
    assert (errors(form) == []) == right
    report = Report()
    assert (loads(form, report) is not None) == right
    assert SCHEMA.is_valid(json.loads(form)) == right
    if right:
        assert errors(Recipe.model_validate_json(form).text()) == []
        assert as_json(text) == form
    with tempfile.TemporaryDirectory() as folder:
        place = SPEC.index(stand_in)
        analysis, path, offset = at(Path(folder), SPEC[:place] + "¦" + SPEC[place:])
        try:
            edits = rename([analysis], path, offset, name)
        except Refused:
            assert not right
        else:
            assert right
            assert len(edits[path.as_uri()]) == SPEC.count(stand_in)


@settings(max_examples=100, deadline=None)
@given(wish=st.one_of(NAMES, st.text()), kind=st.sampled_from(KINDS))
def test_names_that_etude_makes_or_proposes_are_names(wish: str, kind: str) -> None:
    made = written_name(wish, otherwise="data")
    assert why_no_name(made) == ""
    assert errors(SPEC.replace("zzdata", made)) == [] or made in SPEC
    other = proposal(wish, kind)
    assert not other or why_no_name(other) == ""


@pytest.mark.parametrize("word", sorted(MEANINGS))
def test_a_change_of_the_command_line_reaches_a_stage_of_any_name(word: str) -> None:
    if why_no_name(word):
        return
    report = Report()
    recipe = loads(SPEC.replace("zzstage", word), report, sets=[f"{word}.batch=16 seqs"])
    assert recipe
    assert not report.errors
