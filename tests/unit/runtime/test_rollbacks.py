"""Rollbacks at spikes: which data they pass over, and where they are told."""

import json
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
from specs import HEAD, jobs, plan, stage

from etude.cli.diff import compare
from etude.compiler.plan.plan import TrainJob
from etude.compiler.schedule.timeline import Timeline
from etude.runtime.engine.updates.rollbacks import PassedOver, Rollback
from etude.runtime.jobs import training
from etude.runtime.jobs.task import Run, Task
from etude.runtime.run_folder.store import Store
from etude.runtime.run_folder.variant_folders import variant_folder

SPEC = HEAD + stage(spikes="{ do = rollback, back = 10 }")


def ordinals(job: TrainJob, rollbacks: list[Rollback], steps: range) -> list[int]:
    """The sequences of its source that the job reads at these steps, 4 a step."""
    timeline, over = Timeline.of(job), PassedOver(Timeline.of(job), rollbacks)
    read = []
    for step in steps:
        for index in range(timeline.batch(step)):
            source, ordinal = timeline.sequence(step, index)
            read.append(ordinal + over.before(step).get(source, 0))
    return read


def test_data_since_the_checkpoint_are_passed_over_and_nothing_is_read_twice() -> None:
    (job, *_) = jobs(plan(SPEC))
    read = ordinals(job, [Rollback(1, 25, 10)], range(40))
    assert read[:40] == list(range(40))
    assert read[40:] == list(range(4 * 26, 4 * 26 + 120))


def test_a_second_rollback_passes_over_what_the_first_one_read() -> None:
    (job, *_) = jobs(plan(SPEC))
    first = Rollback(1, 25, 10)
    # At step 30, with the data of 46 = 30 + 16, it goes back to 20.
    read = ordinals(job, [first, Rollback(2, 30, 20)], range(40))
    assert read[: 4 * 20] == ordinals(job, [first], range(20))
    assert read[4 * 20] == 4 * (46 + 1)


def test_a_rollback_beyond_an_earlier_one_passes_over_both() -> None:
    (job, *_) = jobs(plan(SPEC))
    # The spike at step 12 has the data of 28; what was read before, up to 26, is not read again.
    read = ordinals(job, [Rollback(1, 25, 10), Rollback(2, 12, 0)], range(40))
    assert read == list(range(4 * 29, 4 * 29 + 160))


def task(folder: Path) -> Task:
    made = plan(SPEC)
    store = Store(folder)
    store.create()
    run = Run(made, store, folder, lambda event: None, None)
    return Task(jobs(made)[0], "key", {}, folder / "work", run)


def told(store: Store, number: int, step: int, to: int, key: str = "key") -> None:
    detail = {"number": number, "step": step, "to": to, "grad_norm": 9.0, "usual": 0.1}
    store.record("first.1", key, "rollback", detail)


def test_what_a_job_knows_of_rollbacks_is_what_the_journals_say(tmp_path: Path) -> None:
    asked = task(tmp_path)
    assert training.known(asked) == {"positions": None, "rollbacks": []}
    other = Store(variant_folder(tmp_path, "other"))
    other.create()
    told(other, 2, 30, 20)
    told(asked.run.store, 1, 25, 10)
    told(asked.run.store, 3, 40, 30, key="another job's")
    known = training.known(asked)["rollbacks"]
    assert json.loads(json.dumps(known)) == known
    assert [Rollback.of(each) for each in known] == [Rollback(1, 25, 10), Rollback(2, 30, 20)]


def test_a_comparison_names_the_rollbacks_of_a_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = task(tmp_path)
    made: Any = asked.run.plan
    told(asked.run.store, 1, 25, 10)
    arguments = Namespace(json=False, detailed_exitcode=True)
    assert compare((made, asked.run.store), (made, None), arguments) == 2
    said = " ".join(capsys.readouterr().out.split())
    assert "went back from step 25 to step 10 at a spike, past the data between" in said
    assert compare((made, None), (made, None), arguments) == 0
