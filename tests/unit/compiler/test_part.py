"""Parts of plans: until a stage, from one, or one alone."""

import json

import jsonschema
import pytest
from specs import HEAD, POST_TRAINING, after, plan, stage

from etude.compiler.plan.describe import described
from etude.compiler.plan.part import NoSuchStage, needed, options, part_of
from etude.compiler.plan.plan import Plan
from etude.compiler.plan.plan_schema import plan_schema

GATED = (
    HEAD
    + stage()
    + after(
        "long",
        seq_len="32",
        body="gate seq_len {\nrequire loss(short) <= 99% of start\n"
        "otherwise extend 5 steps at most 2 times\n}",
    )
    + after("end", from_="long")
)


@pytest.fixture(scope="module")
def whole() -> Plan:
    return plan(POST_TRAINING)


def made(of: Plan) -> list[str]:
    return [job.id for job in of.jobs if not of.aside(job)]


def test_the_whole_is_no_part(whole: Plan) -> None:
    assert part_of(whole) is whole
    assert whole.part is None
    assert "part" not in json.loads(whole.to_json())
    assert options(whole) == ""


def test_until_a_stage_is_the_plan_up_to_it_with_its_model(whole: Plan) -> None:
    part = part_of(whole, until="align.1.sft")
    ids = [job.id for job in whole.jobs]
    stages = [job.id for job in whole.jobs if job.stage and not job.id.startswith("export.")]
    of_stages = {job.id for job in whole.jobs if job.stage}
    assert [name for name in made(part) if name in of_stages and "export." not in name] == (
        stages[: stages.index("align.1.sft.1") + 1]
    )
    assert "dataset.ranked[1..2]" not in made(part), "data of later stages"
    assert part.part
    assert part.part.aside == []
    assert needed(part) == []
    assert "align.1.dpo.1" in part.part.left_out
    assert set(part.part.left_out) | set(made(part)) == set(ids)


def test_what_trained_models_stand_under_models(whole: Plan) -> None:
    part = part_of(whole, until="align.1")
    (key,) = [job.key for job in part.jobs if job.id == "export.align.1.chat"]
    assert part.outputs["align.1.chat"] == key
    assert "pick" not in part.outputs


def test_from_a_stage_is_the_rest_and_begins_with_results(whole: Plan) -> None:
    part = part_of(whole, since="align.2")
    assert "align.2.rm.1" in made(part)
    assert "pick" in made(part)
    assert "align.1.sft.1" not in made(part)
    assert {"align.1.dpo.1", "align.1.chat"} <= {job.id for job in needed(part)}
    # What is aside and what the part makes is all that keys are made of.
    keys = {job.key for job in part.jobs}
    assert all(key in keys for job in part.jobs for key in job.inputs.values())


def test_only_a_stage_is_its_jobs_and_the_data_that_they_take(whole: Plan) -> None:
    part = part_of(whole, only="align.2.rm")
    assert made(part) == ["dataset.ranked[1..2]", "align.2.rm.1"]
    assert [job.id for job in needed(part)] == ["first.1"]
    assert part.totals
    assert part.totals.steps == 10
    assert [name for phase in part.phases for name in phase.jobs] == made(part)
    assert {row.name for row in described(part_of(whole, only="exam"))} == {"exam"}


def test_from_and_until_are_what_lies_between(whole: Plan) -> None:
    part = part_of(whole, since="align.1.dpo", until="align.2.rm")
    assert "align.1.dpo.1" in made(part)
    assert "align.2.rm.1" in made(part)
    assert not {"align.1.sft.1", "align.2.sft.1"} & set(made(part))


def test_a_name_stands_for_all_rounds(whole: Plan) -> None:
    part = part_of(whole, only="align")
    assert {"align.1.dpo.1", "align.2.dpo.1"} <= set(made(part))
    assert "exam" not in made(part)


def test_stages_of_variants_have_their_names() -> None:
    text = HEAD + stage() + after() + "variant hot { second.lr = 2e-3 }\n"
    both = plan(text + "stage mean: average { of = [second, hot.second] }\n")
    assert made(part_of(both, only="hot.second")) == ["dataset.web", "hot.second.1"]
    assert "second.1" in made(part_of(plan(text, variant="hot"), until="second"))


def test_keys_of_a_part_are_those_of_the_plan(whole: Plan) -> None:
    keys = {job.id: job.key for job in whole.jobs}
    for part in (part_of(whole, until="align.1"), part_of(whole, only="align.2.dpo")):
        assert {job.id: job.key for job in part.jobs}.items() <= keys.items()
        assert part.part
        assert part.part.left_out.items() <= keys.items()
        assert Plan.model_validate_json(part.to_json()) == part
        jsonschema.validate(json.loads(part.to_json()), plan_schema())


def test_what_follows_a_gate_needs_its_verdict() -> None:
    part = part_of(plan(GATED), only="end")
    assert [job.id for job in needed(part)] == ["long.1", "gate.long.1"]
    assert part.part
    # Whether the gate has failed, and an extension took the segment's place, is known in the run.
    assert {"long.1+1", "gate.long.1+1"} <= set(part.part.aside)
    gated = made(part_of(plan(GATED), only="long"))
    assert {"long.1", "gate.long.1", "long.1+1", "gate.long.1+2"} <= set(gated)


@pytest.mark.parametrize(
    ("asked", "message", "help"),
    [
        ({"until": "algn.1"}, "no stage `algn.1`", "did you mean `align.1`?"),
        ({"only": "zzz"}, "no stage `zzz`", "there is `align`"),
        ({"since": "align.2", "until": "align.1"}, "ends before `align.2` begins", "--until align"),
        ({"only": "align.2.dpo.1"}, "no stage `align.2.dpo.1`", "did you mean `align.2.dpo`?"),
    ],
)
def test_a_stage_that_is_not_there_is_one_message(
    asked: dict[str, str], message: str, help: str, whole: Plan
) -> None:
    with pytest.raises(NoSuchStage) as problem:
        part_of(whole, **asked)
    assert message in problem.value.message
    assert help in problem.value.help


def test_a_stage_without_jobs_of_its_own_names_the_other() -> None:
    half = plan(
        HEAD
        + stage()
        + "stage half: checkpoint { from = first, after = 50% }\n"
        + "stage mean: average { of = [first, half] }\n"
    )
    with pytest.raises(NoSuchStage, match="a point inside `first`") as problem:
        part_of(half, until="half")
    assert problem.value.help == "name `first`"
