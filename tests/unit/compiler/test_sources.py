"""`cite` and `assumed`: where values are from, and that they change nothing."""

import json
from pathlib import Path
from typing import Any

import pytest
from specs import HEAD, after, check, plan, stage

from etude.cli.common import analyse_file, compile_file
from etude.cli.main import main
from etude.compiler.plan.plan import Plan, Sources
from etude.compiler.plan.sources import sourced_values
from etude.spec.findings.diagnostics import Report
from etude.spec.load import load
from etude.spec.source import Source
from etude.spec.text.format import format_text

PUBLISHED = Path(__file__).parents[3] / "examples" / "published"
SPEC = """\
recipe sources { title = "t", cite = "arXiv:1", seed = 1 assumed "none is named" }
model base { size = "8B" cite "Table 3", rope_theta = 1e6 assumed "as usual", }
dataset web { files = "web.jsonl" }
cluster big { gpus = 8 of "H100 80GB" cite "Table 4" }
stage pretrain: train {
  model = base
  steps = 100 cite "§1"
  seq_len = 4Ki for 50 steps then 8Ki
    cite "§2, on a line of its own"
  batch = 64 seqs assumed "not said"  # beside it
  lr = 0 -> 1e-3 for 10 steps then -> 1e-4 cosine
  data = web
  parallel = { tensor 8 } cite "Table 4"
}
expect { parameters = 8B within 1% cite "Table 3" }
"""


def loaded(tmp_path: Path, text: str = SPEC):
    path = tmp_path / "spec.etude"
    path.write_text(text, encoding="utf-8")
    report = Report()
    recipe = load(path, report)
    assert recipe is not None, [d.message for d in report.diagnostics]
    return recipe


def test_every_value_knows_its_source(tmp_path: Path) -> None:
    found = {
        of.name: (of.source.assumed, of.source.text) if of.source else None
        for of in sourced_values(loaded(tmp_path))
    }
    assert found == {
        "base.rope_theta": (True, "as usual"),
        "big.gpus": (False, "Table 4"),
        "pretrain.steps": (False, "§1"),
        "pretrain.seq_len": (False, "§2, on a line of its own"),
        "pretrain.batch": (True, "not said"),
        "pretrain.lr": None,
        "pretrain.data": None,
        "pretrain.parallel": (False, "Table 4"),
    }


def test_sources_change_no_plan() -> None:
    plain = stage()
    lines = [
        f'{line} cite "§{number}"' if " = " in line and line.startswith("  ") else line
        for number, line in enumerate(plain.splitlines())
    ]
    assert any("cite" in line for line in lines)
    with_sources = plan(HEAD + "\n".join(lines) + "\n")
    assert [job.key for job in with_sources.jobs] == [job.key for job in plan(HEAD + plain).jobs]


def compiled(tmp_path: Path, text: str = SPEC, **changes: Any) -> Plan:
    path = tmp_path / "spec.etude"
    path.write_text(text, encoding="utf-8")
    made, report = compile_file(str(path), None, **changes)
    assert made is not None, [d.message for d in report.diagnostics]
    return made


def test_the_plan_has_the_source_of_every_value_that_has_one(tmp_path: Path) -> None:
    made = compiled(tmp_path)
    blocks = {name.partition(".")[2]: of for name, of in made.values.items()}
    blocks |= {name: of.values for name, of in made.stages.items()}
    for of in sourced_values(loaded(tmp_path)):
        block, _, attribute = of.name.partition(".")
        value = blocks[block][attribute]
        assert (value.cite, value.assumed) == (
            of.source.text if of.source and not of.source.assumed else None,
            of.source.text if of.source and of.source.assumed else None,
        )
    assert made.values["recipe"]["seed"].assumed == "none is named"
    assert made.sources == Sources(values=8, cited=4, assumed=2)


def test_what_is_inherited_or_of_a_size_keeps_its_source_and_what_is_changed_loses_it(
    tmp_path: Path,
) -> None:
    text = (
        SPEC
        + after("second", steps="10", lr="last").replace("from = first", "from = pretrain")
        + "stage soup: average { of = [pretrain, second] }\n"
    )
    text += 'stage last_one: train { from = soup, steps = 9, lr = 1e-5, clip = 1 cite "§3" }\n'
    made = compiled(tmp_path, text)
    assert made.values["model.base"]["layers"].cite == "Table 3"
    assert made.stages["second"].values["seq_len"].cite == "§2, on a line of its own"
    assert made.stages["second"].values["clip"].cite is None
    assert made.stages["last_one"].values["batch"].assumed == "not said"
    assert made.stages["last_one"].values["clip"].cite == "§3"
    changed = compiled(tmp_path, text, sets=["pretrain.seq_len=8Ki"])
    assert changed.stages["second"].values["seq_len"].cite is None


@pytest.mark.parametrize("file", sorted(PUBLISHED.glob("*.etude")), ids=lambda file: file.stem)
def test_the_plans_of_published_recipes_have_every_source(file: Path) -> None:
    made, _ = compile_file(str(file), None)
    recipe = analyse_file(str(file)).recipe
    assert made is not None
    assert recipe is not None
    named = [*made.values.values(), *(stage.values for stage in made.stages.values())]
    carried = {
        (value.place.rpartition(":")[0].rpartition("/")[2], value.cite, value.assumed)
        for values in named
        for value in values.values()
        if value.place
    }
    for of in sourced_values(recipe):
        if of.source is not None:
            at = f"{Path(of.place.source.name).name}:{of.place.line}"
            texts = (None, of.source.text) if of.source.assumed else (of.source.text, None)
            assert (at, *texts) in carried, of.name


def test_a_miniature_claims_no_sources(tmp_path: Path) -> None:
    made = compiled(tmp_path, miniature=True)
    named = [*made.values.values(), *(stage.values for stage in made.stages.values())]
    assert not any(value.cite or value.assumed for of in named for value in of.values())
    assert made.sources is None


def test_provenance_shows_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    loaded(tmp_path)
    path = str(tmp_path / "spec.etude")
    assert main(["plan", path, "--provenance"]) == 0
    shown = capsys.readouterr().out
    rows = {
        cells[1]: cells[4]
        for cells in ([c.strip() for c in line.split("|")] for line in shown.splitlines())
        if len(cells) == 6
    }
    assert rows["pretrain.batch"] == "assumed: not said"
    assert rows["pretrain.steps"] == "§1"
    assert rows["pretrain.lr"] == ""
    assert "sources: of 8 values 4 cited, 2 assumed, 2 without a source" in shown
    assert main(["plan", path, "--provenance", "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["stages"]["pretrain"]["values"]["batch"]["assumed"] == "not said"


def test_formatting_keeps_sources_and_is_done_once(tmp_path: Path) -> None:
    once = format_text(Source("spec.etude", SPEC), Report())
    assert once is not None
    assert format_text(Source("spec.etude", once), Report()) == once
    before, after = (
        [(of.name, of.source) for of in sourced_values(loaded(tmp_path, text))]
        for text in (SPEC, once)
    )
    assert [(n, s and (s.assumed, s.text)) for n, s in before] == [
        (n, s and (s.assumed, s.text)) for n, s in after
    ]


@pytest.mark.parametrize("source", ['cite ""', 'assumed "  "'])
def test_an_empty_source_is_an_error(source: str) -> None:
    found = check(HEAD + stage().replace("steps", f"clip = 1 {source}\n  steps", 1))
    assert [d.code for d in found if d.severity == "error"] == ["E322"]


def test_a_claim_cannot_be_assumed(tmp_path: Path) -> None:
    found = check(HEAD + stage() + 'expect { tokens = 5 assumed "x" }\n')
    assert "E322" in [d.code for d in found]


def test_verify_counts_and_lists_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    loaded(tmp_path)
    path = str(tmp_path / "spec.etude")
    assert main(["verify", path, "--sources"]) == 0
    shown = capsys.readouterr().out
    assert "sources: of 8 values 4 cited, 2 assumed, 2 without a source" in shown
    assert "spec.etude:10: pretrain.batch: not said" in shown
    assert main(["verify", path, "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["sources"]
    assert (found["values"], found["cited"]) == (8, 4)
    assert [each["value"] for each in found["assumed"]] == ["base.rope_theta", "pretrain.batch"]


GROUPS = """family = deepseek_v3, layers = 2, dim = 64, heads = 4, vocab = 512, ffn = 128
  experts = { count = 8, active = 2, ffn = 32, balance = 0.001 }
  latent = { keys = 1024, plain = 16, rotary = 8, values = 16 }
  rope_scaling = yarn { factor = 8, original = 8Ki }"""


@pytest.mark.parametrize("miniature", [False, True])
def test_groups_of_a_model_are_shown_in_words(tmp_path: Path, *, miniature: bool) -> None:
    lines = HEAD.splitlines()
    model = next(n for n, line in enumerate(lines) if line.startswith("model tiny"))
    lines[model] = f"model tiny {{ {GROUPS} }}"
    path = tmp_path / "spec.etude"
    path.write_text("\n".join(lines) + "\n" + stage())
    made, report = compile_file(str(path), None, miniature=miniature)
    assert made, report.ordered()
    values = {name: value.value for name, value in made.values["model.tiny"].items()}
    original = "64" if miniature else "8,192"
    assert values["rope_scaling"] == f"yarn, factor 8, original {original}"
    if not miniature:
        assert values["experts"] == "count 8, active 2, ffn 32, balance 0.001"
        assert values["latent"] == "keys 1,024, plain 16, rotary 8, values 16"
    every = [*made.values.values(), *(stage.values for stage in made.stages.values())]
    assert not [v.value for of in every for v in of.values() if "(" in v.value or "None" in v.value]
