"""Miniatures: the same graph and the same changes, in the same order, of something small."""

import json
import subprocess
import sys
from argparse import Namespace
from itertools import groupby, pairwise
from pathlib import Path

import pytest
from specs import HEAD, POST_TRAINING, after, only, plan, stage
from specs import miniature as planned_small
from whole_spec import spec

from etude.cli.miniature import FILE, begin, refused
from etude.compiler.driver import Analysis, analyse, compile, compile_miniature
from etude.compiler.miniature import MOST_TOKENS, Miniature, miniature
from etude.compiler.miniature.structure import changes, difference, structure
from etude.compiler.plan.plan import Plan, TrainJob
from etude.compiler.program import ScheduledStage
from etude.runtime.errors import RunError
from etude.spec.load import read, reads
from etude.spec.schema import recipe as r

EXAMPLES = Path(__file__).parents[3] / "examples"
SPECS = [
    *(
        EXAMPLES / f"{name}.etude"
        for name in ("llama3_405b", "quickstart", "llama3_posttraining_tiny", "ablation_tiny")
    ),
    *(
        path
        for path in sorted((EXAMPLES / "published").rglob("*.etude"))
        if "\nrecipe " in "\n" + path.read_text()
    ),
]


def of_file(path: Path) -> Analysis:
    return analyse(read(path))


def small(of: Analysis) -> Miniature:
    assert of.borrowed
    assert of.program, [each.message for each in of.report.errors]
    found = miniature(of.borrowed, of.program, of.report)
    assert found, [each.message for each in of.report.errors]
    return found


def text(spec: str) -> Analysis:
    return analyse(reads(spec))


def small_plan(of: Analysis) -> Plan:
    made = compile_miniature(of)
    assert made, [each.message for each in of.report.errors]
    return made.plan


def jobs(plan: Plan | None) -> list[tuple[str, str | None]]:
    """Jobs in their order; those of a stage that follow each other together.

    A short training stands in for published weights, under the same name; a policy has fewer turns.
    """
    assert plan
    policies = {name for name, stage in plan.stages.items() if stage.kind == "grpo"}
    found = [
        ("grpo" if job.stage in policies else "train", job.stage)
        if job.kind in ("train", "weights") or job.stage in policies
        else (job.kind, job.id)
        for job in plan.jobs
        if job.kind not in ("tokenizer", "dataset")
    ]
    return [job for job, _ in groupby(found)]


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_the_plans_have_the_same_jobs_and_the_same_changes_in_the_same_order(path: Path) -> None:
    of = of_file(path)
    full, mini = compile(of), small_plan(of)
    if full:  # a claim of a recipe in the making may not hold yet
        assert jobs(full.plan) == jobs(mini)
    found = small(of)
    known, made = structure(found.full), structure(found.program)
    published = {name: of for name, of in known.items() if of["kind"] == "weights"}
    assert {made[name]["kind"] for name in published} <= {"train"}
    assert difference(known, made | published) is None
    for name, one in found.full.stages.items():
        if not isinstance(one, ScheduledStage):
            continue
        other = found.program.stages[name]
        assert isinstance(other, ScheduledStage)
        assert changes(one) == changes(other)
        assert [p.shape for p in one.lr] == [p.shape for p in other.lr]
        values = [[length for _, _, length in each.lengths] for each in (one, other)]
        for (a, b), (x, y) in zip(pairwise(values[0]), pairwise(values[1]), strict=True):
            assert (a < b, a > b) == (x < y, x > y)
    tokens = sum(job.tokens for job in mini.jobs if isinstance(job, TrainJob) and not job.extends)
    assert tokens <= MOST_TOKENS


def test_lengths_and_batches_keep_their_ratios_where_these_fit() -> None:
    found = small(of_file(EXAMPLES / "llama3_405b.etude"))
    lengths = [
        length
        for each in found.program.stages.values()
        if isinstance(each, ScheduledStage)
        for _, _, length in each.lengths
    ]
    assert lengths == [64, 128, 256, 512, 1024, 2048, 2048]
    pretrain = found.program.stages["pretrain"]
    assert isinstance(pretrain, ScheduledStage)
    assert [b.sequences for b in pretrain.batches] == [32, 64]  # 32 of 64 tokens, 32 and 64 of 128


def test_the_miniature_is_the_same_wherever_it_is_made() -> None:
    first = small_plan(of_file(EXAMPLES / "llama3_posttraining_tiny.etude"))
    again = subprocess.run(
        [
            sys.executable,
            "-m",
            "etude.cli.main",
            "plan",
            "--miniature",
            "--json",
            EXAMPLES / "llama3_posttraining_tiny.etude",
        ],
        capture_output=True,
        text=True,
        check=True,
        cwd="/",
        env={"PYTHONHASHSEED": "7"},
    )
    assert first.to_json() + "\n" == again.stdout


def test_a_miniatures_stages_are_shown_with_its_own_numbers() -> None:
    """Not with those that stand at the places in the text of the recipe."""
    plan = small_plan(of_file(EXAMPLES / "published" / "deepseek_v3.etude"))
    shown = plan.stages["extend_32k"]
    assert shown.values["seq_len"].value == "512"
    assert shown.values["steps"].value == f"{shown.steps}" == "128"


def test_a_miniature_needs_no_file_of_the_recipe() -> None:
    of = text(
        HEAD.replace("sample = python_docs", 'files = "s3://none/*.jsonl", fields = { text = "t" }')
        + 'tokenizer far { hub = "nobody/nothing" }\n'
        + 'cluster big { nodes = 64, gpus = 8 of "H100 80GB" }\n'
        + stage(batch="1024 seqs", tokens="1T", steps=None)
    )
    plan = small_plan(of)
    assert plan.recipe == "test_miniature"
    for job in plan.jobs:
        if job.kind == "dataset":
            assert job.source["sample"], job.source  # type: ignore[union-attr]
        if isinstance(job, TrainJob):
            assert (job.resources.device, job.resources.world_size) == ("cpu", 1)


def policy(statements: str) -> r.Grpo:
    """The miniature of a policy."""
    stages = small(text(spec("grpo", statements))).program.stages.values()
    (found,) = [each.spec for each in stages if isinstance(each.spec, r.Grpo)]
    return found


@pytest.mark.parametrize("scaling", ["yarn { factor = 8, original = 4Ki }", "none"])
def test_a_recipe_that_only_samples_has_a_miniature(scaling: str) -> None:
    text = f"""
recipe only {{ seed = 1 }}
model base {{
  family = decoder, size = "olmo3-7B", rope_scaling = {scaling}
  hub = "allenai/Olmo-3-1025-7B", context = 32Ki
}}
tokenizer dolma {{ hub = "allenai/Olmo-3-1025-7B" }}
dialog chat {{ protocol = chatml }}
dataset asked {{ files = "asked.jsonl", kind = prompts }}
stage drafts: sample {{ from = base, prompts = asked, draws = 4, max_tokens = 64 }}
"""
    small = planned_small(text)
    assert any(job.kind == "sample" for job in small.jobs)


def test_a_policy_has_few_turns_few_answers_and_short_ones() -> None:
    """Whole numbers of turns, with a new reference where the recipe has one."""
    found = policy("kl = 0.1, reference_refresh = 400 steps, max_tokens = 2Ki, group = 16")
    assert found.steps
    assert found.refresh * 2 < found.steps <= found.refresh * 3
    assert found.reference_refresh == found.refresh
    assert (found.max_tokens, found.group) == (64, 4)
    never = policy("kl = 0.1, reference_refresh = 1000 steps")
    assert never.steps
    assert never.reference_refresh
    assert never.reference_refresh >= never.steps
    assert never.reference_refresh % never.refresh == 0


def test_rounds_draws_and_awaited_labels_are_there_in_small() -> None:
    found = small(text(POST_TRAINING))
    assert list(found.program.stages) == list(found.full.stages)
    data = found.program.recipe.datasets
    assert not any(each.awaited or each.files for each in data.values())
    assert data["labels[2]"].deal == (2, 2, 2)


RAMPS = {
    "a curve that continues after its stage": ("lr", "0 -> 1e-3 cosine over 900 steps"),
    "a curve that ends before its segment": (
        "lr",
        "0 -> 1e-3 over 20 steps for 60 steps then -> 0 sqrt",
    ),
    "changes a step apart": ("lr", "1e-3 for 1 step then 2e-3 for 1 step then 1e-4"),
    "a ramp of the batch": ("batch", "4 seqs -> 64 seqs for 50 steps then 64 seqs"),
    "a batch that shrinks": ("batch", "480 seqs for 20 steps then 1920 seqs for 9% then 7 seqs"),
    "a mixture that moves": (
        "data",
        "{ web 90%, math 10% } -> { web 20%, math 80% } for 50% then math",
    ),
    "a RoPE base that changes": ("rope_theta", "1e4 for 10 steps then 1e6"),
    "lengths in no simple ratio": ("seq_len", "1000 for 10 steps then 1024 for 5 steps then 3000"),
    "a placement that alone cuts the stage": (
        "parallel",
        "{ micro_batch 2 } for 30 steps then { micro_batch 4 }",
    ),
}


@pytest.mark.parametrize("what", RAMPS)
def test_every_kind_of_change_is_kept(what: str) -> None:
    knob, value = RAMPS[what]
    given = {"steps": "100", "batch": "8 seqs", "data": "{ web 50%, math 50% }"} | {knob: value}
    found = small(text(HEAD + stage(**given)))
    one, other = found.full.stages["first"], found.program.stages["first"]
    assert isinstance(one, ScheduledStage)
    assert isinstance(other, ScheduledStage)
    assert changes(one) == changes(other)
    assert len(one.segments) == len(other.segments)


def test_averages_checkpoints_and_gates_stay_where_they_are_between_the_changes() -> None:
    spec = (
        HEAD
        + stage(
            steps="10000",
            lr="0 -> 1e-3 for 10 steps then 1e-3 for 80% then -> 0",
        )
        + "stage early: checkpoint { from = first, after = 85% }\n"
        + after(
            "second",
            "average = polyak every 50 steps over 20%",
            steps="4000",
            lr="1e-3 for 75% then 1e-4",
        )
    )
    found = small(text(spec))
    first, second = (found.program.stages[name] for name in ("first", "second"))
    assert isinstance(first, ScheduledStage)
    assert isinstance(second, ScheduledStage)
    assert changes(first)[-2:] == [["lr"], ["checkpoint early"]]
    assert changes(second)[-2:] == [["lr"], ["average"]]


def test_too_many_lengths_are_refused_with_their_place() -> None:
    lengths = " then ".join(f"{16 * n} for 2 steps" for n in range(1, 20)) + " then 512"
    of = text(HEAD + stage(steps="100", seq_len=lengths))
    assert compile_miniature(of) is None
    (found,) = of.report.errors
    assert found.code == "E481"
    assert found.span
    assert "20 sequence lengths" in found.message


def test_too_many_changes_are_refused() -> None:
    many = "rounds align 300 { stage more: train { from = previous.more or first, steps = 9 } }\n"
    of = text(HEAD + stage(steps="9") + many)
    assert compile_miniature(of) is None
    assert [each.code for each in of.report.errors] == ["E481"]


def test_a_structure_that_differs_is_found() -> None:
    one = small(of_file(EXAMPLES / "llama3_405b.etude"))
    other = small(of_file(EXAMPLES / "quickstart.etude"))
    assert difference(structure(one.full), structure(other.program))
    changed = structure(one.program)
    changed["long_context"]["changes"] = changed["long_context"]["changes"][1:]
    assert difference(structure(one.full), changed) == ("long_context", "changes")


def test_batches_of_records_are_shown_as_such() -> None:
    """In the miniature, and in the plan where a batch grows."""
    text = HEAD + "dataset likes { sample = python_functions, kind = preferences }\n" + stage()
    text += "stage rm: reward { from = first, data = likes, steps = 40, lr = 1e-4\n"
    text += "  batch = 8 pairs for 20 steps then 16 pairs }\n"
    shown = plan(text).stages["rm"].values["batch"]
    assert shown.value == "8 pairs for 20 steps then 16 pairs"
    made = planned_small(text).miniature
    assert made
    row = only([each for each in made if (each.block, each.attribute) == ("rm", "batch")])
    assert row.full == shown.value
    assert "seqs" not in row.miniature
    assert row.miniature.count("pairs") == 2


def test_the_plan_says_what_became_of_what() -> None:
    plan = small_plan(of_file(EXAMPLES / "llama3_405b.etude"))
    assert plan.miniature
    rows = {(row.block, row.attribute): (row.full, row.miniature) for row in plan.miniature}
    assert rows["model llama3_405b", "layers"] == ("126", "2")
    assert rows["pretrain", "seq_len"][0] == "4,096 until 252M tokens then 8,192"
    assert rows["expect", ""] == ("2 claims", "not asked")
    assert Plan.model_validate_json(plan.to_json()).miniature == plan.miniature


def test_the_folder_of_another_run_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = small_plan(of_file(EXAMPLES / "quickstart.etude"))
    begin(plan, tmp_path, json_lines=True)
    event = json.loads(capsys.readouterr().out)
    assert event["event"] == "miniature"
    assert event["mapping"][0]["block"] == "model tiny"
    assert "model tiny" in (tmp_path / FILE).read_text()
    (tmp_path / "plan.json").write_text(json.dumps({"recipe": "quickstart"}))
    with pytest.raises(RunError, match="is the run folder of `quickstart`"):
        begin(plan, tmp_path, json_lines=True)


@pytest.mark.parametrize("option", ["ranks", "why", "deep"])
def test_options_that_a_miniature_has_not_are_refused(
    option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert refused(Namespace(**{option: 2}))
    assert f"--{option} cannot be combined with --miniature" in capsys.readouterr().err
