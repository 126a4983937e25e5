"""The export of any stage: the same as the plan's own where it has one."""

from pathlib import Path

import pytest
from specs import HEAD, POST_TRAINING, after, plan, stage
from whole_spec import spec

from etude.compiler.driver import analyse, compile
from etude.compiler.plan.exports import export_of, exporting
from etude.compiler.plan.keys import content_key
from etude.compiler.plan.part import NoSuchStage
from etude.compiler.plan.plan import ExportJob, Plan
from etude.spec.load import read

EXAMPLES = Path(__file__).parents[3] / "examples"
SPECS = sorted([*EXAMPLES.glob("*.etude"), *EXAMPLES.glob("published/*.etude")])


def own(of: Plan) -> list[ExportJob]:
    return [job for job in of.jobs if isinstance(job, ExportJob)]


def assert_the_same(of: Plan) -> None:
    jobs, exports = {job.key: job for job in of.jobs}, own(of)
    # A policy has hundreds of turns, which are alike.
    for job in exports[:: max(len(exports) // 50, 1)]:
        found = exporting(jobs[job.inputs["model"]], jobs)
        assert content_key(found.model_copy(update={"dtype": job.dtype})) == job.key, job.id


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_it_is_the_job_that_the_plan_has(path: Path) -> None:
    made = compile(analyse(read(path)))
    assert made
    assert made.plan
    assert_the_same(made.plan)


@pytest.mark.parametrize("text", [POST_TRAINING, spec()])
def test_it_is_the_job_of_plans_of_all_kinds(text: str) -> None:
    made = plan(text)
    assert own(made)
    assert_the_same(made)


def test_a_stage_that_another_continues_from_has_one_too() -> None:
    made = plan(POST_TRAINING)
    assert "align.2.dpo" not in made.outputs
    job = export_of(made, "align.2.dpo")
    (trained,) = [each for each in made.jobs if each.id == "align.2.dpo.1"]
    assert job.inputs["model"] == trained.key
    assert job.dialog is not None
    assert job.head == "tokens"
    assert export_of(made, "align.1.rm").head == "score"
    assert export_of(made, "first").dialog is None


def test_its_weights_are_as_precise_as_those_of_the_plans_own_exports() -> None:
    for body, dtype in (("", None), ("precision = bf16", "bf16")):
        made = plan(HEAD + stage(body=body) + after())
        assert {job.dtype for job in own(made)} == {dtype}
        assert export_of(made, "first").dtype == dtype
        assert export_of(made, "second") == own(made)[0]


def test_a_segment_is_named_by_its_job() -> None:
    made = plan(HEAD + stage(seq_len="16 for 50 steps then 32") + after())
    assert export_of(made, "first.1").model.context == 16
    assert export_of(made, "first").model.context == 32
    assert export_of(made, "first.2").inputs == export_of(made, "first").inputs


def test_what_makes_no_model_is_said() -> None:
    made = plan(POST_TRAINING)
    with pytest.raises(NoSuchStage, match="the stage `exam` makes no model") as problem:
        export_of(made, "exam")
    assert "align.2.dpo" in problem.value.help
    with pytest.raises(NoSuchStage, match="no stage `frist`") as problem:
        export_of(made, "frist")
    assert problem.value.help == "did you mean `first`?"
