"""Schedules and splits of pipelines: what a placement may say, and what the plan says of it."""

import pytest
from specs import HEAD, check, compiled, jobs, only, plan, stage

from etude.compiler.pipelines import layers_of_stages
from etude.spec.convert_form import to_json, to_text
from etude.spec.findings.diagnostics import Report
from etude.spec.source import Source

CLUSTER = 'cluster big { gpus = 8 of "H100 80GB" }\n'
HEAD14 = HEAD.replace("layers = 2", "layers = 14")


def made(parallel: str, batch: int = 64, **settings: str):
    spec = HEAD14 + CLUSTER + stage(batch=f"{batch} seqs", parallel=parallel, **settings)
    return only(jobs(plan(spec)))


@pytest.mark.parametrize(
    ("parallel", "theirs", "interleave"),
    [
        ("{ pipeline 2, schedule gpipe }", "GPipe", 1),
        ("{ pipeline 2, schedule looped_bfs }", "LoopedBFS", 2),
        ("{ pipeline 2, schedule zero_bubble, interleave 4 }", "InterleavedZeroBubble", 4),
        ("{ pipeline 2, schedule zero_bubble_v }", "ZBVZeroBubble", 2),
        ("{ pipeline 2, schedule dualpipe_v, interleave 2 }", "DualPipeV", 2),
    ],
)
def test_a_schedule_is_torchtitans(parallel: str, theirs: str, interleave: int) -> None:
    job = made(parallel)
    assert job.torchtitan["parallelism"]["pipeline_parallel_schedule"] == theirs
    assert job.resources.interleave == interleave


def test_schedules_and_splits_are_no_part_of_the_key() -> None:
    keys = {
        made(f"{{ pipeline 2{how} }}").key
        for how in ("", ", schedule zero_bubble_v", ", first_less 0, last_less 0")
    }
    assert len(keys) == 1


def test_a_plan_without_them_does_not_mention_them() -> None:
    shown = made("{ pipeline 2 }").resources.as_dict()
    assert not {"schedule", "first_less", "last_less"} & shown.keys()
    assert made("{ pipeline 2, last_less 0 }").resources.as_dict()["last_less"] == 0


@pytest.mark.parametrize(
    ("parallel", "batch", "code", "words"),
    [
        ("{ schedule gpipe }", 64, "E483", "needs a pipeline"),
        ("{ first_less 0 }", 64, "E483", "`first_less` needs a pipeline"),
        ("{ pipeline 2, schedule gpipe, interleave 2 }", 64, "E483", "one stage on each rank"),
        ("{ pipeline 2, schedule zero_bubble, interleave 1 }", 64, "E483", "several stages"),
        ("{ pipeline 2, schedule dualpipe_v, interleave 3 }", 64, "E483", "but interleave is 3"),
        ("{ pipeline 4, first_less 6 }", 64, "E484", "first_less 6 is more than the 5 layers"),
        ("{ pipeline 2, schedule dualpipe_v }", 8, "E485", "each of its 4 stages"),
        ("{ pipeline 4, tensor 2, schedule zero_bubble }", 9, "E451", "equal rounds"),
        ("{ pipeline 2, schedule zbv }", 64, "E202", "`zbv` is not one of"),
        ("{ pipeline 2, schedule gpipe, schedule gpipe }", 64, "E213", "named twice"),
        ("{ pipeline 8, schedule zero_bubble, interleave 5 }", 64, "E433", "= 40 stages"),
    ],
)
def test_what_does_not_fit_is_said(parallel: str, batch: int, code: str, words: str) -> None:
    found = check(HEAD14 + CLUSTER + stage(batch=f"{batch} seqs", parallel=parallel))
    assert code in [each.code for each in found], found
    assert any(words in each.message for each in found), [each.message for each in found]


def test_the_nearest_batch_that_fills_a_schedule_does() -> None:
    assert made("{ pipeline 2, schedule dualpipe_v }", 16).resources.schedule == "dualpipe_v"


def test_what_torchtitan_is_told_splits_the_plan_too() -> None:
    fields = "{ parallelism = { pipeline_parallel_first_stage_less_layers = 0 } }"
    job = made("{ pipeline 4 }", torchtitan=fields)
    assert (job.resources.first_less, job.resources.last_less) == (0, 1)
    assert layers_of_stages(14, job.resources) == [4, 4, 4, 2]
    assert made("{ }", torchtitan=fields).resources.first_less == 1
    found = check(
        HEAD14
        + CLUSTER
        + stage(batch="64 seqs", parallel="{ pipeline 4, first_less 1 }", torchtitan=fields)
    )
    assert [each.code for each in found if each.severity == "error"] == ["E484"]


@pytest.mark.parametrize(
    "fields", ['components = ["model", "loss"]', "enable_async_tensor_parallel = true"]
)
def test_no_schedule_that_computes_gradients_of_weights_apart_is_compiled(fields: str) -> None:
    parallel = "{ pipeline 2, schedule zero_bubble_v }"
    assert made(parallel).torchtitan["compile"] == {"enable": True, "components": ["loss"]}
    assert made("{ pipeline 2 }").torchtitan["compile"] == {"enable": True}
    told = stage(batch="64 seqs", parallel=parallel, torchtitan=f"{{ compile = {{ {fields} }} }}")
    found = [d.code for d in check(HEAD14 + CLUSTER + told) if d.severity == "error"]
    assert found == ["E486"]
    on_cpus = check(HEAD14 + "cluster box { cpus = 4 }\n" + told)
    assert "E486" not in [each.code for each in on_cpus]


def test_the_note_about_uneven_pipelines_knows_the_split() -> None:
    def noted(parallel: str) -> bool:
        spec = HEAD14 + CLUSTER + stage(batch="64 seqs", parallel=parallel)
        return "N612" in [each.code for each in compiled(spec)[1].ordered()]

    assert not noted("{ pipeline 4 }")  # 14 and the embedding and the output
    assert noted("{ pipeline 4, first_less 0, last_less 0 }")
    assert noted("{ pipeline 4, last_less 0 }")
    assert not noted("{ pipeline 4, first_less 0, last_less 2 }")


def test_a_placement_is_the_same_in_json() -> None:
    spec = HEAD14 + CLUSTER + stage(batch="64 seqs", parallel="{ pipeline 2, schedule gpipe }")
    written = to_json(Source("<text>", spec), Report())
    assert written
    assert '"parallel": {"pipeline": 2, "schedule": "gpipe"}' in written
    again = to_text(Source("<json>", written), Report())
    assert again
    assert "parallel = { pipeline 2, schedule gpipe }" in again


def test_the_estimate_knows_the_split() -> None:
    """32 layers of one width: evenly 8 a rank, usually 9 in the middle."""
    head = HEAD.replace(
        "layers = 2, dim = 64, heads = 4, kv_heads = 2, ffn = 128, vocab = 300",
        "layers = 32, dim = 4096, heads = 32, kv_heads = 8, ffn = 14336, vocab = 8192",
    )
    assert head != HEAD

    def seconds(parallel: str) -> float:
        spec = head + CLUSTER + stage(batch="64 seqs", parallel=parallel, seq_len="4096")
        cost = only(jobs(plan(spec))).cost
        assert cost.step_seconds
        return cost.step_seconds["compute"]

    usual, even = seconds("{ pipeline 4 }"), seconds("{ pipeline 4, first_less 0, last_less 0 }")
    assert even / usual == pytest.approx(8 / 9, rel=0.05)


def test_auto_takes_another_split_where_it_helps() -> None:
    head = HEAD.replace(
        "layers = 2, dim = 64, heads = 4, kv_heads = 2, ffn = 128, vocab = 300",
        "layers = 64, dim = 16384, heads = 128, kv_heads = 8, ffn = 53248, vocab = 8192",
    )
    pod = 'cluster pod { nodes = 16, gpus = 8 of "H100 80GB" }\n'
    spec = head + pod + stage(batch="64 seqs", parallel="auto", seq_len="4096")
    mesh = only(jobs(plan(spec))).resources
    assert mesh.pipeline > 1
    assert (mesh.first_less, mesh.last_less) != (1, 1)


def test_context_parallelism_needs_gpus() -> None:
    here = "cluster here { cpus = 4 }\n"
    (error,) = check(HEAD + here + stage(parallel="{ context 2 }", seq_len="256"))
    assert error.code == "E487"
    assert "runs on CPUs" in error.message
    assert not check(HEAD + CLUSTER + stage(parallel="{ context 2 }", seq_len="256"))
