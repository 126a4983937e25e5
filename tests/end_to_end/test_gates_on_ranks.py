"""Gates that measure on two ranks: the decisions and scores of one, and one way for both."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from batches import recording
from etude_cli import etude, metrics

SPEC = """
recipe gated { seed = 7 }
model tiny { family = llama3, layers = 2, dim = 32, heads = 4, kv_heads = 2, ffn = 64 }
tokenizer words { train = { on [docs], vocab 300 } }
dataset docs { sample = arithmetic, documents = 200 docs, holdout = 5% }

stage pretrain: train {
  model = tiny, data = docs, steps = 6, seq_len = 32, batch = 8 seqs, lr = 3e-3
}
stage long: train {
  steps   = 4
  seq_len = 64 for 2 steps then 128
  gate seq_len {
    require loss(docs)  <= LIMIT
    require loss(short) <= 100% of start
    otherwise extend 2 steps at most 3 times
  }
}
stage after: train { steps = 1 }
"""
EXTENDS = 5.65
"""Nats per token that the first gate reaches after an extension, and the second one at once."""


class Way(NamedTuple):
    """What became of a run.

    Attributes:
        code: its exit code.
        trained: the train jobs, in their order.
        gates: verdicts, in their order.
        read: which steps each rank has read, in their order.
    """

    code: int
    trained: list[str]
    gates: list[dict[str, Any]]
    read: dict[int, list[Any]]


def go(folder: Path, limit: float, ranks: int) -> Way:
    """Runs the spec with a limit, on some ranks."""
    folder.mkdir()
    (folder / "spec.etude").write_text(SPEC.replace("LIMIT", str(limit)))
    command = ("run", "spec.etude", "--folder", "run", "--ranks", str(ranks), "--json")
    done = etude(*command, cwd=folder, env=recording(folder / "batches"))
    assert "Traceback" not in done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines()]
    started = [e for e in events if e["event"] == "started" and e["kind"] == "train"]
    gates = [e for e in events if e["event"] == "gate"]
    read: dict[int, list[Any]] = {}
    for path in (folder / "batches").glob("*.jsonl"):
        for said in map(json.loads, path.read_text().splitlines()):
            read.setdefault(said["rank"], []).append((said["stage"], said["step"]))
    return Way(done.returncode, [e["job"] for e in started], gates, read)


@pytest.mark.exhaustive
def test_a_gate_on_two_ranks_decides_as_on_one(tmp_path: Path) -> None:
    one, two = (go(tmp_path / f"on{ranks}", EXTENDS, ranks) for ranks in (1, 2))
    assert one.code == two.code == 0
    assert [gate["attempt"] for gate in one.gates] == [0, 1, 0]
    assert two.trained == one.trained
    for alone, both in zip(one.gates, two.gates, strict=True):
        for name in ("job", "attempt", "passed"):
            assert both[name] == alone[name]
        for found, wanted in zip(both["requirements"], alone["requirements"], strict=True):
            assert found["measure"] == wanted["measure"]
            assert found["score"] == pytest.approx(wanted["score"], abs=1e-4)
            assert found["wanted"] == pytest.approx(wanted["wanted"], abs=1e-4)
    assert two.read.keys() == {0, 1}
    assert two.read[0] == two.read[1], "both ranks take the same way"
    for job in one.trained:
        again, before = (metrics(tmp_path / f"on{ranks}" / "run", job) for ranks in (2, 1))
        assert [e["loss"] for e in again] == pytest.approx([e["loss"] for e in before], rel=2e-5)
