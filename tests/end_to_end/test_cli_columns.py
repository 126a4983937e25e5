"""Plans on a terminal of 80 columns, and on a dumb one."""

import os
import pty
import struct
import subprocess
from fcntl import ioctl
from pathlib import Path
from termios import TIOCSWINSZ

import pytest
from etude_cli import COMMAND, environment

from etude.spec.findings.paragraphs import breakable

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
SPECS = ("published/llama3_405b.etude", "published/olmo3_7b.etude", "quickstart.etude")


def on_terminal(*arguments: str, **variables: str) -> str:
    """What a command shows on a terminal of 80 columns."""
    ours, its = pty.openpty()
    ioctl(its, TIOCSWINSZ, struct.pack("HHHH", 50, 80, 0, 0))
    hidden = {"NO_COLOR", "COLUMNS", "LINES", "FORCE_COLOR"}
    env = {k: v for k, v in environment().items() if k not in hidden} | {"TERM": "xterm"}
    process = subprocess.Popen(
        [*COMMAND, *arguments], stdout=its, stderr=its, stdin=its, env=env | variables
    )
    os.close(its)
    parts = []
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        parts.append(part)
    os.close(ours)
    assert process.wait() == 0
    return b"".join(parts).decode()


@pytest.mark.parametrize("spec", SPECS)
def test_names_and_numbers_are_whole_at_80_columns(spec: str) -> None:
    shown = on_terminal("plan", str(EXAMPLES / spec), NO_COLOR="1")
    lines = shown.splitlines()
    assert max(len(line) for line in lines) <= 80
    for name in ("segment", "tokens", "steps", "length", "batch", "mixture", "epochs", "mesh"):
        assert any(name in line.split() for line in lines), name
    segments = [line.split()[0] for line in lines if "seqs" in line and "→" not in line[:40]]
    assert any(segment.endswith(".1") for segment in segments)


TABLES = (
    ("verify", "published"),
    ("plan", "--provenance", "llama3_405b.etude"),
    ("plan", "--provenance", "published/llama3_8b.etude"),
    ("plan", "published/zephyr_7b_handbook.etude"),
    ("plan", "llama3_posttraining_tiny.etude"),
    ("plan", "--miniature", "published/deepseek_v3.etude"),
    ("new", "--list"),
    ("diff", "published/llama3_405b.etude", "published/llama3_70b.etude"),
)


def words(text: str) -> set[str]:
    """The words of a table, without what joins them."""
    found = {word.strip(",;:|") for word in text.replace("|", " ").split()}
    return {word for word in found if any(map(str.isalnum, word))}


@pytest.mark.parametrize("command", TABLES, ids=" ".join)
def test_tables_have_all_their_words_at_80_columns(
    command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Long names may end a line at a slash or a dot, as in `corpus/` and `code/**/*.jsonl.zst`."""
    monkeypatch.chdir(EXAMPLES)
    shown = on_terminal(*command, NO_COLOR="1")
    assert max(map(len, shown.splitlines())) <= 80
    run = subprocess.run(
        [*COMMAND, *command],
        capture_output=True,
        text=True,
        check=True,
        env=environment() | {"COLUMNS": "1000"},
    )
    there = words(shown)
    for word in words(run.stdout):
        for part in [word] if word in there else breakable(word):
            assert any(part in each for each in there), word


@pytest.mark.parametrize("columns", ["80", "60"])
def test_a_pipe_is_as_wide_as_it_is_told(columns: str) -> None:
    spec = str(EXAMPLES / "published" / "llama3_405b.etude")
    for command in (("plan", spec), ("plan", "--provenance", spec), ("verify", spec)):
        run = subprocess.run(
            [*COMMAND, *command],
            capture_output=True,
            text=True,
            check=True,
            env=environment() | {"COLUMNS": columns},
        )
        assert max(map(len, run.stdout.splitlines())) <= int(columns)


@pytest.mark.parametrize("variables", [{"TERM": "dumb"}, {"NO_COLOR": "1"}])
@pytest.mark.parametrize("command", ["plan", "check", "verify"])
def test_no_escapes_where_they_are_not_wanted(command: str, variables: dict[str, str]) -> None:
    assert "\033" not in on_terminal(command, str(EXAMPLES / SPECS[2]), **variables)


def test_colours_where_they_are() -> None:
    assert "\033[" in on_terminal("plan", str(EXAMPLES / SPECS[2]))
