"""Published recipes: each is laid out, plans without errors and warnings, and its claims hold."""

import json
import runpy
from argparse import Namespace
from pathlib import Path

import pytest

from etude.cli.verify import run
from etude.compiler.driver import analyse, compile
from etude.spec.findings.diagnostics import Report
from etude.spec.load import read
from etude.spec.source import Source
from etude.spec.text.format import format_text

FOLDER = Path(__file__).parents[3] / "examples" / "published"
FILES = sorted(FOLDER.rglob("*.etude"))
RECIPES = [file for file in FILES if "recipe " in file.read_text(encoding="utf-8")]


def short(file: Path) -> str:
    return file.relative_to(FOLDER).as_posix()


@pytest.mark.parametrize("file", FILES, ids=short)
def test_a_published_spec_is_laid_out(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    assert format_text(Source(file.name, text), Report()) == text


@pytest.mark.parametrize("file", RECIPES, ids=short)
def test_a_published_recipe_plans_without_errors_and_warnings(file: Path) -> None:
    analysis = analyse(read(file))
    assert compile(analysis) is not None
    found = [item for item in analysis.report.diagnostics if item.code[0] in "EW"]
    assert [f"{item.code}: {item.message}" for item in found] == []


@pytest.mark.parametrize("file", RECIPES, ids=short)
def test_the_claims_of_a_published_recipe_hold(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = run(Namespace(paths=[str(file)], json=True, markdown=False))
    claims = json.loads(capsys.readouterr().out)["claims"]
    assert code == 0
    assert claims
    loose = [
        claim
        for claim in claims
        if claim["tolerance"] > 0.15 and not (claim["because"] or claim["contradicted"])
    ]
    assert [claim["claim"] for claim in loose] == [], "a tolerance above 15 % needs a reason"


@pytest.mark.parametrize(
    ("page", "path"), [("page", "docs/reproducing.md"), ("readme", "README.md")]
)
def test_the_pages_show_what_the_recipes_claim_and_compute(page: str, path: str) -> None:
    root = FOLDER.parents[1]
    text = (root / path).read_text(encoding="utf-8")
    made = runpy.run_path(str(root / "docs" / "published.py"))[page](text)
    assert made == text, "run: python docs/published.py"
