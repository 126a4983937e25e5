"""The page of a plan: what it says, and that nothing in a spec can run in it."""

import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from specs import POST_TRAINING, plan

from etude.cli.common import compile_file
from etude.cli.plan_page import texts
from etude.pages.graph import graph
from etude.pages.page import page
from etude.pages.series import schedules

EXAMPLES = Path(__file__).parents[2] / "examples"
HOSTILE = """recipe bad {{ title = "{evil}", seed = 1 }}
# {evil}
model tiny {{ layers = 2, dim = 64, heads = 4, kv_heads = 2, ffn = 128, vocab = 300 }}
dataset web {{ files = "{evil}.jsonl" }}
stage one: train {{ model = tiny, steps = 9, seq_len = 16, batch = 4 seqs, lr = 1e-3, data = web }}
"""
EVIL = "</script><img src=x onerror=alert(1)><!--<script>"


class Elements(HTMLParser):
    """The elements and the attributes of a page, as a browser's parser meets them."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[str] = []
        self.attributes: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attrs}


def example(name: str) -> str:
    file = EXAMPLES / f"{name}.etude"
    compiled, _ = compile_file(str(file), None)
    assert compiled is not None
    return page(compiled, texts(compiled, file))


def embedded(text: str) -> dict:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)
    assert found
    return json.loads(found[1])


def test_nothing_that_a_spec_says_becomes_an_element():
    text = HOSTILE.format(evil=EVIL.replace('"', ""))
    of = plan(text)
    found = Elements(page(of, {EVIL: text}))
    calm = Elements(page(plan(HOSTILE.format(evil="calm")), {"calm": text}))
    assert "img" not in found.tags
    assert found.tags.count("script") == calm.tags.count("script")
    assert "onerror" not in found.attributes
    assert embedded(page(of, {EVIL: text}))["sources"] == ["web"]


def test_the_page_loads_nothing():
    text = example("quickstart")
    assert "default-src 'none'" in text
    found = Elements(text)
    assert not {"src", "srcset", "action"} & found.attributes
    assert found.tags.count("link") == text.count('<link rel="icon" href="data:,">') == 1


@pytest.mark.parametrize("name", ["quickstart", "llama3_405b", "llama3_posttraining_tiny"])
def test_a_page_is_below_two_megabytes(name: str):
    assert len(example(name).encode()) < 2_000_000


def test_two_processes_write_the_same_bytes(tmp_path: Path):
    for seed in ("1", "2"):
        subprocess.run(
            [sys.executable, "-m", "etude.cli.main", "plan", EXAMPLES / "llama3_405b.etude",
             "--html", tmp_path / seed],
            env={"PYTHONHASHSEED": seed}, check=True, capture_output=True,
        )  # fmt: skip
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()


def test_rows_hold_what_the_plan_says_on_both_sides_of_a_change():
    of = plan(
        """recipe test { seed = 1 }
        model tiny { layers = 2, dim = 64, heads = 4, kv_heads = 2, ffn = 128, vocab = 300 }
        dataset web { sample = python_docs }
        dataset math { sample = arithmetic }
        stage one: train {
          model = tiny, steps = 100, seq_len = 16
          batch = 4 seqs for 40 steps then 8 seqs
          lr = 0 -> 1e-3 for 10 steps then -> 1e-4
          data = { web 75%, math 25% }
        }"""
    )
    found = schedules(of)
    assert found["sources"] == ["web", "math"]
    assert found["stages"] == [{"name": "one", "from": 0, "to": 16 * (4 * 40 + 8 * 60)}]
    at_change = [row for row in found["rows"] if row[2] == 40]
    assert {row[0] for row in at_change} == {16 * 4 * 40}
    assert (at_change[0][4], at_change[-1][4]) == (4, 8)
    assert (at_change[0][5], at_change[-1][5]) == (64, 128)
    assert found["rows"][0][3] == 0
    assert next(row[3] for row in found["rows"] if row[2] == 10) == 1e-3
    assert found["rows"][-1][3] == pytest.approx(1e-4)
    assert found["rows"][0][8:] == [0.75, 0.25]


def test_the_graph_has_every_stage_and_pauses_for_people():
    of = plan(POST_TRAINING)
    found = graph(of)
    names = [node["id"] for node in found["nodes"]]
    assert len(names) == len(set(names))
    assert set(of.stages) <= set(names)
    assert any(node["kind"] == "pause" for node in found["nodes"])
    edges = {(edge["from"], edge["to"]): edge["roles"] for edge in found["edges"]}
    assert "model" in edges["align.1.sft", "align.1.dpo"]
    assert ("align.1.drafts", "align.1.sft") in edges


def test_every_value_links_to_the_line_that_it_comes_from():
    text = example("quickstart")
    links = set(re.findall(r'href="#(L\d+-\d+)"', text))
    assert links
    assert links <= set(re.findall(r'id="(L\d+-\d+)"', text))
