"""Names of other programs: each is answered, and what an answer shows is right as it stands."""

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from whole_spec import problems, spec

from etude.compiler.families import FAMILIES
from etude.compiler.files.published_keys import KINDS
from etude.compiler.files.unread_kinds import UNREAD
from etude.spec import syntax as s
from etude.spec.findings.diagnostics import Report
from etude.spec.foreign import answers
from etude.spec.foreign.foreign_attributes import ANY, Answer
from etude.spec.load import loads
from etude.spec.schema import recipe as r
from etude.spec.schema.lacking import BLOCKS
from etude.spec.source import Source
from etude.spec.text.parse import parse

GROUPS = {
    "experts": ("model", "experts = {{ {} }}"),
    "latent": ("model", "latent = {{ {} }}"),
    "rope_scaling": ("model", "rope_scaling = yarn {{ {} }}"),
    "fields": ("dataset", "fields = {{ {} }}"),
    "optimizer": ("train", "optimizer = adamw {{ {} }}"),
    "tracker": ("recipe", "tracking = mlflow {{ {} }}"),
    "needle": ("evaluate", "needle = {{ {} }}"),
    "evaluation": ("train", "evaluate = {{ {} }}"),
    "torchtitan": ("train", "torchtitan = {{ {} }}"),
    "torchtitan.training": ("train", "torchtitan = {{ training = {{ {} }} }}"),
    "torchtitan.parallelism": ("train", "torchtitan = {{ parallelism = {{ {} }} }}"),
    "torchtitan.compile": ("train", "torchtitan = {{ compile = {{ {} }} }}"),
    "torchtitan.comm": ("train", "torchtitan = {{ comm = {{ {} }} }}"),
    "torchtitan.debug": ("train", "torchtitan = {{ debug = {{ {} }} }}"),
    "torchtitan.optimizer": ("train", "torchtitan = {{ optimizer = {{ {} }} }}"),
}
"""Groups: the block that they stand in, and how."""
VALUES = {
    "optimizer": ("train", "optimizer = {}"),
    "precision": ("train", "precision = {}"),
    "recompute": ("train", "recompute = {}"),
    "attention": ("train", "attention = {}"),
    "average": ("train", "average = {}"),
    "loss": ("sft", "loss = {}"),
    "protocol": ("dialog", "protocol = {}"),
    "tracking": ("recipe", "tracking = {}"),
    "records": ("dataset", "kind = {}"),
    "long": ("dataset", "long = {}"),
    "degree": ("train", "parallel = {{ {} 2 }}"),
    "schedule": ("train", "parallel = {{ pipeline 2, schedule {} }}"),
    "unit": ("train", "batch = 64 {}"),
}
"""Places of values: the block that they stand in, and how."""


def blocks_of(answer: Answer) -> list[str]:
    return ["train", "recipe", "dpo"] if answer.where == ANY else answer.where.split()


def stands_in(answer: Answer) -> Iterator[str]:
    """The blocks that an answer's example is right in; "" for whole blocks."""
    whole = isinstance(next(iter(parse(Source("x", answer.example), Report()))), s.Block)
    for where in blocks_of(answer):
        in_value = VALUES if answer in answers.VALUES else {}
        yield "" if whole else in_value.get(where, (where, ""))[0]


ATTRIBUTES = [
    pytest.param(answer, block, id=f"{block}-{answer.all_names[0]}")
    for answer in answers.ATTRIBUTES
    for block in blocks_of(answer)
]
EXAMPLES = [
    pytest.param(answer.example, block, id=f"{block}-{answer.all_names[0]}")
    for answer in answers.all_answers()
    if answer.example
    for block in dict.fromkeys(stands_in(answer))
]


def test_the_spec_of_these_tests_is_right() -> None:
    assert problems(spec()) == []


@pytest.mark.parametrize(("example", "block"), EXAMPLES)
def test_what_an_answer_shows_is_right(example: str, block: str) -> None:
    shown = example
    if block in GROUPS:
        block, form = GROUPS[block]
        shown = form.format(example)
    text = spec("train" if block == "block" else block, shown)
    assert example.partition(",")[0] in text
    assert problems(text) == []


@pytest.mark.parametrize(("answer", "block"), ATTRIBUTES)
def test_every_attribute_of_the_table_is_answered(answer: Answer, block: str) -> None:
    names = [n for n in answer.all_names if first(n, block) is answer]
    assert names
    written = ", ".join(f"{name} = 1" for name in names)
    if block in GROUPS:
        block, form = GROUPS[block]
        written = form.format(written)
    found = {
        of.message.rpartition(" ")[2].strip("`"): of
        for of in problems(spec(block, written))
        if of.code == "E308"
    }
    assert {name: of.help for name, of in found.items()} == dict.fromkeys(names, answer.text)


def first(name: str, block: str) -> Answer:
    """The answer that counts."""
    named = (answer for answer in answers.ATTRIBUTES if name in answer.all_names)
    return next(each for each in named if each.where == ANY or block in each.where.split())


@pytest.mark.parametrize(
    ("answer", "where"),
    [
        pytest.param(a, w, id=f"{w}-{a.all_names[0]}")
        for a in answers.VALUES
        for w in a.where.split()
    ],
)
def test_every_value_of_the_table_is_answered(answer: Answer, where: str) -> None:
    for name in answer.all_names:
        if where == "block":
            text = spec("", f"{name} x {{ }}")
        elif where == "kind":
            text = spec("", f"stage x: {name} {{ }}")
        else:
            block, form = VALUES[where]
            text = spec(block, form.format(name))
        helps = [of.help for of in problems(text)]
        assert answer.text in helps, (name, helps)


@pytest.mark.parametrize(("answer", "block"), [p for p in ATTRIBUTES if p.values[1] in r.STAGES])
def test_specs_in_json_are_answered_alike(answer: Answer, block: str) -> None:
    name = next(n for n in answer.all_names if first(n, block) is answer)
    tree = {"etude_spec": 1, "name": "test", "stages": {"x": {"kind": block, name: 1}}}
    helps = [of.help for of in problems(json.dumps(tree)) if of.code == "E308"]
    assert helps == [answer.text]


def test_a_name_has_one_answer_in_a_block() -> None:
    for table in (answers.ATTRIBUTES, answers.VALUES):
        seen: set[tuple[str, str]] = set()
        for answer in table:
            for pair in ((n, w) for n in answer.all_names for w in answer.where.split()):
                assert pair not in seen, pair
                seen.add(pair)


def test_what_is_meant_exists() -> None:
    """Where an answer asks "did you mean", the block has the attribute."""
    models = {name: model for model, name in BLOCKS.items()}
    for answer in answers.ATTRIBUTES:
        if answer.says.startswith("did you mean"):
            meant = answer.says.split("`")[1]
            for block in answer.where.split():
                assert meant in r.attributes(models[block]), (meant, block)


HELP: list[Any] = [
    ("train", "seed = 3", "`seed` is an attribute of the recipe"),
    ("sft", "beta = 0.1", "`beta` is an attribute of dpo and kto stages"),
    ("dataset", "messages = 1", "`messages` is an attribute of `fields = { … }` of a dataset"),
    (
        "train",
        "dialog = plain",
        "`dialog` is an attribute of sft, distill, reward, dpo, kto, prm, grpo, sample, best and "
        "evaluate stages",
    ),
    ("recipe", "learning_rate = 3e-4", "this belongs in train, sft, reward and dpo stages"),
    ("train", "wandb = true", "this belongs in the recipe: did you mean `tracking`?"),
    ("train", "lora { rank 16 }", "it is `adapter` here"),
    ("train", "eval every 100 steps", "did you mean `evaluate`?"),
    ("train", "LORA = 1", "it is `adapter` here"),
    ("train", 'open lora "the configuration has one"', "it is `adapter` here"),
    ("train", "optimizer = sophia { lr = 0.02 }", "this version has `adamw`"),
    ("train", "optimizer = adafactor { clip_threshold = 1 }", "did you mean `d`"),
    ("train", "optimizer = adafactor { relative_step = true }", "the rate is the stage's `lr`"),
    ("train", "optimizer = muon_clip { tau = 100 }", "did you mean `muon`?"),
    ("train", "optimizer = muon { qk_clip_tau = 100 }", "did you mean `qk_clip`"),
    ("train", 'optimizer = "adamw_torch"', "did you mean `adamw`?"),
    ("train", "average = ema every 10 steps", "an exponential moving average is an attribute"),
    ("train", "stepz = 3", "did you mean `steps`?"),
    ("dataset", "filez = 1", "did you mean `files`?"),
    ("train", "nonsense = 1", "there is "),
]


@pytest.mark.parametrize(("block", "statement", "help"), HELP)
def test_other_ways_of_writing(block: str, statement: str, help: str) -> None:
    if statement.startswith("open"):
        text = spec(block).replace(
            "stage pretrain: train {", "stage pretrain: train {\n" + statement
        )
    else:
        text = spec(block, statement)
    assert [of.help[: len(help)] for of in problems(text)][:1] == [help]


SAID = {name: f"write `family = {family}`" for name, family in KINDS.items()}
SAID |= {name: f"no family in this version supports it: {why}" for name, why in UNREAD.items()}


@pytest.mark.parametrize("name", sorted(name for name in {*SAID} - {*FAMILIES} if "-" not in name))
def test_families_of_models_are_answered(name: str) -> None:
    (found,) = problems(spec("model", f"family = {name}"))[:1]
    assert (found.code, found.help[: len(SAID[name])]) == ("E414", SAID[name])


def test_variants_are_answered_alike() -> None:
    text = spec() + "variant v { sft.lora_r = 16, pretrain.learning_rate = 1e-3 }\n"
    report = Report()
    loads(text, report, variant="v")
    helps = [of.help[:26] for of in report.ordered() if of.code == "E308"]
    assert helps == ["it is `adapter` here, whic", "did you mean `lr`? The rat"]


@pytest.mark.parametrize(
    ("attribute", "help"),
    [
        ("lora = { rank = 16 }", "it is `adapter` here"),
        ('checkpoint_folder = "s3://bucket/run"', "name a run's folder when you start it"),
    ],
    ids=["adapter", "remote"],
)
def test_the_cases_of_the_issue(attribute: str, help: str) -> None:
    (found,) = problems(spec("train", attribute))
    assert (found.code, found.help[: len(help)]) == ("E308", help)
    assert "did you mean" not in found.help


def test_checking_a_right_spec_reads_no_table() -> None:
    code = "import sys; from etude.spec.load import loads\n"
    code += "from etude.spec.findings.diagnostics import Report\n"
    code += f"assert loads({spec()!r}, Report()); print([m for m in sys.modules if 'foreign' in m])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
