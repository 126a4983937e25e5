"""Phases: stretches of jobs that need the same machines, as a launcher starts them."""

from typing import get_args

import pytest
from specs import HEAD, POST_TRAINING, after, plan, stage

from etude.compiler.plan.phases import KINDS, phases
from etude.compiler.plan.plan import AnyJob, ForwardJob, HeldOutJob, Plan, TrainJob
from etude.compiler.values import Phase

GPUS = 'cluster big { nodes = 4, gpus = 8 of "H100 80GB" }\n'
PAIR = "cluster pair { nodes = 2, cpus = 1 }\n"
GATE = """stage longer: train {
  steps = 20, lr = last -> 0, seq_len = 32 for 10 steps then 64
  gate seq_len { require loss(short) <= 105% of start
                 otherwise extend 2 steps at most 2 times }
}
"""
NEEDLES = GATE.replace("loss(short) <= 105% of start", "needle >= 10%")
WORDS = "tokenizer words { train = { on [web], vocab 300 } }\n"


def pretraining(cluster: str, more: str = "") -> Plan:
    return plan(HEAD + WORDS + cluster + stage(batch="64 seqs", data="{ web 100% }") + more)


def shown(made: Plan) -> list[tuple[str, int, int, str, int]]:
    return [(p.name, p.nodes, p.ranks, p.device, p.devices) for p in phases(made)]


def of(made: Plan, id: str) -> Phase:
    (found,) = [phase for phase in phases(made) if id in phase.jobs]
    return found


def test_on_one_process_everything_is_one_phase() -> None:
    made = pretraining("")
    assert shown(made) == [("1-gang", 1, 1, "cpu", 0)]


def test_two_nodes_train_while_one_process_prepares_and_exports() -> None:
    assert shown(pretraining(PAIR)) == [
        ("1-cpu", 1, 1, "cpu", 0),
        ("2-gang", 2, 1, "cpu", 0),
        ("3-small", 1, 1, "cpu", 0),
    ]


def test_nodes_have_the_gpus_that_the_cluster_says() -> None:
    made = pretraining(GPUS, "stage exam: evaluate { needle = { lengths = [64] } }\n")
    assert shown(made) == [
        ("1-cpu", 1, 1, "cpu", 0),
        ("2-gang", 4, 8, "H100 80GB", 8),
        ("3-generate", 1, 1, "H100 80GB", 1),
    ]
    assert of(made, "exam").jobs[0].startswith("export."), "a small job joins what follows it"


def test_the_gang_that_trains_measures_what_is_held_out() -> None:
    made = pretraining(GPUS, "stage exam: evaluate { loss = [web] }\n")
    assert [p.kind for p in phases(made)] == ["cpu", "gang", "small"]
    assert of(made, "exam").jobs == ["first.1", "heldout.exam", "exam"]
    (measured,) = [job for job in made.jobs if isinstance(job, HeldOutJob)]
    assert measured.resources == made.trained()[0].resources
    assert "export.first" not in {i for job in made.jobs for i in job.inputs.values()}


def test_held_out_data_are_read_on_a_mesh_without_pipeline_and_context() -> None:
    parallel = "{ tensor 2, pipeline 2, context 2 }"
    first = stage(batch="64 seqs", seq_len="512", data="{ web 100% }", parallel=parallel)
    text = HEAD + WORDS + GPUS + first + "stage exam: evaluate { loss = [web] }\n"
    (measured,) = [job for job in plan(text).jobs if isinstance(job, HeldOutJob)]
    mesh = measured.resources
    assert (mesh.world_size, mesh.tensor, mesh.shard) == (32, 2, 16)
    assert (mesh.pipeline, mesh.context, mesh.interleave) == (1, 1, 1)
    degrees = measured.torchtitan["parallelism"]
    assert degrees["data_parallel_shard_degree"] == 16
    assert degrees["pipeline_parallel_degree"] == degrees["context_parallel_degree"] == 1
    assert "pipeline_parallel_schedule" not in degrees
    assert [p.kind for p in phases(plan(text))] == ["cpu", "gang", "small"]


def test_a_gang_takes_as_long_as_the_cost_model_says() -> None:
    made = pretraining(GPUS)
    (job,) = made.trained()
    assert of(made, job.id).seconds == job.cost.seconds
    assert of(made, "export.first").seconds is None


@pytest.mark.parametrize("cluster", [PAIR, GPUS])
def test_extensions_train_in_the_gang_that_trains_on(cluster: str) -> None:
    made = pretraining(cluster, GATE)
    gang = of(made, "longer.2")
    assert gang.kind == "gang"
    assert not gang.conditional
    for job in made.jobs:
        if job.extends and job.extends.gate == made_by(made, "longer.1"):
            assert job.id in gang.jobs
    assert of(made, "gate.longer.1") == gang, "losses are measured by the gang"
    asked = pretraining(cluster, NEEDLES)
    gate = of(asked, "gate.longer.1")
    assert gate.kind == "generate"
    assert gate != of(asked, "longer.2") == of(asked, "gate.longer.1+1")


def made_by(made: Plan, id: str) -> str:
    return next(job.key for job in made.jobs if job.id == id)


def test_where_nothing_trains_on_they_are_a_phase_that_only_a_failed_gate_needs() -> None:
    made = pretraining(GPUS, NEEDLES)
    last = of(made, "longer.2+1")
    assert last.conditional
    assert last.seconds is None
    assert last.jobs[-1] == "gate.longer.2+2"


def test_another_number_of_ranks_is_another_phase() -> None:
    clusters = PAIR + "cluster one { cpus = 1 }\n"
    made = plan(
        HEAD + WORDS + clusters + stage(batch="64 seqs", cluster="pair") + after(cluster="one")
    )
    assert [(p.kind, p.nodes) for p in phases(made)] == [("cpu", 1), ("gang", 2), ("gang", 1)]


def test_every_job_is_in_one_phase_and_in_order() -> None:
    text = POST_TRAINING.replace("stage first", GPUS + WORDS + "stage first", 1)
    made = plan(text.replace("4 seqs", "32 seqs").replace("4 pairs", "32 pairs"))
    assert [id for phase in phases(made) for id in phase.jobs] == [j.id for j in made.jobs]
    assert list(phases(made)) == made.phases
    assert [phase.number for phase in phases(made)] == list(range(1, len(made.phases) + 1))


def test_every_kind_of_job_has_machines() -> None:
    every = set(get_args(get_args(AnyJob)[0]))
    meshed = {kind for kind in every if kind is TrainJob or issubclass(kind, ForwardJob)}
    assert KINDS.keys() | meshed == every
    assert not KINDS.keys() & meshed


def test_experts_on_another_number_of_ranks_are_another_phase() -> None:
    experts = "experts = { count = 4, active = 2, ffn = 32 }"
    text = HEAD.replace("ffn = 128,", f"ffn = 128, family = qwen3, {experts},")
    one, two = (
        plan(
            text
            + WORDS
            + GPUS
            + stage(batch="64 seqs", parallel="{ expert 2 }")
            + after(parallel=f"{{ expert {expert} }}")
        )
        for expert in (2, 4)
    )
    assert [p.kind for p in phases(one)] == ["cpu", "gang", "small"]
    assert [p.kind for p in phases(two)] == ["cpu", "gang", "gang", "small"]
