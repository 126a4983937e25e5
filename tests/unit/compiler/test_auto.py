"""`parallel = auto`: the fastest placement that fits."""

from pathlib import Path
from typing import Any

import pytest
from specs import HEAD, analysed, codes, compiled, jobs, plan, stage

from etude.compiler.costs.hardware import GIB, gpu
from etude.compiler.costs.jobs import Work, segment_estimate
from etude.compiler.program import ScheduledStage, Segment
from etude.compiler.schedule.auto import HEADROOM, RECOMPUTE, Stretch, choose, search, verdicts
from etude.compiler.values import Resources

H100 = 'model big { family = llama3, size = "%s" }\ncluster h { nodes = %d, gpus = 8 of "H100" }\n'
TABLE_4 = [
    (8192, 8192, 2048, {"shard": 64, "tensor": 8, "context": 1, "pipeline": 16}),
    (16384, 8192, 2048, {"shard": 128, "tensor": 8, "context": 1, "pipeline": 16}),
    (16384, 131_072, 128, {"shard": 8, "tensor": 8, "context": 16, "pipeline": 16}),
]
"""GPUs, length, batch and placement of the Llama 3 report, arXiv:2407.21783, Table 4."""


def trained(text: str) -> ScheduledStage:
    analysis = analysed(text)
    assert analysis.program, [d.message for d in analysis.report.errors]
    found = analysis.program.stages["first"]
    assert isinstance(found, ScheduledStage)
    return found


@pytest.mark.parametrize(("gpus", "seq_len", "batch", "published"), TABLE_4)
def test_it_is_no_slower_than_the_published_placement_of_405b(
    gpus: int, seq_len: int, batch: int, published: dict[str, Any]
) -> None:
    text = (
        HEAD
        + H100 % ("405B", gpus // 8)
        + stage(model="big", seq_len=str(seq_len), batch=f"{batch} seqs", parallel="auto")
    )
    found = trained(text)
    (segment,) = found.segments
    ours = segment_estimate(found, segment, batch)
    resources = Resources(
        world_size=gpus, device="H100", replicate=1, expert=1, interleave=8, **published
    )
    theirs = segment_estimate(
        found,
        Segment(
            from_step=0,
            to_step=1,
            seq_len=seq_len,
            rope_theta=5e5,
            resources=resources,
            micro_batch=batch // published["shard"],
        ),
        batch,
    )
    assert ours
    assert theirs
    # By the model's measure the first takes more memory than a GPU has without recomputation.
    if theirs.memory_total <= HEADROOM * 80 * GIB:
        assert ours.seconds <= theirs.seconds
    assert ours.memory_total <= HEADROOM * 80 * GIB


def test_what_is_chosen_is_the_fastest_that_fits() -> None:
    found = trained(
        HEAD
        + H100 % ("70B", 16)
        + stage(model="big", seq_len="8192", batch="256 seqs", parallel="auto")
    )
    stretch = Stretch(seq_len=8192, sequences=(256,))
    candidates = search(Work.of(found), stretch, RECOMPUTE, without=())
    recompute, (chosen,) = choose([candidates]) or ("", [None])
    assert chosen
    assert chosen.seconds == min(c.seconds for c in candidates if c.fits)
    assert recompute == found.recompute
    lines = verdicts(candidates, chosen, 80 * GIB)
    assert len(lines) >= 5
    assert sum("chosen" in line for line in lines) == 1
    assert all("dropped" in line for line in lines if "chosen" not in line)
    device = gpu("H100")
    assert device
    for candidate in candidates:
        assert candidate.fits == (candidate.memory <= HEADROOM * device.memory)


def test_every_length_has_a_placement_and_all_one_recomputation() -> None:
    text = (
        HEAD
        + H100 % ("8B", 8)
        + stage(
            model="big",
            tokens="80M",
            steps=None,
            parallel="auto",
            seq_len="8192 until 40M tokens then 131072",
            batch="8Mi tokens",
        )
    )
    first, second = jobs(plan(text))
    assert second.resources.context > first.resources.context
    assert first.torchtitan["activation_checkpoint"] == second.torchtitan["activation_checkpoint"]


def test_a_recomputation_that_the_spec_names_is_kept() -> None:
    attributes = {"seq_len": "8192", "batch": "64 seqs", "parallel": "auto", "recompute": "full"}
    found = trained(HEAD + H100 % ("8B", 8) + stage(model="big", **attributes))
    assert found.recompute == "full"


def test_a_search_of_16384_gpus_is_the_same_every_time() -> None:
    text = (
        HEAD
        + H100 % ("405B", 2048)
        + stage(model="big", seq_len="8192", batch="2048 seqs", parallel="auto")
    )
    one, other = (jobs(plan(text))[0] for _ in range(2))
    search.cache_clear()
    third = jobs(plan(text))[0]
    assert one.key == other.key == third.key


def test_preferences_stay_together() -> None:
    text = (
        HEAD
        + H100 % ("70B", 16)
        + (
            "dataset ranked { sample = python_functions, kind = preferences }\n"
            + stage(model="big", seq_len="8192", batch="128 seqs", parallel="auto")
            + "stage rm: reward { from = first, data = ranked, steps = 10, batch = 128 pairs\n"
            "  lr = 1e-5, seq_len = 8192, parallel = auto }\n"
        )
    )
    (job,) = jobs(plan(text), "rm")
    assert (job.resources.context, job.resources.pipeline) == (1, 1)


def test_cpus_are_data_parallel() -> None:
    (job,) = jobs(plan(HEAD + stage(parallel="auto"), ranks=2))
    assert job.resources.shard == 2


@pytest.mark.parametrize(
    ("cluster", "attributes", "code"),
    [
        ('gpus = 8 of "Riva 128"', {}, "E434"),
        ('gpus = 8 of "H100"', {"parallel": "auto for 5 steps then { shard 8 }"}, "E434"),
        ('gpus = 7 of "H100"', {"batch": "64 seqs"}, "E435"),
        ('gpus = 1 of "H100"', {"seq_len": "8192"}, "E435"),
    ],
)
def test_what_cannot_be_placed_is_said(cluster: str, attributes: dict[str, str], code: str) -> None:
    model = f'model big {{ family = llama3, size = "70B" }}\ncluster h {{ {cluster} }}\n'
    text = (
        HEAD
        + model
        + stage(
            **{
                "model": "big",
                "seq_len": "1024",
                "batch": "64 seqs",
                "parallel": "auto",
                **attributes,
            }
        )
    )
    assert code in codes(text)


def test_the_recipe_of_405b_can_be_placed_by_itself() -> None:
    text = (Path(__file__).parents[3] / "examples" / "llama3_405b.etude").read_text()
    head, _, rest = text.partition("  parallel  = { tensor 8, pipeline 16, interleave 8 }")
    found, report = compiled(f"{head}  parallel = auto{rest}")
    assert found, [d.message for d in report.errors]
    assert all(sum((job.cost.memory or {}).values()) <= 80 * GIB for job in jobs(found, "pretrain"))


def test_muon_is_placed_without_tensor_parallelism() -> None:
    text = HEAD + H100 % ("70B", 16)
    kept: dict[str, Any] = {"model": "big", "seq_len": "4096", "batch": "128 seqs"}
    for optimizer, whole in (("adamw", False), ("muon", True)):
        found = trained(text + stage(**kept, parallel="auto", optimizer=optimizer))
        stretch = Stretch(seq_len=4096, sequences=(128,))
        placed = search(Work.of(found), stretch, RECOMPUTE, without=())
        assert all("tensor" not in each.degrees for each in placed) == whole


def test_a_stage_whose_ranks_need_all_tokens_gets_neither_tensor_nor_pipeline() -> None:
    text = (
        HEAD.replace("kv_heads = 2, ", "")
        + "dataset people { sample = python_functions, kind = dialogs }\n"
        + 'cluster h { gpus = 8 of "H100" }\n'
        + stage(batch="8 seqs")
        + "stage student: distill {\n  from = first, teacher = first, data = people, steps = 10\n"
        + "  batch = 8 seqs, lr = 1e-5, parallel = auto\n}\n"
    )
    for job in jobs(plan(text), "student"):
        mesh = job.resources
        assert (mesh.tensor, mesh.context, mesh.pipeline) == (1, 1, 1)
