"""The page of a report in a browser."""

import json
from pathlib import Path

import pytest
from browsing import needs_browser, opened, violations
from etude_cli import etude
from reported_runs import SPEC, Run, answered, fill


@pytest.fixture(scope="module")
def pages(tmp_path_factory) -> dict[str, str]:
    """Addresses of pages of one run and of two, as the command writes them."""
    folder = tmp_path_factory.mktemp("pages")
    run, other = Run(folder / "run"), Run(folder / "hot", SPEC.replace("1e-3", "2e-3"))
    fill(run)
    answered(run, "align.2.drafts", 8)
    run.store.tell({"event": "started", "job": "pretrain.1"})
    other.train("pretrain.1", [{"loss": 4.0, "lr": 2e-3}] * 9)
    found = {}
    for name, folders in {"one": [run.folder], "two": [run.folder, other.folder]}.items():
        to = folder / f"{name}.html"
        done = etude("report", *folders, "--html", to, cwd=folder)
        assert done.returncode == 0, done.stderr
        found[name] = to.as_uri()
    return found


@needs_browser
def test_tables_wider_than_the_window_scroll_by_themselves(browser, tmp_path):
    folders = []
    for number in range(6):
        run = Run(tmp_path / f"a_run_with_a_rather_long_name_{number}")
        run.train("pretrain.1", [{"loss": 3.0 + number}] * 3)
        folders.append(run.folder)
    done = etude("report", *folders, "--html", tmp_path / "page.html", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    tab, said = opened(browser, (tmp_path / "page.html").as_uri(), "light", 400)
    assert tab.locator(".wins").count() == 1
    assert tab.evaluate("document.documentElement.scrollWidth") == 400
    assert said == []


@needs_browser
@pytest.mark.parametrize(("scheme", "width"), [("light", 1400), ("dark", 400)])
@pytest.mark.parametrize("name", ["one", "two"])
def test_it_draws_without_complaints_and_fits(browser, pages, name, scheme, width):
    tab, said = opened(browser, pages[name], scheme, width)
    assert tab.locator("#curves svg path").count() > 10
    assert tab.locator("#graph-0 a").count() >= 3
    assert tab.evaluate("document.documentElement.scrollWidth") == width
    boxes = tab.evaluate(
        "[...document.querySelectorAll('.graph svg')]"
        ".map((svg) => [svg.clientWidth, svg.parentElement.clientWidth])"
    )
    assert all(drawn <= room for drawn, room in boxes if width >= 1280)
    assert said == []


@needs_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(browser, pages, scheme):
    assert [violations(browser, address, scheme) for address in pages.values()] == [[], []]


@needs_browser
def test_curves_are_read_with_the_keyboard_and_samples_filtered(browser, pages):
    tab, said = opened(browser, pages["one"])
    tab.focus("#curves")
    tab.keyboard.press("Home")
    assert "pretrain, step 0" in tab.inner_text("#said")
    tab.keyboard.press("End")
    assert "align.2.rm, step 1" in tab.inner_text("#said")
    tab.keyboard.press("0")
    tab.check("#log")
    rows = tab.locator("#samples-0 tbody tr:visible")
    assert rows.count() == 8
    tab.fill("[data-filter] input[type=number]", "5")
    assert rows.count() == 3
    tab.fill("[data-filter] input[type=search]", "answer 6")
    assert rows.count() == 1
    assert "1 of 8" in tab.inner_text("[data-filter]")
    tab.locator("#graph-0 a", has_text="pretrain").click()
    assert tab.locator("#of-0-pretrain").is_visible()
    assert said == []


@needs_browser
def test_two_runs_share_an_axis_and_one_of_them_is_read(browser, pages):
    tab, said = opened(browser, pages["two"])
    assert tab.inner_text("#legend").split()[:2] == ["run", "hot"]
    tab.select_option("#run", label="hot")
    tab.focus("#curves")
    tab.keyboard.press("End")
    assert "Run hot; Stage pretrain, step 8" in tab.inner_text("#said")
    assert tab.locator(".wins").count() > 0
    assert said == []


def test_a_run_as_etude_leaves_it_tells_how_often_it_began(tmp_path: Path):
    run = Run(tmp_path / "run")
    run.store.record("pretrain.1", "k", "started", {"plan": run.plan.trained()[0].key})
    for number in (0, 0, 1):
        run.store.tell({"event": "started", "job": "pretrain.1"})
        run.store.tell({"event": "step", "job": "pretrain.1", "step": number})
    line = {"step": 0, "tokens": 256, "loss": 5.5}
    (run.folder / "metrics" / "pretrain.1.jsonl").write_text(
        "".join(json.dumps(line | {"step": n, "tokens": 256 * (n + 1)}) + "\n" for n in range(2))
    )
    done = etude("report", run.folder, "--html", tmp_path / "page.html", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "page.html").read_text()
    assert "pretrain.1 went on at step 1" in text
    assert '<td class="n">3</td>' in text
