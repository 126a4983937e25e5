"""Several ranks: on two nodes of torchrun, with files that come late, with ranks that are lost."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from etude_cli import TINY, environment, etude, lines, metrics, weights
from two_nodes import on_two_nodes


@pytest.fixture(scope="module")
def two_nodes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the tiny spec, run by two nodes of torchrun."""
    folder = tmp_path_factory.mktemp("nodes")
    (folder / "tiny.etude").write_text(TINY)
    nodes = on_two_nodes(folder, "run", "tiny.etude", "--ranks", "2")
    assert [node.returncode for node in nodes] == [0, 0], [node.stderr for node in nodes]
    said = [node.stdout for node in nodes]
    assert sum("done: runs/tiny/models/ has report, anneal" in each for each in said) == 1
    assert sum(not each for each in said) == 1, "rank 0 alone prints"
    return folder


def start(folder: Path, **variables: str) -> "subprocess.Popen[str]":
    """A run on two ranks with the worker of the tests."""
    (folder / "tiny.etude").write_text(TINY)
    here = Path(__file__).parent
    return subprocess.Popen(
        [sys.executable, str(here / "gang_run.py"), "tiny.etude"],
        cwd=folder,
        env={**environment(), **variables, "PYTHONPATH": str(here), "OMP_NUM_THREADS": "1"},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def process_of(run: Path, rank: int) -> int:
    text = (run / "logs" / f"rank-{rank}.log").read_text()
    return int(re.findall(rf"==== rank {rank} on \S+, process (\d+)", text)[-1])


def wait_until(condition: Callable[[], bool], process: "subprocess.Popen[str]") -> None:
    end = time.monotonic() + 600
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.exhaustive
def test_a_rank_that_sees_artifacts_late_changes_nothing(two_nodes: Path, tmp_path: Path) -> None:
    process = start(tmp_path, TEST_LATE="3")
    said = process.communicate(timeout=900)
    assert process.returncode == 0, said
    assert len((tmp_path / "runs" / "hidden").read_text().splitlines()) > 3
    run = tmp_path / "runs" / "tiny"
    assert weights(run, "anneal") == weights(two_nodes / "runs" / "tiny", "anneal")


def test_a_killed_rank_is_named_and_the_next_run_ends_with_the_same_bits(
    two_nodes: Path, tmp_path: Path
) -> None:
    run = tmp_path / "runs" / "tiny"
    process = start(tmp_path)
    wait_until(lambda: lines(run, "pretrain.2") >= 5, process)
    number = process_of(run, 1)
    os.kill(number, signal.SIGKILL)
    said = process.communicate(timeout=300)[1]
    assert process.returncode == 75, said
    (message,) = re.findall(r"error: (.*?)\n  = help", said, re.DOTALL)
    message = " ".join(message.split())
    assert f"rank 1 on {socket.gethostname()} (process {number}) has ended" in message
    done = etude("run", "tiny.etude", "--ranks", "2", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    whole = two_nodes / "runs" / "tiny"
    assert weights(run, "anneal") == weights(whole, "anneal")
    for job in ("pretrain.1", "pretrain.2", "anneal.1"):
        again, once = metrics(run, job), metrics(whole, job)
        assert [step["loss"] for step in again] == [step["loss"] for step in once]
    log = (run / "logs" / "rank-1.log").read_text()
    assert log.count("==== rank 1 on") == 2, "the logs of both starts are kept"


@pytest.mark.exhaustive
def test_a_rank_that_stands_still_is_named(tmp_path: Path) -> None:
    run = tmp_path / "runs" / "tiny"
    process = start(tmp_path, TEST_SILENT="8")
    wait_until(lambda: lines(run, "pretrain.2") >= 3, process)
    os.kill(process_of(run, 1), signal.SIGSTOP)
    said = process.communicate(timeout=300)[1]
    assert process.returncode == 75, said
    assert f"rank 1 on {socket.gethostname()}" in " ".join(said.split())
    events = map(json.loads, (run / "events.jsonl").read_text().splitlines())
    late, error = (each for each in events if each["event"] in ("ranks", "error"))
    assert late["late"] == [1]
    assert late["message"].startswith(f"no heartbeat of rank 1 on {socket.gethostname()} ")
    assert error["time"] > late["time"] + 2


def test_what_is_wrong_with_a_spec_is_said_once_and_ends_all_ranks(tmp_path: Path) -> None:
    (tmp_path / "tiny.etude").write_text(TINY)
    nodes = on_two_nodes(tmp_path, "run", "tiny.etude", "--ranks", "4")
    assert all(node.returncode != 0 for node in nodes)
    said = "".join(node.stderr for node in nodes)
    assert said.count("error[E451]: a batch of 8 sequences, 2 on each of 4 data-parallel") == 1
    assert not (tmp_path / "runs").exists()
