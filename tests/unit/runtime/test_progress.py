"""How far a run is, by what lies in its folder."""

import json
import time
from pathlib import Path

import pytest
from run_folders import SPEC, Folder, here
from specs import plan

from etude.runtime.errors import RunError
from etude.runtime.launchers import messages
from etude.runtime.launchers.launcher import Outcome
from etude.runtime.run_folder.lease import DEAD_SECONDS
from etude.runtime.run_folder.progress import progress
from etude.runtime.run_folder.store import EVENTS


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "run")


def test_a_run_that_trains_shows_its_job_step_speed_and_checkpoint(folder: Folder) -> None:
    folder.finish("tokenizer.letters", "dataset.sums")
    folder.begin("pre.1")
    folder.train("pre.1", steps=40, seconds=2.0)
    folder.save("pre.1", 9)
    folder.save("pre.1", 30)
    folder.save("pre.1", 40, complete=False)  # is just being written
    folder.owned()
    found = progress(folder.plan, folder.store)
    assert found.state == "running"
    assert found.owner
    assert (found.owner.host, found.owner.alive) == (here(), True)
    assert (found.job, found.number, found.jobs, found.finished) == ("pre.1", 3, 5, 2)
    assert found.phase
    assert "pre.1" in found.phase.jobs
    training = found.training
    assert training
    assert (training.step, training.steps) == (40, 100)
    assert training.tokens_per_second == 128.0
    assert training.checkpoint
    assert training.checkpoint.step == 30
    # 60 steps of this job and 50 of the next, which has the same shape.
    assert found.seconds == pytest.approx(110 * 2.0, rel=1e-6)
    assert found.heard == pytest.approx(time.time(), abs=30)


def test_the_time_left_counts_the_sequences_of_a_batch_that_grows(tmp_path: Path) -> None:
    grown = SPEC.replace("batch = 4 seqs", "batch = 4 seqs for 50 steps then 8 seqs")
    folder = Folder(tmp_path / "run")
    folder.plan = plan(grown)
    folder.begin("pre.1")
    folder.train("pre.1", steps=10, seconds=2.0)
    folder.owned()
    found = progress(folder.plan, folder.store)
    job = folder.job("pre.1")
    sequences = sum(p.sequences * (p.to_step - p.from_step) for p in job.schedule.batch)
    later = folder.job("post.1")
    more = sum(p.sequences * (p.to_step - p.from_step) for p in later.schedule.batch)
    assert sequences == 50 * 4 + 50 * 8
    assert found.job == "tokenizer.letters"  # nothing before it is done
    folder.finish("tokenizer.letters", "dataset.sums")
    found = progress(folder.plan, folder.store)
    assert found.seconds == pytest.approx((sequences - 40 + more) * 0.5, rel=1e-6)


def test_without_times_of_events_the_speed_is_that_of_the_steps(folder: Folder) -> None:
    folder.finish("tokenizer.letters", "dataset.sums")
    folder.begin("pre.1")
    folder.train("pre.1", steps=40, seconds=2.0)
    (folder.path / "events.jsonl").unlink()
    found = progress(folder.plan, folder.store)
    assert found.seconds == pytest.approx(110 * 2.0, rel=1e-6)


@pytest.mark.parametrize("jump", [-3600.0, 3600.0])
def test_a_clock_that_is_set_changes_no_time_left(jump: float, folder: Folder) -> None:
    folder.finish("tokenizer.letters", "dataset.sums")
    folder.begin("pre.1")
    folder.train("pre.1", steps=40, seconds=2.0)
    file = folder.path / EVENTS
    events = [json.loads(line) for line in file.read_text().splitlines()]
    for number, event in enumerate(events):
        event["time"] += jump * (number > 20)
        event["seconds"] = 2.0
    file.write_text("".join(json.dumps(event) + "\n" for event in events))
    found = progress(folder.plan, folder.store)
    assert found.job_seconds == pytest.approx(2.0 * 60)
    # Steps of an earlier version have no stopwatch: by their speed then.
    for event in events:
        del event["seconds"]
    file.write_text("".join(json.dumps(event) + "\n" for event in events))
    assert (progress(folder.plan, folder.store).job_seconds or 0) > 0


def test_before_the_first_step_the_time_left_is_not_known(folder: Folder) -> None:
    folder.finish("tokenizer.letters", "dataset.sums")
    folder.begin("pre.1")
    found = progress(folder.plan, folder.store)
    assert found.training
    assert (found.training.step, found.training.tokens_per_second) == (0, None)
    assert found.seconds is None  # no estimates for a CPU


@pytest.mark.parametrize(
    ("host", "process", "beat", "state"),
    [
        (None, 0, 10_000.0, "running"),  # its process lives, however long it has been silent
        (None, 4_194_000, 1.0, "dead"),
        ("other", 0, 1.0, "running"),
        ("other", 0, DEAD_SECONDS + 60, "dead"),
    ],
)
def test_an_owner_is_dead_or_alive(
    host: str | None, process: int, beat: float, state: str, folder: Folder
) -> None:
    folder.begin("tokenizer.letters")
    folder.owned(host=host, process=process, beat=beat)
    found = progress(folder.plan, folder.store)
    assert found.state == state
    assert found.owner
    assert found.owner.beat == pytest.approx(time.time() - beat, abs=5)
    # Where an engine will start it again, it is not for a person to do.
    again = progress(folder.plan, folder.store, queued=True)
    assert again.state == ("running" if state == "running" else "waiting")


def test_a_run_that_nobody_is_at_work_on(folder: Folder) -> None:
    def now(*, queued: bool = False) -> tuple[str, str]:
        found = progress(folder.plan, folder.store, queued=queued)
        return found.state, found.why

    assert now() == ("waiting", "")
    folder.finish("tokenizer.letters")
    assert now() == ("stopped", "it ended before it was done")
    assert now(queued=True) == ("waiting", "")
    with (folder.path / "events.jsonl").open("a") as file:
        error = {"event": "error", "message": "the disk is full", "help": "make room"}
        file.write(json.dumps(error | {"time": 1.0, "exit_code": 3}) + "\n")
    assert now() == ("stopped", "the disk is full")
    assert progress(folder.plan, folder.store).help == "make room"
    assert now(queued=True) == ("waiting", "")


def test_why_a_gang_has_ended_is_shown_before_any_job_has_begun(folder: Folder) -> None:
    problem = RunError("there is no file `lines.jsonl`", "correct `files`")
    folder.store.tell(messages.failed(problem))
    found = progress(folder.plan, folder.store)
    assert (found.state, found.why, found.help) == ("stopped", problem.message, problem.help)
    folder.store.tell(messages.ended(Outcome(None)))
    assert progress(folder.plan, folder.store).state == "waiting"


def test_a_run_that_is_done(folder: Folder) -> None:
    folder.finish_all()
    found = progress(folder.plan, folder.store)
    assert (found.state, found.job, found.seconds) == ("done", None, 0.0)
    assert (found.number, found.finished, found.jobs) == (5, 5, 5)
