"""examples/prm_tiny.etude: what it plans, and the data that it learns from."""

import json
import re
import runpy
import shutil
from pathlib import Path
from typing import Any

from etude.compiler.driver import analyse, compile
from etude.compiler.plan.plan import JudgeJob, Prm, StepScores, TrainJob
from etude.spec.load import read

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"
FILES = ("texts.jsonl", "guesses.jsonl", "checked.jsonl", "asked.jsonl")


def records(name: str) -> list[dict[str, Any]]:
    text = (EXAMPLES / "steps" / name).read_text()
    return [json.loads(line) for line in text.splitlines()]


def test_it_is_fine_and_judges_by_steps() -> None:
    found = analyse(read(EXAMPLES / "prm_tiny.etude"), root=EXAMPLES)
    assert [each.code for each in found.report.ordered()] == []
    made = compile(found)
    assert made
    learned = [job for job in made.plan.jobs if isinstance(job, TrainJob) and job.stage == "prm"]
    assert [job.objective for job in learned] == [Prm()]
    (judged,) = (job for job in made.plan.jobs if isinstance(job, JudgeJob))
    assert judged.by_step == StepScores(separator="\n", combine="product")


def test_the_data_are_those_of_their_script(tmp_path: Path) -> None:
    shutil.copy(EXAMPLES / "steps" / "make.py", tmp_path)
    runpy.run_path(str(tmp_path / "make.py"), run_name="__main__")
    for name in FILES:
        assert (tmp_path / name).read_bytes() == (EXAMPLES / "steps" / name).read_bytes()


def right(step: str) -> bool:
    a, b, said = map(int, re.split("[+=]", step))
    return a + b == said


def test_a_step_is_right_if_its_sum_is() -> None:
    for each in records("checked.jsonl"):
        assert each["labels"] == [right(step) for step in each["completions"]]
    labels = [label for each in records("checked.jsonl") for label in each["labels"]]
    assert 0.45 < sum(labels) / len(labels) < 0.55


def test_four_in_ten_steps_of_guesses_are_wrong_and_none_of_the_texts() -> None:
    guesses = [each["messages"][1]["content"].split("\n") for each in records("guesses.jsonl")]
    shares = [sum(right(each[place]) for each in guesses) / len(guesses) for place in (0, 1)]
    assert all(0.55 < share < 0.65 for share in shares)
    assert all(right(step) for each in records("texts.jsonl") for step in each["text"].split()[1:])
