"""The gallery of published recipes: `python docs/gallery.py`, and its pages in a browser."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from browsing import needs_browser, opened, violations
from etude_cli import etude

ROOT = Path(__file__).parents[2]
PUBLISHED = sorted((ROOT / "examples" / "published").glob("*.etude"))
NAMES = ("index", *(file.stem for file in PUBLISHED))
SOME = NAMES[::5]
"""Pages that are drawn every time; the exhaustive tests draw the others, too."""


def made(*arguments, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, ROOT / "docs" / "gallery.py", *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("gallery")
    done = made(folder / "out", cwd=folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{folder}/out/index.html leads to {len(PUBLISHED)} recipes\n"
    return folder / "out"


def test_every_recipe_has_a_page_below_two_megabytes(folder: Path):
    assert {file.stem for file in folder.iterdir()} == set(NAMES)
    assert [f.name for f in folder.iterdir() if f.stat().st_size > 2_000_000] == []


@pytest.mark.exhaustive
@needs_browser
def test_cards_say_what_plans_and_verify_say(browser, folder: Path):
    done = etude("verify", ROOT / "examples" / "published", "--json", cwd=folder)
    verified = json.loads(done.stdout)
    tab, said = opened(browser, (folder / "index.html").as_uri())
    for of in verified["sources"]:
        file = Path(of["file"])
        claims = [claim for claim in verified["claims"] if claim["file"] == of["file"]]
        held = sum(claim["holds"] for claim in claims)
        card = tab.locator(".card", has=tab.locator(f'a[href="{file.stem}.html"]'))
        text = card.inner_text()
        assert f"{held} of {len(claims)} hold" in text
        assert f"{of['cited']} cited, {len(of['assumed'])} assumed" in text
        if file.stem not in SOME:
            continue
        plan = json.loads(etude("plan", file, "--json", cwd=folder).stdout)
        assert int(card.get_attribute("data-tokens")) == plan["totals"]["tokens"]
        assert float(card.get_attribute("data-hours")) == (plan["totals"]["gpu_hours"] or 0)
        assert plan["title"] in text
    assert said == []


@needs_browser
@pytest.mark.parametrize(
    "name",
    [n if n in SOME else pytest.param(n, marks=pytest.mark.exhaustive) for n in NAMES],
)
def test_pages_draw_without_complaints_and_fit(browser, folder: Path, name: str):
    for scheme, width in (("light", 390), ("dark", 768), ("light", 1280)):
        tab, said = opened(browser, (folder / f"{name}.html").as_uri(), scheme, width)
        drawn = "#schedules svg path" if name != "index" else ".picture svg path"
        assert tab.locator(drawn).count() > 10
        assert tab.evaluate("document.documentElement.scrollWidth") == width
        assert tab.evaluate("document.documentElement.dataset.theme") == scheme
        assert said == []
        tab.context.close()


@needs_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(browser, folder: Path, scheme: str):
    assert violations(browser, (folder / "index.html").as_uri(), scheme) == []
    assert violations(browser, (folder / "smollm3_3b.html").as_uri(), scheme) == []


@needs_browser
def test_the_keyboard_sorts_finds_opens_and_comes_back(browser, folder: Path):
    tab, said = opened(browser, (folder / "index.html").as_uri())
    titles = tab.locator(".card:visible h2")
    assert titles.count() == len(PUBLISHED)
    assert titles.all_inner_texts() == sorted(titles.all_inner_texts(), key=str.casefold)
    for wanted in ("theme", "sort", "word"):
        tab.keyboard.press("Tab")
        assert tab.evaluate("document.activeElement.id") == wanted
    tab.select_option("#sort", "parameters")
    sizes = [int(card.get_attribute("data-parameters")) for card in tab.locator(".card").all()]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] > 0
    tab.keyboard.type("minicpm")
    assert titles.all_inner_texts() == ["MiniCPM 2.4B"]
    assert tab.inner_text("#found") == f"1 of {len(PUBLISHED)}"
    tab.keyboard.press("Tab")
    tab.keyboard.press("Enter")
    tab.wait_for_url("**/minicpm_2b.html")
    assert tab.inner_text("h1") == "MiniCPM 2.4B"
    tab.click("text=All recipes")
    tab.wait_for_url("**/index.html")
    assert said == []


def test_mistakes_get_one_message(tmp_path: Path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "one.etude").write_text("recipe x { seed = banana }\n")
    (tmp_path / "file").write_text("")
    for arguments, code, words in (
        ([], 2, "which folder"),
        (["--help"], 2, "which folder"),
        (["out", "empty"], 1, "there are no specs in empty"),
        (["out", "bad"], 1, "one.etude:1:19"),
        (["file", ROOT / "examples"], 1, "file cannot be written"),
    ):
        done = made(*arguments, cwd=tmp_path)
        assert done.returncode == code, done.stderr
        assert words in done.stderr
        assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()
