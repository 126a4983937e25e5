"""The Python API: loading, checking, building; and the examples of its page."""

import re
import runpy
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pydantic
import pytest
from specs import POST_TRAINING

import etude
from etude import build as b
from etude.spec.json import json_form as form
from etude.spec.json.json_form import BLOCKS
from etude.spec.quantity import Quantity
from etude.spec.record import fields
from etude.spec.schema import recipe as r

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^```python\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)

PAIRS: dict[type[b.Attributes], type[r.Declaration]] = {
    b.Experts: r.Experts,
    b.Latent: r.Latent,
    b.RopeScaling: r.RopeScaling,
    b.Model: r.Model,
    b.TokenizerTraining: r.TokenizerTraining,
    b.Tokenizer: r.Tokenizer,
    b.Fields: r.Fields,
    b.Dialog: r.Dialog,
    b.Dataset: r.Dataset,
    b.Cluster: r.Cluster,
    b.Needle: r.Needle,
    b.Train: r.Train,
    b.Sft: r.Sft,
    b.Distill: r.Distill,
    b.Reward: r.Reward,
    b.Dpo: r.Dpo,
    b.Kto: r.Kto,
    b.Prm: r.Prm,
    b.Grpo: r.Grpo,
    b.Score: r.Score,
    b.Sample: r.Sample,
    b.Checkpoint: r.Checkpoint,
    b.Average: r.Average,
    b.Evaluate: r.Evaluate,
    b.Best: r.Best,
    b.Ensemble: r.Ensemble,
    b.Optimizer: r.Optimizer,
    b.Gate: r.Gate,
    b.Recipe: r.Header,
}
# Written as statements in texts, what tells the kind of a group, and what every block may have.
STATEMENTS = {
    "filters",
    "similar",
    "kind",
    "gate",
    "sources",
    "allow",
    "open",
    "require",
    "otherwise",
}
TOP = {"$schema", "etude_spec", "name", "use", "let", "stages", "expect", "variants", *BLOCKS}


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_the_examples_of_the_page_run(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(EXAMPLES[number], f"docs/python.md, example {number}", "exec"), {})


def test_the_models_of_blocks_are_those_of_the_schema() -> None:
    made = runpy.run_path(str(ROOT / "docs" / "python_models.py"))["texts"]()
    assert made.keys() == {"blocks.py", "stage_blocks.py"}
    for name, text in made.items():
        written = (ROOT / "etude" / name).read_text(encoding="utf-8")
        assert written == text, "run: python docs/python_models.py"


def names(model: type[b.Attributes]) -> dict[str, Any]:
    """The fields of a model by the names of the language."""
    return {f.serialization_alias or name: f for name, f in model.model_fields.items()}


@pytest.mark.parametrize("model", PAIRS, ids=lambda model: model.__name__)
def test_the_models_have_the_attributes_of_the_language(model: type[b.Attributes]) -> None:
    there = set(form.names(PAIRS[model]))
    own = set(names(model)) - (STATEMENTS - there) - (TOP if model is b.Recipe else set())
    assert own == there - (STATEMENTS - own)
    assert "sources" in names(model)


@pytest.mark.parametrize("model", PAIRS, ids=lambda model: model.__name__)
def test_what_is_required_and_which_choices_there_are_is_that_of_the_language(
    model: type[b.Attributes],
) -> None:
    for name, attribute in r.attributes(PAIRS[model]).items():
        field = names(model)[name]
        assert field.is_required() == attribute.required, name
        choices = set(attribute.kind.choices) if attribute.kind.distinct else set()
        assert choices_of(field.annotation) == choices - {"true", "false"}, name
        assert attribute.kind.distinct == (b.Let in parts(field.annotation)), name


def parts(annotation: Any) -> set[Any]:
    """What a union is of."""
    return set(get_args(annotation)) or {annotation}


def choices_of(annotation: Any) -> set[str]:
    return {
        choice
        for part in parts(annotation)
        if get_origin(part) is Literal
        for choice in get_args(part)
    }


def test_every_block_and_kind_of_stage_can_be_built() -> None:
    built = {model.__name__.lower() for model in PAIRS if issubclass(model, b.Stage)}
    assert built == set(r.STAGES)
    groups = {"models", "tokenizers", "datasets", "clusters", "dialogs", "stages"}
    assert groups <= set(b.Recipe.model_fields) & set(fields(r.Recipe))
    assert set(names(b.Recipe)) == set(form.TOP)
    assert b.Recipe.model_fields["etude_spec"].default == form.VERSION


def post_training() -> b.Recipe:
    """What `POST_TRAINING` says, built."""
    functions: dict[str, Any] = {"sample": "python_functions"}
    return b.Recipe(
        name="test",
        seed=1,
        models={"tiny": b.Model(layers=2, dim=64, heads=4, kv_heads=2, ffn=128, vocab=300)},
        datasets={
            "web": b.Dataset(sample="python_docs"),
            "math": b.Dataset(sample="arithmetic"),
            "human": b.Dataset(**functions, kind="dialogs"),
            "ranked": b.Dataset(**functions, kind="preferences"),
            "asked": b.Dataset(**functions, kind="prompts"),
            "labels": b.Dataset(
                files="{round}.jsonl", kind="preferences", awaited=True, candidates="drafts"
            ),
        },
        stages={
            "first": b.Train(
                model="tiny", steps=100, seq_len=16, batch="4 seqs", lr=1e-3, data="web"
            ),
            "align": b.Rounds(
                count=2,
                stages={
                    "rm": b.Reward(
                        from_="first",
                        data="ranked[1..round]",
                        steps=10,
                        batch="4 pairs",
                        lr=1e-4,
                        similar="90%",
                    ),
                    "drafts": b.Sample(
                        from_="previous.chat or first",
                        prompts="asked[round]",
                        draws=4,
                        max_tokens=8,
                        judge="rm",
                    ),
                    "sft": b.Sft(
                        from_="first", data={"drafts": "60%", "human": "40%"}, steps=10, lr=1e-4
                    ),
                    "dpo": b.Dpo(
                        from_="sft",
                        steps=10,
                        batch="4 pairs",
                        lr=1e-5,
                        data={"labels[round]": "50%", "drafts.pairs": "50%"},
                    ),
                    "chat": b.Average(of=["dpo", "previous.dpo or dpo"]),
                },
            ),
            "exam": b.Evaluate(from_="align.chat", judge="align.rm", prompts="asked", max_tokens=8),
            "pick": b.Best(of=["align.chat", "align.chat[1]"], loss=["web"]),
        },
    )


def test_a_built_recipe_has_the_plan_of_the_written_one() -> None:
    written = etude.compile(etude.loads(POST_TRAINING))
    assert etude.compile(post_training()).jobs == written.jobs


def test_statements_claims_and_gates() -> None:
    recipe = b.Recipe(
        name="all",
        title='A "title"',
        models={"m": b.Model(layers=2, dim=64, heads=4, ffn=128, vocab=258, tied=True)},
        tokenizers={"w": b.Tokenizer(bytes=True)},
        datasets={
            "web": b.Dataset(
                files=["a.jsonl", "b.jsonl"],
                fields_=b.Fields(text="body"),
                filters=['drop where url in "sites.txt"'],
                tokens="1M",
            )
        },
        dialogs={"chat": b.Dialog(protocol="chatml", system="Be\nbrief.")},
        clusters={"here": b.Cluster(gpus='8 of "H100 80GB"')},
        stages={
            "pretrain": b.Train(
                model="m",
                steps=100,
                seq_len="32 for 50% then 64",
                batch="16 seqs",
                lr=3e-4,
                data="web",
                optimizer=b.Optimizer(betas=[0.9, 0.99]),
                parallel={"tensor": 2},
                checkpoint=1,
                average="polyak every 2 steps over 50%",
                gate=b.Gate(
                    require=["loss(web) <= 9.5"],
                    otherwise="extend 2048 tokens at most 2 times",
                    needle=b.Needle(depths=3),
                ),
            ),
            "report": b.Evaluate(suites={"math": ["gsm8k"]}, needle=b.Needle(lengths=[32, "64"])),
        },
        expect={"pretrain.steps": b.Claim(value=100, within="0%", cite="here")},
    )
    bound = recipe.bound().recipe
    train = bound.stages["pretrain"]
    assert isinstance(train, r.Train)
    assert isinstance(train.optimizer, r.Optimizer)
    assert train.optimizer.betas == (0.9, 0.99)
    assert train.checkpoint == Quantity(Fraction(1), "steps")
    assert train.gate
    assert train.gate.attempts == 2
    assert bound.dialogs["chat"].system == "Be\nbrief."
    assert bound.datasets["web"].fields.text == "body"
    assert bound.datasets["web"].filters[0].file == "sites.txt"
    assert bound.header.title == 'A "title"'
    assert etude.compile(recipe).claims[0].what == "pretrain.steps"
    assert b.Recipe.model_validate_json(recipe.model_dump_json()) == recipe
    assert etude.compile(etude.loads(recipe.text())).jobs == etude.compile(recipe).jobs


def test_a_wrong_name_or_kind_is_refused_where_it_is_written() -> None:
    with pytest.raises(pydantic.ValidationError, match="stepz"):
        b.Train(stepz=3)  # type: ignore[call-arg]
    with pytest.raises(pydantic.ValidationError, match="train"):
        b.Recipe.model_validate({"name": "x", "stages": {"a": {"kind": "trian"}}})


def test_wrong_values_are_diagnostics_with_places_in_the_json() -> None:
    recipe = post_training().model_copy(update={"stages": {"a": b.Train(model="tini", steps=1.5)}})
    with pytest.raises(etude.SpecError) as raised:
        etude.compile(recipe)
    found = etude.check(recipe)
    assert [d.code for d in found] == [d.code for d in raised.value.diagnostics]
    lines = recipe.json_text().splitlines()
    places = {d.code: lines[d.span.line - 1] for d in found if d.span}
    assert places.keys() >= {"E207", "E402"}
    assert "1.5" in places["E207"]
    assert "tini" in places["E402"]


def test_check_gives_warnings_and_raises_nothing() -> None:
    text = POST_TRAINING.replace("steps = 100,", "steps = 100, clip = 100,")
    found = etude.check(etude.loads(text))
    assert "W606" in {d.code for d in found}
    assert all(d.severity != "error" for d in found)


def test_variants_and_changes_are_loaded(tmp_path: Path) -> None:
    (tmp_path / "x.etude").write_text(POST_TRAINING + "variant long { first.steps = 200 }\n")
    path = tmp_path / "x.etude"
    assert etude.compile(etude.load(path)).stages["first"].steps == 100
    assert etude.compile(etude.load(path, variant="long")).stages["first"].steps == 200
    changed = etude.load(path, sets=["first.steps=7"])
    assert etude.compile(changed).stages["first"].steps == 7


def test_neither_torch_nor_yaml_is_imported_for_loading(tmp_path: Path) -> None:
    code = (
        "import sys, etude; r = etude.loads('recipe x { }'); "
        "assert not {'torch', 'torchtitan', 'yaml', 'rich'} & set(sys.modules); "
        "import etude.build; assert 'torch' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_the_package_says_that_it_is_typed() -> None:
    assert (Path(etude.__file__).parent / "py.typed").exists()
