"""Every template, with every kind of answer, is a spec without errors."""

from itertools import product
from pathlib import Path
from typing import Any

import pytest
from specs import POST_TRAINING

from etude.authoring.base import base_of
from etude.authoring.model_parts import Model
from etude.authoring.questions import LENGTHS, QUESTIONS, SIZES
from etude.authoring.templates import TEMPLATES, asked, text_of
from etude.authoring.tree import ConfigError
from etude.compiler.driver import analyse, compile
from etude.spec.findings.diagnostics import Report
from etude.spec.findings.render import render_all
from etude.spec.load import read, reads

GOING_ON = [name for name, template in TEMPLATES.items() if template.goes_on]
SIZED = [name for name, template in TEMPLATES.items() if "size" in template.asks]


def written(template: str, base: Model | None = None, after: str = "", /, **given: str) -> str:
    """The text of a template; what is not given is answered by default."""
    answers: dict[str, Any] = {"name": "mine", "title": "Mine", "after": after}
    for name in TEMPLATES[template].asks:
        if name in asked(template, answers, after=base is not None):
            question = QUESTIONS[name]
            answers[name] = question.read(given.pop(name, question.default(answers)))
    assert not given
    return text_of(template, answers, base)


def errors(text: str) -> str:
    report = analyse(reads(text), each_variant="always").report
    return render_all(report.errors) if report.errors else ""


def sizes_and_gpus() -> list[tuple[str, str | None]]:
    many = ["1", "7", "8", "24", "512", "16384"]
    large = [
        (size, n)
        for size, n in product(SIZES[1:], many)
        if size not in ("70B", "405B") or int(n) % 8 == 0
    ]
    return [("tiny", None), *((size, None) for size in SIZES[1:]), *large]


@pytest.mark.parametrize("template", SIZED)
@pytest.mark.parametrize(("size", "gpus"), sizes_and_gpus())
def test_every_size_on_any_number_of_gpus(template: str, size: str, gpus: str | None) -> None:
    given = {"size": size} | ({"gpus": gpus} if gpus else {})
    assert not errors(written(template, **given))


@pytest.mark.parametrize(("length", "size"), product(LENGTHS, SIZES[1:]))
def test_every_length(length: str, size: str) -> None:
    text = written("long_context", size=size, length=length)
    assert not errors(text)
    assert length in text


@pytest.mark.parametrize("rounds", ["1", "2", "6", "120"])
@pytest.mark.parametrize("size", ["tiny", "8B"])
def test_any_number_of_rounds(rounds: str, size: str) -> None:
    text = written("post_training", rounds=rounds, size=size)
    assert f"rounds align {rounds} {{" in text
    assert not errors(text)


def test_the_quickstart_compiles_and_needs_nothing() -> None:
    for tokens in ("500k", "700k", "30M"):
        text = written("quickstart", tokens=tokens)
        found = analyse(reads(text))
        assert found.recipe
        assert not any(d.files or d.hub for d in found.recipe.datasets.values())
        assert compile(found)


def test_answers_are_in_the_text() -> None:
    text = written(
        "pretrain",
        size="3B",
        tokens="2T",
        gpus="32",
        gpu="B200",
        data="my/*.parquet",
        tokenizer="org/words",
    )
    for shown in ('"3B"', "= 2T", "nodes = 4", '8 of "B200"', "my/*.parquet", "org/words"):
        assert shown in text
    text = written("align", size="8B", dialogs="d.jsonl", preferences="p.jsonl")
    assert '"d.jsonl"' in text
    assert '"p.jsonl"' in text


def saved(folder: Path, name: str, text: str) -> Path:
    path = folder / f"{name}.etude"
    path.write_text(text)
    return path


@pytest.mark.parametrize("template", GOING_ON)
@pytest.mark.parametrize("before", SIZED)
@pytest.mark.parametrize("size", ["tiny", "8B", "405B"])
def test_every_template_goes_on_from_every_other(
    template: str, before: str, size: str, tmp_path: Path
) -> None:
    first = saved(tmp_path, "first", written(before, size=size))
    found = base_of(first, tmp_path, Report())
    assert found
    more = {"length": "128Ki"} if template == "long_context" else {}
    if before == template == "long_context" and size != "tiny":
        with pytest.raises(ConfigError, match="already"):
            written(template, found[1], "first.etude", **more)
        return
    second = saved(tmp_path, "second", written(template, found[1], "first.etude", **more))
    report = analyse(read(second), each_variant="always").report
    assert not report.errors, render_all(report.errors)


def test_a_spec_goes_on_from_the_last_model_that_writes_text(tmp_path: Path) -> None:
    mean = "  stage judges: average { of = [rm, previous.rm or rm] }\n}\nstage exam"
    text = POST_TRAINING.replace("}\nstage exam", mean, 1).partition("stage pick")[0]
    found = base_of(saved(tmp_path, "first", text), tmp_path, Report())
    assert found
    assert found[1].stage == found[0].stage == "align.chat"


def test_a_spec_that_only_averages_published_weights_says_nothing_of_training(
    tmp_path: Path,
) -> None:
    shape = "layers = 2, dim = 64, heads = 4, ffn = 128, vocab = 320, context = 64"
    models = "".join(f'model {n} {{ {shape}, weights = "{n}" }}\n' for n in ("one", "two"))
    text = f"recipe soup {{ seed = 1 }}\n{models}stage mean: average {{ of = [one, two] }}\n"
    with pytest.raises(ConfigError, match=r"no stage of .* trains a model that generates text"):
        base_of(saved(tmp_path, "first", text), tmp_path, Report())


def test_several_dialogs_are_named(tmp_path: Path) -> None:
    text = written("pretrain", size="tiny") + "dialog a { protocol = llama3 }\n"
    first = saved(tmp_path, "first", text + "dialog b { protocol = chatml }\n")
    found = base_of(first, tmp_path, Report())
    assert found
    for template in ("align", "post_training"):
        second = saved(tmp_path, "second", written(template, found[1], "first.etude"))
        made = analyse(read(second))
        assert made.program, render_all(made.report.errors)
        assert made.program.recipe.dialogs.keys() == {"a", "b"}


@pytest.mark.parametrize(
    ("template", "given", "message"),
    [
        ("pretrain", {"size": "70B", "gpus": "12"}, "cannot be divided by 8"),
        ("pretrain", {"size": "8B", "tokens": "1M"}, "fewer than 200 steps"),
        ("quickstart", {"tokens": "many"}, "not a whole number"),
        ("quickstart", {"tokens": "0"}, "not a whole number"),
        ("pretrain", {"size": "9B"}, "not one of tiny"),
        ("post_training", {"rounds": "1001"}, "at most 1000"),
        ("pretrain", {"size": "8B", "data": "a\nb"}, "one line"),
    ],
)
def test_answers_that_make_no_recipe_are_refused(
    template: str, given: dict[str, str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        written(template, **given)


def test_templates_ask_every_question_that_there_is() -> None:
    assert {name for template in TEMPLATES.values() for name in template.asks} == set(QUESTIONS)
