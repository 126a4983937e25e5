"""What a report tells of a run: when jobs were at work, curves, costs, answers, lineage."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from reported_runs import Run, answered

from etude.compiler.plan.plan import Plan
from etude.runtime.reporting.answers import LONGEST, OF_A_JOB, answers
from etude.runtime.reporting.costs import at_work, costs
from etude.runtime.reporting.curves import curves
from etude.runtime.reporting.story import story
from etude.runtime.reporting.stretches import Stretch, stretches
from etude.runtime.run_folder.outcomes import outcomes, results
from etude.runtime.run_folder.store import EVENTS


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path / "run")


def tell(folder: Path, *events: dict[str, Any]) -> None:
    """Appends events as `Store.tell` does, which a test gives their times."""
    with (folder / EVENTS).open("a") as file:
        file.writelines(json.dumps(event) + "\n" for event in events)


def step(time: float, number: int, job: str = "pretrain.1") -> dict[str, Any]:
    return {"time": time, "event": "step", "job": job, "step": number}


def began(time: float, job: str = "pretrain.1") -> dict[str, Any]:
    return {"time": time, "event": "started", "job": job, "kind": "train"}


def ended(time: float, job: str = "pretrain.1") -> dict[str, Any]:
    return {"time": time, "event": "finished", "job": job, "kind": "train"}


def test_a_stretch_ends_with_the_last_event_before_the_run_began_again(tmp_path: Path) -> None:
    killed = [began(10.0), *(step(11.0 + n, n) for n in range(5))]
    failed = [began(100.0), step(101.0, 3), step(102.0, 4)]
    problem = {"time": 103.0, "event": "error", "message": "the disk is full"}
    tell(tmp_path, *killed, *failed, problem, began(200.0), step(201.0, 4), ended(209.0))
    assert stretches(tmp_path / EVENTS) == [
        Stretch("pretrain.1", 10.0, 15.0, step=0),
        Stretch("pretrain.1", 100.0, 102.0, step=3, why="the disk is full"),
        Stretch("pretrain.1", 200.0, 209.0, finished=True, step=4),
    ]


def test_a_torn_last_line_and_a_missing_file_are_no_problem(tmp_path: Path) -> None:
    assert stretches(tmp_path / EVENTS) == []
    tell(tmp_path, began(1.0), step(2.0, 0))
    with (tmp_path / EVENTS).open("a") as file:
        file.write('{"time": 3.0, "event": "step", "job": "pre')
    assert stretches(tmp_path / EVENTS) == [Stretch("pretrain.1", 1.0, 2.0, step=0)]


def test_what_the_run_did_of_an_earlier_plan_does_not_count(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    (job,) = (each for each in run.plan.jobs if each.id == "pretrain.1")
    for now, key in ((5.0, "an earlier plan's"), (50.0, job.key)):
        monkeypatch.setattr("time.time", lambda now=now: now)
        run.store.record(job.id, key, "started", {"plan": key})
    tell(run.folder, began(5.1), step(9.0, 0), began(50.1), step(52.0, 0), step(54.1, 1))
    assert at_work(run.plan, run.store) == [Stretch("pretrain.1", 50.1, 54.1, step=0)]


def trained(run: Run, steps: int = 12, **figures: Any) -> None:
    run.train("pretrain.1", [{"loss": 3.0, "lr": 1e-3, **figures} for _ in range(steps)])


def drawn(run: Run, starts: list[Stretch] | None = None, most: int = 1000) -> dict[str, Any]:
    return curves(run.plan, run.store, outcomes(run.plan, run.store), starts or [], most)


def test_stages_follow_each_other_on_one_axis_of_tokens(run: Run) -> None:
    trained(run)
    run.train("align.1.rm.1", [{"loss": 0.5, "accuracy": 0.25}, {"loss": 0.25, "accuracy": 0.5}])
    found = drawn(run)
    assert found["stages"] == [
        {"name": "pretrain", "from": 0, "to": 12 * 256},
        {"name": "align.1.rm", "from": 12 * 256, "to": 14 * 256},
    ]
    assert found["names"] == ["loss", "lr", "accuracy"]
    assert found["rows"][11] == [12 * 256, 0, 11, 3.0, 1e-3, None]
    assert found["rows"][-1] == [14 * 256, 1, 1, 0.25, None, 0.5]


def test_the_loss_of_further_tokens_has_a_chart_of_its_own(run: Run) -> None:
    trained(run, mtp_loss=3.5)
    found = drawn(run)
    assert found["names"] == ["loss", "mtp_loss", "lr"]
    assert found["rows"][0][3:] == [3.0, 3.5, 1e-3]


def test_thinned_curves_keep_every_spike(run: Run) -> None:
    steps = [{"loss": 2.0 + n / 1e6} for n in range(5000)]
    steps[1234]["loss"], steps[4321]["loss"] = 50.0, 0.125
    run.train("pretrain.1", steps)
    rows = drawn(run, most=200)["rows"]
    assert len(rows) <= 202
    assert {row[2] for row in rows} >= {0, 1234, 4321, 4999}
    assert [row[2] for row in rows] == sorted(row[2] for row in rows)


def test_what_is_no_number_leaves_a_gap(run: Run) -> None:
    run.train("pretrain.1", [{"loss": 1.0}, {"loss": float("nan")}, {"loss": float("inf")}])
    assert [row[3] for row in drawn(run)["rows"]] == [1.0, None, None]


def test_restarts_and_evaluations_are_marked_where_they_happened(run: Run) -> None:
    trained(run)
    scores = {"scores.json": {"loss(docs)": {"score": 2.5}}}
    run.train("align.1.dpo.1", [{"loss": 0.5}] * 2)
    run.finish("align.1.after", scores)
    starts = [Stretch("pretrain.1", 0, 1, step=0), Stretch("pretrain.1", 2, 3, step=8)]
    assert drawn(run, starts)["marks"] == [
        {"at": 14 * 256, "kind": "evaluation", "text": "evaluation align.1.after"},
        {"at": 9 * 256, "kind": "restart", "text": "pretrain.1 went on at step 8"},
    ]


def test_spikes_and_rollbacks_are_marked_once_and_held_out_losses_are_points(run: Run) -> None:
    trained(run)
    for _ in range(2):  # a run that was resumed tells again
        run.store.record("pretrain.1", "k", "spike", {"step": 5, "grad_norm": 9.0})
    back = {"number": 1, "step": 8, "to": 4, "grad_norm": 9.0, "usual": 0.5}
    run.store.record("pretrain.1", "k", "rollback", back)
    line = {"job": "pretrain.1", "stage": "pretrain", "step": 3, "tokens": 1024}
    measured = line | {"scores": {"loss(docs)": {"score": 2.5}}}
    path = run.folder / "metrics" / "pretrain.1.evaluations.jsonl"
    path.write_text(json.dumps(measured) + "\n")
    (run.folder / "artifacts" / "pretrain.1-key" / "evaluations.jsonl").write_text(path.read_text())
    found = drawn(run)
    assert found["held_out"] == {"loss(docs)": [[1024, 2.5]]}
    assert found["marks"] == [
        {"at": 6 * 256, "kind": "spike", "text": "pretrain.1, step 5: a spike that was not taken"},
        {
            "at": 9 * 256,
            "kind": "rollback",
            "text": "pretrain.1 went back from step 8 to step 4",
        },
    ]


def test_the_price_is_that_of_the_hours_that_it_took(run: Run) -> None:
    trained(run, steps=6, seconds=600.0)

    def priced(job: Any) -> Any:
        if job.id != "pretrain.1":
            return job
        cost = job.cost.model_copy(update={"seconds": 7200.0, "gpu_hours": 2.0, "price": 8.0})
        return job.model_copy(update={"cost": cost})

    of: Plan = run.plan.model_copy(update={"jobs": [priced(job) for job in run.plan.jobs]})
    row, *_ = costs(of, run.store, outcomes(of, run.store), [])
    assert row["stage"] == "pretrain"
    assert (row["tokens"], row["planned_tokens"]) == (6 * 256, 12 * 256)
    assert (row["hours"], row["planned_hours"]) == (pytest.approx(1.0), 2.0)
    assert (row["gpu_hours"], row["planned_gpu_hours"]) == (pytest.approx(1.0), 2.0)
    assert (row["price"], row["planned_price"]) == (pytest.approx(4.0), 8.0)
    starts = [Stretch("pretrain.1", 0, 3600), Stretch("pretrain.1", 9000, 12600)]
    row, *_ = costs(of, run.store, outcomes(of, run.store), starts)
    assert row["hours"] == pytest.approx(2.0)  # what was lost and repeated costs too


def test_without_a_known_device_there_are_no_gpu_hours(run: Run) -> None:
    trained(run, seconds=1.0)
    row, *_ = costs(run.plan, run.store, outcomes(run.plan, run.store), [])
    assert (row["gpu_hours"], row["price"]) == (None, None)


def test_answers_are_spread_over_all_with_their_prompts_and_rewards(run: Run) -> None:
    answered(run, "align.1.drafts", 500)
    found = answers(run.plan, results(run.plan, run.store), 1000)
    assert len(found) == OF_A_JOB
    rewards = [each["reward"] for each in found]
    assert rewards == sorted(rewards)
    assert rewards[0] == 0
    assert rewards[-1] > 450
    for each in found:
        assert each["prompt"] == f"question {each['reward']}"
        assert each["text"] == f"an answer {each['reward']}"
    assert not found[0]["finished"]


def test_few_answers_come_once_each_and_long_ones_are_cut(run: Run) -> None:
    answered(run, "align.1.drafts", 3, text="x" * 5000)
    found = answers(run.plan, results(run.plan, run.store), 1000)
    assert [each["reward"] for each in found] == [0, 1, 2]
    assert found[0]["text"] == "x" * LONGEST + "…"


def test_lineage_has_what_sha256sum_says_of_the_files(run: Run) -> None:
    run.finish("tokenizer.words", {"a.json": {"n": 1}, "b.json": {"n": 2}})
    trained(run)
    found = {row["job"]: row for row in story(run.plan, run.store)["lineage"]}
    docs = found["tokenizer.words"]
    folder = run.folder / "artifacts" / docs["key"]
    sums = {p: hashlib.sha256((folder / p).read_bytes()).hexdigest() for p in ("a.json", "b.json")}
    assert docs["files"] == sums
    listed = "".join(f"{value}  {name}\n" for name, value in sums.items())
    assert docs["sha256"] == hashlib.sha256(listed.encode()).hexdigest()
    assert docs["bytes"] == 16
    assert "tokenizer.words" in found["pretrain.1"]["inputs"].values()


def test_a_story_can_be_written_as_json(run: Run) -> None:
    trained(run)
    answered(run, "align.1.drafts", 3)
    told = story(run.plan, run.store)
    assert json.loads(json.dumps(told))["folder"] == str(run.folder)
    states = {job["job"]: job["state"] for job in told["jobs"]}
    assert (states["pretrain.1"], states["align.1.dpo.1"]) == ("finished", "waiting")


def test_reports_do_not_wait_for_torch() -> None:
    code = "import sys, etude.runtime.reporting.story; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
