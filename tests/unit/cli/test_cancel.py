"""`etude cancel`: whoever is at work is told to save; what waits is taken out of the queue."""

import gc
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from run_folders import Folder
from stand_ins import Programs

from etude.cli.main import main
from etude.runtime.launchers.record import Launch, load, save
from etude.runtime.run_folder.lease import LEASE

SAVES = """
import signal, sys, time
from pathlib import Path
from etude.runtime.run_folder.lease import Lease

lease = Lease(Path(sys.argv[1]))

def end(*_):
    Path(sys.argv[1], "saved").touch()
    lease.release()
    sys.exit(75)

signal.signal(signal.SIGTERM, end)
lease.take()
time.sleep(600)
"""


@pytest.fixture(autouse=True)
def _collector() -> Iterator[None]:
    yield
    gc.enable()


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "run")


def at_work(folder: Folder, code: str = SAVES) -> "subprocess.Popen[bytes]":
    process = subprocess.Popen([sys.executable, "-c", code, str(folder.path)])
    while not (folder.path / LEASE).exists():
        assert process.poll() is None
        time.sleep(0.05)
    return process


def test_a_run_on_this_machine_is_told_to_save_and_waited_for(
    folder: Folder, capsys: pytest.CaptureFixture[str]
) -> None:
    process = at_work(folder)
    assert main(["cancel", str(folder.path), "--yes"]) == 0
    said = capsys.readouterr().out
    assert f"process {process.pid} was told to save and stop" in said
    assert "run it again to continue" in said
    assert process.wait(timeout=30) == 75
    assert (folder.path / "saved").exists()
    assert main(["cancel", str(folder.path), "--yes"]) == 0
    assert "there is nothing to cancel" in capsys.readouterr().out


def test_nothing_is_cancelled_unless_somebody_says_so(
    folder: Folder, capsys: pytest.CaptureFixture[str]
) -> None:
    process = at_work(folder)
    try:
        assert main(["cancel", str(folder.path)]) == 2
        assert "say --yes" in capsys.readouterr().err
        assert process.poll() is None
    finally:
        process.kill()
        process.wait()


def test_a_run_on_another_host_is_cancelled_there(
    folder: Folder, capsys: pytest.CaptureFixture[str]
) -> None:
    folder.owned(host="node17", beat=5)
    assert main(["cancel", str(folder.path), "--yes"]) == 1
    said = capsys.readouterr().err
    assert "on node17" in said
    assert f"cancel it there: etude cancel {folder.path}" in " ".join(said.split())


def test_a_dead_run_is_no_run(folder: Folder, capsys: pytest.CaptureFixture[str]) -> None:
    folder.owned(process=4_194_000)
    assert main(["cancel", str(folder.path), "--yes"]) == 0
    assert "no run is active" in capsys.readouterr().out


def test_a_folder_that_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cancel", str(tmp_path / "missing"), "--yes"]) == 1
    assert "is not a run folder" in capsys.readouterr().err


def test_jobs_of_slurm_that_wait_are_cancelled_and_the_one_that_runs_saves(
    folder: Folder, programs: Programs, capsys: pytest.CaptureFixture[str]
) -> None:
    programs.slurm({"11": "RUNNING", "12": "PENDING", "99": "RUNNING"})
    save(folder.path, Launch("slurm", {"jobs": ["10", "11", "12"]}))
    assert main(["cancel", str(folder.path), "--yes"]) == 0
    assert programs.called("scancel", "scontrol") == [
        "scancel 12",
        "scontrol update JobId=11 Requeue=0",
        "scancel --batch --signal=USR1 11",
    ]
    assert load(folder.path) is None
    assert "launch it again to continue" in capsys.readouterr().out


def test_slurm_that_does_not_answer_is_said_and_nothing_is_forgotten(
    folder: Folder, programs: Programs, capsys: pytest.CaptureFixture[str]
) -> None:
    programs.write("squeue", "echo 'slurm_load_jobs error: Unable to contact' >&2; exit 1")
    save(folder.path, Launch("slurm", {"jobs": ["10"]}))
    assert main(["cancel", str(folder.path), "--yes"]) == 1
    said = " ".join(capsys.readouterr().err.split())
    assert "`squeue` fails: slurm_load_jobs error: Unable to contact" in said
    assert load(folder.path) is not None


def test_what_kubernetes_has_is_deleted(
    folder: Folder, programs: Programs, capsys: pytest.CaptureFixture[str]
) -> None:
    programs.write("kubectl", """case "$1" in get) echo '{"items": [{"status": {}}]}';; esac""")
    queued = {"namespace": "research", "context": "big", "instance": "etude-small-0a1b2c"}
    save(folder.path, Launch("kubernetes", queued | {"kinds": ["jobs.batch", "configmaps"]}))
    assert main(["cancel", str(folder.path), "--yes"]) == 0
    assert programs.called("kubectl")[-1] == (
        "kubectl delete --context big --namespace research jobs.batch,configmaps "
        "-l app.kubernetes.io/instance=etude-small-0a1b2c --wait=false"
    )
    assert load(folder.path) is None


def test_the_managed_job_of_skypilot_is_cancelled(folder: Folder, programs: Programs) -> None:
    programs.write("sky", """case "$2" in queue) echo '[{"job_name": "etude-small"}]';; esac""")
    save(folder.path, Launch("skypilot", {"name": "etude-small"}))
    assert main(["cancel", str(folder.path), "--yes"]) == 0
    assert programs.called("sky")[-1] == "sky jobs cancel -y --graceful -n etude-small"


def test_an_engine_that_is_not_here_cannot_be_asked(
    folder: Folder,
    programs: Programs,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    save(folder.path, Launch("kubernetes", {"namespace": "a", "context": "b"}))
    monkeypatch.setenv("PATH", str(programs.folder))
    assert main(["cancel", str(folder.path), "--yes"]) == 1
    assert "`kubectl` is not installed here" in " ".join(capsys.readouterr().err.split())
    assert load(folder.path) is not None
