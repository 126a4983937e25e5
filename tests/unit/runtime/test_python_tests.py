"""Answers that are programs: what passes, and what hostile ones cannot do."""

import os
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from etude.compiler.plan.verifiers import Verifier
from etude.runtime.errors import RunError
from etude.runtime.verification import misfit, require, sandbox, verifiers
from etude.runtime.verification.kinds import code_in

NEEDED = bool(os.environ.get("ETUDE_NEEDS_SANDBOX"))
pytestmark = pytest.mark.skipif(
    not NEEDED and shutil.which("bwrap") is None, reason="bubblewrap is not installed"
)
SUM = "def add(a, b):\n    return a + b\n"
TESTS = ["assert add(7, 15) == 22", "assert add(0, 0) == 0"]
PLANNED = {"tests": Verifier(kind="python_tests")}


@pytest.fixture(scope="module")
def score(tmp_path_factory: pytest.TempPathFactory):
    found = verifiers(PLANNED, tmp_path_factory.mktemp("root"))["tests"]
    return lambda text, tests=TESTS: found({"answer": tests}, text)


@pytest.mark.parametrize(
    ("text", "passes"),
    [
        (SUM, 1),
        (f"Here it is:\n```python\n{SUM}```\nIt adds.", 1),
        (f"```\n{SUM}```", 1),
        ("def add(a, b):\n    return 22", 0),
        ("def add(a, b:", 0),
        ("", 0),
        ("\x00", 0),
        ("import sys\nsys.exit(0)", 0),
        ("import os\nos._exit(0)", 0),
        ("import threading\n" + SUM + "threading.Thread(target=print).start()", 1),
        ("import json, re, math, itertools, collections, random\n" + SUM, 1),
    ],
)
def test_a_program_passes_if_all_its_tests_run_to_their_end(text, passes, score):
    assert score(text) == passes


def test_the_last_fenced_block_counts():
    assert code_in("```python\na = 1\n```\nrather\n```py\na = 2\n```") == "a = 2\n"
    assert code_in("a = 3") == "a = 3"


@pytest.fixture
def listener() -> Iterator[int]:
    """A port of this machine that takes connections."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield server.getsockname()[1]


def test_it_has_no_network(listener, score):
    with socket.create_connection(("127.0.0.1", listener), timeout=5):
        pass  # from outside the sandbox it can be reached
    text = f"import socket\nsocket.create_connection(('127.0.0.1', {listener}), timeout=2)\n"
    assert score(text + SUM) == 0


def test_it_sees_and_changes_no_file_outside(score, tmp_path):
    secret = tmp_path / "secret.txt"
    secret.write_text("22")
    assert score(f"open({str(secret)!r}).read()\n" + SUM) == 0
    assert score("open('/etc/passwd').read()\n" + SUM) == 0
    assert score(f"open({str(Path(__file__))!r}).read()\n" + SUM) == 0
    for place in (str(tmp_path / "new.txt"), "/new.txt", "/usr/new.txt", "/dev/shm/new.txt"):
        assert score(f"open({place!r}, 'w').write('x')\n" + SUM) == 0
    assert list(tmp_path.iterdir()) == [secret]
    own = "open('/tmp/own.txt', 'w').write('x')\nassert open('own.txt').read() == 'x'\n"
    assert score(own + SUM) == 1
    assert score("open('/tmp/own.txt').read()\n" + SUM) == 0  # nothing is left of the one before


def test_it_has_no_environment(score, monkeypatch):
    monkeypatch.setenv("SECRET", "22")
    assert score("import os\nassert 'SECRET' not in os.environ\n" + SUM) == 1
    assert score("assert 'SECRET' in open('/proc/1/environ').read()\n" + SUM) == 0


def test_it_starts_no_process(score):
    bomb = "import os\nwhile True:\n    os.fork()\n"
    begin = time.monotonic()
    assert score(bomb) == 0
    assert time.monotonic() - begin < sandbox.WAIT
    assert score("import os\nos.fork()\n" + SUM) == 0
    assert score("import subprocess\nsubprocess.run(['/bin/true'])\n" + SUM) == 0
    assert (
        score("import os\nassert sum(p.isdigit() for p in os.listdir('/proc')) == 2\n" + SUM) == 1
    )


@pytest.mark.parametrize(
    "text",
    [
        "x = bytearray(10 << 30)\n",
        "x = []\nwhile True:\n    x.append('x' * 1_000_000)\n",
        "f = open('/tmp/big', 'wb')\nwhile True:\n    f.write(b'x' * 1_000_000)\n    f.flush()\n",
        "import os\nfor n in range(10**6):\n    open(f'/tmp/{n}', 'wb').write(b'x' * 100_000)\n",
        "import os\nwhile True:\n    os.write(3, b'x' * 1_000_000)\n",
        "from threading import *\nwhile True:\n    Thread(target=Event().wait).start()\n",
        "def f(): return f()\nimport sys\nsys.setrecursionlimit(10**9)\nf()\n",
    ],
)
def test_it_takes_no_more_memory_or_space_than_it_may(text, score):
    assert score(text + SUM) == 0
    assert score(SUM) == 1


def test_an_endless_loop_costs_its_own_score(score):
    begin = time.monotonic()
    assert score("while True:\n    pass\n") == 0
    assert score(SUM) == 1
    assert time.monotonic() - begin < 2 * sandbox.WAIT


def test_a_program_that_waits_for_ever_is_ended(score, monkeypatch):
    begin = time.monotonic()
    monkeypatch.setattr(sandbox, "WAIT", 2)
    assert not sandbox.passes("import time\ntime.sleep(10**6)", "pass")
    assert time.monotonic() - begin < 15


def test_it_cannot_signal_what_runs_it(score):
    killer = (
        "import os, signal\nos.kill(os.getppid(), signal.SIGKILL)\nos.kill(-1, signal.SIGKILL)\n"
    )
    score(killer + SUM)
    assert score(SUM) == 1
    assert threading.active_count() >= 1


def test_texts_are_in_the_same_order_in_every_run(score):
    order = "order = ''.join({'a', 'b', 'c', 'd', 'e', 'f', 'g', 'h'})\n"
    found = {score(order, [f"assert hash('a') == {hash_of_a()}"]) for _ in range(3)}
    assert found == {1.0}


def hash_of_a() -> int:
    import subprocess
    import sys

    given = {"PYTHONHASHSEED": "0"}
    command = [sys.executable, "-c", "print(hash('a'))"]
    return int(subprocess.run(command, env=given, capture_output=True, check=True).stdout)


def test_tests_that_cannot_be_read_are_told_before_they_count():
    assert misfit(PLANNED["tests"], TESTS) == ""
    assert "the tests are no Python" in misfit(PLANNED["tests"], ["assert add(1,"])


def test_a_machine_without_a_sandbox_is_refused(tmp_path, monkeypatch):
    require(PLANNED, tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RunError, match="bubblewrap, in which answers are run, is not") as problem:
        require(PLANNED, tmp_path)
    assert "apt-get install bubblewrap" in problem.value.help
