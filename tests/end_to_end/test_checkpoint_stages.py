"""Checkpoint stages as they run: a cut that changes nothing, and stages that continue from it."""

from pathlib import Path

import pytest
from etude_cli import etude, metrics
from safetensors.torch import load_file

HEAD = """
recipe small { seed = 5 }
model tiny { layers = 2, dim = 32, heads = 4, kv_heads = 2, ffn = 64 }
tokenizer words { train = { on [sums], vocab 280 } }
dataset sums { sample = arithmetic, documents = 200 }
stage pretrain: train {
  model = tiny, data = sums, steps = 12, seq_len = 64, batch = 4 seqs
  lr = 0 -> 3e-3 for 3 steps then -> 3e-4 cosine
}
"""
STAGES = """
stage early: checkpoint { after = 8 steps }
stage decay: train { from = early, steps = 3, lr = last -> 0 }
stage mean:  average { of = [early, pretrain], weights = [1, 3] }
stage there: average { of = [early] }
stage end:   average { of = [pretrain] }
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoints")
    for name, text in (("cut", HEAD + STAGES), ("whole", HEAD)):
        (folder / f"{name}.etude").write_text(text)
        done = etude("run", f"{name}.etude", "--folder", name, cwd=folder, timeout=300)
        assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_the_cut_changes_no_weight(runs: Path) -> None:
    cut = load_file(runs / "cut" / "models" / "end" / "model.safetensors")
    whole = load_file(runs / "whole" / "models" / "pretrain" / "model.safetensors")
    assert cut.keys() == whole.keys()
    assert all(cut[name].equal(whole[name]) for name in whole)


def test_the_mean_is_that_of_the_weights_at_the_steps(runs: Path) -> None:
    mean, early, end = (
        load_file(runs / "cut" / "models" / name / "model.safetensors")
        for name in ("mean", "there", "end")
    )
    assert any(not early[name].equal(end[name]) for name in end)
    for name in end:
        expected = (early[name].double() + 3 * end[name].double()) / 4
        assert (mean[name].double() - expected).abs().max() < 1e-6


def test_what_goes_on_finds_the_learning_rate_of_the_checkpoint(runs: Path) -> None:
    log = {entry["step"]: entry for entry in metrics(runs / "cut", "pretrain.2")}
    (first, *_) = metrics(runs / "cut", "decay.1")
    assert first["lr"] == pytest.approx(log[min(log)]["lr"], rel=1e-6)
