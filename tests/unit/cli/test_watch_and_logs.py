"""`etude watch` and `etude logs` on run folders that change while they look."""

import gc
import json
import os
import pty
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from run_folders import SPEC, Folder
from specs import plan
from stand_ins import Programs

from etude.cli import logs as logs_command
from etude.cli import status_watch
from etude.cli.main import main
from etude.cli.screen import lasting
from etude.compiler.plan.plan import GateJob
from etude.runtime.launchers.record import Launch, save
from etude.runtime.run_folder.progress import progress
from etude.spec.record import replace


@pytest.fixture(autouse=True)
def _collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(status_watch, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(status_watch, "ASK_SECONDS", 0.0)
    yield
    gc.enable()


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "run")


def training(folder: Folder) -> None:
    folder.finish("tokenizer.letters", "dataset.sums")
    folder.begin("pre.1")
    folder.train("pre.1", steps=40, seconds=2.0)
    folder.save("pre.1", 30)
    folder.owned(host="node17", beat=1)


def ends(folder: Folder, *, after: float = 0.5) -> threading.Thread:
    """The run finishes a little later."""

    def finish() -> None:
        time.sleep(after)
        folder.finish_all()
        (folder.path / "lease.json").unlink(missing_ok=True)

    thread = threading.Thread(target=finish)
    thread.start()
    return thread


def test_without_a_terminal_watching_prints_lines_until_the_end(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    training(folder)
    monkeypatch.setattr(status_watch, "sleep", lambda seconds: ends(folder, after=0).join())
    assert main(["status", str(folder.path), "--watch"]) == 0
    first, last = capsys.readouterr().out.splitlines()
    assert first.startswith("running on node17 (process ")
    assert "pre.1 (3 of 5); step 40 of 100; 128 tokens/s; about 3 min 40 s of training" in first
    assert last == "done"


def test_a_run_that_stops_says_why_and_ends_with_1(
    folder: Folder, capsys: pytest.CaptureFixture[str]
) -> None:
    folder.finish("tokenizer.letters")
    event = {"event": "error", "message": "the disk is full", "help": "make room", "time": 1.0}
    (folder.path / "events.jsonl").write_text(json.dumps(event) + "\n")
    assert main(["status", str(folder.path), "--watch"]) == 1
    assert capsys.readouterr().out == "stopped: the disk is full\n"
    assert main(["status", str(folder.path)]) == 0
    out = capsys.readouterr().out
    assert out.startswith("stopped: the disk is full\n  = help: make room\n")


def test_a_dead_run_says_since_when(folder: Folder, capsys: pytest.CaptureFixture[str]) -> None:
    folder.begin("tokenizer.letters")
    folder.owned(host="node17", process=4711, beat=3600)
    assert main(["status", str(folder.path), "--watch"]) == 1
    out = capsys.readouterr().out
    assert out.startswith("dead: process 4711 on node17 has sent no heartbeat since ")


def test_a_run_in_a_queue_is_queued_and_between_phases_it_waits(
    folder: Folder, programs: Programs, capsys: pytest.CaptureFixture[str]
) -> None:
    programs.slurm({"11": "PENDING"})
    save(folder.path, Launch("slurm", {"jobs": ["11"]}))
    assert main(["status", str(folder.path)]) == 0
    assert capsys.readouterr().out.startswith("queued: it is in the queue of slurm\n")
    folder.finish("tokenizer.letters")
    assert main(["status", str(folder.path)]) == 0
    out = capsys.readouterr().out
    assert out.startswith("waiting: the next phase is in the queue of slurm\n")
    programs.slurm({})
    assert main(["status", str(folder.path)]) == 0
    assert capsys.readouterr().out.startswith("stopped: it ended before it was done\n")
    given_up = {"message": "2-gang ended with 1", "help": "correct the data"}
    save(folder.path, Launch("slurm", {"jobs": ["11"], "stopped": given_up}))
    assert main(["status", str(folder.path)]) == 0
    out = capsys.readouterr().out
    assert out.startswith("stopped: 2-gang ended with 1\n  = help: correct the data\n")


def test_programs_get_the_progress_too(folder: Folder, capsys: pytest.CaptureFixture[str]) -> None:
    training(folder)
    assert main(["status", str(folder.path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["progress"]
    assert found["state"] == "running"
    assert found["host"] == "node17"
    assert (found["job"], found["step"], found["steps"], found["checkpoint"]) == (
        *("pre.1", 40, 100, 30),
    )
    assert found["seconds_left"] == pytest.approx(220.0)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.2, "0 s"),
        (59.6, "1 min"),
        (61, "1 min 1 s"),
        (754, "12 min"),
        (3600, "1 h"),
        (12_000, "3 h 20 min"),
        (200_000, "2 d 7 h"),
        (-5, "0 s"),
    ],
)
def test_time_spans_have_two_units_at_most(seconds: float, text: str) -> None:
    assert lasting(seconds) == text


def on_a_terminal(folder: Folder, words: list[str], **environment: str) -> str:
    """What a command shows on a terminal of 80 columns until it ends."""
    parent, child = pty.openpty()
    subprocess.run(["stty", "cols", "80", "rows", "24"], stdin=child, check=True)
    process = subprocess.Popen(
        [sys.executable, "-m", "etude.cli.main", *words, str(folder.path)],
        stdin=child,
        stdout=child,
        stderr=child,
        env={**os.environ, "TERM": "xterm", **environment},
    )
    os.close(child)
    shown = b""
    while True:
        try:
            part = os.read(parent, 65_536)
        except OSError:
            break
        if not part:
            break
        shown += part
        if b"running" in shown and process.poll() is None and (folder.path / "lease.json").exists():
            ends(folder)
    process.wait(timeout=60)
    os.close(parent)
    return shown.decode()


def test_on_a_terminal_it_is_one_view_that_changes(folder: Folder) -> None:
    training(folder)
    shown = on_a_terminal(folder, ["status", "--watch"])
    assert "\x1b[32mrunning\x1b[0m" in shown
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown)
    for text in ("small  running on node17", "step   40 of 100", "loss   2.6100", "step 30,"):
        assert text in plain, plain
    assert plain.rstrip().splitlines()[-1].strip() == "small  done"
    assert max(len(line) for line in plain.splitlines()) <= 80


def test_no_colour_where_none_is_wanted_and_lines_on_a_dumb_terminal(folder: Folder) -> None:
    training(folder)
    shown = on_a_terminal(folder, ["status", "--watch"], NO_COLOR="1")
    assert not re.search(r"\x1b\[\d*(;\d+)*m", shown)
    again = Folder(folder.path.parent / "again")
    training(again)
    shown = on_a_terminal(again, ["status", "--watch"], TERM="dumb")
    assert "\x1b" not in shown
    assert shown.rstrip().endswith("done")


def test_programs_get_the_events_between_two_looks(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    training(folder)

    def happens(seconds: float) -> None:
        folder.store.tell({"event": "scores", "job": "exam", "scores": {}})
        ends(folder, after=0).join()

    monkeypatch.setattr(status_watch, "sleep", happens)
    assert main(["watch", str(folder.path), "--json"]) == 0
    first, *news, last = map(json.loads, capsys.readouterr().out.splitlines())
    assert (first["event"], first["state"], first["step"]) == ("progress", "running", 40)
    assert first["seconds_left"] == pytest.approx(220.0)
    assert first["job_seconds_left"] == pytest.approx(120.0)
    assert [event["event"] for event in news] == ["scores"]  # and none from before
    assert (last["event"], last["state"]) == ("progress", "done")


def test_ctrl_c_ends_the_view_and_leaves_the_run_alone(folder: Folder) -> None:
    training(folder)
    before = sorted(path.name for path in folder.path.rglob("*"))
    process = subprocess.Popen(
        [sys.executable, "-m", "etude.cli.main", "watch", str(folder.path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A suite that runs in the background ignores it, and so would what it starts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert process.stdout
    assert process.stdout.readline().startswith("running on node17")
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in said
    assert sorted(path.name for path in folder.path.rglob("*")) == before


def rows(folder: Folder) -> dict[str, str]:
    found = progress(folder.plan, folder.store)
    return dict(status_watch.rows(found))


def test_the_view_has_the_time_left_for_the_job_and_for_the_recipe(folder: Folder) -> None:
    training(folder)
    left = rows(folder)["left"]
    assert left.startswith("about 3 min 40 s of training, to ")
    assert left.endswith("; 2 min in this job")


def test_the_view_has_the_last_gate_that_decided(tmp_path: Path) -> None:
    longer = "tokens = 20k, seq_len = 64 for 10k tokens then 128"
    gated = SPEC.replace("steps = 50 }", longer + ", gate seq_len { require loss(sums) < 9.0 } }")
    folder = Folder(tmp_path / "run")
    folder.plan = plan(gated)
    (first, *_) = (job for job in folder.plan.jobs if isinstance(job, GateJob))
    folder.finish(*(job.id for job in folder.plan.jobs[: folder.plan.jobs.index(first)]))
    assert "gate" not in rows(folder)
    folder.finish(first.id)
    result = folder.path / "artifacts" / first.key
    needed = {"measure": "loss(sums)", "op": "<", "wanted": 9.0, "score": 2.5, "passed": True}
    verdict = {"passed": True, "requirements": [needed]}
    (result / "verdict.json").write_text(json.dumps(verdict))
    (result / "manifest.json").write_text(json.dumps({"key": first.key, "files": {}}))
    assert rows(folder)["gate"] == f"{first.id} passed: loss(sums) 2.5 (< 9)"
    (result / "verdict.json").write_text("{")
    assert "gate" not in rows(folder)


def test_the_view_names_ranks_without_heartbeats_until_they_send_some(folder: Folder) -> None:
    many = replace(folder.plan.phases[-1], ranks=4, nodes=2)
    folder.plan = folder.plan.model_copy(update={"phases": [many]})
    training(folder)
    assert rows(folder)["ranks"] == "all send heartbeats"
    late = {"event": "ranks", "late": [5], "message": "no heartbeat of rank 5 on node3"}
    folder.store.tell(late)
    assert rows(folder)["ranks"] == "no heartbeat of rank 5 on node3"
    folder.store.tell({"event": "ranks", "late": [], "message": "all ranks send heartbeats again"})
    assert rows(folder)["ranks"] == "all send heartbeats"
    folder.store.tell(late)
    folder.store.tell({"event": "error", "message": "lost"})
    assert rows(folder)["ranks"] == "all send heartbeats"  # of the next start


def test_a_sparkline_goes_from_the_lowest_to_the_highest() -> None:
    assert status_watch.sparkline([8.0, 1.0, 4.6]) == "█▁▅"
    assert status_watch.sparkline([2.0, 2.0]) == "▁▁"


def test_the_curve_of_a_job_is_of_means_however_long_it_is(folder: Folder) -> None:
    folder.finish("tokenizer.letters", "dataset.sums")
    folder.begin("pre.1")
    folder.train("pre.1", steps=100, seconds=1.0)
    found = progress(folder.plan, folder.store).training
    assert found
    assert len(found.losses) == 34  # stretches of three steps
    assert found.losses[0] == pytest.approx(3.0 - 0.01)


def write(folder: Folder, name: str, text: str) -> Path:
    path = folder.path / "logs" / name
    path.write_text(text)
    return path


def logs(folder: Folder, *words: str) -> int:
    return main(["logs", str(folder.path), *words])


def test_logs_of_the_newest_phase_have_their_ranks_before_them(
    folder: Folder, capsys: pytest.CaptureFixture[str]
) -> None:
    old = write(folder, "1-gang.rank-0.log", "old\n")
    os.utime(old, (1, 1))
    for rank in (0, 1):
        write(folder, f"2-gang.rank-{rank}.log", "".join(f"line {n}\n" for n in range(30)))
    assert logs(folder, "-n", "2") == 0
    assert capsys.readouterr().out.splitlines() == [
        *("rank 0: line 28", "rank 0: line 29", "rank 1: line 28", "rank 1: line 29"),
    ]
    assert logs(folder, "--rank", "1", "-n", "1") == 0
    assert capsys.readouterr().out == "line 29\n"
    assert logs(folder, "--phase", "1") == 0
    assert capsys.readouterr().out == "old\n"
    assert logs(folder, "--job", "pre.1") == 0
    assert capsys.readouterr().out == "old\n"


def test_of_many_ranks_the_first_is_shown(
    folder: Folder, capsys: pytest.CaptureFixture[str]
) -> None:
    for rank in range(16):
        write(folder, f"rank-{rank}.log", f"I am {rank}\n")
    assert logs(folder) == 0
    said = capsys.readouterr()
    assert said.out == "I am 0\n"
    assert "16 ranks have logs" in said.err


def test_a_run_in_one_process_has_its_log(
    folder: Folder, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder.path / "log").write_text("torch says\x1b[31m hello\n")
    assert logs(folder) == 0
    assert capsys.readouterr().out == "torch says\ufffd[31m hello\n"


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--rank", "7"], 1, "there is no log of rank 7"),
        (["--phase", "9"], 2, "the plan has no phase 9"),
        (["--job", "nothing"], 2, "the plan has no job nothing"),
        (["-n", "-1"], 2, "are numbers from 0 on"),
    ],
)
def test_what_is_not_there_is_said(
    words: list[str],
    code: int,
    message: str,
    folder: Folder,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write(folder, "1-gang.rank-0.log", "x\n")
    assert logs(folder, *words) == code
    assert message in capsys.readouterr().err


def test_before_anything_is_printed_that_is_said(
    folder: Folder, capsys: pytest.CaptureFixture[str]
) -> None:
    assert logs(folder) == 1
    assert "nothing has been printed" in capsys.readouterr().err


def test_following_shows_what_comes_to_the_end(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    training(folder)
    path = write(folder, "rank-0.log", "before\n")
    write(folder, "rank-1.log", "")
    pauses = iter(range(10))

    def go_on(seconds: float) -> None:
        """What happens while the command pauses."""
        pause = next(pauses)
        with path.open("a") as file:
            file.write(["between\n", "the e", "nd\n"][pause])
        if pause == 0:
            write(folder, "rank-2.log", "another rank\n")
        if pause == 2:
            ends(folder, after=0).join()

    monkeypatch.setattr(logs_command, "sleep", go_on)
    assert logs(folder, "--follow") == 0
    assert capsys.readouterr().out.splitlines() == [
        *("rank 0: before", "rank 0: between", "rank 2: another rank", "rank 0: the end"),
    ]
