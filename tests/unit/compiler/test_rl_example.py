"""examples/rl_tiny.etude: what it plans, and the data that it learns from."""

import json
import runpy
import shutil
from pathlib import Path
from typing import Any

from etude.compiler.driver import analyse, compile
from etude.compiler.plan.plan import RolloutJob
from etude.spec.load import read

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"


def records(name: str) -> list[dict[str, Any]]:
    text = (EXAMPLES / "sums" / name).read_text()
    return [json.loads(line) for line in text.splitlines()]


def test_it_is_fine_and_asks_every_sum_in_every_turn() -> None:
    found = analyse(read(EXAMPLES / "rl_tiny.etude"), root=EXAMPLES)
    assert [each.code for each in found.report.ordered()] == []
    made = compile(found)
    assert made
    turns = [job for job in made.plan.jobs if isinstance(job, RolloutJob)]
    assert {sum(job.prompts) for job in turns} == {len(records("asked.jsonl"))} == {55}
    assert {job.group for job in turns} == {32}


def test_the_data_are_those_of_their_script(tmp_path: Path) -> None:
    shutil.copy(EXAMPLES / "sums" / "make.py", tmp_path)
    runpy.run_path(str(tmp_path / "make.py"), run_name="__main__")
    for name in ("asked.jsonl", "guesses.jsonl"):
        assert (tmp_path / name).read_bytes() == (EXAMPLES / "sums" / name).read_bytes()


def test_one_guess_in_six_is_right() -> None:
    right = {each["prompt"][0]["content"]: each["answer"] for each in records("asked.jsonl")}
    guesses = [each["messages"] for each in records("guesses.jsonl")]
    share = sum(right[asked["content"]] == said["content"] for asked, said in guesses)
    assert 0.15 < share / len(guesses) < 0.2
