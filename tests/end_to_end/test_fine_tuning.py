"""From published weights and a file of dialogs to an answer, by the commands of a page of the docs.

`tests/unit/house/test_docs_commands.py` runs those of them that take no minutes.
"""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import small_base
from etude_cli import etude

PAGE = Path(__file__).resolve().parents[2] / "docs" / "fine_tuning.md"


def commands() -> list[list[str]]:
    """The five commands of the page, in order."""
    lines = re.findall(r"^\$ (.*)$", PAGE.read_text(encoding="utf-8"), re.M)
    return [shlex.split(line) for line in lines]


def test_the_page_has_five_commands() -> None:
    assert [words[:2] for words in commands()] == [
        *(["etude", name] for name in ("new", "check", "preview", "run")),
        ["python", "-c"],
    ]


@pytest.mark.exhaustive
def test_five_commands_lead_from_weights_to_an_answer(tmp_path: Path) -> None:
    small_base.write(tmp_path)
    made = etude("run", "base.etude", cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    shutil.copytree(tmp_path / "runs" / "base" / "models" / "ready", tmp_path / "base")
    *ours, ask = commands()
    for words in ours:
        done = etude(*words[1:], cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    said = subprocess.run(
        [sys.executable, *ask[1:]], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert said.stdout.strip().splitlines()[-1] == "It is 404."
