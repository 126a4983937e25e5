"""Keys of jobs: what changes a result by more than rounding is in them, and nothing else."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, get_args, get_type_hints

import pytest
from pydantic import BaseModel
from specs import HEAD, POST_TRAINING, after, jobs, plan, stage

from etude.compiler.plan.difference import difference
from etude.compiler.plan.keys import NAME, Outside, content, content_key, declared, placement
from etude.compiler.plan.plan import AnyJob, Dpo, NextToken, Plan, Reward, Sft, TrainJob
from etude.compiler.values import Value

KINDS = get_args(get_args(AnyJob)[0])
DOCS = Path(__file__).parents[3] / "docs"
BATCH = HEAD + stage(batch="8 seqs", parallel="{ micro_batch 2 }") + after()
GPUS = 'cluster box { gpus = 4 of "H100 80GB" }\n'


def models(of: Any) -> Iterator[Any]:
    """The models that a type is made of, itself among them."""
    if isinstance(of, type) and issubclass(of, BaseModel | Value):
        yield of
        for hint in get_type_hints(of).values():
            yield from models(hint)
    for inner in get_args(of):
        yield from models(inner)


MODELS = list(dict.fromkeys(models(AnyJob)))


def made(model: Any, values: dict[str, Any]) -> Any:
    if issubclass(model, BaseModel):
        return model.model_construct(**values)
    return model(**values)


def fields() -> list[Any]:
    return [
        pytest.param(model, each, id=f"{model.__name__}.{each.name}")
        for model in MODELS
        for each in declared(model)
    ]


@pytest.mark.parametrize(("model", "field"), fields())
def test_a_field_is_part_of_the_key_unless_it_is_marked(model: Any, field: Any) -> None:
    values = {each.name: {} for each in declared(model)}
    before = content_of(model, values)
    if field.outside and field.outside.whole:
        assert content_of(model, values | {field.name: {"any": 1}}) == before
        return
    assert content_of(model, values | {field.name: {"any": 1}}) != before
    if field.outside and field.outside.prefix:
        assert content_of(model, values | {field.name: {f"{field.outside.prefix}any": 1}}) == before
    parts = (field.outside and field.outside.parts) or ()
    for part in parts:
        section, _, name = part.partition(".")
        inside = {section: {name: 1}} if name else {section: 1}
        emptied = {field.name: {section: {}}} if name else {}
        assert content_of(model, values | {field.name: inside}) == content_of(
            model, values | emptied
        )
        if name and section not in parts:
            beside = {section: {f"{name}_of_another_kind": 1}}
            assert content_of(model, values | {field.name: beside}) != before


def content_of(model: Any, values: dict[str, Any]) -> Any:
    return content(made(model, values))


def test_the_models_are_those_of_all_jobs() -> None:
    assert {*KINDS} <= {*MODELS}
    assert {"Window", "Architecture", "LrPiece", "LossMeasure", "Requirement", "Experts"} <= {
        model.__name__ for model in MODELS
    }


def test_a_new_field_is_part_of_the_key_but_at_its_default() -> None:
    class Later(TrainJob):
        knob: int = 0
        nickname: Annotated[str, NAME] = ""

    (job, *_) = jobs(plan(BATCH))
    values = dict(job)
    assert content_key(Later(**values)) == job.key
    assert content_key(Later(**values, knob=1)) != job.key
    assert content_key(Later(**values, nickname="run 7")) == job.key


def test_the_key_is_that_of_the_content() -> None:
    for job in plan(BATCH).jobs:
        assert content_key(job) == job.key


def test_alternatives_differ_by_what_they_are_called_even_at_their_defaults() -> None:
    dpo = Dpo(beta=0.1, nll=0, label_smoothing=0, normalize=False, mask="none")
    found = [content(each) for each in (NextToken(), Sft(), Reward(), dpo)]
    assert all(found.count(each) == 1 for each in found)


def keys(of: Plan) -> dict[str, str]:
    return {job.id: job.key for job in of.jobs}


PLACED = [
    ("micro_batch 2", "micro_batch 1"),
    ("micro_batch 2", "tensor 2"),
    ("micro_batch 2", "pipeline 2"),
    ("micro_batch 2", "shard 2"),
    ("micro_batch 2", "replicate 2"),
    ("{ micro_batch 2 }", "{ micro_batch 2 }\nrecompute = full"),
    ("{ micro_batch 2 }", "{ micro_batch 2 }\ncheckpoint every 3 steps"),
    ("recipe test {", 'cluster slow { gpus = 2 of "A100 80GB" }\nrecipe test {'),
    ("recipe test {", "recipe test { tracking = wandb\n"),
]


@pytest.mark.parametrize(("old", "new"), PLACED)
def test_where_and_how_a_job_runs_is_no_part_of_its_key(old: str, new: str) -> None:
    base = GPUS + BATCH
    if old == "recipe test {" and "cluster" in new:
        base = BATCH.replace("steps = 100", "steps = 100\nprecision = bf16")
    assert keys(plan(base)) == keys(plan(base.replace(old, new)))


def test_the_number_of_ranks_and_the_device_are_no_part_of_keys() -> None:
    text = BATCH.replace("steps = 100", "steps = 100\nprecision = fp32")
    assert keys(plan(text)) == keys(plan(text, 2)) == keys(plan(GPUS + text))
    assert [job.resources.world_size for job in jobs(plan(text, 2))] == [2]


def test_the_precision_of_training_is_part_of_the_key() -> None:
    half = BATCH.replace("steps = 100", "steps = 100\nprecision = bf16")
    one, other = keys(plan(BATCH)), keys(plan(half))
    assert {name for name in one if one[name] != other[name]} == {
        "first.1",
        "second.1",
        "export.second",
    }


def test_a_job_that_trains_nothing_does_not_depend_on_rates() -> None:
    assert POST_TRAINING.count("lr = 1e-5") == 1
    one, other = (
        keys(plan(text))
        for text in (POST_TRAINING, POST_TRAINING.replace("lr = 1e-5", "lr = 2e-5"))
    )
    assert one["align.1.dpo.1"] != other["align.1.dpo.1"]
    references = [name for name in one if name.startswith("reference.align.1.")]
    assert references
    assert all(one[name] == other[name] for name in references)


def test_a_changed_placement_is_told_as_a_change_that_keeps_results() -> None:
    found = difference(plan(BATCH), plan(BATCH.replace("micro_batch 2", "micro_batch 1"), 2))
    assert found
    assert {job.what for job in found.jobs} == {"kept"}
    assert (found.steps, found.tokens) == (0, 0)
    first = next(job for job in found.jobs if job.job == "first.1")
    told = {each.name: (each.old, each.new) for each in first.changed}
    assert told == {
        "ranks": ("1", "2"),
        "per_node": ("1", "2"),
        "shard": ("1", "2"),
        "micro_batch": ("2", "1"),
    }


def test_what_is_outside_is_told_or_is_a_name_or_follows() -> None:
    (job, *_) = jobs(plan(BATCH))
    told = {"rollbacks", "saving", "profile", "evaluation", "resources", "torchtitan"}
    assert set(placement(job)) == told
    assert set(placement(job)["torchtitan"]) >= {"parallelism", "compile", "comm"}


def test_the_docs_name_every_field_that_is_outside() -> None:
    page = (DOCS / "plan.md").read_text().partition("## Keys")[2]
    for kind in KINDS:
        for each in declared(kind):
            if isinstance(each.outside, Outside):
                named = each.outside.parts or (each.name,)
                missing = [name for name in named if f"`{name}`" not in page]
                assert not missing, (kind.__name__, missing)
