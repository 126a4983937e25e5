"""`etude run`: to the end, killed and resumed, on one rank and on two."""

import json
import os
import resource
from pathlib import Path

import pytest
from etude_cli import TINY, etude, kill_when, lines, metrics, weights

from etude.compiler.plan.plan import Plan, TrainJob
from etude.compiler.schedule.timeline import Timeline
from etude.runtime.run_folder.store import Store


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the tiny spec, run to its end in `runs/tiny`."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "tiny.etude").write_text(TINY)
    done = etude("run", "tiny.etude", cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def finished_on_two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("two")
    (folder / "tiny.etude").write_text(TINY)
    done = etude("run", "tiny.etude", "--ranks", "2", cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_the_log_of_every_step_equals_the_plan(finished: Path) -> None:
    run = finished / "runs" / "tiny"
    plan = Plan.model_validate_json((run / "plan.json").read_bytes())
    jobs = [job for job in plan.jobs if isinstance(job, TrainJob)]
    assert [job.id for job in jobs] == ["pretrain.1", "pretrain.2", "anneal.1"]
    for job in jobs:
        timeline = Timeline.of(job)
        logged = metrics(run, job.id)
        steps = range(job.first_step, job.first_step + job.steps)
        assert [entry["step"] for entry in logged] == list(steps)
        for entry in logged:
            step = entry["step"]
            assert entry["lr"] == timeline.lr(step)
            assert entry["sequences"] == timeline.batch(step)
            assert entry["seq_len"] == job.seq_len
            assert entry["mixture"] == timeline.mixture(step)
            assert entry["tokens"] == timeline.tokens_before(step + 1)
            drawn = timeline.drawn_before(step + 1)
            assert entry["sources"] == {n: c * job.seq_len for n, c in drawn.items()}


def test_the_loss_falls(finished: Path) -> None:
    logged = metrics(finished / "runs" / "tiny", "pretrain.1")
    after = metrics(finished / "runs" / "tiny", "anneal.1")
    assert after[-1]["loss"] < logged[0]["loss"] - 0.5


def test_a_second_run_finds_everything_done(finished: Path) -> None:
    before = weights(finished / "runs" / "tiny", "anneal")
    done = etude("run", "tiny.etude", "--json", cwd=finished)
    assert done.returncode == 0
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert {event["event"] for event in events} == {"kept"}
    assert weights(finished / "runs" / "tiny", "anneal") == before


def test_a_plan_file_runs_like_its_spec(finished: Path) -> None:
    assert etude("plan", "tiny.etude", "-o", "plan.json", cwd=finished).returncode == 0
    done = etude("run", "plan.json", "--json", cwd=finished)
    assert done.returncode == 0
    assert {json.loads(line)["event"] for line in done.stdout.splitlines()} == {"kept"}


def test_status_shows_how_far_a_run_is(finished: Path) -> None:
    shown = etude("status", "runs/tiny", "--json", cwd=finished)
    assert shown.returncode == 0
    jobs = {row["job"]: row for row in json.loads(shown.stdout)["jobs"]}
    assert jobs["anneal.1"]["state"] == "finished"
    assert jobs["anneal.1"]["step"] == jobs["anneal.1"]["steps"] == 6
    assert "anneal.1" in etude("status", "runs/tiny", cwd=finished).stdout


def test_report_shows_losses_and_scores(finished: Path) -> None:
    shown = etude("report", "runs/tiny", "--json", cwd=finished)
    assert shown.returncode == 0, shown.stderr
    found = json.loads(shown.stdout)
    run = finished / "runs" / "tiny"
    stages = {row["stage"]: row for row in found["stages"]}
    assert list(stages) == ["pretrain", "anneal"]
    losses = [e["loss"] for job in ("pretrain.1", "pretrain.2") for e in metrics(run, job)]
    assert stages["pretrain"]["loss"] == pytest.approx(sum(losses[-10:]) / 10)
    assert stages["pretrain"]["steps"] == 24
    assert {row["state"] for row in stages.values()} == {"finished"}
    (row,) = found["evaluations"]
    assert (row["stage"], row["of"]) == ("report", "anneal")
    assert row["scores"] == json.loads((run / "models" / "report" / "scores.json").read_text())
    assert "loss(docs)" in etude("report", "runs/tiny", cwd=finished).stdout


def test_a_variant_of_a_later_stage_trains_only_that_stage(finished: Path) -> None:
    run = finished / "runs" / "tiny"
    before = weights(run, "anneal"), (run / "plan.json").read_bytes()
    (finished / "varied.etude").write_text(TINY + "variant brief { anneal.steps = 4 }\n")
    done = etude("run", "varied.etude", "--variant", "brief", "--json", cwd=finished)
    assert done.returncode == 0, done.stdout + done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines()]
    begun = {event["job"] for event in events if event["event"] == "started"}
    kept = {event["job"] for event in events if event["event"] == "kept"}
    assert begun == {"anneal.1", "export.anneal", "heldout.report", "report"}
    assert {"tokenizer.words", "pretrain.1", "pretrain.2"} <= kept
    assert (weights(run, "anneal"), (run / "plan.json").read_bytes()) == before
    told = [event for event in events if event["event"] == "reading"]
    assert {(event["stage"], event["source"]) for event in told} == {
        ("anneal", "docs"),
        ("anneal", "sums"),
    }
    assert all(event["times"] > 0 for event in told)
    own = run / "variants" / "brief"
    assert weights(own, "anneal") != before[0]
    assert len(metrics(own, "anneal.1")) == 4
    assert metrics(own, "pretrain.2") == metrics(run, "pretrain.2")
    shown = json.loads(etude("report", "runs/tiny/variants/brief", "--json", cwd=finished).stdout)
    assert [(row["stage"], row["steps"]) for row in shown["stages"]] == [
        ("pretrain", 24),
        ("anneal", 4),
    ]
    assert [row.get("made") for row in shown["stages"]] == ["by the recipe", None]


@pytest.mark.exhaustive
def test_a_mean_with_a_stage_of_a_variant_takes_the_work_of_that_variant(finished: Path) -> None:
    """`brief` is trained once, for the mean and for the variant's own run."""
    (finished / "meeting.etude").write_text(
        TINY + "stage mean: average { of = [anneal, brief.anneal] }\n"
        "stage twice: average { of = [anneal, anneal] }\n"
        "variant brief { anneal.steps = 5 }\n"
    )
    done = etude("run", "meeting.etude", "--json", cwd=finished)
    assert done.returncode == 0, done.stdout + done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines()]
    begun = {event["job"] for event in events if event["event"] == "started"}
    assert {"brief.anneal.1", "mean"} <= begun
    assert not begun & {"pretrain.1", "pretrain.2", "anneal.1"}
    run = finished / "runs" / "tiny"
    own = weights(run, "anneal")
    assert weights(run, "twice") == own
    assert weights(run, "mean") != own
    done = etude("run", "meeting.etude", "--variant", "brief", "--json", cwd=finished)
    assert done.returncode == 0, done.stdout + done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert ("kept", "anneal.1") in {(event["event"], event["job"]) for event in events}
    own = "runs/tiny/variants/brief"
    shown = json.loads(etude("report", own, "--json", cwd=finished).stdout)
    brief = next(row for row in shown["stages"] if row["stage"] == "anneal")
    trained = metrics(run, "brief.anneal.1")
    assert (brief["steps"], brief["made"]) == (5, "by the recipe as brief.anneal.1")
    assert brief["loss"] == pytest.approx(sum(step["loss"] for step in trained) / 5)
    assert [step["loss"] for step in metrics(run / "variants" / "brief", "anneal.1")] == [
        step["loss"] for step in trained
    ]
    done = etude("status", own, "--json", cwd=finished)
    (row,) = [row for row in json.loads(done.stdout)["jobs"] if row["job"] == "anneal.1"]
    assert (row["state"], row["step"]) == ("finished", 5)


@pytest.mark.exhaustive
@pytest.mark.parametrize("ranks", [1, pytest.param(2, marks=pytest.mark.exhaustive)])
def test_killed_and_resumed_it_ends_with_the_same_bits(
    ranks: int, finished: Path, finished_on_two: Path, tmp_path: Path
) -> None:
    (tmp_path / "tiny.etude").write_text(TINY)
    run = tmp_path / "runs" / "tiny"
    more = ["--ranks", "2"] if ranks == 2 else []
    kill_when(lambda: lines(run, "pretrain.2") >= 5, "run", "tiny.etude", *more, cwd=tmp_path)
    assert not (run / "models" / "anneal").exists()
    done = etude("run", "tiny.etude", *more, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    whole = (finished if ranks == 1 else finished_on_two) / "runs" / "tiny"
    assert weights(run, "anneal") == weights(whole, "anneal")
    for job in ("pretrain.1", "pretrain.2", "anneal.1"):
        again, once = metrics(run, job), metrics(whole, job)
        assert [e["loss"] for e in again] == [e["loss"] for e in once]


@pytest.mark.exhaustive
def test_another_seed_ends_with_other_weights(finished: Path, tmp_path: Path) -> None:
    short = TINY.replace("seed = 7", "seed = 8")
    (tmp_path / "tiny.etude").write_text(short)
    run = tmp_path / "runs" / "tiny"
    kill_when(lambda: lines(run, "pretrain.1") >= 1, "run", "tiny.etude", cwd=tmp_path)
    first = metrics(finished / "runs" / "tiny", "pretrain.1")[0]["loss"]
    assert metrics(run, "pretrain.1")[0]["loss"] != first


GATED = (
    TINY.split("stage anneal")[0]
    + """
stage long: train {
  steps   = 2
  seq_len = 128
  gate seq_len {
    require loss(short) <= 10% of start
    otherwise extend 1 step at most 2 times
  }
}
stage after: train { steps = 1 }
"""
)


def test_a_gate_that_fails_extends_and_then_stops_the_run(tmp_path: Path) -> None:
    (tmp_path / "gated.etude").write_text(GATED)
    done = etude("run", "gated.etude", "--json", cwd=tmp_path)
    assert done.returncode == 3, done.stdout + done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines()]
    gates = [event for event in events if event["event"] == "gate"]
    assert [gate["attempt"] for gate in gates] == [0, 1, 2]
    assert not any(gate["passed"] for gate in gates)
    trained = [e["job"] for e in events if e["event"] == "started" and e["kind"] == "train"]
    assert trained == ["pretrain.1", "pretrain.2", "long.1", "long.1+1", "long.1+2"]
    assert "the gate on seq_len 128 of long does not pass after 2 extensions" in done.stderr
    assert "loss(short) is" in done.stderr
    first, second = (metrics(tmp_path / "runs" / "tiny", f"long.1+{n}") for n in (1, 2))
    assert [line["step"] for line in (*first, *second)] == [2, 3]
    assert first[0]["lr"] == second[0]["lr"] == metrics(tmp_path / "runs/tiny", "long.1")[-1]["lr"]

    (tmp_path / "gated.etude").write_text(GATED.replace("<= 10%", "<= 1000%"))
    done = etude("run", "gated.etude", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    started = [json.loads(line) for line in done.stdout.splitlines() if '"started"' in line]
    assert [e["job"] for e in started if e["kind"] == "train"] == ["after.1"]


@pytest.mark.exhaustive
def test_a_full_disk_stops_the_run_which_then_goes_on(finished: Path, tmp_path: Path) -> None:
    (tmp_path / "tiny.etude").write_text(TINY)

    def small_files() -> None:
        # Shards, tokenizer and logs fit; a checkpoint with its optimizer state does not.
        resource.setrlimit(resource.RLIMIT_FSIZE, (420_000, 420_000))

    stopped = etude("run", "tiny.etude", cwd=tmp_path, preexec_fn=small_files)
    assert stopped.returncode == 3, stopped.stdout + stopped.stderr
    assert "Traceback" not in stopped.stderr
    assert "checkpoint" in stopped.stderr
    done = etude("run", "tiny.etude", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "dataset.docs: already done" in done.stdout
    run = tmp_path / "runs" / "tiny"
    assert weights(run, "anneal") == weights(finished / "runs" / "tiny", "anneal")


@pytest.mark.parametrize(
    ("change", "phrase"),
    [
        (("sample = python_docs, documents = 60 docs", 'files = "no/*.jsonl"'), "no/*.jsonl"),
        (("tokenizer words { train = { on [docs, sums], vocab 300 } }", ""), "vocab"),
        (("train = { on [docs, sums], vocab 300 }", 'file = "missing.json"'), "missing.json"),
    ],
)
def test_data_that_cannot_be_read_is_one_clear_message(
    change: tuple[str, str], phrase: str, tmp_path: Path
) -> None:
    spec = TINY.replace(*change)
    if "missing.json" in spec:
        spec = spec.replace("ffn = 64", "ffn = 64, vocab = 300")
    (tmp_path / "tiny.etude").write_text(spec)
    done = etude("run", "tiny.etude", cwd=tmp_path)
    assert done.returncode == 1
    assert phrase in done.stderr
    assert "Traceback" not in done.stderr


def test_a_bad_line_is_named_and_may_be_skipped(tmp_path: Path) -> None:
    rows = ['{"text": "one two three"}', "not json", '{"text": "four five six"}'] * 2
    (tmp_path / "corpus.jsonl").write_text("\n".join(rows[:5]))
    spec = TINY.replace(
        "sample = python_docs, documents = 60 docs", 'files = "corpus.jsonl"'
    ).replace("on [docs, sums]", "on [sums]")
    (tmp_path / "tiny.etude").write_text(spec)
    done = etude("run", "tiny.etude", cwd=tmp_path)
    assert done.returncode == 1
    assert "corpus.jsonl:2" in done.stderr
    assert "bad_lines" in done.stderr


def test_two_runs_in_one_folder_are_refused(finished: Path) -> None:
    with Store(finished / "runs" / "tiny").lease():
        done = etude("run", "tiny.etude", cwd=finished)
    assert done.returncode == 1
    assert "another run is using" in done.stderr
    assert f"process {os.getpid()} of" in done.stderr


def test_a_damaged_artifact_is_named(finished: Path) -> None:
    run = finished / "runs" / "tiny"
    file = run / "models" / "anneal" / "model.safetensors"
    whole = file.read_bytes()
    try:
        file.write_bytes(whole[:-10])
        done = etude("run", "tiny.etude", cwd=finished)
    finally:
        file.write_bytes(whole)
    assert done.returncode == 1
    assert "damaged" in done.stderr
    assert "model.safetensors" in done.stderr
