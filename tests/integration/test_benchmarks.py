"""Smoke runs of benchmarks at tiny sizes: that they run, not what they measure."""

import sys
from pathlib import Path

import engine_jobs  # noqa: F401 (before torchtitan is imported: on CPUs)

# The benchmarks are no part of what is installed.
sys.path.append(str(Path(__file__).parents[2]))

from benchmarks import loading, sampling, tokenizing, training_step


def test_sampling() -> None:
    model = sampling.network(layers=1, width=32, vocab=128)
    greedy, drawn = sampling.tasks(count=4, vocab=128)
    rates, differ = sampling.compare(model, greedy, 1, most=6)
    assert min(rates) > 0
    assert differ == 0, "greedy answers are those of generate"
    rates, _ = sampling.compare(model, drawn, 1, most=6)
    assert min(rates) > 0


def test_loading(tmp_path: Path) -> None:
    loading.corpus(tmp_path, 100_000, texts=60)
    rates = loading.warm(tmp_path, 1, many=2)
    assert set(rates) == set(loading.there())
    starts = {name: loading.cold(name, tmp_path) for name in ("etude", "OLMo-core's way")}
    assert all(0 < each["first"] <= each["hundred"] for each in starts.values())


def test_tokenizing(tmp_path: Path) -> None:
    found = tokenizing.measure(tmp_path, rounds=1, characters=200_000)
    assert found.tokens > 0
    assert min(found.ours + found.theirs) > 0


def test_training_step(tmp_path: Path) -> None:
    shape = training_step.Shape(
        layers=1, dim=32, heads=2, kv_heads=1, ffn=64, vocab=512, rows=2, seq_len=32
    )
    found = training_step.measure(tmp_path, shape, 2)
    assert {side: len(seconds) for side, seconds in found.items()} == dict.fromkeys(
        training_step.SIDES["cpu"], 2
    )
    assert "| 1 | " in training_step.table({1: found}, shape, 2)


def test_a_training_step_on_a_gpu_is_that_of_8b() -> None:
    shape = training_step.SHAPES["cuda"]
    job = training_step.job_of(shape, 1, 8, "cuda")
    model, training = job.model, job.torchtitan["training"]
    assert (model.dim, model.heads, model.kv_heads, model.ffn) == (4096, 32, 8, 14336)
    assert (training["local_batch_size"], job.seq_len) == (shape.rows, shape.seq_len)
    assert training["mixed_precision_param"] == "bfloat16"
    assert job.torchtitan["compile"] == {"enable": True}
    assert job.torchtitan["activation_checkpoint"] is None
