"""The token dispatcher of stages: where it goes, what it does not go with, and keys."""

import importlib.util
from typing import Any

import pytest
from specs import HEAD, after, check, jobs, miniature, plan, stage

from etude.compiler.plan.plan import Plan
from etude.runtime.emission.emit import emit
from etude.runtime.errors import RunError
from etude.runtime.preflight import kernels, nodes

EXPERTS = "experts = { count = 8, active = 2, ffn = 128 }"
MIXED = HEAD.replace("layers = 2", f"family = qwen3, {EXPERTS}, layers = 2")
MIXED = MIXED.replace("dim = 64", "dim = 128")
SPREAD = {"batch": "8 seqs", "parallel": "{ expert 4 }"}
EIGHT = "mxfp8"


def pod(gpu: str = "H100 80GB") -> str:
    return f'cluster pod {{ gpus = 4 of "{gpu}" }}\n'


def dispatcher(made: Plan, name: str = "first") -> str:
    return jobs(made, name)[0].torchtitan.get("dispatcher", {}).get("backend", "all_to_all")


def test_a_stage_and_those_after_it_have_it_and_the_keys_of_all_to_all() -> None:
    parts = stage(**SPREAD, dispatcher="deepep") + after() + after("third", from_="second")
    made = plan(MIXED + pod() + parts)
    assert [dispatcher(made, name) for name in ("first", "second", "third")] == ["deepep"] * 3
    other = plan(MIXED + pod() + parts.replace("deepep", "all_to_all"))
    assert {job.id: job.key for job in made.jobs} == {job.id: job.key for job in other.jobs}
    assert "dispatcher" not in jobs(other)[0].torchtitan
    assert made.stages["second"].values["dispatcher"].value == "deepep"


def test_a_stage_whose_gpus_have_all_experts_sends_nothing() -> None:
    more = after(parallel="{ shard 4 }")
    made = plan(MIXED + pod() + stage(**SPREAD, dispatcher="deepep") + more)
    assert dispatcher(made, "second") == "all_to_all"


@pytest.mark.parametrize(
    ("head", "gpu", "changes", "message"),
    [
        (HEAD, "H100 80GB", {"parallel": "{ shard 4 }"}, "this model has none"),
        (MIXED, "H100 80GB", {"parallel": "{ shard 4 }"}, "each has all experts here"),
        (MIXED, "A100 80GB", {}, "but A100 80GB has 8.0"),
        (MIXED, "MI300X", {}, "but MI300X is none of NVIDIA's"),
        (MIXED, "", {"parallel": None}, "needs GPUs, but this stage runs on CPUs"),
        (MIXED, "B200", {"precision": EIGHT, "seq_len": "32"}, "need rows in multiples"),
        (MIXED, "H100 80GB", {"dispatcher": "minimal_async_ep"}, "`recompute` is none"),
    ],
)
def test_what_it_does_not_go_with(
    head: str, gpu: str, changes: dict[str, str | None], message: str
) -> None:
    text = head + (pod(gpu) if gpu else "")
    text += stage(**{**SPREAD, "dispatcher": "deepep", **changes})
    found = [each for each in check(text) if each.severity == "error"]
    assert [each.code for each in found if message in each.message] == ["E568"], found
    assert len(found) == 1


def test_experts_in_eight_bits_have_rows_in_multiples_with_hybridep() -> None:
    made = plan(
        MIXED + pod("B200") + stage(**SPREAD, seq_len="32", precision=EIGHT, dispatcher="hybridep")
    )
    assert dispatcher(made) == "hybridep"


def test_steps_can_be_replayed_where_the_cpu_waits_for_nothing() -> None:
    graphs = "{ training = { disable_cuda_graphs = false } }"
    asks = {**SPREAD, "recompute": "full", "torchtitan": graphs}
    text = MIXED + pod()
    assert {each.code for each in check(text + stage(**asks))} >= {"E429"}
    made = plan(text + stage(**asks, dispatcher="minimal_async_ep"))
    assert jobs(made)[0].torchtitan["training"]["disable_cuda_graphs"] is False


def test_on_the_processes_of_this_machine_and_in_miniatures_there_is_none() -> None:
    text = MIXED + pod() + stage(**SPREAD, dispatcher="deepep")
    for made in (plan(text, ranks=4), miniature(text)):
        assert "dispatcher" not in jobs(made)[0].torchtitan


def test_emitted_jobs_have_it() -> None:
    text = emit(plan(MIXED + pod() + stage(**SPREAD, dispatcher="deepep")))
    assert "model=dispatching(" in text
    assert "'deepep'," in text
    compile(text, "emitted", "exec")
    assert "dispatching" not in emit(plan(MIXED + pod() + stage(**SPREAD)))


def test_a_missing_package_is_found_before_the_first_job(monkeypatch: pytest.MonkeyPatch) -> None:
    real: Any = importlib.util.find_spec
    monkeypatch.setattr(
        kernels.importlib.util, "find_spec", lambda name: None if "deep_ep" in name else real(name)
    )
    made = plan(MIXED + pod() + stage(**SPREAD, dispatcher="hybridep"))
    (job,) = jobs(made)
    with pytest.raises(RunError, match="`dispatcher = hybridep` needs DeepEP 2") as problem:
        kernels.require_dispatcher(job)
    assert "write `dispatcher = all_to_all`" in (problem.value.help or "")
    what, source = nodes.needed(made, [job.id])["deep_ep"]
    assert what == "`dispatcher = hybridep`"
    assert source.startswith("git+https://")
    own = plan(MIXED + pod() + stage(**SPREAD, recompute="full", dispatcher="minimal_async_ep"))
    kernels.require_dispatcher(jobs(own)[0])
    assert nodes.needed(own, [job.id]) == {}


def test_estimates_know_what_each_sends() -> None:
    def seconds(kind: str) -> float:
        text = 'cluster pod { nodes = 4, gpus = 8 of "H100 80GB" }\n'
        text = MIXED + text + stage(batch="32 seqs", parallel="{ expert 32 }", dispatcher=kind)
        cost = jobs(plan(text.replace("count = 8, active = 2", "count = 64, active = 8")))[0].cost
        assert cost.step_seconds
        return cost.step_seconds["expert"]

    assert seconds("deepep") == pytest.approx(seconds("hybridep"))
    # 6 of 8 copies go to other nodes, or one to each of 3.6 nodes, of which 3 are others.
    nodes_reached = 4 * (1 - (3 / 4) ** 8)
    expected = (nodes_reached * 3 / 4) / (8 * 24 / 32)
    assert seconds("deepep") / seconds("all_to_all") == pytest.approx(expected, rel=1e-3)
