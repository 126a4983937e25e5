"""Specs in JSON: the form, its schema, and what is said about what is none."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from json_specs import as_json, as_text, bound, meaning
from jsonschema import Draft202012Validator
from specs import HEAD, POST_TRAINING, check, place, plan, stage

import etude
from etude.build import Recipe
from etude.schema import spec_schema
from etude.spec.convert_form import to_json, to_text
from etude.spec.findings.diagnostics import Diagnostic, Report
from etude.spec.json.json_text import Numeral, laid_out
from etude.spec.load import load, loads
from etude.spec.source import Source

ROOT = Path(__file__).resolve().parents[3]
EXAMPLES = sorted((ROOT / "examples").rglob("*.etude"))
EVERYTHING = (
    """
recipe all { title = source, seed = 1_000, tracking = wandb, allow W622 "meant" }
let source = "a \\"title\\""
let warm   = 20 steps
let both   = [web, math]
let half   = 50%
let setting = adamw { eps = 1e-6 }
model tiny {
  layers = 2, dim = 64, heads = 4, kv_heads = 2, ffn = 128, vocab = 300
  rope_scaling = yarn { factor = 4 cite "here", original = 16 }
  rope_theta = 10000 assumed "usual"
  allow W618 "one reason", allow W618 "another"
}
tokenizer words { train = { on both, vocab 300 } }
dataset web {
  files = ["a.jsonl", source], holdout = 1%, fields = { text = "body" }
  keep 10% where quality.loss > 4.0
  drop where url in "sites.txt"
}
dataset math { sample = arithmetic, awaited }
dialog chat { header = "<|{role}|>\\n", end_of_turn = "<|end|>", roles = [user, assistant] }
cluster box { gpus = 8 of "H100 80GB", price = 2.5 }
stage first: train {
  model = tiny, tokens = 64k, seq_len = 16 until warm then 32
  batch = 4 seqs -> 8 seqs for warm then 8 seqs
  lr = 0 -> 1e-3 for warm then -> 0 cosine cite "Table 3"
  data = { web half, math 50% }, optimizer = setting, parallel = { tensor 2 }
  average = polyak every 2 steps over half
  checkpoint every 50 steps
  gate seq_len {
    require needle >= half
    require loss(short) <= 102% of start
    needle = { depths = 5 }
    otherwise extend 10 steps at most 2 times
    allow W631 "in the gate"
  }
}
use "more.etude"
stage quality: score { from = first, data = both }
rounds align n {
  stage rm: reward { data = ranked[1..round], steps = 5, batch = 4 pairs, lr = 1e-4
    drop similar > 90% }
  stage chat: average { of = [first, previous.chat or first], weights = [3, 1] }
  allow W645 "in rounds"
}
stage exam: evaluate { suites = { sums ["a", "b"], code "c" }, needle = { lengths = [16, 32] } }
expect { first.tokens = 64k within 1% cite source, first.steps = 900
         first.tokens = 65k within half because "guessed", allow W671 "here"
         first.lr at 20 steps = 1e-3 within 1% contradicted source }
expect { first.steps = 90 }
variant wide { tiny.dim = 128, first.lr = 1e-4 -> 0 cite "there", first.data = { web 1 }
               first.gate = default, web.files = "b.jsonl", allow W606 "there" }
"""
    + "let n = 2\n"
)
FORM = {
    "etude_spec": 1,
    "name": "all",
    "title": {"let": "source"},
    "seed": "1_000",
    "tracking": "wandb",
    "allow": {"W622": "meant"},
    "use": [{"file": "more.etude", "after": "first"}],
    "let": {
        "source": '"a \\"title\\""',
        "warm": "20 steps",
        "both": ["web", "math"],
        "half": "50%",
        "setting": "adamw { eps = 1e-6 }",
        "n": 2,
    },
    "models": {
        "tiny": {
            "layers": 2,
            "dim": 64,
            "heads": 4,
            "kv_heads": 2,
            "ffn": 128,
            "vocab": 300,
            "rope_scaling": {
                "kind": "yarn",
                "factor": 4,
                "original": 16,
                "sources": {"factor": {"cite": "here"}},
            },
            "rope_theta": 10000,
            "sources": {"rope_theta": {"assumed": "usual"}},
            "allow": {"W618": ["one reason", "another"]},
        }
    },
    "tokenizers": {"words": {"train": {"on": "both", "vocab": 300}}},
    "datasets": {
        "web": {
            "files": ["a.jsonl", {"let": "source"}],
            "holdout": "1%",
            "fields": {"text": "body"},
            "filters": ["keep 10% where quality.loss > 4.0", 'drop where url in "sites.txt"'],
        },
        "math": {"sample": "arithmetic", "awaited": True},
    },
    "dialogs": {
        "chat": {"header": "<|{role}|>\n", "end_of_turn": "<|end|>", "roles": ["user", "assistant"]}
    },
    "clusters": {"box": {"gpus": '8 of "H100 80GB"', "price": 2.5}},
    "stages": {
        "first": {
            "kind": "train",
            "model": "tiny",
            "tokens": "64k",
            "seq_len": "16 until warm then 32",
            "batch": "4 seqs -> 8 seqs for warm then 8 seqs",
            "lr": "0 -> 1e-3 for warm then -> 0 cosine",
            "data": {"web": "half", "math": "50%"},
            "optimizer": {"let": "setting"},
            "parallel": {"tensor": 2},
            "average": "polyak every 2 steps over half",
            "checkpoint": "50 steps",
            "gate": {
                "require": ["needle >= half", "loss(short) <= 102% of start"],
                "otherwise": "extend 10 steps at most 2 times",
                "needle": {"depths": 5},
                "allow": {"W631": "in the gate"},
            },
            "sources": {"lr": {"cite": "Table 3"}},
        },
        "quality": {"kind": "score", "from": "first", "data": "both"},
        "align": {
            "kind": "rounds",
            "count": "n",
            "stages": {
                "rm": {
                    "kind": "reward",
                    "data": "ranked[1..round]",
                    "steps": 5,
                    "batch": "4 pairs",
                    "lr": 1e-4,
                    "similar": "90%",
                },
                "chat": {
                    "kind": "average",
                    "of": ["first", "previous.chat or first"],
                    "weights": [3, 1],
                },
            },
            "allow": {"W645": "in rounds"},
        },
        "exam": {
            "kind": "evaluate",
            "suites": {"sums": ["a", "b"], "code": "c"},
            "needle": {"lengths": [16, 32]},
        },
    },
    "expect": [
        {
            "first.tokens": [
                {"value": "64k", "within": "1%", "cite": {"let": "source"}},
                {"value": "65k", "within": "half", "because": "guessed"},
            ],
            "first.steps": {"value": 900},
            "first.lr at 20 steps": {
                "value": 1e-3,
                "within": "1%",
                "contradicted": {"let": "source"},
            },
            "allow": {"W671": "here"},
        },
        {"first.steps": {"value": 90}},
    ],
    "variants": {
        "wide": {
            "set": {
                "tiny.dim": 128,
                "first.lr": "1e-4 -> 0",
                "first.data": {"web": 1},
                "first.gate": "default",
                "web.files": '"b.jsonl"',
            },
            "sources": {"first.lr": {"cite": "there"}},
            "allow": {"W606": "there"},
        }
    },
}


def test_the_form_of_everything_that_a_spec_can_say() -> None:
    assert json.loads(as_json(EVERYTHING)) == FORM


def test_the_text_of_the_form_says_the_same() -> None:
    text = as_text(json.dumps(FORM))
    assert json.loads(as_json(text)) == FORM
    said = 'use "more.etude"\n'
    assert bound(text.replace(said, "")) == bound(EVERYTHING.replace(said, ""))


def test_keys_stand_in_the_order_of_the_form_and_then_of_the_text() -> None:
    assert list(json.loads(as_json(EVERYTHING))) == list(FORM)
    assert as_json(as_text(as_json(EVERYTHING))) == as_json(EVERYTHING)


@pytest.fixture(scope="module")
def schema() -> Draft202012Validator:
    Draft202012Validator.check_schema(spec_schema())
    return Draft202012Validator(spec_schema())


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_every_example_has_a_json_that_says_the_same(
    file: Path, schema: Draft202012Validator
) -> None:
    text = file.read_text(encoding="utf-8")
    made = as_json(text)
    assert as_json(as_text(made)) == made
    if not re.search(r"^recipe ", text, flags=re.MULTILINE):
        return
    schema.validate(json.loads(made))
    recipe = Recipe.model_validate_json(made)
    again = loads(recipe.model_dump_json(), Report())
    if "use " not in text:
        assert bound(made) == bound(as_text(made)) == bound(text) == meaning(again)


@pytest.mark.parametrize("text", [POST_TRAINING, HEAD + stage(lr="0 -> 1e-3 for 10 steps then 0")])
def test_the_plan_of_the_json_is_that_of_the_text(text: str) -> None:
    assert plan(as_json(text)).jobs == plan(text).jobs
    assert plan(Recipe.model_validate_json(as_json(text)).model_dump_json()).jobs == plan(text).jobs


def test_everything_follows_the_schema(schema: Draft202012Validator) -> None:
    schema.validate(FORM)
    dumped = Recipe.model_validate(FORM).model_dump_json()
    schema.validate(json.loads(dumped))
    assert as_text(dumped).splitlines().sort() == as_text(json.dumps(FORM)).splitlines().sort()


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("sed",), 3),
        (("etude_spec",), 2),
        (("models", "tiny", "layer"), 2),
        (("models", "tiny", "rope_scaling", "kind"), "yarm"),
        (("stages", "first", "stepz"), 3),
        (("stages", "first", "kind"), "trian"),
        (("stages", "first", "recompute"), "selectiv"),
        (("stages", "align", "stages", "rm", "lrr"), 3),
        (("stages", "first", "gate", "requires"), []),
        (("expect", 1, "first.steps", "with"), "1%"),
        (("variants", "wide", "sett"), {}),
        (("datasets", "web", "files"), 3),
    ],
)
def test_what_is_mistyped_fails_the_schema_and_the_check(
    path: tuple[str | int, ...], value: Any, schema: Draft202012Validator
) -> None:
    wrong = json.loads(json.dumps(FORM))
    inner: Any = wrong
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = value
    assert not schema.is_valid(wrong)
    assert findings(json.dumps(wrong))


def test_the_schema_requires_version_name_and_kinds_and_tells_what_attributes_mean() -> None:
    made = spec_schema()
    assert made["$id"] == "etude-spec-1.schema.json"
    assert made["required"] == ["etude_spec", "name"]
    assert "kind" in made["$defs"]["Sft"]["required"]
    about = made["$defs"]["Dpo"]["properties"]["beta"]["description"]
    assert about.startswith("β, how near to the reference; without one,")
    assert about.endswith("(takes number above 0; default: `0.1`; `2` with `simpo`)")
    described = [
        name
        for of in made["$defs"].values()
        for name, entry in of["properties"].items()
        if "description" in entry
    ]
    assert len(described) > 150


def findings(text: str) -> list[Diagnostic]:
    report = Report()
    loads(text, report)
    return report.ordered()


def spec(text: str = "") -> str:
    """A spec in JSON with something more in it."""
    begin = '{"etude_spec": 1, "name": "x", "stages": {"a": {"kind": "average", "of": ["b"]}'
    return begin + "}" + (f", {text}" if text else "") + "}"


def train(text: str) -> str:
    return spec().replace('"average", "of": ["b"]', f'"train", {text}')


WRONG: list[tuple[str, str, str]] = [
    ("E131", "¦{", "the file ends, but"),
    ("E131", spec()[:-1] + ",¦}", "a key in double quotes is expected"),
    ("E131", spec() + "¦}", "ends before this"),
    ("E131", spec('"seed": ¦NaN'), "numbers in a spec are finite"),
    ("E131", spec('"seed": ¦-Infinity'), "numbers in a spec are finite"),
    ("E131", spec('"seed": ¦True'), "write true"),
    ("E131", spec("\"title\": ¦'x'"), "strings are written in double quotes"),
    ("E131", spec('"seed": ¦01'), "not a JSON value"),
    ("E131", spec('"seed": 1 ¦// comment'), "JSON has no comments"),
    ("E131", spec('"title": ¦"x'), "no closing quote"),
    ("E131", spec('"title": "a¦\tb"'), "write it as \\u0009"),
    ("E131", spec('"title" ¦"x"'), "a colon is expected"),
    ("E131", spec('"use": ["x", ¦]'), "remove the comma"),
    ("E104", spec('"title": "a¦\\qb"'), "is not an escape"),
    ("E104", spec('"title": ¦"\\ud800"'), "half of a character"),
    ("E103", spec('"let": {"a": ' + "[" * 62 + "¦[" + "]" * 63 + "}"), "at most 64 deep"),
    ("E132", spec('"seed": 1, ¦"seed": 2'), "given twice"),
    ("E112", spec('"seed": ¦1e999'), "out of range"),
    ("E112", spec('"seed": ¦' + "9" * 50), "at most 40 digits"),
    ("E134", "¦{}", "no `etude_spec`"),
    ("E134", '¦{"etude_plan": 1}', "this is a plan"),
    ("E134", '{"etude_spec": ¦2}', "reads version 1"),
    ("E134", '{"etude_spec": ¦true}', "reads version 1"),
    ("E133", '{"etude_spec": 1, "name": ¦3}', "the recipe's name, a string, not a number"),
    ("E133", spec('"models": ¦[]'), "an object with names, not an array"),
    ("E133", spec('"models": {"m": ¦3}'), "not a number"),
    ("E108", spec('"seed": ¦-3'), "never negative"),
    ("E133", spec('"title": ¦3'), "must be a text, not a number"),
    ("E133", spec('"models": {"m": {"layers": ¦""}}'), "this string is empty"),
    ("E133", spec('"models": {"m": {"layers": ¦"3, dim = 4"}}'), "more than one value"),
    ("E133", spec('"models": {"m": {"layers": ¦"3 cite \\"x\\""}}'), "write a source in `sources`"),
    ("E133", spec('"models": {"m": {"layers": [¦null]}}'), "remove it"),
    ("E133", spec('"use": ¦"x.etude"'), "an array of files"),
    ("E133", spec('"use": [{"file": "x", "after": ¦"c"}]'), "there is no stage `c`"),
    ("E133", spec('"datasets": {"d": {"awaited": ¦1}}'), "true or false"),
    ("E133", spec('"datasets": {"d": {"filters": [¦"lr = 3"]}}'), "does not belong here"),
    ("E133", spec('"datasets": {"d": {"filters": ¦"keep"}}'), "a list of strings"),
    ("E133", spec('"variants": {"v": {"set": {¦"a b": 3}}}'), "not a path"),
    ("E133", spec('"sources": {"seed": {"cite": "x"}}, "seed": {¦"let": "a b"}'), ""),
    ("E133", spec('"seed": 1, "sources": {"seed": ¦{"cite": "x", "assumed": "y"}}'), "one source"),
    ("E133", spec('"allow": {"W606": ¦3}'), "a reason"),
    ("E133", train('"data": {"web": ¦"0 -> 1"}'), "one constant value"),
    ("E133", train('"data": {"web": ¦{"x": 1}}'), "a number with its unit"),
    ("E133", train('"data": {¦"a or b": 1}'), "not the name of a source"),
    ("E308", spec('¦"sed": 3'), "did you mean `seed`?"),
    ("E308", spec('"sources": {¦"seed": {"cite": "x"}}'), "there is no `seed` here"),
    ("E308", train('¦"stepz": 3'), "did you mean `steps`?"),
    ("E308", train('"gate": {¦"needel": {}}'), "did you mean `needle`?"),
    ("E305", '{"etude_spec": 1, ¦"seed": 3}', "a recipe needs a name"),
    ("E305", spec().replace('"kind": "average", ', "").replace('"a"', '"¦a"'), "has no kind"),
    ("E305", train('"optimizer": ¦{"eps": 1e-8}'), "has no kind"),
    ("E307", train("").replace('"train", ', '"¦trian"'), "did you mean `train`?"),
    ("E318", spec('"expect": {"tokens": ¦{}}'), "needs `value`"),
    ("E318", spec('"expect": {"tokens": ¦{"value": 1, "because": "x"}}'), "needs `within`"),
    ("E133", spec('"expect": {¦"a, b": {"value": 1}}'), "not a figure"),
    ("E204", spec('"expect": {"a.lr at 3 ¦setps": {"value": 1}}'), "did you mean `steps`?"),
    ("E319", spec().replace('"average", "of": ["b"]', '"rounds", "count": ¦"a b"'), ""),
    ("E101", train('"lr": "1e-3 ¦5"'), "is not expected here"),
    ("E111", train('"seq_len": "¦8K"'), "write `8k`"),
    ("E204", train('"steps": "10\\u0020¦setps"'), "did you mean `steps`?"),
    ("E214", train('"data": ¦{"web": "97%"}'), "add up to 97%"),
]


@pytest.mark.parametrize(("code", "text", "phrase"), WRONG)
def test_what_is_wrong_with_json_is_said_once_with_its_place(
    code: str, text: str, phrase: str
) -> None:
    before, _, after = text.partition("¦")
    assert after
    found = findings(before + after)
    of = next((d for d in found if d.code == code), None)
    if not phrase:
        assert found
        return
    assert of, [(d.code, d.message) for d in found]
    assert place(of) == (1, len(before) + 1)
    assert phrase in " ".join([of.message, of.label, of.help])
    assert of.span
    assert of.span.end <= len(before + after)


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("E309", "model m { layers = 2, layers = 3 }"),
        ("E303", 'dataset d { hub = "a" }\ndataset d { hub = "b" }'),
        ("E310", "stage a: train { steps = 3 within 1% }"),
        ("E105", "model m { layers 3 }"),
        ("E301", "layers = 3"),
        ("E302", "modle m { }"),
        ("E308", "recipe x { stages = 3 }"),
        ("E201", "dataset d { hub = 3 }"),
        ("E307", "stage a: rounds { }"),
    ],
)
def test_a_text_that_json_cannot_say_has_an_error_that_says_why(code: str, text: str) -> None:
    report = Report()
    assert to_json(Source("<text>", text), report) is None
    assert code in {d.code for d in report.errors}


def test_files_use_each_other_whatever_their_form(tmp_path: Path) -> None:
    (tmp_path / "main.json").write_text(
        '{"etude_spec": 1, "name": "x", "use": ["parts.etude"], "stages": '
        '{"a": {"kind": "train", "model": "tiny", "lr": "peak"}}}'
    )
    (tmp_path / "parts.etude").write_text('use "low/more.json"\nlet peak = 1e-3\n')
    (tmp_path / "low").mkdir()
    (tmp_path / "low" / "more.json").write_text(
        '{"etude_spec": 1, "models": {"tiny": {"size": "1B"}}}'
    )
    recipe = load(tmp_path / "main.json", Report())
    assert recipe
    assert recipe.models["tiny"].size == "1B"
    (tmp_path / "low" / "more.json").write_text('{"etude_spec": 1,\n "models": {"tiny": 3}}')
    report = Report()
    assert load(tmp_path / "main.json", report) is None
    (found,) = report.errors
    assert repr(found.span) == f"{tmp_path}/low/more.json:2:21"


def test_the_stages_of_a_used_file_stay_where_they_were() -> None:
    text = (
        'use "a.etude"\nstage a: train { steps = 1 }\nuse "b.etude"\nstage b: train { steps = 2 }\n'
    )
    form = json.loads(as_json(text))
    assert form["use"] == ["a.etude", {"file": "b.etude", "after": "a"}]
    assert as_text(as_json(text)).replace("\n\n", "\n") == text


def test_changes_and_variants_of_json(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text(as_json(POST_TRAINING + "variant long { first.steps = 200 }\n"))
    assert etude.compile(etude.load(path, variant="long")).stages["first"].steps == 200
    assert etude.compile(etude.load(path, sets=["first.steps=7"])).stages["first"].steps == 7


def test_numbers_are_json_where_that_loses_nothing() -> None:
    written = ["3", "0.1", "3e-4", "1_000", "15.6T", "007", "1234567890123456", "50%", "2 steps"]
    text = "".join(f"let a{n} = {number}\n" for n, number in enumerate(written))
    lets = json.loads(as_json(text))["let"].values()
    assert list(lets) == [3, 0.1, 3e-4, *written[3:]]
    assert as_text(as_json(text)) == as_text(text)
    assert ": 3e-4," in as_json(text)


def test_the_layout_keeps_small_things_on_one_line() -> None:
    assert laid_out({"a": {"b": [Numeral(1)], "c": {"d": "é"}}, "e": [], "f": {"g": True}}) == (
        '{\n  "a": {\n    "b": [1],\n    "c": {"d": "é"}\n  },\n  "e": [],\n  "f": {"g": true}\n}\n'
    )


def test_beside_an_error_the_blocks_that_it_does_not_touch_are_checked() -> None:
    text = HEAD + "stage other: train { model = tiny, steps = 10, lr = 3, clip = 100 }\n" + stage()
    wrong = text.replace("lr = 3,", "lr = 3 steps,").replace(
        "steps = 100", "steps = 100\n clip = 100"
    )
    found = {(d.code, d.severity) for d in check(wrong)}
    assert ("W606", "warning") in found
    assert {(d.code, d.severity) for d in check(as_json(wrong))} == found


def test_json_that_no_text_can_say_is_told_where() -> None:
    report = Report()
    form = train('"data": {"let": "50%", "web": "50%"}')
    assert to_text(Source("<text>", form), report) is None
    assert [d.code for d in report.errors] == ["E133"]
    assert loads(form.replace('"x"', '"a b"'), Report()) is None
    assert to_text(Source("<text>", form.replace('"x"', '"a b"')), report := Report()) is None
    assert "E306" in {d.code for d in report.errors}
