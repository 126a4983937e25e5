"""Runs that are asked to stop: saved, exit code 75, and in the end the weights of an undisturbed
run, bit for bit."""

import json
import signal
import subprocess
import time
from pathlib import Path

import pytest
from etude_cli import COMMAND, TINY, environment, etude, lines, weights
from stopping import Terminal, listens, rank_of, signalled

CTRL_C = b"\x03"
SLOW = TINY.replace("batch   = 8 seqs -> 16 seqs for 6 steps then 16 seqs", "batch = 32768 seqs")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the tiny spec has run to its end: on one rank in `one`, on two in `two`."""
    folder = tmp_path_factory.mktemp("undisturbed")
    (folder / "tiny.etude").write_text(TINY)
    for ranks, name in (("1", "one"), ("2", "two")):
        done = etude("run", "tiny.etude", "--ranks", ranks, "--folder", name, cwd=folder)
        assert done.returncode == 0, done.stdout + done.stderr
    return folder


def continued(folder: Path, *options: str) -> Path:
    """Runs the tiny spec to its end in `run`."""
    done = etude("run", "tiny.etude", "--folder", "run", *options, cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "run"


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGUSR1, marks=pytest.mark.exhaustive)]
)
def test_a_signal_in_training_saves_and_no_step_is_lost(
    number: signal.Signals, undisturbed: Path, tmp_path: Path
) -> None:
    (tmp_path / "tiny.etude").write_text(TINY)
    run = tmp_path / "run"
    begun = ("run", "tiny.etude", "--folder", "run")
    done = signalled(number, lambda: lines(run, "pretrain.2") >= 5, *begun, cwd=tmp_path)
    assert done.returncode == 75, done.stderr
    reached = lines(run, "pretrain.2")
    assert f"{number.name}: saving and stopping" in done.stdout
    assert (
        f"`pretrain.2` is saved after step {reached} of 16 and continues from there" in done.stderr
    )
    assert "run again to continue: etude run tiny.etude --folder run" in done.stderr
    again = etude(*begun, "--json", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    events = [json.loads(line) for line in again.stdout.splitlines()]
    steps = [e["step"] for e in events if e["event"] == "step" and e["job"] == "pretrain.2"]
    assert steps == list(range(8 + reached, 24))
    assert weights(run, "anneal") == weights(undisturbed / "one", "anneal")


@pytest.mark.exhaustive
def test_of_two_ranks_one_that_is_asked_stops_both(undisturbed: Path, tmp_path: Path) -> None:
    (tmp_path / "tiny.etude").write_text(TINY)
    run = tmp_path / "run"
    done = signalled(
        signal.SIGTERM,
        lambda: lines(run, "pretrain.2") >= 5,
        *("run", "tiny.etude", "--folder", "run", "--ranks", "2"),
        cwd=tmp_path,
        whom=lambda process: rank_of(process, 1),
    )
    assert done.returncode == 75, done.stderr
    assert "stopped by SIGTERM: `pretrain.2` is saved after step" in done.stderr
    continued(tmp_path, "--ranks", "2")
    assert weights(run, "anneal") == weights(undisturbed / "two", "anneal")


@pytest.mark.exhaustive
def test_two_ranks_save_when_their_launcher_is_asked(undisturbed: Path, tmp_path: Path) -> None:
    (tmp_path / "tiny.etude").write_text(TINY)
    run = tmp_path / "run"
    done = signalled(
        signal.SIGUSR1,
        lambda: lines(run, "pretrain.1") >= 2,
        *("run", "tiny.etude", "--folder", "run", "--ranks", "2"),
        cwd=tmp_path,
    )
    assert done.returncode == 75, done.stderr
    assert "SIGUSR1: saving and stopping" in done.stdout
    # The launcher asks its ranks with SIGTERM.
    assert "stopped by SIGTERM: `pretrain.1` is saved after step" in done.stderr
    continued(tmp_path, "--ranks", "2")
    assert weights(run, "anneal") == weights(undisturbed / "two", "anneal")


def test_ctrl_c_in_a_terminal_saves_and_says_so(undisturbed: Path, tmp_path: Path) -> None:
    (tmp_path / "tiny.etude").write_text(TINY)
    run = tmp_path / "run"
    terminal = Terminal("run", "tiny.etude", "--folder", "run", cwd=tmp_path)
    terminal.wait_for("pretrain.1")
    terminal.press(CTRL_C)
    assert terminal.end() == 75, terminal.shown
    assert "Ctrl-C: saving and stopping" in terminal.text
    assert "stopped by Ctrl-C: `pretrain.1` is saved after step" in terminal.text
    continued(tmp_path)
    assert weights(run, "anneal") == weights(undisturbed / "one", "anneal")


@pytest.mark.parametrize("ranks", ["1", "2"])
def test_ctrl_c_twice_in_a_terminal_stops_at_once(ranks: str, tmp_path: Path) -> None:
    (tmp_path / "slow.etude").write_text(SLOW)
    options = ("--folder", "run", "--ranks", ranks)
    terminal = Terminal("run", "slow.etude", *options, cwd=tmp_path)
    terminal.wait_for("pretrain.1")
    terminal.press(CTRL_C)
    terminal.wait_for("Ctrl-C again stops at once")
    terminal.press(CTRL_C)
    assert terminal.end() == 130, terminal.shown
    assert f"etude run slow.etude {' '.join(options)}" in terminal.text
    assert not list(tmp_path.rglob(".metadata"))


@pytest.mark.parametrize("code", [75, 0])
def test_a_command_that_is_asked_until_it_ends_has_the_exit_code_of_its_work(
    code: int, tmp_path: Path
) -> None:
    """As schedulers do, which repeat a request, or ask what is just ending."""
    (tmp_path / "tiny.etude").write_text(TINY)
    process = subprocess.Popen(
        [*COMMAND, "prepare", "tiny.etude", "--folder", "run"],
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    while not listens(process.pid, signal.SIGTERM):
        assert process.poll() is None
    while code == 0 and "prepared: " not in process.stdout.readline():
        assert process.poll() is None
    while process.poll() is None:
        process.send_signal(signal.SIGTERM)
        time.sleep(0.001)
    assert process.returncode == code


def test_a_signal_while_data_are_made_stops_there(tmp_path: Path) -> None:
    many = TINY.replace("documents = 200 docs", "documents = 2000000 docs")
    (tmp_path / "tiny.etude").write_text(many)
    work = tmp_path / "run" / "work"
    done = signalled(
        signal.SIGTERM,
        lambda: work.is_dir() and any(work.iterdir()),
        *("run", "tiny.etude", "--folder", "run"),
        cwd=tmp_path,
    )
    assert done.returncode == 75, done.stderr
    assert "starts over" in done.stderr or "comes next" in done.stderr
