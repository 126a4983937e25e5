"""How often stages read their data: computed from the plan and from what the data sets hold."""

import json
from pathlib import Path

import pytest
from specs import HEAD, plan, stage

from etude.compiler.plan.plan import Plan, TrainJob
from etude.runtime.preparation.repetition import MOST, Reading, readings

SFT = """dataset talk { files = "talk.jsonl", kind = dialogs }
stage chat: sft { from = first, steps = 10, seq_len = 16, batch = 4 seqs, lr = 1e-4, data = talk }
"""
DPO = """dataset likes { files = "likes.jsonl", kind = preferences }
stage tune: dpo { from = first, steps = 10, batch = 4 pairs, lr = 1e-4, data = likes }
"""

GRPO = """dataset asked { files = "asked.jsonl", kind = prompts }
verifier right { kind = exact }
stage rl: grpo {
  from = first, steps = 12, refresh = 2 steps, batch = 2 prompts, group = 2, lr = 1e-4
  data = asked, max_tokens = 4, reward = right
}
"""


def read(made: Plan, folder: Path, **held: tuple[int, int]) -> list[Reading]:
    """What is read where data sets hold so many documents and tokens."""
    results = {}
    for name, (documents, tokens) in held.items():
        job = next(job for job in made.jobs if job.id == f"dataset.{name}")
        results[job.key] = folder / name
        (folder / name).mkdir()
        summary = {"splits": {"train": {"documents": documents, "tokens": tokens}}}
        for file in ("shards.json", "records.json"):
            (folder / name / file).write_text(json.dumps(summary))
    return readings(made, results)


def test_documents_are_counted_along_the_stages_that_read_them(tmp_path: Path) -> None:
    text = stage(data="{ web 75%, math 25% }") + stage(
        "second", from_="first", model=None, data="web", steps="100"
    )
    found = read(plan(HEAD + text), tmp_path, web=(9, 1600), math=(9, 1600))
    # 100 steps × 4 sequences × 16 tokens, three quarters of which are web, and then all.
    assert [(each.stage, each.source, each.times) for each in found] == [
        ("first", "math", 1.0),
        ("first", "web", 3.0),
        ("second", "web", 7.0),
    ]
    assert [each.much for each in found] == [False, False, True]
    assert str(found[0]) == "first reads 100% of math (1,600 tokens)"
    assert str(found[2]) == "second reads web 7 times (1,600 tokens)"


def test_a_stage_of_several_segments_is_counted_once(tmp_path: Path) -> None:
    text = stage(seq_len="16 for 50 steps then 32", batch="4 seqs")
    (found,) = read(plan(HEAD + text), tmp_path, web=(9, 2400))
    assert found.times == (50 * 4 * 16 + 50 * 4 * 32) / 2400


def test_dialogs_are_counted_in_rows_and_preferences_in_records(tmp_path: Path) -> None:
    found = read(plan(HEAD + stage() + SFT + DPO), tmp_path, talk=(3, 40), likes=(5, 4000))
    assert [(each.stage, each.form, each.times, each.much) for each in found] == [
        ("chat", "dialogs", 10 * 4 * 16 / 40, True),
        ("tune", "preferences", 8.0, True),
    ]
    assert str(found[1]) == "tune reads likes 8 times (5 preferences)"


def test_answers_that_a_stage_wrote_itself_are_not_data_that_it_repeats(tmp_path: Path) -> None:
    """Six turns with answers of their own are no six passes."""
    made = plan(HEAD + stage() + GRPO)
    turns = [job for job in made.jobs if job.stage == "rl" and isinstance(job, TrainJob)]
    assert len(turns) == 6
    results = {job.inputs["data:rl"]: tmp_path / job.id for job in turns}
    for folder in results.values():
        folder.mkdir()
        split = {"train": {"documents": 8, "tokens": 80}}
        (folder / "records.json").write_text(json.dumps({"splits": split}))
    assert readings(made, results) == []


def test_data_that_are_not_there_yet_are_left_out(tmp_path: Path) -> None:
    assert read(plan(HEAD + stage()), tmp_path) == []


@pytest.mark.parametrize("form", MOST)
def test_as_often_as_is_known_to_help_is_not_much(form: str) -> None:
    assert not Reading("s", "d", form, 1, MOST[form], "tokens").much
    assert Reading("s", "d", form, 1, MOST[form] + 0.01, "tokens").much
