"""Decoders that a spec puts together from parts, on two ranks that share each matrix."""

from pathlib import Path

import pytest
from engine_jobs import decoder, run, train_job
from test_engine_ranks import Run, Workplace

from etude.compiler.plan.plan import TrainJob

PARTS = {
    "norms after, of the whole width": {"norms": "after", "qk_norm": "width"},
    "parallel, with biases": {
        "norm": "layer",
        "activation": "gelu",
        "gated": False,
        "biases": "all",
        "parallel": "two",
        "rotary": 0.5,
        "attention_scale": 0.2,
        "embedding_scale": 2.0,
        "residual_scale": 0.5,
        "logit_scale": 0.25,
    },
    "four norms, capped, scaled": {
        "norms": "both",
        "qk_norm": "head",
        "activation": "gelu_tanh",
        "attention_cap": 2.0,
        "logit_cap": 2.0,
        "scaled": True,
    },
    "ALiBi and a norm of embeddings": {"norm": "layer", "alibi": True, "embedding_norm": True},
    "learned positions": {"norm": "layer", "biases": "all", "learned": 64},
    "a norm for each head, and a bias of logits": {
        "norm": "layer_scale",
        "qk_norm": "layers",
        "biases": "but_qkv",
        "parallel": "one",
        "qkv_clip": 0.5,
        "output_bias": True,
    },
    "learned slopes, norms with a mean": {
        "norm": "layer_plain",
        "qk_norm": "layer",
        "activation": "xielu",
        "gated": False,
        "biases": "attention",
    },
    "norms without weights, after the rotation": {
        "norm": "rms_plain",
        "qk_norm": "plain",
        "qk_norm_late": True,
        "embedding_norm": True,
        "biases": "ffn",
    },
}


def job(name: str, ranks: int) -> TrainJob:
    return train_job(
        steps=3,
        model=decoder(parts=PARTS[name]),
        world_size=ranks,
        torchtitan={"parallelism": {"tensor_parallel_degree": ranks}},
    )


@pytest.fixture(scope="module")
def two_ranks(inputs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    place = Workplace(inputs, tmp_path_factory.mktemp("parts"))
    assert place.run(*(Run(job(name, 2), name) for name in PARTS)) == 0
    return place


@pytest.mark.parametrize("name", PARTS)
def test_tensor_parallelism_changes_no_loss(
    name: str, two_ranks: Workplace, inputs: dict[str, Path], tmp_path: Path
) -> None:
    alone = run(job(name, 1), inputs, tmp_path / "alone")
    for one, two in zip(alone, two_ranks.events(name), strict=True):
        assert two["loss"] == pytest.approx(one["loss"], rel=1e-5)
        assert two["grad_norm"] == pytest.approx(one["grad_norm"], rel=1e-4)
