"""More tensor ranks than heads of keys: ranks share heads, and learn what one rank learns."""

from pathlib import Path
from typing import Any

import pytest
import torch
from engine_jobs import architecture, decoder, run, tensors, train_job
from test_engine_ranks import Run, Workplace

from etude.compiler.plan.plan import TrainJob
from etude.spec.record import replace

MODELS: dict[str, Any] = {
    "llama3": architecture(),
    "qwen3": architecture(family="qwen3", qk_norm=True),
    "decoder": decoder(parts={"biases": "qkv", "qk_norm": "head"}),
    "alibi": decoder(parts={"norm": "layer", "alibi": True}),
}


def job(name: str, ranks: int, kv_heads: int = 1) -> TrainJob:
    made = train_job(
        steps=3,
        model=replace(MODELS[name], kv_heads=kv_heads),
        world_size=ranks,
        torchtitan={"parallelism": {"tensor_parallel_degree": ranks}},
    )
    places = replace(made.resources, tensor=ranks, shard=1)
    return made.model_copy(update={"resources": places})


@pytest.fixture(scope="module")
def two_ranks(inputs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    place = Workplace(inputs, tmp_path_factory.mktemp("shared"))
    assert place.run(*(Run(job(name, 2), name) for name in MODELS)) == 0
    return place


@pytest.mark.parametrize("name", MODELS)
def test_ranks_that_share_a_head_of_keys_learn_what_one_rank_learns(
    name: str, two_ranks: Workplace, inputs: dict[str, Path], tmp_path: Path
) -> None:
    alone = run(job(name, 1), inputs, tmp_path / "alone")
    for one, two in zip(alone, two_ranks.events(name), strict=True):
        assert two["loss"] == pytest.approx(one["loss"], rel=1e-5)
        assert two["grad_norm"] == pytest.approx(one["grad_norm"], rel=1e-4)
    found, wanted = (
        tensors(of / "result" / "state") for of in (two_ranks.root / name, tmp_path / "alone")
    )
    keys = [key for key in wanted if ".wk." in key or ".wv." in key]
    assert keys
    for key in keys:
        torch.testing.assert_close(found[key], wanted[key], rtol=1e-3, atol=1e-5, msg=key)


@pytest.mark.exhaustive
def test_four_ranks_share_two_heads(inputs: dict[str, Path], tmp_path: Path) -> None:
    place = Workplace(inputs, tmp_path)
    assert place.run(Run(job("llama3", 4, 2), "four")) == 0
    alone = run(job("llama3", 1, 2), inputs, tmp_path / "alone")
    for one, four in zip(alone, place.events("four"), strict=True):
        assert four["loss"] == pytest.approx(one["loss"], rel=1e-5)
        assert four["grad_norm"] == pytest.approx(one["grad_norm"], rel=1e-4)
