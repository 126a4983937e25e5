"""Models that write: on how many GPUs, against figures that are computed by hand."""

import json
from pathlib import Path
from typing import Any

import pytest
from specs import plan, stage

from etude.compiler.costs.formulas import FITTED
from etude.compiler.costs.generation import Draws, generation, tensor_degrees
from etude.compiler.costs.hardware import GPUS
from etude.compiler.families.architectures import published
from etude.compiler.plan.fitting import misfits
from etude.compiler.plan.keys import content_key
from etude.compiler.plan.phases import phases, use_of
from etude.compiler.plan.plan import DrawJob, GateJob, Plan, WritingJob
from etude.compiler.values import Generation
from etude.spec.record import replace

H100 = GPUS["H100 80GB"]
ROOM = 0.9 * 80 * 2**30
"""Bytes of an H100 that vLLM takes."""
WORDS = "tokenizer words { train = { on [web], vocab 300 } }\n"
SAMPLES = """dialog chat { protocol = llama3 }
dataset asked { files = "q.jsonl", kind = prompts, documents = 100 }
stage drafts: sample {
  prompts = asked, draws = 4, max_tokens = 64
  dialog = chat
}
"""


def on(size: str, *, context: int, nodes: int = 64, family: str = "llama3") -> Generation:
    model = published(family, size).knowing(131_072)
    return generation(model, H100, per_node=8, nodes=nodes, context=context, draws=[DRAWS])


DRAWS = Draws(1000, 512, 512)


def test_8b_needs_one_gpu() -> None:
    """8.03e9 parameters but the embedding's rows are read, not held twice: both tables count.
    Cache: 2 (k, v) × 2 bytes × 32 layers × 8 KV heads × 128 = 131,072 bytes a token."""
    found = on("8B", context=8192)
    assert (found.tensor, found.pipeline) == (1, 1)
    assert found.memory["weights"] == pytest.approx(2 * 8.03e9, rel=1e-3)
    assert found.memory["sequence"] == 131_072 * 8192 == 2**30
    assert found.fits
    room = ROOM - found.memory["weights"] - found.memory["work"]
    assert found.at_a_time == int(room / 2**30) == 55


def test_70b_fits_on_two_gpus_and_takes_four_since_two_have_no_room_for_a_batch() -> None:
    """70.55e9 × 2 bytes / 2 = 70.6 GB a GPU leave 5.2 GB for cache; over 4 GPUs it is 35.3 GB.
    Cache: 2 × 2 bytes × 80 layers × 8 heads × 128 / 4 = 81,920 bytes a token."""
    found = on("70B", context=8192)
    assert (found.tensor, found.pipeline) == (4, 1)
    assert found.memory["weights"] == pytest.approx(2 * 70.55e9 / 4, rel=1e-3)
    assert found.memory["sequence"] == 81_920 * 8192


def test_405b_needs_two_nodes() -> None:
    """A stage has 63 of 126 layers. A layer: attention 2·16384² + 2·16384·1024 = 570,425,344;
    SwiGLU 3·16384·53248 = 2,617,245,696; norms 2·16384. A table: 128,256·16384 = 2,101,346,304.
    (63 · 3,187,671,040 + 63 · 32,768 + 2,101,346,304) / 8 in bf16, norms whole on each GPU."""
    layers, norms, table = 63 * 3_187_671_040, 63 * 2 * 16384, 128_256 * 16384
    found = on("405B", context=131_072)
    assert (found.tensor, found.pipeline) == (8, 2)
    assert found.memory["weights"] == pytest.approx(2 * ((layers + table) / 8 + norms), rel=1e-9)
    assert found.memory["weights"] / 1e9 == pytest.approx(50.7, abs=0.05)
    # 2 × 2 bytes × 63 layers × 1 KV head × 128 = 32,256 bytes a token.
    assert found.memory["sequence"] == 32_256 * 131_072
    assert found.least <= ROOM
    assert on("405B", context=8192, nodes=1).fits is False


def test_latents_are_on_every_gpu() -> None:
    """DeepSeek-V3: 512 + 64 wide, 61 layers over 3 nodes are 21: 2 × 21 × 576 bytes a token."""
    found = on("671B", context=8192, family="deepseek_v3")
    assert (found.tensor, found.pipeline) == (8, 3)
    assert found.memory["sequence"] == 2 * 21 * 576 * 8192


def test_windows_keep_the_cache_short() -> None:
    """gpt-oss 20B: half of 24 layers see 128 tokens. 2 × 2 bytes × 8 heads × 64 a layer."""
    found = on("20B", context=8192, family="gpt_oss")
    each = 2 * 2 * 8 * 64
    assert found.tensor == 1
    assert found.memory["sequence"] == 12 * each * 8192 + 12 * each * 128


@pytest.mark.parametrize(
    ("heads", "kv_heads", "wanted"), [(64, 8, [1, 2, 4, 8]), (24, 6, [1, 2, 3, 6])]
)
def test_tensor_degrees_divide_heads(heads: int, kv_heads: int, wanted: list[int]) -> None:
    model = replace(published("llama3", "70B"), heads=heads, kv_heads=kv_heads, ffn=24_000)
    assert tensor_degrees(model, 8) == wanted
    assert tensor_degrees(model, 4) == [t for t in wanted if t <= 4]


def test_the_time_is_the_roofline() -> None:
    """8B on one GPU, 10 answers of 100 tokens to prompts of 100 together: weights and cache are
    read 100 times, but not the embedding; prompts at the share of 989 TFLOP/s of products."""
    model = published("llama3", "8B").knowing(8192)
    found = generation(model, H100, per_node=8, nodes=1, context=8192, draws=[Draws(10, 100, 100)])
    table = 128_256 * 4096
    layers = found.memory["weights"] / 2 - 2 * table
    read = 2 * (layers + table) + 10 * 131_072 * 150
    prompts = 10 * 100 * (2 * layers + 2 * 4096 * 32 * 100) / (FITTED["e_matmul"] * 989e12)
    start = 75 + found.memory["weights"] / 7e9
    assert found.seconds == pytest.approx(start + 100 * read / 3.35e12 + prompts, abs=0.01)


def drawn(number: int, *, nodes: int, size: str = "8B", answer: int = 512) -> Generation:
    """By replicas on all nodes."""
    model = published("llama3", size).knowing(131_072)
    draws = [Draws(number, answer, answer)]
    on: dict[str, Any] = {"per_node": 8, "nodes": nodes, "context": 8192}
    return generation(model, H100, draws=draws, spread=True, **on)


def test_replicas_share_the_answers_of_a_job() -> None:
    """A million answers: each of 512 replicas draws 1,954."""
    found = drawn(1_000_000, nodes=64)
    assert (found.tensor, found.pipeline, found.replicas) == (1, 1, 512)
    alone = generation(
        published("llama3", "8B").knowing(131_072),
        H100,
        per_node=1,
        nodes=1,
        context=8192,
        draws=[Draws(1_954, 512, 512)],
    )
    assert found.seconds == alone.seconds


def test_a_model_on_two_nodes_has_half_as_many_replicas() -> None:
    found = drawn(1_000_000, nodes=65, size="405B")
    assert (found.tensor, found.pipeline, found.replicas) == (8, 2, 32)
    assert found.fits
    assert drawn(1_000_000, nodes=1, size="405B").replicas == 1


def test_few_answers_have_few_replicas() -> None:
    """None has nothing to do; and while vLLM starts, a few draw what all of them would."""
    assert drawn(3, nodes=64).replicas <= 3
    found, all_of_them = drawn(4096, nodes=64), drawn(1_000_000, nodes=64)
    assert found.replicas < all_of_them.replicas
    assert found.replicas <= 8 or found.replicas * found.tensor % 8 == 0, "each node has as many"


def test_what_is_not_known_is_written_everywhere() -> None:
    model = published("llama3", "8B").knowing(131_072)
    found = generation(model, H100, per_node=8, nodes=4, context=8192, draws=None, spread=True)
    assert (found.replicas, found.seconds) == (32, None)


def text(cluster: str, size: str = "8B", more: str = "") -> str:
    """A recipe that trains a published model for a step, and samples from it."""
    model = f'recipe r {{ seed = 1 }}\nmodel tiny {{ family = llama3, size = "{size}" }}\n'
    data = 'dataset web { files = "*.jsonl" }\n'
    first = stage(batch="64 seqs", seq_len="512", data="{ web 100% }")
    return model + data + WORDS + cluster + first + SAMPLES + more


def of(made: Plan, kind: type) -> WritingJob:
    found = next(job for job in made.jobs if isinstance(job, kind))
    assert isinstance(found, WritingJob)
    return found


def test_a_phase_has_the_gpus_that_its_job_needs() -> None:
    cluster = 'cluster big { nodes = 8, gpus = 8 of "H100 80GB" }\n'
    for size, machines in (("8B", (1, 1)), ("70B", (1, 4)), ("405B", (2, 8))):
        made = plan(text(cluster, size))
        (phase,) = [each for each in phases(made) if "drafts.draws" in each.jobs]
        assert phase.kind == "generate"
        assert (phase.nodes, phase.ranks) == (phase.nodes, phase.devices) == machines
        job = of(made, DrawJob)
        assert job.generation
        assert phase.seconds == job.generation.seconds
        assert job.generation.context == 512


def test_placement_is_no_part_of_keys() -> None:
    small, large = (
        of(plan(text(f'cluster c {{ nodes = {n}, gpus = 8 of "{gpu}" }}\n', "70B")), DrawJob)
        for n, gpu in ((8, "H100 80GB"), (4, "MI300X"))
    )
    assert small.resources != large.resources
    assert small.generation != large.generation
    changed = large.model_copy(update={"inputs": small.inputs})
    assert content_key(changed) == content_key(small)


def test_on_a_cpu_one_process_writes() -> None:
    job = of(plan(text("", "8B")), DrawJob)
    assert (job.resources, job.generation) == (None, None)
    assert "resources" not in json.loads(job.model_dump_json())


def test_on_cpus_the_ranks_that_train_write() -> None:
    made = plan(text("cluster pair { nodes = 2, cpus = 1 }\n"))
    job = of(made, DrawJob)
    assert job.resources
    assert (job.resources.world_size, job.resources.replicate) == (2, 2)
    assert job.generation is None
    (phase,) = [each for each in phases(made) if "drafts.draws" in each.jobs]
    assert (phase.kind, phase.nodes, phase.ranks) == ("gang", 2, 1)
    assert phase.jobs == ["drafts.draws", "drafts"], "rank 0 keeps the best there"
    alone = of(plan(text("")), DrawJob)
    assert content_key(job.model_copy(update={"inputs": alone.inputs})) == content_key(alone)


def test_of_a_gpu_that_nobody_knows_a_node_is_taken() -> None:
    job = of(plan(text('cluster c { nodes = 8, gpus = 8 of "X9" }\n')), DrawJob)
    assert job.resources
    assert (job.resources.tensor, job.resources.pipeline, job.generation) == (8, 1, None)
    assert job.resources.replicate == 8


def test_what_fits_nowhere_is_said_with_what_would() -> None:
    (found,) = misfits(plan(text('cluster c { gpus = 8 of "H100 80GB" }\n', "405B")))
    assert found.code == "E561"
    assert found.message == (
        "llama3 405B does not fit where drafts.draws writes with it: on 8 GPUs each has 101.5 GB "
        "of weights, 1.3 of activations and 0.0 of cache for 512 tokens, and room for 77.3"
    )
    assert found.help == "it fits on 2 nodes × 8 × H100 80GB or 1 node × 8 × H200"


def test_suites_of_a_model_on_several_nodes_are_refused() -> None:
    exam = 'stage exam: evaluate { from = first, suites = { math ["gsm8k"] } }\n'
    wide = 'cluster c { nodes = 8, gpus = 8 of "H100 80GB" }\n'
    (found,) = misfits(plan(text(wide, "405B", exam)))
    assert (found.code, found.attribute) == ("E562", "suites")
    assert found.help.endswith("of which a node holds the model: 1 node × 8 × H200")
    assert not list(misfits(plan(text(wide, "70B", exam))))


def example(name: str) -> Plan:
    return plan((Path(__file__).parents[3] / "examples" / f"{name}.etude").read_text())


@pytest.mark.parametrize("name", ["llama3_405b", "llama3_posttraining_tiny"])
def test_the_gates_and_samples_of_examples_fit(name: str) -> None:
    made = example(name)
    assert not list(misfits(made))
    for phase, needs in (
        (phase, job.resources)
        for phase in made.phases
        for job in made.jobs
        if isinstance(job, GateJob) and job.id in phase.jobs and job.resources
    ):
        assert (phase.nodes, phase.ranks) == (needs.pipeline, needs.tensor) == (2, 8)


def test_a_gate_that_writes_on_several_gpus_is_no_work_of_the_gang() -> None:
    made = example("llama3_405b")
    kinds = {job: phase for phase in made.phases for job in phase.jobs}
    for attempt in (1, 2, 3):
        train, gate = (f"{what}long_context.1+{attempt}" for what in ("", "gate."))
        assert (kinds[train].kind, kinds[gate].kind) == ("gang", "generate")
        assert kinds[train].conditional
        assert kinds[gate].conditional
    assert not kinds["long_context.2"].conditional


RL = """
cluster big { nodes = 4, gpus = 8 of "H100 80GB" }
verifier right { kind = regex, pattern = "a" }
stage rl: grpo {
  from = first, cluster = big, data = asked, dialog = chat, steps = 4, refresh = 2 steps
  batch = 64 prompts, group = 64, max_tokens = 256, reward = right, lr = 1e-6
}
"""


def test_a_policy_writes_on_its_own_cluster_from_the_first_turn_on() -> None:
    small = 'cluster small { gpus = 8 of "H100 80GB" }\n'
    made = plan(
        text(small, more=RL).replace("stage first: train {", "stage first: train { cluster = small")
    )
    turns = [job for job in made.jobs if isinstance(job, DrawJob) and job.stage == "rl"]
    assert len(turns) == 2
    assert turns[0].resources == turns[1].resources
    assert turns[0].generation
    assert turns[0].generation.replicas > 1
    (gang,) = [phase for phase in made.phases if not {"rl.1", "rl.2"}.isdisjoint(phase.jobs)]
    assert gang.jobs[-6:] == [
        "rl.1",
        "export.rl.1",
        "draws.rl.2.asked",
        "rollouts.rl.2",
        "old.rl.2",
        "rl.2",
    ]
    assert gang.world_size == turns[1].resources.world_size  # type: ignore[union-attr]
    assert use_of(turns[1]) is None, "its processes go on to train"


def test_on_cpus_a_gang_writes_scores_and_learns_in_a_turn() -> None:
    rl = RL.replace(RL.splitlines()[1], "").replace("cluster = big, ", "")
    made = plan(text("cluster pair { nodes = 2, cpus = 1 }\n", more=rl))
    turn = next(phase for phase in made.phases if "rl.2" in phase.jobs)
    assert turn.kind == "gang"
    assert turn.jobs[-5:] == [
        "export.rl.1",
        "draws.rl.2.asked",
        "rollouts.rl.2",
        "old.rl.2",
        "rl.2",
    ]
    assert "rl.1" in turn.jobs
