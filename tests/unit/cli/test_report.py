"""`etude report` on a run folder whose results are written by hand."""

import gc
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from reported_runs import SPEC, Run, answered, fill

from etude.cli import report as command
from etude.cli.main import main
from etude.compiler.plan.part import part_of
from etude.runtime.run_folder.recorder import EVALUATIONS, STEPS
from etude.runtime.run_folder.store import Store
from etude.runtime.run_folder.variant_folders import variant_folder
from etude.spec.record import replace


@pytest.fixture(autouse=True)
def _collector() -> Iterator[None]:
    """The command line turns the garbage collector off; the tests continue."""
    yield
    gc.enable()


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path / "run")


def report(run: Run, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert main(["report", str(run.folder), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_what_is_finished_is_reported_in_the_plans_order(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(run)
    found = report(run, capsys)
    stages = {row["stage"]: row for row in found["stages"]}
    assert list(stages) == ["pretrain", "align.1.rm", "align.1.dpo", "align.2.rm", "align.2.dpo"]
    assert stages["pretrain"]["loss"] == sum(range(2, 12)) / 10
    assert stages["pretrain"]["tokens"] == 12 * 256
    assert stages["align.1.rm"]["accuracy"] == 0.75
    assert stages["align.1.rm"]["margin"] == pytest.approx(0.2)
    waiting = {"kind": "dpo", "state": "waiting", "steps": 0, "tokens": 0}
    assert stages["align.1.dpo"] == {"stage": "align.1.dpo", **waiting}
    evaluated = [(row["stage"], row["of"]) for row in found["evaluations"]]
    assert evaluated == [
        ("align.1.after", "align.1.dpo"),
        ("align.2.after", "align.2.dpo"),
        ("align.2.ranks", "align.2.rm"),
    ]
    assert [row["reward"] for row in found["samples"]] == [0.25, 0.5]
    assert found["best"][0]["winner"] == "pretrain"


def test_evaluations_during_training_are_shown_with_what_they_decided(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [
        {"step": 2 * n + 1, "tokens": 512 * (n + 1), "best": n == 1, "ends": n == 14}
        | {"scores": {"loss(likes)": {"score": 1.0 + abs(n - 1), "accuracy": 0.5}}}
        for n in range(15)
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (run.folder / "metrics" / f"pretrain.1{EVALUATIONS.ending}").write_text(text)
    run.train("pretrain.1", [{"loss": 1.0}])
    (row, *_) = report(run, capsys)["stages"]
    assert [each["step"] for each in row["evaluations"]] == list(range(2, 31, 2))
    assert row["ended"] == 30
    assert "kept" not in row  # the plan's job keeps its last checkpoint
    assert main(["report", str(run.folder)]) == 0
    shown = capsys.readouterr().out
    assert "ended the stage" in shown
    assert "accuracy(likes)" in shown
    steps = [
        int(line.split("|")[2]) for line in shown.splitlines() if "50%" in line or "0.5" in line
    ]
    assert steps == list(range(12, 31, 2))


def test_the_speed_of_a_stage_is_the_median_of_its_steps_beside_the_plans(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    """The plan's estimates are those of the step's own job."""
    job = next(each for each in run.plan.trained() if each.id == "pretrain.1")
    cost = job.cost.model_copy(update={"mfu": 0.5, "tokens_per_second": 250.0})
    resources = replace(job.resources, world_size=4)
    guessed = job.model_copy(update={"cost": cost, "resources": resources})
    jobs = [guessed if each is job else each for each in run.plan.jobs]
    (run.folder / "plan.json").write_text(run.plan.model_copy(update={"jobs": jobs}).to_json())
    run.train(
        "pretrain.1",
        [
            {"loss": 1.0, "tokens_per_second": rate, "seconds": 2.0, "data_seconds": waited}
            | {"mfu": mfu, "memory_reserved": 40.0}
            for rate, mfu, waited in ((8.0, 0.1, 1.9), (800.0, 0.4, 0.05), (804.0, 0.402, 0.05))
        ],
    )
    traces = run.folder / "profiles" / "pretrain"
    traces.mkdir(parents=True)
    (traces / "rank-0-steps-1-2.trace.json.gz").touch()
    (traces / ".rank-0").mkdir()
    (row,) = (row for row in report(run, capsys)["stages"] if row["stage"] == "pretrain")
    assert row["speed"] == {
        "tokens_per_second": 200.0,
        "planned_tokens_per_second": 250.0,
        "mfu": 0.4,
        "planned_mfu": 0.5,
        "memory": 40.0,
        "data": pytest.approx(2.0 / 6.0),
    }
    assert row["profiles"] == [str(traces / "rank-0-steps-1-2.trace.json.gz")]
    assert main(["report", str(run.folder)]) == 0
    shown = capsys.readouterr().out
    assert "Speed (medians over steps)" in shown
    for cell in ("200", "250", "40.0%", "50.0%", "33.3%"):
        assert cell in shown
    assert "profile of pretrain: " in shown


def test_the_tables_have_a_row_a_stage_and_a_column_a_measure(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(run)
    assert main(["report", str(run.folder)]) == 0
    text = capsys.readouterr().out
    assert "\033" not in text
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in text.splitlines()
        if line.startswith("|")
    ]
    assert [
        "stage",
        "of",
        "loss(docs)",
        "reward(align.1.rm)",
        "reward(align.2.rm)",
        "accuracy",
    ] in rows
    assert ["align.1.after", "align.1.dpo", "1.5", "0.125", "", ""] in rows
    assert ["align.2.after", "align.2.dpo", "0.5 *", "", "0.125", ""] in rows
    assert ["align.2.ranks", "align.2.rm", "", "", "", "0.75"] in rows
    assert ["align.2.drafts", "3", "6", "0.5", "0.5", "3", "0.75", "2"] in rows
    assert ["pick", "loss(docs)", "pretrain", "2.25", "yes"] in rows
    assert ["align.2.rm", "reward", "finished", "2", "512", "0.4", "0.75", "0.2"] in rows


def test_steps_have_the_accuracies_on_right_and_on_wrong_ones(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where most steps are right, the accuracy on the wrong ones tells most."""
    sides = {"right_accuracy": 1.0, "wrong_accuracy": 0.25}
    run.train("align.2.rm.1", [{"loss": 0.5, "accuracy": 0.875, **sides}])
    score = {"score": 0.9, "steps": 8, "right": 0.875, **sides}
    run.finish("align.2.ranks", {"scores.json": {"accuracy": score}})
    assert main(["report", str(run.folder)]) == 0
    text = capsys.readouterr().out
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]
    assert ["stage", "of", "accuracy", "right_accuracy", "wrong_accuracy"] in rows
    assert ["align.2.ranks", "align.2.rm", "0.9", "1", "0.25"] in rows
    assert ["align.2.rm", "reward", "finished", "1", "256", "0.5", "0.875", "1", "0.25"] in rows


def test_results_of_another_plan_are_not_reported(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    job = "align.2.ranks"
    old = {"scores.json": {"accuracy": {"score": 0.1}}}
    run.finish(job, {"scores.json": {"accuracy": {"score": 0.9}}}, key="now")
    run.finish(job, old, key="before", plan="another plan's key")
    (row,) = report(run, capsys)["evaluations"]
    assert row["scores"]["accuracy"]["score"] == 0.9
    assert main(["status", str(run.folder), "--json"]) == 0
    states = {row["job"]: row["state"] for row in json.loads(capsys.readouterr().out)["jobs"]}
    assert states[job] == "finished"
    assert states["align.1.ranks"] == "waiting"


def test_a_run_in_progress_is_reported_up_to_its_last_whole_line(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    job = next(each for each in run.plan.jobs if each.id == "pretrain.1")
    run.store.record(job.id, "k", "started", {"plan": job.key})
    line = json.dumps({"step": 0, "tokens": 256, "loss": 5.5})
    (run.folder / "metrics" / "pretrain.1.jsonl").write_text(f'{line}\n{{"step": 1, "lo')
    row = report(run, capsys)["stages"][0]
    assert (row["state"], row["steps"], row["loss"]) == ("started", 1, 5.5)


def test_what_a_part_starts_from_is_shown_only_if_it_was_done_here(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    """The policy was trained in this folder; what it began with was brought along or removed."""
    run.train("align.2.dpo.1", [{"loss": 0.7}, {"loss": 0.5}])
    part = part_of(run.plan, only="align.2.after")
    assert part.part
    assert {"pretrain.1", "align.2.dpo.1", "align.2.rm.1"} <= {*part.part.aside}
    (run.folder / "plan.json").write_text(part.to_json())
    assert [row["stage"] for row in report(run, capsys)["stages"]] == ["align.2.dpo"]


def test_nothing_yet(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    found = report(run, capsys)
    assert {row["state"] for row in found["stages"]} == {"waiting"}
    assert not found["evaluations"]


def test_what_cannot_be_reported_is_one_clear_message(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", str(tmp_path)]) == 1
    assert "is not a run folder" in capsys.readouterr().err
    run.finish("align.2.ranks", {"scores.json": {"accuracy": {"score": 0.9}}})
    (run.folder / "artifacts" / "align.2.ranks-key" / "scores.json").write_text("{")
    assert main(["report", str(run.folder)]) == 1
    shown = capsys.readouterr().err
    assert "align.2.ranks-key is damaged" in shown
    assert "Traceback" not in shown
    (run.folder / "plan.json").write_text("{}")
    assert main(["report", str(run.folder)]) == 1


def test_what_another_run_has_done_is_there(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """A variant that was run further than the recipe shares its results with it."""
    run.train("pretrain.1", [{"loss": 2.0, "lr": 1e-3}] * 12)
    other = Store(variant_folder(run.folder, "hot"))
    other.create()
    planned = next(job.key for job in run.plan.jobs if job.id == "align.1.rm.1")
    result = other.work("made") / "result"
    result.mkdir(parents=True)
    step = {"job": "align.1.rm.1", "step": 0, "tokens": 64, "loss": 0.25, "lr": 1e-4}
    (result / STEPS.kept).write_text(json.dumps(step) + "\n")
    other.publish("made", result, "align.1.rm.1")
    other.record("align.1.rm.1", "made", "finished", {"plan": planned})
    stages = {row["stage"]: row for row in report(run, capsys)["stages"]}
    assert "made" not in stages["pretrain"]
    assert stages["align.1.rm"] == {
        "stage": "align.1.rm",
        "kind": "reward",
        "state": "finished",
        "steps": 1,
        "tokens": 64,
        "loss": 0.25,
        "made": "by hot",
    }
    assert main(["status", str(run.folder)]) == 0
    assert "finished, by hot" in capsys.readouterr().out


def test_a_table_wider_than_the_terminal_comes_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """At 80 columns the headings were cut to `st…`, `ac…` and figures to `0.4…`."""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    shown = Terminal()
    monkeypatch.setattr("sys.stdout", shown)
    for name, value in {"COLUMNS": "80", "NO_COLOR": "1", "TERM": "xterm"}.items():
        monkeypatch.setenv(name, value)
    columns = ["stage", *(f"figure_{number}" for number in range(12))]
    rows = [dict.fromkeys(columns, 0.12345) | {"stage": name} for name in ("first", "second")]
    command._table("Training", columns, rows)
    lines = shown.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    assert "…" not in shown.getvalue()
    words = shown.getvalue().split()
    assert [word for word in words if word.startswith("figure_")] == columns[1:]
    assert words.count("first") == words.count("stage") >= 2
    assert words.count("0.1235") == 24 or words.count("0.1234") == 24


@pytest.fixture
def others(run: Run, tmp_path: Path) -> tuple[Run, Run]:
    """Two runs of one recipe, of which the second trains with another rate, and better."""
    other = Run(tmp_path / "hot", SPEC.replace("lr = 1e-3", "lr = 2e-3"))
    for each, loss in ((run, 3.0), (other, 2.5)):
        each.train("pretrain.1", [{"loss": loss, "seconds": 36.0}] * 12)
        each.finish("align.1.after", {"scores.json": {"loss(docs)": {"score": loss - 1}}})
        ranked = [{"loss": 0.5, "accuracy": 1 - loss / 10}]
        each.train("align.1.rm.1", ranked)
        each.finish("align.1.ranks", {"scores.json": {"accuracy": {"score": 1 - loss / 5}}})
    return run, other


def shown(capsys: pytest.CaptureFixture[str], *words: str | Path) -> str:
    assert main(["report", *map(str, words)]) == 0
    return capsys.readouterr().out


def test_runs_are_compared_in_tables_with_the_best_marked(
    others: tuple[Run, Run], capsys: pytest.CaptureFixture[str]
) -> None:
    folders = [each.folder for each in others]
    text = shown(capsys, *folders)
    assert text.startswith("hot, compared with run:\n~ pretrain: train, export rerun, 12 steps")
    assert "lr: 0.001 → 0.002" in text
    rows = {
        tuple(cell.strip() for cell in line.strip("|").split("|"))
        for line in text.splitlines()
        if line.startswith("|")
    }
    assert {
        ("pretrain", "loss", "3", "2.5 *"),
        ("align.1.rm", "loss", "0.5", "0.5"),
        ("align.1.rm", "accuracy", "0.7", "0.75 *"),
        ("align.1.after", "align.1.dpo", "loss(docs)", "2", "1.5 *"),
        ("align.1.ranks", "align.1.rm", "accuracy", "0.4", "0.5 *"),
    } <= rows
    assert "hours" in text
    markdown = shown(capsys, *folders, "--markdown")
    assert "| pretrain | loss | 3 | **2.5** |" in markdown
    assert "```text\n~ pretrain: train, export rerun" in markdown


def test_runs_as_json_have_their_names_and_differences(
    others: tuple[Run, Run], capsys: pytest.CaptureFixture[str]
) -> None:
    found = json.loads(shown(capsys, *(each.folder for each in others), "--json"))
    assert list(found["runs"]) == ["run", "hot"]
    assert found["runs"]["hot"]["stages"][0]["loss"] == 2.5
    (first, *_) = (job for job in found["differences"]["hot"]["jobs"] if job["what"] == "again")
    assert first["job"] == "pretrain.1"


def test_markdown_shows_names_as_they_are(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    fill(run)
    text = shown(capsys, run.folder, "--markdown")
    assert text.startswith("# Post-training\n\n")
    assert "rejected\\_reward" not in text
    assert "kept\\_reward" in text
    assert "| align.2.drafts | 3 | 6 |" in text
    tables = [line for line in text.splitlines() if line.startswith("|")]
    assert {line.count(" | ") for line in tables if "pick" in line} == {4}


def page(run: Run, capsys: pytest.CaptureFixture[str], *more: Path) -> str:
    to = run.folder.parent / "report.html"
    assert shown(capsys, run.folder, *more, "--html", to) == ""
    return to.read_text(encoding="utf-8")


def test_a_page_has_what_the_tables_have_and_samples_and_lineage(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(run)
    answered(run, "align.2.drafts", 5)
    text = page(run, capsys)
    for cell in ("align.2.after", "loss(docs)", "question 3", "an answer 3", "pretrain.1-key"[:12]):
        assert f">{cell}<" in text
    assert "default-src 'none'" in text
    said = text.partition('<script type="application/json"')[0]
    assert re.findall(r' (?:src|href)="([^"#][^"]*)"', said) == ["data:,"]
    assert len(text.encode()) < 3_000_000


def test_what_a_model_writes_is_text_and_nothing_else(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    calm = page(run, capsys).count("<script")
    answered(run, "align.1.drafts", 3, text="</td><script>alert(1)</script><img src=x onerror=y>")
    text = page(run, capsys)
    assert text.count("<script") == calm
    assert "<img" not in text.partition('<script type="application/json"')[0]
    assert "&lt;script&gt;alert(1)" in text


def test_texts_of_a_run_are_text_and_nothing_else(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of its plan, its events and its launch."""
    fill(run)
    calm = page(run, capsys).count("<script")
    hostile = "</title></script><script>alert(1)</script><img src=x onerror=alert(2)>"
    plan = json.loads((run.folder / "plan.json").read_text())
    plan["title"] = plan["cite"] = hostile
    for stage in plan["stages"].values():
        for each in stage["values"].values():
            each["value"] = hostile
    (run.folder / "plan.json").write_text(json.dumps(plan))
    run.store.tell({"event": "error", "message": hostile, "help": hostile})
    other = Run(run.folder.with_name("<img src=x>"))
    other.train("pretrain.1", [{"loss": 1.0}])
    for text in (page(run, capsys), page(run, capsys, other.folder)):
        assert text.count("<script") == calm
        assert "<img" not in text.partition('<script type="application/json"')[0]
        assert "&lt;script&gt;alert(1)" in text


def test_pages_of_long_runs_and_of_many_stay_small(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = {"lr": 1e-4, "grad_norm": 0.123456, "tokens_per_second": 123456.7, "mfu": 0.41234}
    run.train("pretrain.1", [{"loss": 3 + n % 7 / 10, **figures} for n in range(5000)])
    for number in (1, 2):
        answered(run, f"align.{number}.drafts", 300, text="漢字" * 2000)
    text = page(run, capsys)
    assert len(text.encode()) < 3_000_000
    links = []
    for number in range(11):
        links.append(tmp_path / f"other{number}")
        links[-1].symlink_to(run.folder)
    assert len(page(run, capsys, *links).encode()) < 3_000_000
    assert main(["report", *[str(run.folder)] * 13]) == 1
    assert "13 runs are too many to compare" in capsys.readouterr().err


def test_a_page_that_cannot_be_written_is_one_clear_message(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for to, code, words in ((tmp_path, 2, "is a folder"), (tmp_path / "no" / "a", 1, "written")):
        assert main(["report", str(run.folder), "--html", str(to)]) == code
        said = capsys.readouterr()
        assert words in said.err
        assert said.out == ""
