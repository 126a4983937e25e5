"""A run on a virtual Slurm whose run folder is in an object store: moto's S3."""

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from slurm_runs import SMALL, Runs, needs_slurm, weights
from stores import KEY, SECRET, Server, server

pytestmark = needs_slurm
Clusters = Callable[[int], Runs]
URL = "s3://bucket/runs/small"


@pytest.fixture(scope="module")
def store() -> Iterator[Server]:
    with server() as found:
        yield found


def steps(store: Server) -> list[float]:
    """The losses of the steps that the store has."""
    names = sorted(store.names("runs/small/metrics/pretrain.1.jsonl.segments/"))
    text = b"".join(map(store.read, names))
    return [json.loads(line)["loss"] for line in text.splitlines()]


def checkpoints(store: Server) -> list[str]:
    return [name for name in store.names("runs/small/work/") if name.endswith("/checksums.json")]


def rank_1(runs: Runs) -> int:
    (found,) = [
        process.pid
        for process in runs.cluster.processes()
        if process.environment.get("SLURM_PROCID") == "1"
        and URL in process.command
        and "etude.runtime.worker" in process.command
    ]
    return found


@pytest.mark.exhaustive
def test_a_run_in_a_store_goes_on_when_a_rank_is_killed(
    clusters: Clusters, store: Server, tmp_path: Path
) -> None:
    runs = clusters(3)
    cache = tmp_path / "cache"
    runs.environment |= store.environment | {"ETUDE_STORE_CACHE": str(cache)}
    (tmp_path / "r.etude").write_text(SMALL)
    launch = ("launch", "r.etude", "--on", "slurm", "--submit", "--folder", URL)
    done = runs.etude(*launch, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["folder"] == URL
    queued = json.loads(store.read("runs/small/launch.json"))["queued"]
    jobs = dict(zip(queued["phases"], queued["jobs"], strict=True))
    assert list(jobs) == ["1-cpu", "2-gang", "3-small"]
    again = runs.etude(*launch, cwd=tmp_path)
    assert again.returncode == 1
    assert f"the run in {URL} is queued already" in " ".join(again.stderr.split())

    runs.wait(lambda: checkpoints(store), tmp_path, "a checkpoint in the store")
    os.kill(rank_1(runs), signal.SIGKILL)
    said = tmp_path / "etude-small-2-gang.log"

    def ended() -> bool:
        states = runs.cluster.states()
        bad = [name for name, job in jobs.items() if states[job] in ("FAILED", "CANCELLED")]
        assert not bad, said.read_text()
        return all(states[job] == "COMPLETED" for job in jobs.values())

    runs.wait(ended, tmp_path, "done", 600)
    assert runs.restarts(jobs["2-gang"]) == 1
    assert "the job of 2-gang is requeued" in " ".join(said.read_text().split())

    once = runs.etude("run", "r.etude", "--ranks", "2", "--folder", "here", cwd=tmp_path)
    assert once.returncode == 0, once.stderr
    (export,) = [n for n in store.names("runs/small/artifacts/") if n.endswith(".safetensors")]
    assert store.read(export) == weights(tmp_path / "here")
    assert len(steps(store)) == 60
    for command, shown in (
        (("status", URL), "done"),
        (("logs", URL, "--rank", "1", "-n", "100000"), "==== rank 1 on"),
        (("cancel", URL), f"no run is active in {URL}"),
    ):
        answer = runs.etude(*command, cwd=tmp_path)
        assert shown in answer.stdout, (command, answer.stdout, answer.stderr)
    texts = [store.read(name) for name in store.names()]
    texts += [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert not [text for text in texts if SECRET.encode() in text or KEY.encode() in text]
