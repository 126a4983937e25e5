"""The commands in README and docs: all can be given as they stand, those on examples are run."""

import gc
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from etude.cli.main import main, parser

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TRAIN = ("run",)
"""Commands that take minutes; the same specs are planned instead."""


@pytest.fixture(autouse=True)
def _collector() -> Iterator[None]:
    """The command line turns the garbage collector off; the tests continue."""
    yield
    gc.enable()


def commands() -> Iterator[tuple[str, str]]:
    """Page and command of each line `etude …` in a block of shell."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for block in re.findall(r"^```(?:sh|bash|console)\n(.*?)^```", text, re.M | re.S):
            for line in block.splitlines():
                if (line := line.removeprefix("$ ")).startswith("etude "):
                    yield page.name, line


def given(line: str) -> list[str]:
    """The arguments, without comments and where the output goes."""
    return shlex.split(line.partition(" > ")[0], comments=True)[1:]


@pytest.mark.parametrize(("page", "line"), sorted(set(commands())))
def test_every_command_can_be_given_as_it_stands(page: str, line: str) -> None:
    arguments = parser().parse_args(given(line))
    assert arguments.command


@pytest.mark.parametrize(
    ("page", "line"), sorted({(p, c) for p, c in commands() if " examples/" in c})
)
def test_the_commands_on_examples_run(
    page: str,
    line: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    words = given(line)
    if words[0] in TRAIN:
        words[0] = "plan"
    assert main(words) == 0, capsys.readouterr().err


def test_there_are_commands_to_look_at() -> None:
    pages = {page for page, _ in commands()}
    assert {"tutorial.md", "llama3.md", "reproducing.md"} <= pages
