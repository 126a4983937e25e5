"""Importing leaves the collector of garbage as it was."""

import gc
import json
import subprocess
import sys
from pathlib import Path

import pytest

from etude.runtime.imports import uncollected


@pytest.fixture(autouse=True)
def collector():
    enabled = gc.isenabled()
    yield
    gc.unfreeze()
    (gc.enable if enabled else gc.disable)()


def test_nothing_is_collected_meanwhile_and_what_was_made_is_spared():
    gc.enable()
    before = gc.get_freeze_count()
    with uncollected():
        assert not gc.isenabled()
        made = [[] for _ in range(1000)]
    assert gc.isenabled()
    assert gc.get_freeze_count() - before >= len(made)


def test_a_failed_import_turns_collecting_on_again():
    gc.enable()
    with pytest.raises(ImportError), uncollected():
        raise ImportError
    assert gc.isenabled()


def test_a_collector_that_is_off_stays_off():
    gc.disable()
    before = gc.get_freeze_count()
    with uncollected():
        pass
    assert not gc.isenabled()
    assert gc.get_freeze_count() == before


SPEC = """
recipe early { seed = 1 }
model tiny { layers = 2, dim = 64, heads = 4, ffn = 128, vocab = 264 }
tokenizer plain { bytes }
dataset mine { files = "mine.jsonl" }
stage pretrain: train {
  model = tiny, steps = 5, seq_len = 64, batch = 2 seqs, lr = 1e-3, data = mine
}
"""
IMPORTING = """
import sys, threading, time
from etude.cli.main import main
from etude.runtime import imports

imports._threads.append(threading.Thread(target=time.sleep, args=(300,)))
imports._threads[0].start()
sys.exit(main())
"""


def test_a_run_that_failed_ends_although_something_is_still_imported(tmp_path: Path):
    (tmp_path / "early.etude").write_text(SPEC)
    (tmp_path / "mine.jsonl").write_text('{"text": 3}\n')
    done = subprocess.run(
        [sys.executable, "-c", IMPORTING, "run", "early.etude", "--json"],
        cwd=tmp_path,
        capture_output=True,
        timeout=60,
    )
    assert done.returncode == 1
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert told[-1]["event"] == "error"
    assert "mine.jsonl:1: the field `text` has a number" in told[-1]["message"]
