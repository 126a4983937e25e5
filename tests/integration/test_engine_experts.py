"""Experts on two ranks, together and placed apart; killed and resumed, balanced."""

from pathlib import Path

import pytest
import torch
from engine_jobs import architecture, experts, latent, run, same, train_job, weights
from test_engine_ranks import Run, Workplace

from etude.compiler.plan import TrainJob
from etude.spec.record import replace

DEEPSEEK = architecture(
    family="deepseek_v3", kv_heads=4, head_dim=24, latent=latent(), layers=2,
    experts=experts(shared=1, score="sigmoid", dense=1, balance=0.01),
)  # fmt: skip


def job(world_size: int, expert: int = 1, steps: int = 6) -> TrainJob:
    made = train_job(
        steps=steps, batch=4, checkpoint_every=3, world_size=world_size, model=DEEPSEEK,
        torchtitan={"parallelism": {"expert_parallel_degree": expert}},
    )  # fmt: skip
    return made.model_copy(update={"resources": replace(made.resources, expert=expert)})


@pytest.fixture(scope="module")
def two_ranks(inputs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    place = Workplace(inputs, tmp_path_factory.mktemp("experts"))
    assert place.run(Run(job(2, 2), "killed", kill_at=4)) != 0
    assert place.run(Run(job(2), "together")) == 0
    assert place.run(Run(job(2, 2), "apart"), Run(job(2, 2), "killed")) == 0
    return place


def test_the_losses_do_not_depend_on_where_experts_are(
    two_ranks: Workplace, inputs: dict[str, Path], tmp_path: Path
) -> None:
    expected = [event["loss"] for event in run(job(1), inputs, tmp_path / "job")]
    for folder in ("together", "apart"):
        losses = [event["loss"] for event in two_ranks.events(folder)]
        assert losses == pytest.approx(expected, rel=1e-4), folder


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
