"""`etude check`, in a process of its own."""

import json
import os
import pty
import subprocess
from pathlib import Path
from typing import Any

import pytest
from etude_cli import COMMAND, etude
from specs import HEAD, after, stage

GOOD = HEAD + stage(data="{ web 50%, math 50% }") + after()
BAD = HEAD + stage(steps="1.5", data="{ web 97% }")
HEAVY = ("torch", "numpy", "transformers", "torchtitan", "datasets", "tokenizers", "pyarrow")


def write(folder: Path, **files: str | bytes) -> None:
    for name, content in files.items():
        data = content.encode() if isinstance(content, str) else content
        (folder / f"{name}.etude").write_bytes(data)


def check(folder: Path, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    done = etude("check", *arguments, cwd=folder, **options)
    assert "Traceback" not in done.stderr
    assert "bug in etude" not in done.stderr
    return done


def test_a_good_spec_is_fine(tmp_path: Path) -> None:
    write(tmp_path, good=GOOD)
    done = check(tmp_path, "good.etude")
    assert (done.returncode, done.stdout, done.stderr) == (0, "good.etude: fine (2 stages)\n", "")


def test_findings_go_to_standard_error_and_the_exit_code_is_1(tmp_path: Path) -> None:
    write(tmp_path, good=GOOD, bad=BAD)
    done = check(tmp_path, "bad.etude", "good.etude")
    assert (done.returncode, done.stdout) == (1, "good.etude: fine (2 stages)\n")
    assert done.stderr == (
        "error[E207]: 1.5 steps is not a whole number\n"
        "  ┌─ bad.etude:7:11\n"
        "7 │   steps = 1.5\n"
        "  │           ^^^\n"
        "  │\n"
        "  = help: the nearest are 1 and 2\n"
        "  = see:  etude explain E207\n"
        "\n"
        "error[E214]: the percentages of this mixture add up to 97%, not 100%\n"
        "   ┌─ bad.etude:11:10\n"
        "11 │   data = { web 97% }\n"
        "   │          ^^^^^^^^^^^ 97 = 97\n"
        "   │\n"
        "   = help: raise one of them by 3%, or write plain weights: { web 97, … }\n"
        "   = see:  etude explain E214\n"
        "\n"
        "2 errors\n"
    )


def test_findings_as_json(tmp_path: Path) -> None:
    write(tmp_path, good=GOOD, bad=BAD)
    done = check(tmp_path, "--json", "good.etude", "bad.etude")
    assert (done.returncode, done.stderr) == (1, "")
    first, second = json.loads(done.stdout)["diagnostics"]
    assert first["place"] == {
        "file": "bad.etude",
        "line": 7,
        "column": 11,
        "end_line": 7,
        "end_column": 14,
    }
    assert (first["code"], second["code"]) == ("E207", "E214")
    assert {d["severity"] for d in (first, second)} == {"error"}
    assert json.loads(check(tmp_path, "--json", "good.etude").stdout) == {
        "diagnostics": [],
        "silenced": [],
    }


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "E304"),
        (b"\x00\x01\x02", "E101"),
        (b"\x7fELF\x02\x01\x01\x00\xff", "E126"),
        (b"\xff\xfe", "E126"),
        (b"{" * 100_000, "E110"),
        (b"\x1b[31mrecipe", "E106"),
        (b'{"etude_plan": 1, "jobs": []}', "E110"),
        (HEAD.replace("\n", "\r").encode(), "E401"),
    ],
)
def test_anything_but_a_spec_is_refused(content: bytes, code: str, tmp_path: Path) -> None:
    write(tmp_path, odd=content)
    done = check(tmp_path, "odd.etude")
    assert (done.returncode, done.stdout) == (1, "")
    assert f"error[{code}]" in done.stderr
    assert all(c.isprintable() or c == "\n" for c in done.stderr)
    assert json.loads(check(tmp_path, "odd.etude", "--json").stdout)["diagnostics"]


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    for name in (".", "missing.etude", "loop", "x" * 300, "/dev/null", "/dev/zero", "a/b"):
        done = check(tmp_path, name)
        assert done.returncode == 1
        assert done.stderr.startswith("error[E")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_refused(tmp_path: Path) -> None:
    write(tmp_path, secret=GOOD)
    (tmp_path / "secret.etude").chmod(0)
    done = check(tmp_path, "secret.etude")
    assert done.returncode == 1
    assert "permission denied" in done.stderr


def test_a_spec_may_come_through_a_pipe(tmp_path: Path) -> None:
    done = check(tmp_path, "/dev/stdin", input=GOOD)
    assert done.returncode == 0


def test_checking_imports_nothing_heavy(tmp_path: Path) -> None:
    write(tmp_path, good=GOOD)
    heavy = (*HEAVY, "jsonschema", "rich", "pydantic.main")
    done = check(tmp_path, "good.etude", env=os.environ | {"PYTHONPROFILEIMPORTTIME": "1"})
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "etude.spec.load" in imported
    assert not imported & set(heavy)


def terminal(folder: Path, *arguments: str, **environment: str) -> str:
    """What a command shows on a terminal."""
    ours, theirs = pty.openpty()
    wanted = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    command, there = [*COMMAND, *arguments], wanted | {"TERM": "xterm"} | environment
    with subprocess.Popen(command, cwd=folder, stdout=theirs, stderr=theirs, env=there) as process:
        os.close(theirs)
        shown = b""
        try:
            while part := os.read(ours, 65536):
                shown += part
        except OSError:  # how Linux says that the other end is closed
            pass
        process.wait()
    os.close(ours)
    return shown.decode()


def test_colours_are_for_terminals_and_for_those_who_want_them(tmp_path: Path) -> None:
    write(tmp_path, bad=BAD)
    assert "\x1b[1;31m" in terminal(tmp_path, "check", "bad.etude")
    assert "\x1b" not in terminal(tmp_path, "check", "bad.etude", NO_COLOR="1")
    assert "\x1b" not in check(tmp_path, "bad.etude").stderr
