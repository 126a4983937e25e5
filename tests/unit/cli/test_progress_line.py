"""A step's line in a pipe: at most 80 columns, with the figures that matter most."""

import io
from pathlib import Path
from typing import Any

import pytest

from etude.cli import way
from etude.cli.progress import COLUMNS, _Lines
from etude.cli.way import Way, resumed
from etude.compiler.driver import analyse, compile
from etude.compiler.plan.plan import Plan
from etude.runtime.run_folder.progress import progress
from etude.runtime.run_folder.store import Store
from etude.spec.load import reads

STEP = {
    "event": "step",
    "job": "pretrain.1",
    "step": 514,
    "loss": 6.7441,
    "lr": 5e-3,
    "tokens": 512_000,
    "tokens_per_second": 1363.4,
    "sequences": 8,
}
SPEC = """recipe two { seed = 1 }
model small { layers = 2, dim = 64, heads = 4, ffn = 128, vocab = 512 }
tokenizer words { bytes }
dataset sums { sample = arithmetic, documents = 20 docs }
stage first: train {
  model = small, steps = 10, batch = 8 seqs, lr = 1e-3, data = sums, seq_len = 64
}
stage second: train { steps = 20, lr = last -> 0 }
"""
GPU = {"mfu": 0.412, "seconds": 2.0, "data_seconds": 0.001}


def plan() -> Plan:
    made = compile(analyse(reads(SPEC)))
    assert made
    return made.plan


def line(**more: Any) -> str:
    terminal = io.StringIO()
    _Lines(terminal, Way(plan()))(STEP | more)
    return terminal.getvalue().rstrip("\n")


def test_a_step_on_a_cpu_shows_no_mfu() -> None:
    assert line() == "pretrain.1: step 514  loss 6.744  lr 0.005  500Ki tokens  1,363 tokens/s"


def test_the_loss_of_further_tokens_is_shown_beside_that_of_the_next() -> None:
    assert "loss 6.744  mtp_loss 7.125" in line(mtp_loss=7.1249)


def test_mfu_is_shown_and_waiting_only_if_it_is_long() -> None:
    assert line(**GPU).endswith("1,363 tokens/s  MFU 41%")
    assert "data" not in line(**GPU)
    assert line(**GPU | {"data_seconds": 0.5}).endswith("MFU 41%  data 25%")


@pytest.mark.parametrize(
    "more",
    [
        GPU,
        GPU | {"data_seconds": 0.5, "tokens": 15_600_000_000_000, "tokens_per_second": 2.3e6},
        GPU | {"mtp_loss": 7.125, "data_seconds": 0.5},
        GPU | {"accuracy": 0.512, "margin": 0.123, "data_seconds": 0.5},
        {"job": "align.12.hot.preferences.1", "step": 1_000_000},
    ],
)
def test_a_line_has_at_most_80_columns(more: dict[str, Any]) -> None:
    shown = line(**more)
    assert len(shown) <= COLUMNS
    assert "loss 6.744" in shown
    assert "tokens/s" in shown


def step(number: int) -> dict[str, Any]:
    return STEP | {"job": "first.1", "step": number}


def test_a_run_says_the_number_of_its_job_and_how_long_training_will_take(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two seconds a step: 8 are left in this job, and the 20 of the next are alike."""
    clock = iter([0.0, 2.0, 4.0])
    monkeypatch.setattr(way, "monotonic", lambda: next(clock))
    made = plan()
    terminal = io.StringIO()
    lines = _Lines(terminal, Way(made))
    about = {"kind": "train", "steps": 10, "tokens": 5120}
    lines({"event": "started", "job": "first.1", **about})
    lines(step(0))
    lines(step(1))
    lines({"event": "finished", "job": "first.1", "kind": "train"})
    jobs = len(made.jobs)
    number = [job.id for job in made.jobs].index("first.1") + 1
    first, *steps = terminal.getvalue().splitlines()
    assert first.startswith("first.1: train, 10 steps")
    assert first.endswith(f" tokens; job {number} of {jobs}")
    assert steps[-1].endswith("  56 s left")


def finish(job: Any, store: Store) -> None:
    store.record(job.id, job.key, "started", {"plan": job.key})
    store.record(job.id, job.key, "finished", {"plan": job.key})
    (store.folder / "artifacts" / job.key).mkdir(parents=True)


def test_a_run_says_what_it_continues_with(tmp_path: Path) -> None:
    made = plan()
    store = Store(tmp_path)
    store.create()
    assert resumed(made, progress(made, store)) is None
    words = made.jobs[0]
    finish(words, store)
    after = f"continuing: 1 of {len(made.jobs)} jobs done; "
    said = resumed(made, progress(made, store))
    assert said == f"{after}{made.jobs[1].id} from its beginning"
    for job in made.jobs[1:]:
        if job.id == "first.1":
            break
        finish(job, store)
    (first,) = [job for job in made.jobs if job.id == "first.1"]
    store.record(first.id, first.key, "started", {"plan": first.key})
    saved = store.work(first.key) / "checkpoints" / "step-4" / "checksums.json"
    saved.parent.mkdir(parents=True)
    saved.write_text("{}")
    said = resumed(made, progress(made, store)) or ""
    assert said.endswith("first.1 after step 4 of 10")
