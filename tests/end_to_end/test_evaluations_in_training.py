"""Evaluations during training as a run does them: recorded, told, and what they decide done."""

import json
from pathlib import Path

from etude_cli import etude

SPEC = """
recipe watched { seed = 5, tracking = tensorboard }
model tiny { layers = 2, dim = 32, heads = 4, kv_heads = 2, ffn = 64 }
tokenizer words { train = { on [sums], vocab 280 } }
dataset sums { sample = arithmetic, documents = 200, holdout = 5% }
stage pretrain: train {
  model = tiny, data = sums, steps = 40, seq_len = 64, batch = 4 seqs
  lr = 3e-3 for 10 steps then 1
  evaluate = { every = 5 steps, loss = [sums], tokens = 1k, patience = 2, keep = best }
}
stage more: train { steps = 3, lr = 1e-4 }
"""
MORE = "stage more: train { steps = 3, lr = 1e-4, evaluate = { every = 1 steps, loss = [sums] } }"


def test_a_run_keeps_the_best_and_goes_on_from_it(tmp_path: Path) -> None:
    """The rate of 1 from step 10 on ruins the model: the loss after 10 steps is the lowest, and
    the two after it end the stage."""
    spec = tmp_path / "watched.etude"
    spec.write_text(SPEC)
    done = etude("run", "watched.etude", cwd=tmp_path, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "it no longer falls, so the stage ends" in done.stdout

    report = json.loads(etude("report", "runs/watched", "--json", cwd=tmp_path).stdout)
    first, second = report["stages"]
    assert [each["step"] for each in first["evaluations"]] == [5, 10, 15, 20]
    assert [each["tokens"] for each in first["evaluations"]] == [1280, 2560, 3840, 5120]
    assert (first["kept"], first["ended"], first["steps"]) == (10, 20, 20)
    assert first["state"] == "finished"
    losses = [each["scores"]["loss(sums)"]["score"] for each in first["evaluations"]]
    assert losses[1] == min(losses) < losses[0] < losses[2]
    assert second["loss"] < losses[0]
    shown = etude("report", "runs/watched", cwd=tmp_path).stdout
    assert "ended the stage" in shown
    status = etude("status", "runs/watched", cwd=tmp_path).stdout
    assert "pretrain.1: after 20 steps loss(sums)" in status
    (artifact,) = (path.parent for path in tmp_path.rglob("artifacts/*/evaluations.jsonl"))
    positions = json.loads((artifact / "positions.json").read_text())
    assert positions == {"sums": 2560}

    # What is only measured reruns nothing.
    spec.write_text(SPEC.replace(SPEC.splitlines()[-1], MORE))
    again = etude("run", "watched.etude", cwd=tmp_path, timeout=300)
    assert again.returncode == 0, again.stderr
    assert "pretrain.1: already done" in again.stdout
    assert "more.1: already done" in again.stdout
