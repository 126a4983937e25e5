"""Completion as shells do it."""

import os
import pty
import select
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from etude_cli import etude

from etude.spec.findings import codes

# What bash does when a tab is pressed, without a terminal.
ASK = """
source ./etude.bash
COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); COMPREPLY=()
_shtab_etude
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("completion")
    made = etude("completion", "bash", cwd=folder)
    assert made.returncode == 0, made.stderr
    (folder / "etude.bash").write_text(made.stdout)
    for name in ("small.etude", "notes.txt", "config.yaml", "plan.json"):
        (folder / name).touch()
    (folder / "runs").mkdir()
    return folder


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("etude ch", {"check"}),
        ("etude com", {"completion"}),
        ("etude check --js", {"--json"}),
        ("etude explain E21", {code for code in codes.known() if code.startswith("E21")}),
        ("etude new --template long", {"long_context"}),
        ("etude new --size 4", {"405B"}),
        ("etude import --from ax", {"axolotl"}),
        ("etude check sm", {"small.etude"}),
        ("etude check n", set()),
        ("etude import c", {"config.yaml"}),
        ("etude run p", {"plan.json"}),
        ("etude status r", {"runs"}),
        ("etude completion f", {"fish"}),
    ],
)
def test_bash_completes(folder: Path, words: str, expected: set[str]) -> None:
    shown = subprocess.run(
        ["bash", "-c", ASK.format(words=words)], cwd=folder, text=True, capture_output=True
    )
    assert shown.stderr == ""
    assert set(shown.stdout.split()) == expected


def test_a_tab_at_a_bash_prompt(folder: Path) -> None:
    ours, theirs = pty.openpty()
    shell = subprocess.Popen(
        ["bash", "--norc", "--noprofile", "-i"],
        cwd=folder,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        env=os.environ | {"PS1": "> ", "TERM": "dumb"},
    )
    os.close(theirs)
    try:
        read_until(ours, "> ")
        os.write(ours, b"source ./etude.bash; echo ready\n")
        read_until(ours, "ready\r\n")
        os.write(ours, b"etude che\t")
        assert read_until(ours, "etude check ")
        os.write(ours, b"sm\t")
        assert read_until(ours, "small.etude")
    finally:
        shell.kill()
        shell.wait()
        os.close(ours)


def read_until(terminal: int, text: str) -> str:
    screen = ""
    deadline = time.monotonic() + 20
    while text not in screen:
        assert time.monotonic() < deadline, screen
        if select.select([terminal], [], [], 0.1)[0]:
            screen += os.read(terminal, 4096).decode("utf-8", "replace")
    return screen


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_get_a_script_that_they_can_read(shell: str, tmp_path: Path) -> None:
    made = etude("completion", shell, cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    for expected in ("explain", "E214", "*.etude", "405B"):
        assert expected in made.stdout
    if shutil.which(shell):
        (tmp_path / "script").write_text(made.stdout)
        read = subprocess.run([shell, "-n", "script"], cwd=tmp_path, capture_output=True, text=True)
        assert (read.returncode, read.stderr) == (0, "")


@pytest.mark.skipif(not shutil.which("fish"), reason="there is no fish here")
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("etude che", "check"),
        ("etude explain E21", "E214"),
        ("etude check sm", "small.etude"),
        ("etude new --template lo", "long_context"),
    ],
)
def test_fish_completes(folder: Path, words: str, expected: str) -> None:
    (folder / "etude.fish").write_text(etude("completion", "fish", cwd=folder).stdout)
    shown = subprocess.run(
        ["fish", "--no-config", "-c", f"source etude.fish; complete -C '{words}'"],
        cwd=folder,
        text=True,
        capture_output=True,
    )
    assert expected in shown.stdout.split(), shown.stderr
