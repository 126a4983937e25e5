"""The page of a plan: what it says, and that nothing in a spec can run in it."""

import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from specs import HEAD, POST_TRAINING, after, plan, stage

from etude.cli.common import compile_file
from etude.cli.plan_page import texts, variants
from etude.compiler.plan.plan import Plan
from etude.pages.gallery import gallery
from etude.pages.graph import graph
from etude.pages.memory import memory
from etude.pages.page import page
from etude.pages.series import picture, schedules
from etude.pages.variants import compared

EXAMPLES = Path(__file__).parents[3] / "examples"
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
    found = variants(compiled, str(file))
    assert found is not None
    return page(compiled, texts(file, compiled, *found.values()), found)


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
    assert embedded(page(of, {EVIL: text}))["plans"][0]["sources"] == ["web"]


def test_the_page_loads_nothing():
    text = example("quickstart")
    assert "default-src 'none'" in text
    found = Elements(text)
    assert not {"src", "srcset", "action"} & found.attributes
    assert found.tags.count("link") == text.count('<link rel="icon" href="data:,">') == 1


@pytest.mark.parametrize("name", ["quickstart", "published/llama3_405b", "ablation_tiny"])
def test_a_page_is_below_two_megabytes(name: str):
    assert len(example(name).encode()) < 2_000_000


def test_two_processes_write_the_same_bytes(tmp_path: Path):
    for seed in ("1", "2"):
        subprocess.run(
            [
                sys.executable,
                "-m",
                "etude.cli.main",
                "plan",
                EXAMPLES / "llama3_405b.etude",
                "--html",
                tmp_path / seed,
            ],
            env={"PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
        )
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
    assert found["stages"] == [
        {
            "name": "one",
            "from": 0,
            "to": 16 * (4 * 40 + 8 * 60),
            "rows": "sequences",
            "at_most": "",
        }
    ]
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


VARIED = (
    HEAD
    + stage(lr="0 -> peak for 5 steps then peak", clip='1 cite "§2"', steps="100")
    + after(lr="last -> 0", body="gate seq_len { require loss(short) < 9.0 }")
    + after("third", lr="1e-4").replace("from = first", "from = second")
    + """let peak = 1e-3
    variant hot { peak = 2e-3 }
    variant calm { second.gate = default, third.clip = 0.5 }
    variant wide { tiny.dim = 128 }
    variant same { first.clip = 1 }
    """
)


def variant(text: str, name: str) -> Plan:
    return plan(text, variant=name)


def varied() -> tuple[Plan, dict[str, Plan]]:
    names = ("hot", "calm", "wide", "same")
    return plan(VARIED), {name: variant(VARIED, name) for name in names}


def test_variants_say_what_they_share_and_what_they_train_again():
    of, others = varied()
    found = compared(of, others)
    cells = {row["name"]: [cell["what"] for cell in row["cells"]] for row in found["stages"]}
    assert cells["first"] == ["again", "shared", "again", "shared"]
    assert cells["second"] == ["again", "shared", "again", "shared"]
    assert cells["third"] == ["again", "again", "again", "shared"]
    total = sum(stage.tokens for stage in of.stages.values())
    third = of.stages["third"].tokens
    assert [each["tokens"] for each in found["variants"]] == [total, third, total, 0]
    assert found["tokens"] == 3 * total + third
    assert found["apart"] == 5 * total


def test_variants_name_each_change_once_and_nothing_that_follows_from_it():
    of, others = varied()
    changes = {
        each["name"]: [(c["name"], c["old"], c["new"]) for c in each["changes"]]
        for each in compared(of, others)["variants"]
    }
    assert changes["hot"] == [
        ("first.lr", "0 -> 0.001 for 5 steps then 0.001", "0 -> 0.002 for 5 steps then 0.002")
    ]
    assert ("third.clip", "1", "0.5") in changes["calm"]
    assert [old for name, old, new in changes["calm"] if name == "second.gate" and not new]
    assert changes["wide"][0] == ("model.tiny.dim", "64", "128")
    assert changes["same"] == []


def test_a_change_in_every_round_is_one_change():
    text = POST_TRAINING + "variant strong { align.dpo.beta = 0.3 }"
    (found,) = compared(plan(text), {"strong": variant(text, "strong")})["variants"]
    assert [(c["name"], c["new"]) for c in found["changes"]] == [("align.dpo.beta", "0.3")]


def test_rounds_of_which_the_same_is_to_be_said_are_one_row_and_their_number_one_change():
    text = POST_TRAINING.replace("align 2 {", "align 4 {").replace("align.chat[1]", "first")
    text += "variant fewer { align.rounds = 3 }"
    text = text.replace("data = ranked[1..round]", "data = ranked")
    found = compared(plan(text), {"fewer": variant(text, "fewer")})
    rows = {row["name"]: row for row in found["stages"]}
    assert [name for name in rows if name.endswith(".rm")] == ["align.1–3.rm", "align.4.rm"]
    assert (rows["align.1–3.rm"]["several"], rows["align.4.rm"]["several"]) == (True, False)
    assert rows["align.4.rm"]["cells"] == [{"what": "gone", "tokens": 0}]
    shown = page(plan(text), {}, {"fewer": variant(text, "fewer")})
    assert re.search(
        r"align.4.dpo <.*?</th><td>≤ [\d.a-zA-Z]+ tokens</td>\s*<td[^>]*>− left out", shown
    )
    assert "not there" not in shown
    (fewer,) = found["variants"]
    names = [(c["name"], c["old"], c["new"]) for c in fewer["changes"]]
    assert ("align.rounds", "4", "3") in names
    assert not any("labels" in name and new is None for name, _, new in names)


def test_the_table_of_values_tells_cited_assumed_and_defaults_apart():
    text = page(plan(VARIED), {})
    kinds = set(re.findall(r'data-kind="([^"]*)"><th', text))
    assert kinds == {"cited", "without a source", "default of etude"}
    for inherited in ("first.clip", "second.clip"):
        assert re.findall(rf'data-kind="([^"]*)"><th scope="row">{inherited}<', text) == ["cited"]
    assert "1 are cited, 0 assumed" in text


def test_the_table_of_claims_says_how_far_off_each_is():
    text = page(plan(VARIED + 'expect { first.steps = 98 within 3% cite "Table 9" }'), {})
    row = re.search(r'<tr><th scope="row">first.steps</th>(.*?)</tr>', text)
    assert row
    cells = re.findall(r"<td[^>]*>(.*?)</td>", row[1])
    assert cells == ["98", "100", "+2.04%", "3%", "✓ yes", "Table 9"]


def test_figures_of_claims_have_six_digits_on_both_sides():
    text = example("published/smollm3_3b")
    row = re.search(r'<tr><th scope="row">parameters</th>(.*?)</tr>', text)
    assert row
    assert re.findall(r"<td[^>]*>(.*?)</td>", row[1])[:2] == ["3.08B", "3.0751B"]


def test_the_picture_of_a_card_has_what_the_plan_has():
    found = picture(plan(POST_TRAINING))
    rows = found["rows"]
    assert rows[0][0] == 0
    assert rows[-1][0] == 1
    assert [row[0] for row in rows] == sorted(row[0] for row in rows)
    # The first stage and two rounds: a third of the width each.
    assert max(row[0] for row in rows if row[1] == 1e-3) == pytest.approx(1 / 3, abs=1e-3)
    assert all(sum(row[3:]) == pytest.approx(1, abs=0.01) for row in rows)
    assert all(len(row) == 3 + found["sources"] for row in rows)


def test_stages_of_variants_in_rounds_are_of_their_rounds():
    text = POST_TRAINING.replace("of = [dpo, previous.dpo or dpo]", "of = [dpo, soft.dpo]")
    made = plan(text + "variant soft { align.drafts.draws = 6 }\n")
    assert "first · align × 2 · pick" in gallery("One", {"a.html": made})
    rows = picture(made)["rows"]
    assert max(row[0] for row in rows if row[1] == 1e-3) == pytest.approx(1 / 3, abs=1e-3)


def test_a_card_counts_rounds_and_contradicted_claims_apart():
    claims = """expect {
      first.steps = 100
      first.tokens = 7k within 1% contradicted "Table 2: 100 steps of 64 tokens"
    }"""
    text = gallery("Some", {"a.html": plan(POST_TRAINING), "b.html": plan(VARIED + claims)})
    assert text.count('<li class="card"') == 2
    assert "first · align × 2 · pick" in text
    assert re.search(r"1 of 2 hold <span[^>]*>off by at most 0.0%</span>, 1 contradicted", text)


def test_preferences_are_pairs_and_their_tokens_a_bound_as_in_the_table():
    of = plan(POST_TRAINING)
    text = page(of, {}, {"same": of})

    def cells(name: str, what: str) -> list[str]:
        rows = re.findall(rf'<tr><th scope="row">{name}</th>(.*?)</tr>', text)
        found = [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in rows]
        return next(row for row in found if what in row)

    assert cells(r"first\.1", "batch")[-1] == "4 sequences of 16, 64 tokens"
    assert cells(r"align\.1\.dpo\.1", "batch")[-1] == "4 pairs of ≤ 16, ≤ 64 tokens"
    assert cells(r"align\.1\.rm\.1", "batch")[-1] == "4 pairs of ≤ 16, ≤ 64 tokens"
    assert cells(r"first", "train")[2] == "6,400"
    assert cells(r"align\.1\.dpo", "dpo")[2] == "≤ 640"
    total = sum(job.tokens for job in of.trained())
    assert f"<dt>Tokens</dt><dd>≤ {total:,}</dd>" in text
    assert f"All together train ≤ {total:,} tokens" in text
    stages = {each["name"]: each for each in schedules(of)["stages"]}
    assert (stages["align.1.dpo"]["rows"], stages["align.1.dpo"]["at_most"]) == ("pairs", "≤ ")
    assert (stages["align.1.sft"]["rows"], stages["align.1.sft"]["at_most"]) == ("sequences", "")
    lines = {node["id"]: node["lines"] for node in graph(of)["nodes"]}
    assert lines["align.1.dpo"][1] == "dpo · ≤ 640 tokens"
    assert lines["first"][1] == "train · 6,400 tokens"
    assert f"<dt>Tokens</dt><dd>≤ {total:,}</dd>" in gallery("Some", {"a.html": of})


def test_memory_is_shown_of_jobs_that_train_read_and_write() -> None:
    made, _ = compile_file(str(EXAMPLES / "published" / "llama3_405b.etude"), None)
    assert made
    rows = {row["name"]: row for row in memory(made)}
    judged = rows["align.1.drafts.judge … align.6.drafts.judge"]
    trained = rows["align.1.rm.1 … align.6.rm.1"]
    written = next(row for name, row in rows.items() if name.endswith(".draws"))
    of: dict[str, Any] = {job.id: job for job in made.jobs}
    assert sum(judged["parts"].values()) == of["align.1.drafts.judge"].reading.least
    assert sum(trained["parts"].values()) == sum(of["align.1.rm.1"].cost.memory.values())
    generation = of["align.6.drafts.draws"].generation
    cache = generation.at_a_time * generation.memory["sequence"]
    assert written["parts"]["parameters"] == generation.memory["weights"]
    assert written["parts"]["cache"] == cache <= generation.share * generation.gpu_memory
    assert all(list(row["parts"]) == list(trained["parts"]) for row in rows.values())
    assert not any("+" in name for name in rows)  # what gates may add
