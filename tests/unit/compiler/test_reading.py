"""Models that only read: what of a GPU they take, against figures that are computed by hand."""

import json
from pathlib import Path
from typing import Any

import pytest
from specs import HEAD, plan, stage

from etude.compiler.costs.formulas import FITTED
from etude.compiler.costs.hardware import GPUS
from etude.compiler.costs.reading import CHUNK, Reader, Rows, reading
from etude.compiler.families.architectures import published
from etude.compiler.plan.fitting import misfits
from etude.compiler.plan.keys import content_key
from etude.compiler.plan.phases import phases
from etude.compiler.plan.plan import (
    ForwardJob,
    HeldOutJob,
    JudgeJob,
    Plan,
    ReferenceJob,
    ScoreJob,
    TrainJob,
)
from etude.compiler.values import Reading, Resources
from etude.runtime.preflight.preflight import Unready, require_all
from etude.runtime.run_folder.store import Store
from etude.spec.record import replace

EXAMPLES = Path(__file__).parents[3] / "examples"
H100 = GPUS["H100 80GB"]
LAYER = 2 * 4096**2 + 2 * 4096 * 1024 + 3 * 4096 * 14336 + 2 * 4096
"""Parameters of a layer of Llama 3 8B: attention, SwiGLU, two norms."""
TABLE = 128_256 * 4096
LAYERS = 32
ANGLES = LAYERS * 8192 * 64 * 8
"""Bytes of the tables of rotary angles for 8,192 positions."""


def reader(tensor: int = 1, shard: int = 8, replicate: int = 1, **changes: Any) -> Reader:
    """Llama 3 8B on a node of 8 H100."""
    mesh = Resources(
        world_size=tensor * shard * replicate,
        device="H100 80GB",
        replicate=replicate,
        shard=shard,
        tensor=tensor,
        context=1,
        pipeline=1,
        interleave=1,
        expert=1,
        per_node=8,
    )
    of = Reader(
        model=published("llama3", "8B").knowing(8192),
        resources=mesh,
        seq_len=8192,
        micro_batch=1,
        precision="bf16",
        scores=False,
    )
    return of._replace(**changes)


def read(of: Reader, *rows: Rows) -> Reading:
    return reading(of, H100, rows)


def test_memory_of_8b_on_a_node() -> None:
    """fp32 weights over 8 GPUs; of a token of a layer in bf16 two residuals, queries, what
    attention gives, keys, values, and three products of SwiGLU; so many bytes a logit of 2,048
    places; two layers and both tables gathered in bf16, and in each layer an angle of 8 bytes for
    every second element of a head, for 8,192 positions; what the allocator needs on top."""
    found = read(reader()).memory
    token = 2 * (2 * 4096 + 2 * 4096 + 2 * 1024 + 3 * 14336)
    assert found["parameters"] == 4 * (LAYERS * LAYER + 2 * TABLE) / 8 == 4_015_128_576
    assert found["activations"] == 8192 * token == 1_006_632_960
    assert found["logits"] == round(FITTED["a_logits"] * 2048 * 128_256)
    assert found["buffers"] == 2 * 2 * LAYER + 2 * 2 * TABLE + ANGLES
    parts = sum(found[part] for part in ("parameters", "activations", "logits", "buffers"))
    comes = parts - found["parameters"]
    assert found["margin"] == pytest.approx(FITTED["a_margin"] * comes, abs=1)
    assert "gradients" not in found
    assert "optimizer" not in found


def test_a_score_has_no_logits_and_no_table_for_them() -> None:
    losses, scores = read(reader()).memory, read(reader(scores=True)).memory
    assert scores["logits"] == round(FITTED["a_logits"] * 2048)
    assert losses["parameters"] - scores["parameters"] == 4 * (TABLE - 4096) / 8


def test_tensor_parallelism_gathers_the_tokens_of_its_ranks() -> None:
    """Over 8 tensor ranks an eighth of a layer, and 3 × 2 bytes × 4096 a token that is gathered."""
    one, eight = read(reader()).memory, read(reader(tensor=8, shard=1)).memory
    assert eight["parameters"] == one["parameters"]
    assert eight["activations"] == one["activations"] / 8 + 8192 * 3 * 2 * 4096
    assert eight["logits"] == pytest.approx(one["logits"] / 8, abs=1)


def test_rows_longer_than_padding_and_several_of_them_are_held_at_once() -> None:
    one = read(reader()).memory["activations"]
    assert read(reader(micro_batch=4)).memory["activations"] == 4 * one
    assert read(reader(seq_len=8191)).memory["activations"] == one
    assert read(reader(seq_len=8193)).memory["activations"] == one * (8192 + 128) / 8192


def test_in_fp32_all_but_weights_and_logits_is_twice_as_much() -> None:
    bf16, fp32 = read(reader()).memory, read(reader(precision="fp32")).memory
    assert fp32["parameters"] == bf16["parameters"]
    assert fp32["logits"] == bf16["logits"]
    assert fp32["activations"] == 2 * bf16["activations"]
    assert fp32["buffers"] - ANGLES == 2 * (bf16["buffers"] - ANGLES)


def test_the_time_of_a_row_is_that_of_a_forward_pass() -> None:
    """Matrix products and attention at their shares of 989 TFLOP/s, and what memory bounds: what
    layers make, and their weights. Gathering weights from 8 GPUs at 450 GB/s slows all that."""
    tokens, weights = 8192, LAYERS * LAYER
    products = 2 * tokens * (weights + TABLE) / (FITTED["e_matmul"] * 989e12)
    attention = LAYERS * 2 * 4096 * tokens * tokens / (FITTED["e_attention"] * 989e12)
    made = FITTED["e_memory"] * LAYERS * tokens * 2 * (12 * 4096 + 6 * 14336) / 3.35e12
    handled = FITTED["e_weights"] * 2 * weights / 3.35e12
    gathered = 2 * (weights + 2 * TABLE) * 7 / 8 / (FITTED["e_network"] * 450e9)
    seconds = read(reader(), Rows(8, 8192)).seconds
    together = products + attention + made + handled + FITTED["e_shared"] * gathered
    assert seconds == pytest.approx(together, rel=1e-3)


def test_ranks_with_different_data_share_the_rows_of_a_chunk() -> None:
    once = read(reader(), Rows(8, 8192)).seconds
    assert once
    assert read(reader(), Rows(1, 8192)).seconds == once, "the others wait for the rank that reads"
    assert read(reader(), Rows(9, 8192)).seconds == pytest.approx(2 * once, rel=1e-3)
    chunk = read(reader(), Rows(CHUNK, 8192)).seconds
    assert chunk == pytest.approx(CHUNK / 8 * once, rel=1e-3)
    both = read(reader(), Rows(CHUNK + 1, 8192)).seconds
    assert both == pytest.approx((CHUNK / 8 + 1) * once, rel=1e-3)
    assert read(reader(), Rows(8, 8192), Rows(8, 8192)).seconds == pytest.approx(2 * once, rel=1e-3)
    assert reading(reader(), H100, None).seconds is None


def test_405b_reads_on_eight_nodes_and_not_on_one() -> None:
    model = published("llama3", "405B").knowing(8192)
    assert not reading(reader(model=model), H100, None).fits
    assert reading(reader(shard=64, model=model), H100, None).fits


MORE = """dialog chat { protocol = llama3 }
dataset ranked { files = "p.jsonl", kind = preferences, pairs = 1000 }
dataset asked { files = "q.jsonl", kind = prompts, documents = 100 }
stage rm: reward {
  from = first, steps = 10, batch = 64 pairs, lr = 1e-5, data = ranked, dialog = chat, seq_len = 512
}
stage drafts: sample {
  from = first, prompts = asked, draws = 4, max_tokens = 64, dialog = chat, judge = rm
}
stage align: dpo {
  from = first, steps = 10, batch = 64 pairs, lr = 1e-5, data = ranked, dialog = chat, seq_len = 512
}
stage exam: evaluate { from = first, loss = [web] }
stage ranks: evaluate { from = rm, accuracy = [ranked] }
stage quality: score { from = first, data = [web] }
"""
EXAM = "stage exam: evaluate { from = first, loss = [web] }\n"
NODE = 'cluster c { gpus = 8 of "H100 80GB" }\n'


def recipe(cluster: str = NODE, size: str = "8B", more: str = MORE) -> Plan:
    model = f'recipe r {{ seed = 1 }}\nmodel big {{ family = llama3, size = "{size}" }}\n'
    data = 'dataset web { files = "*.jsonl", tokens = 1M }\n'
    words = "tokenizer words { train = { on [web], vocab 300 } }\n"
    first = stage(model="big", batch="64 seqs", seq_len="512", data="{ web 100% }")
    return plan(model + data + words + cluster + first + more)


def jobs(made: Plan) -> dict[str, ForwardJob]:
    return {job.id: job for job in made.jobs if isinstance(job, ForwardJob)}


def test_every_job_that_reads_has_an_estimate_and_its_phase_the_time() -> None:
    made = recipe()
    found = jobs(made)
    kinds = {type(job) for job in found.values()}
    assert kinds == {HeldOutJob, JudgeJob, ReferenceJob, ScoreJob}
    for job in found.values():
        assert job.reading
        assert job.reading.fits
        assert job.reading.seconds
        (phase,) = [each for each in phases(made) if job.id in each.jobs]
        assert phase.seconds
        assert phase.seconds >= job.reading.seconds
    score, losses, ranks = (found[id] for id in ("quality.web", "heldout.exam", "heldout.ranks"))
    assert (losses.scores, ranks.scores) == (False, True)
    assert score.reading
    assert losses.reading
    # 65,536 tokens of the source against a million, both in rows of 512.
    assert score.reading.seconds
    assert losses.reading.seconds
    ratio = score.reading.seconds / losses.reading.seconds
    assert ratio == pytest.approx(1_000_000 / 65_536, rel=0.05)


def test_a_reward_model_that_learns_has_no_output_of_the_vocabulary() -> None:
    costs = {job.id: job.cost.memory for job in recipe().jobs if isinstance(job, TrainJob)}
    pairs, rewards = costs["align.1"], costs["rm.1"]
    assert pairs
    assert rewards
    assert pairs["parameters"] - rewards["parameters"] == 4 * (TABLE - 4096) / 8
    assert rewards["buffers"] < pairs["buffers"]


def test_what_reads_adds_nothing_to_the_totals_of_training() -> None:
    alone, all_of_it = recipe(more=""), recipe(more=EXAM)
    assert alone.totals
    assert jobs(all_of_it)
    assert alone.totals == all_of_it.totals


def test_where_nobody_says_how_much_is_read_there_is_no_time() -> None:
    unsaid = MORE.replace(", pairs = 1000", "").replace(", documents = 100", "")
    found = jobs(recipe(more=unsaid))
    for id, job in found.items():
        assert job.reading
        known = id in ("heldout.exam", "quality.web")
        assert (job.reading.seconds is not None) == known, id


@pytest.mark.parametrize("cluster", ["", 'cluster c { gpus = 8 of "X9" }\n'])
def test_on_a_cpu_or_an_unknown_gpu_the_plan_is_what_it_was(cluster: str) -> None:
    found = jobs(recipe(cluster))
    assert found
    for job in found.values():
        assert job.reading is None
        assert "reading" not in json.loads(job.model_dump_json())


def test_an_estimate_is_no_part_of_a_key() -> None:
    for job in jobs(recipe()).values():
        assert content_key(job.model_copy(update={"reading": None})) == content_key(job)


def test_a_judge_too_large_for_a_node_is_refused_before_anything_runs(tmp_path: Path) -> None:
    """4 × 403.75e9 bytes / 8 = 201.9 GB: without a head of tokens, but with a table."""
    made = recipe(size="405B")
    found = {each.job.id: each for each in misfits(made)}
    judge = found["drafts.judge"]
    assert (judge.code, judge.attribute) == ("E563", "cluster")
    assert judge.message == (
        "llama3 405B does not fit where drafts.judge reads with it: on 8 GPUs each has 201.9 GB "
        "of fp32 weights, 17.0 of gathered weights, 0.2 of activations for rows of 512 tokens, "
        "and 2.6 of logits and margin, and room for 85.9"
    )
    assert judge.help == "it fits on 32 × H100 80GB, sharded over all of them"
    with pytest.raises(Unready) as refused:
        require_all(made, Store(tmp_path / "run"), tmp_path, lambda event: None)
    assert judge.message in {each.message for each in refused.value.problems}
    assert not (tmp_path / "run").exists()


def test_the_way_out_fits() -> None:
    made = recipe('cluster c { nodes = 4, gpus = 8 of "H100 80GB" }\n', size="405B")
    assert "E563" not in {each.code for each in misfits(made)}


def test_the_gates_of_405b_fit() -> None:
    """The longest rows: 131,072 tokens a rank, over 8 tensor ranks; 405.9e9 × 4 / 16,384 bytes."""
    made = plan((EXAMPLES / "llama3_405b.etude").read_text())
    assert not list(misfits(made))
    found = jobs(made)["heldout.gate.long_context.4"].reading
    assert found
    token = 2 * (2 * 16384 + 2 * 16384 + 2 * 1024 + 3 * 53248) / 8 + 3 * 2 * 16384
    assert found.memory["activations"] == 131_072 * token
    assert found.memory["parameters"] / 1e6 == pytest.approx(4 * 405_849e6 / 16_384 / 1e6, rel=1e-3)
    angles = 126 * 131_072 * 64 * 8
    assert angles < found.memory["buffers"] < 1.5 * angles
    assert found.fits
    assert found.least < 0.45 * H100.memory
    assert found.seconds
    assert found.seconds < 120


def test_more_than_a_gpu_has_does_not_fit() -> None:
    of = reader()
    least = reading(of, H100, None).least
    assert reading(of, replace(H100, memory=least), None).fits
    assert not reading(of, replace(H100, memory=least - 1), None).fits


def test_documents_may_be_scored_in_longer_rows_than_were_trained_on() -> None:
    """The model and torchtitan know of the longer rows; of shorter ones they need not."""
    for length, known in ((64, 64), (8, 16)):
        text = f"stage quality: score {{ from = first, data = [web], seq_len = {length} }}\n"
        (job,) = (each for each in plan(HEAD + stage() + text).jobs if isinstance(each, ScoreJob))
        assert job.seq_len == length
        assert (job.model.context, job.torchtitan["training"]["seq_len"]) == (known, known)
