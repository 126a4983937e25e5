"""Experts on two ranks, together and placed apart; killed and resumed, balanced."""

from pathlib import Path
from typing import Any

import pytest
import torch
from engine_jobs import (
    architecture,
    decoder,
    experts,
    latent,
    run,
    same,
    same_weights,
    train_job,
    weights,
)
from test_engine_ranks import Run, Workplace, initial

from etude.compiler.plan.plan import Architecture, TrainJob
from etude.runtime.engine.families import gpt_oss
from etude.spec.record import replace

DEEPSEEK = architecture(
    family="deepseek_v3",
    kv_heads=4,
    head_dim=24,
    latent=latent(),
    layers=2,
    experts=experts(shared=1, score="sigmoid", dense=1, balance=0.01),
)


GPT_OSS = architecture(
    family="gpt_oss", biased=True, sinks=True, window=8, experts=experts(balance=0.01)
)
PARTS = decoder(
    layers=2,
    parts={"qk_norm": "width", "biases": "qkv", "rotary": 0.5},
    experts=experts(shared=1, score="sigmoid", dense=1, balance=0.01, scale=2.0, shared_gate=True),
)
PIPELINED: dict[str, int | str] = {
    "pipeline_parallel_degree": 2,
    "pipeline_parallel_schedule": "1F1B",
}


def job(
    world_size: int,
    expert: int = 1,
    steps: int = 6,
    model: Architecture = DEEPSEEK,
    **parallelism: int | str,
) -> TrainJob:
    made = train_job(
        steps=steps,
        batch=4,
        checkpoint_every=3,
        world_size=world_size,
        model=model,
        torchtitan={"parallelism": {"expert_parallel_degree": expert, **parallelism}},
    )
    return made.model_copy(update={"resources": replace(made.resources, expert=expert)})


@pytest.fixture(scope="module")
def two_ranks(inputs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    place = Workplace(inputs, tmp_path_factory.mktemp("experts"))
    assert place.run(Run(job(2, 2), "killed", kill_at=4)) != 0
    drawn = Run(initial(job(2, steps=1)), "initial together")
    assert place.run(Run(job(2), "together"), drawn) == 0
    drawn = Run(initial(job(2, 2, steps=1)), "initial apart")
    assert place.run(Run(job(2, 2), "apart"), Run(job(2, 2), "killed"), drawn) == 0
    return place


def test_the_losses_do_not_depend_on_where_experts_are(
    two_ranks: Workplace, inputs: dict[str, Path], tmp_path: Path
) -> None:
    expected = [event["loss"] for event in run(job(1), inputs, tmp_path / "job")]
    for folder in ("together", "apart"):
        losses = [event["loss"] for event in two_ranks.events(folder)]
        assert losses == pytest.approx(expected, rel=1e-4), folder


def test_the_initial_weights_do_not_depend_on_where_experts_are(
    two_ranks: Workplace, inputs: dict[str, Path], tmp_path: Path
) -> None:
    run(initial(job(1, steps=1)), inputs, tmp_path / "job")
    for folder in ("initial together", "initial apart"):
        assert same_weights(
            tmp_path / "job" / "result" / "state", two_ranks.result(folder) / "state"
        ), folder


def test_experts_apart_killed_and_resumed_end_bit_for_bit_alike(two_ranks: Workplace) -> None:
    assert [event["step"] for event in two_ranks.events("killed")] == [3, 4, 5]
    whole, killed = two_ranks.result("apart"), two_ranks.result("killed")
    assert same(whole / "state", killed / "state")


def test_the_bias_moves_towards_experts_with_little_load(two_ranks: Workplace) -> None:
    bias = weights(two_ranks.result("apart") / "state")["layers.1.moe.expert_bias_E"]
    assert bias.abs().max() > 0
    # It moves by the balance a step, less the mean of all moves.
    assert bias.abs().max() <= 6 * 2 * 0.01
    torch.testing.assert_close(bias.mean(), torch.tensor(0.0), atol=1e-6, rtol=0)


@pytest.mark.exhaustive
@pytest.mark.parametrize("model", [GPT_OSS, PARTS], ids=["gpt_oss", "decoder"])
def test_experts_compute_the_same_however_they_are_placed(
    model: Architecture, inputs: dict[str, Path], tmp_path: Path
) -> None:
    expected = run(job(1, model=model), inputs, tmp_path / "job")
    place = Workplace(inputs, tmp_path)
    layouts = {"together": {}, "tensor": {"tensor_parallel_degree": 2}, "pipeline": PIPELINED}
    runs = [Run(job(2, model=model, **layout), name) for name, layout in layouts.items()]
    assert place.run(*runs) == 0
    assert place.run(Run(job(2, 2, model=model), "apart")) == 0
    for name in (*layouts, "apart"):
        for what in ("loss", "grad_norm"):
            found = [event[what] for event in place.events(name)]
            assert found == pytest.approx([e[what] for e in expected], rel=1e-4), (name, what)


def test_ranks_that_add_up_their_parts_have_a_part_of_the_bias_each(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.manual_seed(1)
    made: Any = gpt_oss.GptOssExperts.Config(dim=16, hidden_dim=16, num_experts=3).build()
    for weight in made.parameters():
        torch.nn.init.normal_(weight)
    routed, counts = torch.randn(8, 16), torch.tensor([2, 0, 4])
    whole = made(routed, counts).float()
    monkeypatch.setattr(gpt_oss, "spmd_mesh_size", lambda axis: 4)
    part = made(routed, counts).float()
    bias = made.mlp2_bias_ED[[0, 0, 2, 2, 2, 2]]
    torch.testing.assert_close((whole - part)[:6], 0.75 * bias, rtol=0.05, atol=0.5)


def test_jobs_of_one_process_place_experts_one_after_the_other(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    """Equal meshes of two placements are not the same."""
    place = Workplace(inputs, tmp_path)
    names = ("together", "apart", "together again")
    runs = [Run(job(2, expert, 2), name) for expert, name in zip((1, 2, 1), names, strict=True)]
    assert place.run(*runs) == 0
    losses = [[event["loss"] for event in place.events(name)] for name in names]
    assert losses[0] == losses[2]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
