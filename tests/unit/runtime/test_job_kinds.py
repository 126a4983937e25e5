"""Every kind of job has its place in the tables of the runtime, and one description."""

import ast
import json
from pathlib import Path
from typing import Any, get_args

from specs import HEAD, POST_TRAINING, plan, stage

from etude.compiler.plan.describe import DESCRIPTIONS, Described, described
from etude.compiler.plan.phases import KINDS as PHASES
from etude.compiler.plan.phases import ranks_of
from etude.compiler.plan.plan import (
    AnyJob,
    DatasetJob,
    DrawJob,
    ExportJob,
    FilterJob,
    GateJob,
    TokenizerJob,
    TrainJob,
)
from etude.pages.page import page
from etude.runtime.jobs import WORK, training
from etude.runtime.jobs.task import Run, Task
from etude.runtime.preparation import repetition
from etude.runtime.run_folder.store import Store

KINDS = get_args(get_args(AnyJob)[0])
SHOWN_OTHERWISE = {TokenizerJob, FilterJob, TrainJob, ExportJob, GateJob}
"""Kinds of jobs that only prepare, and those that have a table of their own."""
ROOT = Path(__file__).parents[3]


def test_every_kind_of_job_is_done_by_a_function_of_the_table() -> None:
    assert WORK.keys() == {*KINDS}


def test_jobs_with_a_mesh_are_those_of_all_ranks() -> None:
    made = plan(POST_TRAINING, ranks=2)
    for job in made.jobs:
        mesh = getattr(job, "resources", None)
        assert ranks_of(job) == mesh
        assert (mesh is None) == (type(job) in PHASES and not isinstance(job, DrawJob))


def test_tokenizers_and_data_are_made_without_a_model() -> None:
    prepares = {kind for kind, work in WORK.items() if work.prepares}
    assert prepares == {TokenizerJob, DatasetJob, FilterJob}


def test_every_kind_of_job_is_described_or_shown_otherwise() -> None:
    assert DESCRIPTIONS.keys() | SHOWN_OTHERWISE == {*KINDS}
    assert not DESCRIPTIONS.keys() & SHOWN_OTHERWISE


def asks_for_a_job(node: ast.AST) -> bool:
    """Whether a statement is `if isinstance(…, SomeJob)`."""
    test = node.test if isinstance(node, ast.If) else None
    if not isinstance(test, ast.Call) or getattr(test.func, "id", "") != "isinstance":
        return False
    names = {kind.__name__ for kind in KINDS}
    return any(getattr(each, "id", "") in names for each in ast.walk(test))


def test_no_chain_of_conditions_asks_a_job_for_its_kind() -> None:
    """Such a chain is a table that no test can compare with the kinds that there are."""
    chains = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for folder in ("runtime", "cli", "pages")
        for path in sorted((ROOT / folder).rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.If) and asks_for_a_job(node)
        if any(map(asks_for_a_job, node.orelse))
    ]
    assert chains == []


def test_jobs_are_described_by_what_they_take_and_do() -> None:
    rows = {row.name: (row.kind, row.of, row.what) for row in described(plan(POST_TRAINING))}
    drawn = "4 draws of each of asked[2], 1 kept by align.2.rm"
    waits = "waits for 2.jsonl, with the draws of align.2.drafts to label"
    assert rows["align.2.drafts"] == ("sample", "align.1.chat", drawn)
    assert rows["labels[2]"] == ("pause", "", waits)
    assert rows["reference.align.2.dpo.labels[2]"] == ("reference", "align.2.sft", "labels[2]")
    assert rows["align.2.chat"] == ("average", "", "0.5 × align.2.dpo, 0.5 × align.1.dpo")
    assert rows["exam"] == ("evaluate", "align.2.chat", "reward(align.2.rm)")
    assert rows["pick"] == ("best", "align.2.chat, align.1.chat", "the lowest loss(web)")
    assert len(rows) == 12


def test_an_average_of_a_stage_and_a_checkpoint_says_both() -> None:
    made = plan(
        HEAD
        + stage(steps="100")
        + "stage half: checkpoint { from = first, after = 50% }\n"
        + "stage mean: average { of = [first, half] }\n"
    )
    (row,) = described(made)
    assert row == Described("mean", "average", "", "0.5 × first, 0.5 × first after 50 steps")


def test_the_page_says_of_stages_and_pauses_what_the_table_says() -> None:
    made = plan(POST_TRAINING)
    html = page(made, {})
    rows = [row for row in described(made) if row.name in made.stages or row.kind == "pause"]
    assert rows
    assert all(row.what in html for row in rows)


def test_repeated_data_are_told_once_a_stage_and_of_that_stage_alone(
    tmp_path: Path, monkeypatch: Any
) -> None:
    text = (
        HEAD + stage(seq_len="16 for 50 steps then 32") + stage("second", from_="first", model=None)
    )
    made = plan(text)
    folder = tmp_path / "web"
    folder.mkdir()
    summary = {"splits": {"train": {"documents": 9, "tokens": 2400}}}
    (folder / "shards.json").write_text(json.dumps(summary))
    events: list[dict[str, Any]] = []
    looked: list[str] = []
    of_stage = repetition.of_stage

    def counted(name: str, *others: Any) -> Any:
        looked.append(name)
        return of_stage(name, *others)

    monkeypatch.setattr(training, "of_stage", counted)
    run = Run(made, Store(tmp_path / "run"), tmp_path, events.append, None)
    for job in made.trained():
        training._tell_repetition(Task(job, job.key, {"data:web": folder}, tmp_path, run))
    read = [(e["stage"], e["source"]) for e in events if e["event"] == "reading"]
    assert read == [("first", "web"), ("second", "web")]
    assert looked == [job.stage for job in made.trained()]
