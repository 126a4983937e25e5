"""Fields that a stage or cluster hands to torchtitan as they are."""

from typing import Any

import pytest
from specs import HEAD, after, check, compiled, jobs, miniature, plan, stage

from etude.compiler.plan.plan import Plan
from etude.compiler.torchtitan.told import on_cpus
from etude.runtime.emission.emit import emit

POD = 'cluster pod { gpus = 4 of "H100 80GB", torchtitan = { comm = { trace_buf_size = 9 } } }\n'


def of(made: Plan, name: str = "first") -> dict[str, Any]:
    return jobs(made, name)[0].torchtitan


def test_a_field_stands_beside_those_that_etude_sets() -> None:
    without = of(plan(HEAD + stage()))
    told = of(plan(HEAD + stage(torchtitan="{ training = { gc_freq = 7 } }")))
    assert told == {**without, "training": {**without["training"], "gc_freq": 7}}


def test_a_field_takes_the_place_of_what_etude_chose() -> None:
    told = of(plan(HEAD + stage(torchtitan="{ debug = { deterministic = false } }")))
    assert of(plan(HEAD + stage()))["debug"]["deterministic"] is True
    assert told["debug"]["deterministic"] is False


def test_a_stage_takes_over_the_group_of_the_one_before_as_a_whole() -> None:
    text = HEAD + stage(torchtitan="{ training = { gc_freq = 7 }, comm = { trace_buf_size = 1 } }")
    other = after("third", from_="second", torchtitan="{ comm = { trace_buf_size = 2 } }")
    made = plan(text + after() + other)
    assert of(made, "second")["training"]["gc_freq"] == 7
    assert "gc_freq" not in of(made, "third")["training"]
    assert of(made, "third")["comm"]["trace_buf_size"] == 2
    shown = made.stages["second"].values["torchtitan"]
    assert shown
    assert shown.origin == "from first"
    assert shown.value == "training gc_freq 7, comm trace_buf_size 1"


def test_what_a_cluster_says_holds_unless_the_stage_says_otherwise() -> None:
    made = plan(
        HEAD
        + POD
        + stage()
        + after(torchtitan="{ training = { gc_freq = 7 } }")
        + after("third", from_="second", torchtitan="{ comm = { trace_buf_size = 2 } }")
    )
    sizes = [of(made, name)["comm"]["trace_buf_size"] for name in ("first", "second", "third")]
    assert sizes == [9, 9, 2]
    assert of(made, "second")["training"]["gc_freq"] == 7


@pytest.mark.parametrize(
    "fields",
    [
        "training = { enable_cpu_offload = true, gc_freq = 3, gc_debug = true }",
        "parallelism = { fsdp_reshard_after_forward = always, enable_fsdp_symm_mem = true }",
        'compile = { enable = false, components = "model", backend = "eager" }',
        "comm = { init_timeout_seconds = 60, train_timeout_seconds = 60, trace_buf_size = 0 }",
        "debug = { deterministic = false, deterministic_warn_only = true }",
        "debug = { detect_anomaly = true, spmd_typechecking = true, print_config = true }",
        "optimizer = { implementation = foreach }",
    ],
)
def test_how_a_step_is_computed_is_no_part_of_the_key(fields: str) -> None:
    pod = HEAD + POD.replace(", torchtitan = { comm = { trace_buf_size = 9 } }", "")
    without = plan(pod + stage(batch="4 seqs"))
    told = plan(pod + stage(batch="4 seqs", torchtitan=f"{{ {fields} }}"))
    assert of(told) != of(without)
    assert [job.key for job in told.jobs] == [job.key for job in without.jobs]


def test_what_changes_results_is() -> None:
    told = plan(HEAD + stage(torchtitan="{ debug = { moe_force_load_balance = true } }"))
    assert jobs(told)[0].key != jobs(plan(HEAD + stage()))[0].key


def test_they_are_emitted() -> None:
    group = "{ parallelism = { fsdp_reshard_after_forward = never }, training = { gc_freq = 7 } }"
    text = emit(plan(HEAD + stage(torchtitan=group)))
    assert "fsdp_reshard_after_forward='never'" in text
    assert "gc_freq=7" in text


def test_a_miniature_leaves_them_out() -> None:
    text = HEAD + stage(torchtitan="{ training = { gc_freq = 7 } }")
    small = miniature(text)
    assert "gc_freq" not in of(small)["training"]


def test_a_part_is_changed_by_a_variant() -> None:
    text = HEAD + stage(torchtitan="{ training = { gc_freq = 7, gc_debug = true } }")
    change = "variant slow { first.torchtitan.training.gc_freq = 90 }\n"
    training = of(plan(text + change, variant="slow"))["training"]
    assert (training["gc_freq"], training["gc_debug"]) == (90, True)


GPU = 'cluster pod { gpus = 4 of "H100 80GB" }\n'


def notes(text: str) -> list[str]:
    return [each.message for each in compiled(text)[1].ordered() if each.code == "N662"]


@pytest.mark.parametrize(
    ("fields", "noted"),
    [
        (
            "training = { enable_cpu_offload = true }",
            ["time is estimated without training.enable_cpu_offload"],
        ),
        (
            "compile = { enable = false }",
            ["memory and time are estimated without compile.enable"],
        ),
        ("parallelism = { fsdp_reshard_after_forward = never }", []),
        ("parallelism = { pipeline_parallel_last_stage_less_layers = 0 }", []),
        ("comm = { train_timeout_seconds = 100 }", []),
    ],
)
def test_what_the_estimates_do_not_know_is_said(fields: str, noted: list[str]) -> None:
    told = stage(torchtitan=f"{{ {fields} }}")
    assert notes(HEAD + GPU + told) == noted
    assert notes(HEAD + told) == []  # of a CPU
    of_both = GPU.replace(" }", f", torchtitan = {{ {fields} }} }}")
    assert len(notes(HEAD + of_both + told)) == 2 * len(noted)


def test_the_estimate_knows_what_the_host_keeps_and_what_stays_gathered() -> None:
    def memory(fields: str) -> dict[str, int]:
        deep = HEAD.replace("layers = 2", "layers = 14")
        found = jobs(plan(deep + GPU + stage(torchtitan=f"{{ {fields} }}")))[0].cost.memory
        assert found
        return found

    usual = memory("comm = { trace_buf_size = 9 }")
    offloaded = memory("training = { enable_cpu_offload = true }")
    gathered = memory("parallelism = { fsdp_reshard_after_forward = never }")
    state = ("parameters", "gradients", "optimizer")
    assert all(usual[part] for part in state)
    assert not any(offloaded[part] for part in state)
    # Without gradients in its memory a GPU is fullest as the backward pass begins, not as it ends.
    assert usual["activations"] < offloaded["activations"]
    assert sum(offloaded.values()) < sum(usual.values())
    assert gathered["parameters"] == usual["parameters"]
    assert gathered["buffers"] > usual["buffers"]


@pytest.mark.parametrize(
    ("fields", "code", "help"),
    [
        ("compil = { enable = false }", "E308", "did you mean `compile`?"),
        ("compile = { enabled = false }", "E308", "did you mean `enable`?"),
        ("compile = { enable = 3 }", "E201", "write `true`, without quotes"),
        ("compile = { enable = maybe }", "E202", "there is `false`, `true`"),
        ("compile = false", "E201", "write `compile = { … }`"),
        ("training = { gc_freq = 1.5 }", "E207", ""),
        ("training = { seq_len = 64 }", "E308", "`seq_len` is an attribute of train"),
        ("training = { max_norm = 1.0 }", "E308", "did you mean `clip`?"),
        ("parallelism = { tensor_parallel_degree = 2 }", "E308", "a part of `parallel`"),
        ("debug = { seed = 2 }", "E308", "`seed` is an attribute of the recipe"),
        ("activation_checkpoint = { mode = full }", "E308", "did you mean `recompute`?"),
        ("profiler = { enable_profiling = true }", "E308", "profile = "),
        ('override = { imports = ["os"] }', "E308", "a spec runs none"),
    ],
)
def test_what_torchtitan_does_not_have_and_what_etude_sets(
    fields: str, code: str, help: str
) -> None:
    found = [e for e in check(HEAD + stage(torchtitan=f"{{ {fields} }}")) if e.code[0] == "E"]
    assert [each.code for each in found] == [code]
    assert help in found[0].help


OFFLOAD = "training = { enable_cpu_offload = true }"
SYMMETRIC = "parallelism = { enable_fsdp_symm_mem = true }"
ASYNC = "compile = { enable_async_tensor_parallel = true"


@pytest.mark.parametrize(
    ("cluster", "fields", "message"),
    [
        ("", OFFLOAD, "`training.enable_cpu_offload` needs GPUs"),
        ("", SYMMETRIC, "`parallelism.enable_fsdp_symm_mem` needs GPUs"),
        ("", ASYNC + " }", "`compile.enable_async_tensor_parallel` needs GPUs"),
        ("cpus = 1", OFFLOAD, "`training.enable_cpu_offload` needs GPUs"),
        ('gpus = 4 of "A100 80GB"', SYMMETRIC, "capability 9.0, but A100 80GB has 8.0"),
        ('gpus = 4 of "L40S"', SYMMETRIC, "capability 9.0, but L40S has 8.9"),
        ('gpus = 4 of "H100 80GB"', ASYNC + ", enable = false }", "needs a compiled model"),
        ('gpus = 4 of "H100 80GB"', ASYNC + ', components = "loss" }', "needs a compiled model"),
    ],
)
def test_what_torchtitan_would_refuse_in_the_first_job_is_an_error(
    cluster: str, fields: str, message: str
) -> None:
    """Written in the stage or in the cluster, of a stage or of those that continue from it."""
    pod = f"cluster pod {{ {cluster} }}\n" if cluster else ""
    texts = [HEAD + pod + stage(batch="4 seqs", torchtitan=f"{{ {fields} }}") + after()]
    if cluster:
        told = f"cluster pod {{ {cluster}, torchtitan = {{ {fields} }} }}\n"
        texts.append(HEAD + told + stage(batch="4 seqs") + after())
    for text in texts:
        (found,) = [found for found in check(text) if found.severity == "error"]
        assert found.code == "E429"
        assert message in found.message
        assert found.span
        assert text[found.span.start : found.span.end] == "true"


@pytest.mark.parametrize(
    ("gpu", "fields"),
    [
        ("H100 80GB", SYMMETRIC),
        ("H200", OFFLOAD),
        ("MI300X", SYMMETRIC),
        ("A100 80GB", SYMMETRIC.replace("true", "false")),
        ("H100 80GB", ASYNC + " }"),
        ("H100 80GB", ASYNC + ', components = ["loss", "model"] }'),
        ("another", SYMMETRIC),
    ],
)
def test_what_a_gpu_has_is_none(gpu: str, fields: str) -> None:
    pod = f'cluster pod {{ gpus = 4 of "{gpu}" }}\n'
    found = check(HEAD + pod + stage(batch="4 seqs", torchtitan=f"{{ {fields} }}"))
    assert not [each for each in found if each.severity == "error"]


def test_on_the_processes_of_this_machine_what_only_gpus_have_is_left_out() -> None:
    fields = f"{{ {OFFLOAD}, comm = {{ trace_buf_size = 1 }} }}"
    text = HEAD + POD + stage(batch="4 seqs", torchtitan=fields)
    assert of(plan(text))["training"]["enable_cpu_offload"] is True
    here = of(plan(text, ranks=2))
    assert "enable_cpu_offload" not in here["training"]
    assert here["comm"]["trace_buf_size"] == 1


def test_a_section_that_is_null_stays_so() -> None:
    sections = {"activation_checkpoint": None, "training": {"enable_cpu_offload": True, "steps": 1}}
    assert on_cpus(sections) == {"activation_checkpoint": None, "training": {"steps": 1}}


GRAPHS = "training = { disable_cuda_graphs = false }"


@pytest.mark.parametrize(
    ("cluster", "more", "message"),
    [
        ("", {}, "CUDA graphs need GPUs of NVIDIA, but this stage runs on CPUs"),
        ('gpus = 4 of "MI300X"', {}, "CUDA graphs need GPUs of NVIDIA, but this stage runs on MI3"),
        ('gpus = 4 of "H100 80GB"', {"parallel": "{ pipeline 2 }"}, "none of pipelines"),
        ('gpus = 4 of "H100 80GB"', {"z_loss": "1e-4"}, "`z_loss` are added up in Python"),
    ],
)
def test_where_there_can_be_no_cuda_graphs_a_stage_that_asks_for_them_is_refused(
    cluster: str, more: dict[str, str], message: str
) -> None:
    pod = f"cluster pod {{ {cluster} }}\n" if cluster else ""
    text = HEAD + pod + stage(batch="4 seqs", torchtitan=f"{{ {GRAPHS} }}", **more)
    (found,) = [found for found in check(text) if found.severity == "error"]
    assert found.code == "E429"
    assert message in found.message
    assert found.span
    assert text[found.span.start : found.span.end] == "false"


def test_cuda_graphs_are_recorded_where_they_can_be_and_change_no_key() -> None:
    """What a cluster asks for, and what a stage takes over, holds where it can."""
    told = f'cluster pod {{ gpus = 4 of "H100 80GB", torchtitan = {{ {GRAPHS} }} }}\n'
    parts = stage(batch="4 seqs") + after(parallel="{ pipeline 2 }")
    made, without = plan(HEAD + told + parts), plan(HEAD + told.replace("false", "true") + parts)
    assert of(made)["training"]["disable_cuda_graphs"] is False
    assert of(made, "second")["training"]["disable_cuda_graphs"] is True
    assert of(plan(HEAD + told + parts, ranks=2))["training"]["disable_cuda_graphs"] is True
    assert {job.id: job.key for job in made.jobs} == {job.id: job.key for job in without.jobs}
