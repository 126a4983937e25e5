"""Warnings and later errors beside errors: what one run says of blocks that have none."""

import gc
import re
import time
from pathlib import Path

import pytest
from specs import HEAD, after, compiled, stage

from etude.compiler.isolation.repaired import DEPENDS

ROOT = Path(__file__).resolve().parents[3]

WARM = stage(lr="0 -> 1e-3 for 50% then 1e-3")
"""W601."""


def codes(text: str, notes: str = "") -> list[str]:
    """The codes of what is found; of the notes only those that are named."""
    found = compiled(text)[1].ordered()
    return [d.code for d in found if d.severity != "note" or d.code in notes]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (after("bad", nonsense="1"), "E308"),
        (after("bad", lr="0 ->"), "E101"),
        ("stage bad: train { steps = = 10 }\n", "E101"),
        ("stge bad: train { steps = 10 }\n", "E302"),
        (after("bad", lr="1e-3 q"), "E204"),
        (after("bad", data="nowhere"), "E402"),
        (after("bad", batch="5 seqs", parallel="{ tensor 3 }"), "E432"),
        (after("bad", lr="1e-3 for 50 steps then 1e-4"), "E441"),
        ("expect { steps = 7 }\n", "E462"),
        ("dataset bad { hub = 7 }\n", "E201"),
        ("variant bad { 7 }\n", "E101"),
    ],
)
def test_a_warning_is_shown_beside_an_error(error: str, code: str) -> None:
    assert codes(HEAD + WARM + error) == ["W601", code]


def test_errors_of_several_passes_are_shown_together() -> None:
    text = HEAD + WARM
    text += after("one", from_="first", nonsense="1")  # found by the binder
    text += after("two", from_="first", data="nowhere")  # by the resolution of names
    text += after("three", from_="first", lr="1e-3 for 50 steps then 1e-4")  # by the schedule
    text += "expect { first.steps = 7 }\n"  # by the claims
    assert codes(text) == ["W601", "E308", "E402", "E441", "E462"]


@pytest.mark.parametrize(
    "dependent",
    [
        after("second", lr="0 -> 1e-3 for 50% then 1e-3"),
        after("second", from_="first", lr="0 -> 1e-3 for 50% then 1e-3"),
        "stage second: average { of = [first] }\n",
        "expect { steps = 7, first.steps = 7 }\n",
        "variant hot { first.steps = 7 }\n",
    ],
)
def test_what_depends_on_a_block_with_an_error_is_not_judged(dependent: str) -> None:
    assert codes(HEAD + stage(nonsense="1") + dependent) == ["E308"]


def test_unknown_names_are_found_in_what_depends_on_a_block_with_an_error() -> None:
    text = HEAD + stage(clip='"x"', data="nowhere")
    text += after("second", data="neither", clip="50", lr="1e-3 for 50 steps then 1e-4")
    assert codes(text) == ["E402", "E201", "E402"]
    hidden = HEAD + "stge lost: train {\n}\n" + after("second", from_="lost", data="nowhere")
    assert codes(hidden) == ["E302", "E402"]
    nameless = HEAD + "stage : train {\n}\n" + after("second", from_="lost", data="nowhere")
    assert "E402" not in codes(nameless)


def test_what_may_come_of_a_wrong_attribute_is_not_said() -> None:
    ends = "1e-3 for 50 steps then 1e-4 for 70 steps then 1e-5"
    assert codes(HEAD + stage(lr=ends, clip='"x"')) == ["E441", "E201"]
    assert codes(HEAD + stage(lr=ends, steps='"x"')) == ["E201"]
    assert codes(HEAD + stage(lr=ends, steps=None, body="stepps = 200")) == ["E308"]
    tokens = ends.replace("70 steps", "7Ki tokens")
    assert codes(HEAD + stage(lr=tokens, clip='"x"')) == ["E441", "E201"]
    for name in ("batch", "seq_len"):
        assert codes(HEAD + stage(lr=tokens, **{name: '"x"'})) == ["E201"]


SFT = """dataset chats {{ files = "chats.jsonl", kind = dialogs }}
dataset more {{ files = "more.jsonl", kind = dialogs }}
stage tuned: sft {{
  from = first
  batch = 64 seqs
  lr = 1e-4
  drop_last = true
  {}
}}
"""
DPO = """dataset judged {{ files = "judged.jsonl", kind = preferences, pairs = 30 }}
stage tuned: dpo {{
  from = first
  data = judged
  batch = 64 pairs
  lr = 1e-4
  drop_last = true
  {}
}}
"""


@pytest.mark.parametrize(
    ("code", "text", "spoilt"),
    [
        ("E434", stage(parallel="auto for 50 steps then auto", body="  ¦"), ""),
        ("E453", stage() + "stage part: checkpoint { from = first, after = 200 steps, ¦ }\n", ""),
        ("E458", stage() + SFT.format("steps = 20, data = { chats 50%, more 50% }, ¦"), "batch"),
        ("E459", stage() + DPO.format("epochs = 2, ¦"), "batch"),
    ],
)
def test_an_error_is_shown_beside_one_that_it_does_not_depend_on(
    code: str, text: str, spoilt: str
) -> None:
    assert codes(HEAD + text.replace("¦", "")) == [code]
    assert sorted(codes(HEAD + text.replace("¦", "nonsense = 3"))) == ["E308", code]
    if spoilt:
        wrong = re.sub(rf"{spoilt} = 64 \w+", f'{spoilt} = "x"', HEAD + text.replace("¦", ""))
        assert codes(wrong) == ["E201"]


def test_every_error_of_a_pass_says_what_it_depends_on() -> None:
    """Those that do not are shown only where nothing else is wrong with their block: they follow
    from all of it, from its neighbours, or from files."""
    said = {
        code
        for file in (ROOT / "compiler").rglob("*.py")
        if not file.is_relative_to(ROOT / "compiler" / "isolation")
        for code in re.findall(r'"(E[45]\d\d)"', file.read_text(encoding="utf-8"))
    }
    graph = "E401 E403 E416 E427 E506 E515 E544"
    claims_and_miniatures = "E461 E463 E481 E482"
    files_and_torchtitan = "E491 E492 E494 E525 E542 E543 E547 E548 E549 E552 E561 E562 E563"
    others = f"{graph} {claims_and_miniatures} {files_and_torchtitan}"
    assert said - DEPENDS.keys() == set(others.split())


def test_a_long_list_of_errors_ends() -> None:
    many = "".join(after(f"bad{n}", clip='"x"', data="nowhere") for n in range(50))
    assert codes(HEAD + WARM + many).count("E402") == 50


def test_what_goes_on_from_a_block_that_cannot_be_read_is_not_judged() -> None:
    for lost, code in (("stage between: train { = }\n", "E101"), ("stge b: train {\n}\n", "E302")):
        text = HEAD + WARM + lost + after(lr="0 -> 1 for 50% then 1")
        assert codes(text) == ["W601", code]


def test_the_time_grows_with_the_number_of_stages_and_not_faster() -> None:
    def seconds(count: int) -> float:
        many = "".join(f"stage e{n}: evaluate {{ loss = [web] }}\n" for n in range(count))
        # As the command line does: what other tests have left would be walked through each time.
        gc.collect()
        gc.disable()
        begin = time.process_time()
        try:
            assert codes(HEAD + WARM + many + after("bad", nonsense="1")) == ["W601", "E308"]
            return time.process_time() - begin
        finally:
            gc.enable()

    seconds(10)
    long, short = (min(seconds(count) for _ in range(2)) for count in (2000, 500))
    assert long < 8 * max(short, 0.05)


def test_a_choice_that_may_have_been_among_others_is_not_judged() -> None:
    clusters = "cluster one { cpus = 2 }\ncluster two { cpus = }\n"
    assert codes(HEAD + clusters + WARM) == ["E101"]
    named = WARM.replace("lr =", "cluster = one\n  lr =")
    assert codes(HEAD + clusters + named) == ["E101", "W601"]


def test_nothing_is_missing_that_may_be_in_a_block_with_an_error() -> None:
    """Rules that say that nothing uses something keep silent; that of a seed does not."""
    text = HEAD.replace("seed = 1", "") + WARM + after("bad", data="nowhere")
    assert codes(text, "N621 N652 N653") == ["N621", "W601", "E402"]
    assert codes(HEAD + WARM, "N652") == ["N652", "W601"]


def test_what_is_allowed_stays_so() -> None:
    allowed = WARM.replace("lr =", 'allow W601 "wanted"\n  lr =')
    assert codes(HEAD + allowed + after("bad", nonsense="1")) == ["E308"]
    unused = allowed.replace("W601", "W602")
    assert codes(HEAD + unused + after("bad", nonsense="1")) == ["W601", "E308"]
    assert codes(HEAD + unused) == ["W651", "W601"]


def test_a_note_on_a_let_is_shown_once() -> None:
    text = HEAD + "let slow = 0 -> 1e-3 for 50% then 1e-3\n" + stage(lr="slow")
    wrong = compiled(text + after("bad", nonsense="1"))[1].ordered()
    assert [len(found.notes) for found in wrong if found.code == "W601"] == [1]


@pytest.mark.parametrize("text", ["lr = 1\n", 'use "other.etude"\n', "}\n", "nonsense\n"])
def test_an_error_outside_of_blocks_hides_everything(text: str) -> None:
    assert set(codes(HEAD + WARM + text)) <= {"E301", "E121", "E101", "E106"}


def test_a_compiled_recipe_reports_all_of_it() -> None:
    plan, report = compiled(HEAD + WARM + after("bad", data="nowhere"))
    assert plan is None
    assert [d.code for d in report.ordered() if d.severity != "note"] == ["W601", "E402"]


def test_placements_of_stages_that_follow_each_other_are_each_checked() -> None:
    text = (
        HEAD
        + stage()
        + (
            "dataset talk { sample = python_functions, kind = dialogs }\n"
            "rounds align 2 {\n"
            "  stage chat: sft { from = first, data = talk, steps = 4, lr = 1e-4\n"
            "    parallel = { tensor 4 } }\n"
            "  stage again: sft { from = chat, data = talk, steps = 4, lr = 1e-4\n"
            "    parallel = { tensor 8 } }\n"
            "}\n"
        )
    )
    _, report = compiled(text, ranks=2)
    assert [found.code for found in report.errors] == ["E432", "E432"]
