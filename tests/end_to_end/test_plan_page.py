"""The page of a plan in a browser."""

import re
from pathlib import Path

import pytest
from browsing import needs_browser, opened, violations
from etude_cli import etude

EXAMPLES = Path(__file__).parents[2] / "examples"
PAGES = ("llama3_405b", "llama3_posttraining_tiny", "ablation_tiny")


@pytest.fixture(scope="module")
def pages(tmp_path_factory) -> dict[str, str]:
    """Addresses of pages, as the command writes them."""
    folder = tmp_path_factory.mktemp("pages")
    found = {}
    for name in PAGES:
        to = folder / f"{name}.html"
        done = etude("plan", EXAMPLES / f"{name}.etude", "--html", to, cwd=folder)
        assert done.returncode == 0, done.stderr
        found[name] = to.as_uri()
    return found


@needs_browser
@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 1280), ("light", 390)])
def test_it_draws_without_complaints_and_fits(browser, pages, name, scheme, width):
    tab, said = opened(browser, pages[name], scheme, width)
    assert tab.locator("#schedules svg path").count() > 10
    assert tab.locator("#graph a").count() >= 3
    assert tab.evaluate("document.documentElement.scrollWidth") == width
    assert tab.evaluate("document.documentElement.dataset.theme") == scheme
    assert said == []


@needs_browser
def test_what_never_changes_is_a_line_and_no_chart_and_tokens_are_exact(browser, pages):
    tab, said = opened(browser, pages["llama3_405b"], "light", 1280)
    assert tab.locator("#constant").text_content() == "The same throughout: RoPE base 500,000."
    charts = tab.locator("#schedules svg text").all_text_contents()
    assert "Sequence length" in charts
    assert "RoPE base" not in charts
    ends = """[...schedules.querySelectorAll("text")].map((t) => t.getBoundingClientRect().right)"""
    assert max(tab.evaluate(ends)) <= tab.evaluate("schedules.getBoundingClientRect().right")
    assert "16,400,039" in tab.locator("tfoot").first.text_content()
    assert said == []


LOOKS = """(() => {
  const { series } = echarts.getInstanceByDom(schedules).getOption();
  const areas = series.filter((s) => s.stack);
  return areas.map((s) => JSON.stringify([s.itemStyle.color, s.itemStyle.decal]));
})()"""
"""What the areas of the mixture look like."""


@needs_browser
def test_the_largest_plan_fits_tells_its_sources_apart_and_can_be_printed(browser, tmp_path):
    spec = EXAMPLES / "published" / "llama3_405b.etude"
    done = etude("plan", spec, "--html", tmp_path / "page.html", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    tab, said = opened(browser, (tmp_path / "page.html").as_uri(), "dark", 1000)
    assert tab.evaluate("graph.firstChild.clientWidth <= graph.clientWidth")
    tab.check("#rounds")
    assert tab.locator("#graph a").count() > 30
    looks = tab.evaluate(LOOKS)
    assert len(looks) >= 22
    assert len(set(looks)) == len(looks)
    labels = tab.locator("#schedules svg text", has_text=re.compile(r"^1[56]\.\d*T$"))
    texts = labels.all_text_contents()
    assert len(texts) > 3
    assert len(set(texts)) == len(texts)

    width = tab.evaluate("schedules.clientWidth")
    tab.evaluate(
        """addEventListener("beforeprint", () => {
          window.printed = [schedules.clientWidth, document.documentElement.dataset.theme];
        })"""
    )
    assert tab.pdf().startswith(b"%PDF")
    assert tab.evaluate("printed") == [700, "light"]
    assert tab.evaluate("[schedules.clientWidth, document.documentElement.dataset.theme]") == [
        width,
        "dark",
    ]
    assert said == []


@needs_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(browser, pages, scheme):
    assert [violations(browser, address, scheme) for address in pages.values()] == [[]] * len(PAGES)


@needs_browser
def test_all_of_it_can_be_used_with_the_keyboard(browser, pages):
    tab, said = opened(browser, pages["llama3_405b"])
    reached = set()
    for _ in range(120):
        tab.keyboard.press("Tab")
        where = tab.evaluate("(({id, tagName}) => id || tagName)(document.activeElement)")
        outline = tab.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline != "none" or where == "BODY"
        reached.add(where)
    wanted = {"theme", "graph", "stage", "equal", "schedules", "SUMMARY", "kind", "word"}
    assert wanted <= reached

    tab.focus("#schedules")
    tab.keyboard.press("Home")
    assert "pretrain, step 0" in tab.inner_text("#said")
    tab.keyboard.press("End")
    assert "anneal, step" in tab.inner_text("#said")
    tab.focus("#theme")
    tab.keyboard.press("Enter")
    assert tab.evaluate("document.documentElement.dataset.theme") == "dark"
    tab.select_option("#stage", label="long_context")
    tab.keyboard.press("Escape")
    assert said == []


@needs_browser
def test_variants_are_drawn_together_and_one_by_one(browser, pages):
    tab, said = opened(browser, pages["ablation_tiny"])
    dashed = tab.locator("#schedules svg path[stroke-dasharray]")
    assert dashed.count() == 2  # two other plans, of whose knobs only one changes
    assert tab.inner_text("#legend").split() == ["recipe", "mixed", "brief"]
    tab.focus("#plan")
    tab.keyboard.press("ArrowDown")
    tab.focus("#schedules")
    tab.keyboard.press("End")
    said_now = tab.inner_text("#said")
    assert "Plan mixed" in said_now
    assert "sums 60%" in said_now
    tab.uncheck("#overlay")
    assert dashed.count() == 0
    assert tab.inner_text("#legend") == "mixed"
    tab.select_option("#plan", label="brief")
    tab.select_option("#stage", label="anneal")
    tab.check("#equal")
    row = tab.locator("#variants ~ .scroll tr", has_text="pretrain").first
    assert row.inner_text().count("= shared") == 2
    assert said == []


@needs_browser
def test_values_are_filtered_by_source_and_words_and_links_still_lead_to_them(browser, tmp_path):
    spec = EXAMPLES / "published" / "llama3_8b.etude"
    done = etude("plan", spec, "--html", tmp_path / "page.html", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    tab, said = opened(browser, (tmp_path / "page.html").as_uri())
    rows = tab.locator("#provenance tbody tr:visible")
    everything = rows.count()
    tab.select_option("#kind", "assumed")
    assumed = rows.count()
    assert 0 < assumed < everything
    assert f"assumed: {assumed}" in tab.inner_text("#kind")
    assert all("assumed" in text for text in rows.all_inner_texts())
    assert tab.inner_text("#found") == f"{assumed} of {everything}"
    tab.fill("#word", "dpo.lr")
    assert rows.count() == 0
    tab.select_option("#kind", "cited")
    assert rows.count() == 6
    assert "§4.1.4" in rows.first.inner_text()
    tab.locator("#graph a").first.click()
    assert rows.count() == everything
    assert tab.evaluate("location.hash").startswith("#of-")
    tab.check("#rounds")
    assert tab.locator("#graph a").count() > 30
    assert said == []


@needs_browser
def test_what_a_spec_says_does_not_run(browser, tmp_path):
    spec = tmp_path / "evil.etude"
    spec.write_text(
        (EXAMPLES / "quickstart.etude").read_text()
        + "\n# </script><img src=x onerror=\"console.log('ran')\">\n"
    )
    done = etude("plan", spec, "--html", tmp_path / "evil.html", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    tab, said = opened(browser, (tmp_path / "evil.html").as_uri())
    assert tab.locator("img").count() == 0
    assert "<img src=x" in tab.inner_text("pre >> nth=0")
    assert said == []


def test_a_variant_that_is_wrong_keeps_the_page_from_being_written(tmp_path):
    spec = tmp_path / "spec.etude"
    text = (EXAMPLES / "ablation_tiny.etude").read_text()
    spec.write_text(text + "variant odd { anneal.lr = 3 steps }\n")
    done = etude("plan", spec, "--html", tmp_path / "page.html", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert "error[E206]" in done.stderr
    assert "the variant `odd` cannot be planned" in done.stderr
    assert not (tmp_path / "page.html").exists()
    done = etude("plan", spec, "--html", "page.html", "--variant", "brief", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert 'id="variants"' not in (tmp_path / "page.html").read_text()


def test_mistakes_get_one_message(tmp_path):
    spec = EXAMPLES / "quickstart.etude"
    for options, code, words in (
        (["--html", tmp_path], 2, "is a folder"),
        (["--html", tmp_path / "no" / "page.html"], 1, "cannot be written"),
        (["--html", tmp_path / "page.html", "--json"], 2, "--json cannot be combined with --html"),
        (["--html", tmp_path / "page.html", "--why", "pretrain.lr"], 2, "--why cannot be combined"),
        (["--html", spec], 2, "would be overwritten"),
    ):
        done = etude("plan", spec, *options, cwd=tmp_path)
        assert done.returncode == code, done.stderr
        assert words in done.stderr
        assert "Traceback" not in done.stderr
        assert done.stdout == ""
    assert not (tmp_path / "page.html").exists()
    assert spec.read_text().startswith("#") or "recipe" in spec.read_text()
