"""The plan as a value: JSON, keys, costs, placements."""

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from specs import HEAD, after, check, compiled, jobs, only, plan, stage

from etude.compiler.families import FAMILIES
from etude.compiler.families.architectures import parameters
from etude.compiler.plan.plan import EvaluateJob, GateJob, Plan, TrainJob
from etude.compiler.plan.plan_schema import PlanError, plan_schema, read_plan

FULL = (
    HEAD.replace("seed = 1", 'seed = 1, title = "Every kind of job"')
    + "tokenizer words { train = { on [web], vocab 300 } }\n"
    + stage(
        lr="0 -> 1e-3 for 10 steps then -> 1e-4 cosine",
        seq_len="16 for 50 steps then 32",
        batch="4 seqs -> 8 seqs for 20 steps then 8 seqs",
        data="{ web 1, math 3 }",
        body="checkpoint every 7 steps",
    )
    + after(
        body="gate seq_len {\nrequire needle >= 10%\nrequire loss(short) <= 99% of start\n"
        "otherwise extend 5 steps at most 2 times\n}",
        average="polyak every 2 steps over 50%",
    )
    + after("third", from_="first", steps="12")
    + "stage mean: average { of = [second, third], weights = [1, 3] }\n"
    + "stage report: evaluate { loss = [web, math], needle = { lengths = [16, 32] } }\n"
    + "expect { parameters = 115k within 5%, first.steps = 100 }\n"
)


@pytest.fixture(scope="module")
def full() -> Plan:
    return plan(FULL)


def test_a_plan_survives_json(full: Plan) -> None:
    again = Plan.model_validate_json(full.to_json())
    assert again == full
    assert again.to_json() == full.to_json()


def test_a_plan_follows_its_published_schema(full: Plan) -> None:
    jsonschema.Draft202012Validator.check_schema(plan_schema())
    jsonschema.validate(json.loads(full.to_json()), plan_schema())
    prepared, made = {"tokenizer", "dataset"}, {"train", "average", "export"}
    measured = {"evaluate", "gate", "heldout"}
    assert {job.kind for job in full.jobs} == prepared | made | measured


def test_jobs_come_after_what_they_need_and_keys_are_unique(full: Plan) -> None:
    seen: set[str] = set()
    for job in full.jobs:
        assert set(job.inputs.values()) <= seen
        assert job.key not in seen
        seen.add(job.key)
    assert len({job.id for job in full.jobs}) == len(full.jobs)
    assert set(full.outputs.values()) <= seen


def test_the_results_of_stages_that_nothing_goes_on_from_are_put_out() -> None:
    text = HEAD + stage() + after() + after("third", from_="first") + after("fourth", from_="first")
    assert list(plan(text).outputs) == ["second", "third", "fourth"]


def test_the_order_of_declarations_is_free() -> None:
    first, second = stage(), after(from_="first")
    assert plan(HEAD + first + second).jobs == plan(HEAD + second + first).jobs
    assert plan(first + HEAD + second).jobs == plan(HEAD + first + second).jobs


# Keys


def keys(text: str) -> dict[str, str]:
    return {job.id: job.key for job in plan(text).jobs}


CHANGES = [
    ("seed = 1", "seed = 2", {"first", "second", "third", "mean", "dataset", "tokenizer"}),
    ("vocab 300", "vocab 299", {"first", "second", "third", "mean", "dataset", "tokenizer"}),
    ("ffn = 128", "ffn = 132", {"first", "second", "third", "mean"}),
    ("1e-4 cosine", "2e-4 cosine", {"first", "second", "third", "mean"}),
    ("32\n", "64\n", {"first.2", "second", "third", "mean"}),
    ("{ web 1, math 3 }", "{ web 1, math 4 }", {"first", "second", "third", "mean"}),
    ("over 50%", "over 40%", {"second", "mean"}),
    ("steps = 12", "steps = 13", {"third", "mean"}),
    ("weights = [1, 3]", "weights = [1, 4]", {"mean"}),
    ("needle >= 10%", "needle >= 11%", {"gate"}),
    ("lengths = [16, 32]", "lengths = [16]", {"report"}),
    ("checkpoint every 7", "checkpoint every 8", set()),
    ("Every kind of job", "Another title", set()),
    ("first.steps = 100", "first.steps = 100 within 1%", set()),
    ("{ web 1, math 3 }", "{ web 25%, math 75% }", set()),
    ("0 -> 1e-3", "0 -> 0.001 linear", set()),
]


@pytest.mark.parametrize(("old", "new", "stages"), CHANGES)
def test_a_change_changes_the_keys_of_what_it_changes_and_of_what_follows(
    old: str, new: str, stages: set[str]
) -> None:
    assert FULL.count(old) == 1 or old == "32\n"
    before, after_ = keys(FULL), keys(FULL.replace(old, new, 1))
    assert before.keys() == after_.keys()
    for job, key in before.items():
        if job.startswith("heldout."):
            of = {"start": {"first", "first.2"}, "report": {"mean"}}
            touched = of.get(job.rpartition(".")[2], {"second"})
        elif job.startswith("gate."):
            touched = {"gate", "second"}
        elif job.startswith("export."):
            touched = {job.split(".")[1]}
        else:
            # `second.start` measures where `first` ends, `report` what `mean` is.
            of = {"second.start": {"first", "first.2"}, "report": {"mean", "report"}}
            touched = of.get(job, {job, job.split(".")[0]})
        if job == "export.first":
            touched.add("first.2")
        assert (after_[job] != key) == bool(touched & stages), job


def test_names_of_stages_are_no_part_of_keys() -> None:
    renamed = FULL.replace("first", "base").replace("second", "longer").replace("mean", "soup")
    assert list(keys(renamed).values()) == list(keys(FULL).values())


def test_equal_work_is_done_once() -> None:
    text = HEAD + stage() + after() + after("third", from_="first")
    made = plan(text)
    assert [job.id for job in made.jobs if isinstance(job, TrainJob)] == ["first.1", "second.1"]
    assert made.outputs["second"] == made.outputs["third"]


def test_where_a_stage_ends_does_not_change_what_came_before() -> None:
    before, longer = keys(FULL), keys(FULL.replace("then 32", "then 32 for 20 steps then 64"))
    assert before["first.1"] == longer["first.1"]
    assert before["first.2"] != longer["first.2"]


# Inheritance


def test_a_stage_inherits_all_that_it_does_not_say() -> None:
    text = (
        HEAD
        + stage(
            clip="0.5",
            precision="fp32",
            recompute="full",
            rope_theta="2e4",
            optimizer="adamw { betas = [0.8, 0.9], weight_decay = 0.2, eps = 1e-6 }",
            parallel="{ micro_batch 2 }",
        )
        + after()
    )
    made = plan(text)
    first, second = only(jobs(made, "first")), only(jobs(made, "second"))
    for section in ("parallelism", "optimizer", "activation_checkpoint"):
        assert first.torchtitan[section] == second.torchtitan[section]
    assert second.torchtitan["training"]["local_batch_size"] == 2
    assert second.model == first.model
    assert second.model.rope_theta == 2e4
    values = made.stages["second"].values
    own = ("steps", "checkpoint", "keep")
    assert {v.origin for n, v in values.items() if n not in own} == {"from first"}


@pytest.mark.parametrize(
    ("first", "second", "state"),
    [
        ({}, {}, "carry"),
        ({}, {"optimizer": "last"}, "carry"),
        ({}, {"optimizer": "adamw"}, "fresh"),
        ({"average": "polyak every 1 step"}, {}, "fresh"),
    ],
)
def test_optimizer_state_goes_with_the_weights_that_it_belongs_to(
    first: dict[str, str], second: dict[str, str], state: str
) -> None:
    made = plan(HEAD + stage(**first) + after(**second))
    assert only(jobs(made, "first")).optimizer_state == "fresh"
    assert only(jobs(made, "second")).optimizer_state == state


def test_inside_a_stage_the_optimizer_goes_on() -> None:
    found = jobs(plan(HEAD + stage(seq_len="16 for 50 steps then 32")))
    assert [job.optimizer_state for job in found] == ["fresh", "carry"]


@pytest.mark.parametrize(
    ("over", "first"), [("", 0), ("over 50%", 50), ("over 10 steps", 90), ("over 1280 tokens", 80)]
)
def test_polyak_averages_the_end_of_a_stage(over: str, first: int) -> None:
    average = only(jobs(plan(HEAD + stage(average=f"polyak every 3 steps {over}")))).average
    assert average
    assert (average.every, average.from_step) == (3, first)


def test_weights_of_averages_are_exact(full: Plan) -> None:
    assert next(job.weights for job in full.jobs if job.kind == "average") == ["1/4", "3/4"]


def test_a_gate_is_planned_with_all_its_extensions(full: Plan) -> None:
    gates = [job for job in full.jobs if isinstance(job, GateJob)]
    assert [(g.attempt, g.attempts, g.extends and g.extends.number) for g in gates] == [
        (0, 2, None),
        (1, 2, 1),
        (2, 2, 2),
    ]
    longer = [job for job in full.jobs if isinstance(job, TrainJob) and job.extends]
    assert [(job.steps, job.tokens) for job in longer] == [(5, 5 * 8 * 32)] * 2
    assert longer[1].inputs["model"] == longer[0].key
    ends = next(job for job in full.jobs if isinstance(job, TrainJob) and job.stage == "second")
    begin = ends.first_step + ends.steps
    assert [job.first_step for job in longer] == [begin, begin + 5]
    tokens = ends.first_token + ends.tokens
    assert [job.first_token for job in longer] == [tokens, tokens + 5 * 8 * 32]
    for job in longer:
        pieces = (*job.schedule.lr, *job.schedule.batch, *job.schedule.mixture)
        spans = {(piece.from_step, piece.to_step) for piece in pieces}
        assert spans == {(job.first_step, job.first_step + 5)}
    begin = next(job for job in full.jobs if isinstance(job, EvaluateJob))
    assert all(gate.inputs["start"] == begin.key for gate in gates)


# Costs and placements


@pytest.mark.parametrize(
    ("size", "billions"),
    [("8B", 8.03), ("70B", 70.55), ("405B", 405.85), ("1B", 1.24), ("3B", 3.21)],
)
def test_published_sizes_have_their_published_parameters(size: str, billions: float) -> None:
    text = HEAD.replace(
        "layers = 2, dim = 64, heads = 4, kv_heads = 2, ffn = 128, vocab = 300", f'size = "{size}"'
    )
    job = only(jobs(plan(text + stage())))
    assert round(job.cost.parameters / 1e9, 2) == billions
    assert job.cost.flops_per_token == 6 * parameters(job.model)
    assert job.cost.flops == job.cost.flops_per_token * job.tokens


def test_published_sizes_may_be_changed_one_number_at_a_time() -> None:
    text = HEAD.replace(
        "layers = 2, dim = 64, heads = 4, kv_heads = 2, ffn = 128, vocab = 300",
        'size = "8B", layers = 3, rope_scaling = llama',
    )
    model = only(jobs(plan(text + stage()))).model
    assert (model.layers, model.rope_scaling) == (3, "llama")
    assert model.dim == FAMILIES["llama3"].sizes["8B"]["dim"]


CLUSTER = 'cluster big { nodes = 8, gpus = 8 of "H100 80GB" }\n'


@pytest.mark.parametrize(
    ("parallel", "degrees"),
    [
        (None, (1, 64, 1, 1, 1)),
        ("{ tensor 2 }", (1, 32, 2, 1, 1)),
        ("{ tensor 2, context 2, pipeline 2 }", (1, 8, 2, 2, 2)),
        ("{ replicate 4 }", (4, 16, 1, 1, 1)),
        ("{ shard 8 }", (8, 8, 1, 1, 1)),
        ("{ replicate 64 }", (64, 1, 1, 1, 1)),
    ],
)
def test_data_parallelism_takes_what_the_other_degrees_leave(
    parallel: str | None, degrees: tuple[int, ...]
) -> None:
    spec = stage(parallel=parallel, batch="64 seqs", seq_len="256")
    r = only(jobs(plan(HEAD + CLUSTER + spec))).resources
    assert (r.replicate, r.shard, r.tensor, r.context, r.pipeline) == degrees
    assert (r.world_size, r.device) == (64, "H100 80GB")


@pytest.mark.parametrize(
    ("attributes", "nearest"),
    [
        ({"parallel": "{ tensor 3 }"}, "is tensor 2; the nearest number of ranks is 63 or 66"),
        ({"parallel": "{ context 7 }"}, "is context 8;"),
        ({"parallel": "{ tensor 2, pipeline 3 }"}, "is tensor 2 × pipeline 4; the nearest number"),
        ({"parallel": "{ replicate 3 }"}, "the nearest is replicate 2 × shard 32"),
        ({"parallel": "{ pipeline 4 }"}, "is 2"),
        ({"parallel": "{ tensor 8 }"}, "is 4"),
        ({"batch": "100 seqs"}, "64 sequences (1,024 tokens) and 128 sequences (2,048 tokens)"),
        ({"batch": "10 seqs"}, "64 sequences (1,024 tokens)"),
        ({"batch": "64 seqs", "parallel": "{ micro_batch 3 }"}, "192 sequences"),
        ({"parallel": "{ context 8 }", "seq_len": "2050"}, "is 2048"),
        ({"parallel": "{ context 8 }", "seq_len": "1040"}, "is 1024"),
    ],
)
def test_a_placement_that_does_not_fit_says_the_nearest_that_does(
    attributes: dict[str, str], nearest: str
) -> None:
    found = only(check(HEAD + CLUSTER + stage(**({"batch": "64 seqs"} | attributes))))
    assert nearest in found.help


def test_a_prime_number_of_ranks_says_which_meshes_and_numbers_of_ranks_work() -> None:
    cluster = 'cluster odd { nodes = 1, gpus = 61 of "H100 80GB" }\n'
    found = only(check(HEAD + cluster + stage(batch="61 seqs", parallel="{ tensor 2 }")))
    assert found.code == "E432"
    assert "is tensor 1; the nearest number of ranks is 60 or 62" in found.help


@pytest.mark.parametrize(
    ("model", "parallel", "words"),
    [
        ("vocab = 301", "{ tensor 2 }", "does not divide the model's 301 vocab"),
        ("ffn = 129", "{ tensor 2 }", "does not divide the model's 129 ffn"),
        ("tied = true", "{ pipeline 2 }", "ties embedding and output"),
    ],
)
def test_what_torchtitan_cannot_cut_is_an_error(model: str, parallel: str, words: str) -> None:
    name = model.split()[0]
    head = re.sub(rf", {name} = \d+", "", HEAD).replace("layers = 2", f"layers = 2, {model}")
    found = only(check(head + CLUSTER + stage(batch="64 seqs", parallel=parallel)))
    assert found.code == "E433"
    assert words in found.message


def test_a_pipeline_with_less_sequences_than_stages_runs_all_forward_passes_first() -> None:
    def schedule(batch: int) -> str | None:
        spec = stage(batch=f"{batch} seqs", parallel="{ pipeline 2 }")
        job = only(jobs(plan(HEAD + CLUSTER + spec)))
        return job.torchtitan["parallelism"].get("pipeline_parallel_schedule")

    assert (schedule(32), schedule(64)) == ("GPipe", None)


def test_an_interleaved_pipeline_has_several_stages_a_rank() -> None:
    head = HEAD.replace("layers = 2", "layers = 6")
    spec = stage(batch="64 seqs", parallel="{ pipeline 2, interleave 4 }")
    job = only(jobs(plan(head + CLUSTER + spec)))
    assert (job.resources.pipeline, job.resources.interleave) == (2, 4)
    asked = job.torchtitan["parallelism"]
    assert asked["pipeline_parallel_schedule"] == "Interleaved1F1B"
    assert asked["pipeline_parallel_layers_per_stage"] == 1


@pytest.mark.parametrize(
    ("parallel", "batch", "code", "words"),
    [
        ("{ interleave 2 }", 64, "E433", "needs a pipeline"),
        ("{ pipeline 2, interleave 3 }", 64, "E433", "interleave 3 = 6 stages"),
        ("{ pipeline 2, interleave 5 }", 64, "E433", "interleave 5 = 10 stages"),
        ("{ pipeline 4, interleave 3 }", 64, "E433", "interleave 3 = 12 stages"),
        ("{ pipeline 4, tensor 2, interleave 2 }", 72, "E451", "do not divide into equal rounds"),
    ],
)
def test_what_cannot_be_interleaved_is_said(
    parallel: str, batch: int, code: str, words: str
) -> None:
    head = HEAD.replace("layers = 2", "layers = 6")
    found = check(head + CLUSTER + stage(batch=f"{batch} seqs", parallel=parallel))
    assert code in [each.code for each in found]
    assert any(words in each.message for each in found), [each.message for each in found]


def test_a_pipeline_takes_more_at_a_time_where_the_batch_grows() -> None:
    batch = "64 seqs for 4 steps then 128 seqs"
    piped = jobs(plan(HEAD + CLUSTER + stage(batch=batch, parallel="{ pipeline 2 }")))
    assert [job.torchtitan["training"]["local_batch_size"] for job in piped] == [
        job.schedule.batch[0].sequences // job.resources.shard for job in piped
    ]
    assert len(piped) == 2
    assert len(jobs(plan(HEAD + CLUSTER + stage(batch=batch)))) == 1


def test_ranks_replace_the_cluster() -> None:
    made = plan(HEAD + CLUSTER + stage(batch="64 seqs"), ranks=2)
    resources = only(jobs(made)).resources
    assert (resources.world_size, resources.device) == (2, "cpu")


# Claims


@pytest.mark.parametrize(
    ("claim", "holds"),
    [
        ("first.tokens = 6400", True),
        ("first.tokens = 6400 tokens", True),
        ("tokens = 7k within 8%", False),
        ("tokens = 7k within 9%", True),
        ("first.steps = 100 steps within 1%", True),
        ("flops = 4e9 within 20%", True),
    ],
)
def test_claims(claim: str, holds: bool) -> None:
    made, report = compiled(HEAD + stage() + f"expect {{ {claim} }}")
    assert made
    assert [claim.holds for claim in made.claims] == [holds]
    assert holds or only(report.errors).label == "off by 8.57%"


# Reading plans


def damaged(full: Plan, change: Any) -> str:
    data = json.loads(full.to_json())
    change(data)
    return json.dumps(data)


def train(data: dict[str, Any]) -> dict[str, Any]:
    return next(job for job in data["jobs"] if job["kind"] == "train")


DAMAGES = [
    (lambda d: d.update(etude_plan=2), "a plan of a later version of etude, in format 2"),
    (lambda d: d.update(etude_plan="1"), "its format is '1'"),
    (lambda d: d.update(etude_plan=1.0), "its format is 1.0"),
    (lambda d: d.update(etude_plan=True), "its format is True"),
    (lambda d: d.pop("etude_plan"), "it has no `etude_plan`"),
    (lambda d: d.pop("jobs"), "'jobs' is a required property"),
    (lambda d: d.update(seed="one"), "seed: 'one' is not"),
    (lambda d: d.update(more=1), "'more' was unexpected"),
    (lambda d: train(d).pop("seq_len"), "jobs[3]: 'seq_len' is a required property"),
    (lambda d: train(d).update(seq_len="long"), "jobs[3].seq_len: 'long' is not of type 'integer'"),
    (lambda d: train(d).update(seq_len=1.5), "jobs[3].seq_len: 1.5 is not of type 'integer'"),
    (lambda d: train(d).update(more=1), "'more' was unexpected"),
    (lambda d: train(d).update(kind="dance"), "jobs[3].kind: this is none of"),
    (lambda d: train(d).update(kind=[]), "jobs[3].kind: this is none of"),
    (lambda d: d["jobs"].insert(0, 5), "jobs[0]: 5 is not"),
    (
        lambda d: train(d)["schedule"]["lr"][0].update(shape="zigzag"),
        "jobs[3].schedule.lr[0].shape: 'zigzag' is not one of",
    ),
    (lambda d: d["jobs"].reverse(), "which no job before it makes"),
    (lambda d: train(d)["inputs"].update(model="0" * 64), "first.1 needs 000000000000"),
]


@pytest.mark.parametrize(("change", "reason"), DAMAGES)
def test_a_damaged_plan_is_refused_with_the_place(
    full: Plan, change: Any, reason: str, tmp_path: Path
) -> None:
    file = tmp_path / "plan.json"
    file.write_text(damaged(full, change))
    with pytest.raises(PlanError) as problem:
        read_plan(file)
    assert reason in problem.value.message
    assert str(file) in problem.value.message
    assert len(problem.value.message) < 500


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b"3",
        b'"plan"',
        b"\xff\xfe",
        b"[" * 100_000,
        b"\x00",
        b'{"etude_plan": 1}',
        b'{"etude_plan": ' + b"9" * 10_000 + b"}",
        b"recipe x { }",
        b'{"etude_plan": NaN}',
        b'{"etude_plan": 1, "etude_plan": {}}',
    ],
    ids=range(14),
)
def test_what_is_no_plan_is_refused(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    file.write_bytes(content)
    with pytest.raises(PlanError):
        read_plan(file)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing.json", tmp_path / ("x" * 300)):
        with pytest.raises(PlanError, match="cannot be read"):
            read_plan(path)


def test_a_plan_is_read_as_it_was_written(full: Plan, tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    file.write_text(full.to_json())
    assert read_plan(file) == full
