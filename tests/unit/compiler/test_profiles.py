"""`profile = { steps = [10..12] }`: which steps of which jobs torchtitan's profiler records."""

import pytest
from specs import HEAD, codes, jobs, miniature, plan, stage

from etude.compiler.plan.difference import difference
from etude.compiler.plan.rates import utilization
from etude.compiler.values import Profile
from etude.runtime.emission.emit import emit

PROFILED = stage(profile="{ steps = [10..12] }")
GPUS = 'cluster box { gpus = 4 of "H100 80GB" }\n'


def profiles(of: str) -> list[Profile | None]:
    return [job.profile for job in jobs(plan(HEAD + of))]


def test_the_steps_are_those_of_the_stage_the_last_included() -> None:
    assert profiles(PROFILED) == [Profile(from_step=10, to_step=13)]
    assert profiles(stage(profile="{ steps = [10, 11, 12] }")) == profiles(PROFILED)
    assert profiles(stage(profile="{ steps = [0] }")) == [Profile(from_step=0, to_step=1)]


def test_each_job_of_a_stage_has_its_part() -> None:
    cut = stage(profile="{ steps = [10..12], ranks = all }", seq_len="16 for 12 steps then 32")
    assert profiles(cut) == [
        Profile(from_step=10, to_step=12, ranks="all"),
        Profile(from_step=12, to_step=13, ranks="all"),
    ]
    late = stage(profile="{ steps = [20..21] }", seq_len="16 for 12 steps then 32")
    assert profiles(late) == [None, Profile(from_step=20, to_step=22)]


def test_a_profile_reruns_nothing_and_is_told() -> None:
    without, with_ = plan(HEAD + stage()), plan(HEAD + PROFILED)
    assert [job.key for job in without.jobs] == [job.key for job in with_.jobs]
    assert "profile" not in without.to_json()
    (changed,) = [each for job in difference(without, with_).jobs for each in job.changed]
    assert (changed.name, changed.old, changed.new) == ("profile", None, "steps 10 to 12")
    assert with_.stages["first"].values["profile"].value == "steps 10 to 12"


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ("[12..10]", "E571"),
        ("[1, 3]", "E571"),
        ("[0..5000]", "E571"),
        ("[-1..2]", "E1"),
        ("[99..100]", "E572"),
        ("100", "E201"),
        ("[]", "E208"),
        ("[1.5]", "E2"),
        ("[3 seqs]", "E2"),
        ("[0..20]", "W673"),
    ],
)
def test_steps_that_cannot_be_meant_are_told(said: str, code: str) -> None:
    found = codes(HEAD + stage(profile=f"{{ steps = {said} }}"))
    assert any(each.startswith(code) for each in found), found


def test_many_ranks_and_memory_on_cpus_are_told() -> None:
    many = 'cluster box { nodes = 32, gpus = 8 of "H100 80GB" }\n'
    text = stage(profile="{ steps = [10], ranks = all }", batch="256 seqs")
    assert "W673" in codes(HEAD + many + text)
    assert "W673" not in codes(HEAD + many + text.replace(", ranks = all", ""))
    memory = stage(profile="{ steps = [10], memory = true }")
    assert "W674" in codes(HEAD + memory)
    assert "W674" not in codes(HEAD + GPUS + memory)


def test_a_miniature_records_the_same_point_of_a_short_stage() -> None:
    text = stage(profile="{ steps = [5000..5001], memory = true, ranks = all }", steps="10000")
    (job,) = jobs(miniature(HEAD + GPUS + text))
    assert job.profile
    assert job.profile.to_step - job.profile.from_step == 2
    assert job.profile.from_step == job.steps // 2
    assert (job.profile.memory, job.profile.ranks) == (False, "first")


def test_what_is_emitted_has_torchtitans_profiler() -> None:
    made = emit(plan(HEAD + GPUS + stage(profile="{ steps = [10..12], memory = true }")))
    for line in ("profiler_skip_first=7", "profiler_active=3", "memory_snapshot_freq=13"):
        assert line in made
    assert "Profiler" not in emit(plan(HEAD + GPUS + stage()))


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_a_run_as_fast_as_the_plan_says_has_the_plans_mfu(precision: str) -> None:
    text = stage(seq_len="8Ki", batch="64 seqs", precision=precision, parallel="{ micro_batch 1 }")
    (job,) = jobs(plan(HEAD + GPUS + text))
    cost, ranks = job.cost, job.resources.world_size
    assert cost.tokens_per_second
    assert cost.mfu
    found = utilization(job, cost.tokens_per_second * ranks)
    assert found["mfu"] == pytest.approx(cost.mfu, rel=2e-3)
    flops = cost.flops_per_token + cost.attention_flops_per_token
    assert found["tflops"] == pytest.approx(flops * cost.tokens_per_second / 1e12)


def test_a_cpu_has_no_mfu() -> None:
    (job,) = jobs(plan(HEAD + stage()))
    assert utilization(job, 1000.0).keys() == {"tflops"}
