"""One node of a gang: it ends as its ranks do, and says whether a new start can help."""

import gzip
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from etude.runtime.errors import RunError
from etude.runtime.launchers import node as module
from etude.runtime.launchers.allocation import here
from etude.runtime.launchers.node import AGAIN, PORT, Node, Rank, main, node, run, take_plan

KUBEFLOW = {
    "PET_NNODES": "4",
    "PET_NODE_RANK": "2",
    "PET_NPROC_PER_NODE": "8",
    "PET_MASTER_ADDR": "run-node-0-0.run",
    "PET_MASTER_PORT": "29500",
}
SKYPILOT = {"SKYPILOT_NODE_IPS": "10.0.0.1\n10.0.0.2", "SKYPILOT_NODE_RANK": "1"}


def ends(*codes: int | str) -> list[Rank]:
    """Processes that end with these codes, or run the code that is text."""
    texts = [c if isinstance(c, str) else f"raise SystemExit({c})" for c in codes]
    return [Rank([sys.executable, "-c", text]) for text in texts]


FOREVER = "import time; time.sleep(600)"


@pytest.mark.parametrize(
    ("codes", "expected"),
    [
        ((0, 0), 0),
        ((0, 3), 3),
        ((1, 0), 1),
        ((75, 75), 75),
        ((0, 139), 75),
        ((130, 0), 75),
        (("import os; os.kill(os.getpid(), 9)", 0), 75),
    ],
)
def test_the_exit_code_says_whether_a_new_start_can_help(
    codes: tuple[int | str, ...], expected: int
) -> None:
    assert run(ends(*codes), patience=30) == expected


def test_the_first_that_fails_says_why_and_the_others_do_not_stay() -> None:
    begun = time.monotonic()
    assert run(ends(3, FOREVER, "import time; time.sleep(1); raise SystemExit(1)"), patience=4) == 3
    assert 4 <= time.monotonic() - begun < 60


def test_signals_reach_all_ranks(tmp_path: Path) -> None:
    waits = (
        "import signal, sys, time, pathlib\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))\n"
        f"pathlib.Path({str(tmp_path)!r}, sys.argv[1]).touch()\n"
        "time.sleep(600)"
    )
    commands = [Rank([sys.executable, "-c", waits, str(n)]) for n in range(2)]

    def preempt() -> None:
        while len(list(tmp_path.iterdir())) < 2:
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=preempt, daemon=True)
    before = signal.getsignal(signal.SIGTERM)
    thread.start()
    assert run(commands, patience=600) == AGAIN
    assert signal.getsignal(signal.SIGTERM) == before


def test_what_ranks_print_is_kept_and_shown(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    says = "import os, sys; print('I am', os.environ['RANK']); print('oh', file=sys.stderr)"
    logs = [tmp_path / "logs" / f"2-gang.rank-{n}.log" for n in range(2)]
    command = [sys.executable, "-uc", says]
    for _ in range(2):
        ranks = [Rank(command, {"RANK": str(n)}, n, log) for n, log in enumerate(logs)]
        assert run(ranks, patience=30) == 0
    assert [log.read_text() for log in logs] == [f"I am {n}\noh\n" * 2 for n in range(2)]
    shown = capfd.readouterr().out.splitlines()
    assert sorted(shown) == sorted(
        [f"rank {n}: {w}" for n in range(2) for w in (f"I am {n}", "oh")] * 2
    )
    assert run([Rank(command, {"RANK": "0"})], patience=30) == 0
    assert capfd.readouterr() == ("I am 0\n", "oh\n")  # as it is, without a log


def test_kubeflow_and_skypilot_say_which_node_this_is() -> None:
    assert node(KUBEFLOW) == Node(2, 4, "run-node-0-0.run", 29500)
    assert node(SKYPILOT) == Node(1, 2, "10.0.0.1", PORT)
    assert node({}) == Node(0, 1, "127.0.0.1", PORT)


def test_a_rank_finds_itself_by_what_its_node_says() -> None:
    place = node(KUBEFLOW).place(3, 8)
    assert here(KUBEFLOW | place.environment()) == place
    assert (place.rank, place.world_size, place.local_rank) == (19, 32, 3)


@pytest.mark.parametrize("missing", ["PET_NODE_RANK", "PET_MASTER_ADDR", "PET_MASTER_PORT"])
def test_half_of_an_environment_is_none(missing: str) -> None:
    with pytest.raises(RunError, match=missing):
        node({name: value for name, value in KUBEFLOW.items() if name != missing})


def test_a_plan_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    (tmp_path / "torn").write_bytes(gzip.compress(b"{}" * 1000)[:20])
    for name in ("torn", "missing"):
        with pytest.raises(RunError, match=f"{name} cannot be read"):
            take_plan(tmp_path / name, tmp_path / "run")
    assert main([str(tmp_path), ".", "cpu", "--plan", str(tmp_path / "torn")]) == 1


def test_a_newer_plan_replaces_the_older(tmp_path: Path) -> None:
    for text in (b'{"title": "old"}', b'{"title": "new"}'):
        packed = tmp_path / "plan.json.gz"
        packed.write_bytes(gzip.compress(text))
        take_plan(packed, tmp_path / "run")
        assert (tmp_path / "run" / "plan.json").read_bytes() == text


def test_other_nodes_let_that_of_rank_0_end_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []
    monkeypatch.setattr(module, "run", lambda commands, patience: AGAIN)
    monkeypatch.setattr(time, "sleep", waited.append)
    for number, expected in (("0", []), ("2", [module.RANK_0_FIRST])):
        for name, value in (KUBEFLOW | {"PET_NODE_RANK": number}).items():
            monkeypatch.setenv(name, value)
        assert main([str(tmp_path), ".", "cpu"]) == AGAIN
        assert waited == expected


def test_it_is_a_command() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", module.__name__, "--help"], capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr
    assert "--ranks" in ended.stdout
