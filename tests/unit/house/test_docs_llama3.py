"""The page that reads the Llama 3 recipe quotes it, and its plan, as they are."""

import re
from pathlib import Path

import pytest

from etude.cli.main import main

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs" / "llama3.md").read_text(encoding="utf-8")
PUBLISHED = ROOT / "examples" / "published"
FILES = (
    "llama3_405b.etude",
    "llama3/data.etude",
    "llama3/base_405b.etude",
    "llama3/post_training.etude",
)


def quoted(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)


def test_it_quotes_the_recipe() -> None:
    recipe = "".join((PUBLISHED / name).read_text(encoding="utf-8") for name in FILES)
    assert len(quoted("etude")) > 15
    assert [text for text in quoted("etude") if text not in recipe] == []


def test_it_quotes_the_plan(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", str(PUBLISHED / "llama3_405b.etude")]) == 0
    plan = capsys.readouterr().out.splitlines()
    lines = [line for text in quoted("text") for line in text.splitlines()]
    assert len(lines) > 8
    assert [line for line in lines if line not in plan] == []
