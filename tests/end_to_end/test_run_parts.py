"""`--until`, `--from` and `--only`, as users run a part of a plan."""

import json
from pathlib import Path

import pytest
from etude_cli import TINY, etude, weights


def begun(output: str) -> list[str]:
    events = [json.loads(line) for line in output.splitlines()]
    return [event["job"] for event in events if event["event"] == "started"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the tiny spec; the tests below run it in the order in which they stand."""
    made = tmp_path_factory.mktemp("parts")
    (made / "tiny.etude").write_text(TINY)
    return made


def test_a_part_that_begins_with_what_is_not_there_names_it_and_what_makes_it(folder: Path) -> None:
    done = etude("run", "tiny.etude", "--from", "anneal", cwd=folder)
    assert done.returncode == 1
    assert "`--from anneal` begins with the result of pretrain.2, which is not there" in done.stderr
    assert "etude run SPEC --until pretrain" in done.stderr
    assert not (folder / "runs").exists()


def test_a_stage_that_the_plan_does_not_have_is_named_with_the_nearest(folder: Path) -> None:
    for command in ("run", "plan"):
        done = etude(command, "tiny.etude", "--until", "pretrian", cwd=folder)
        assert done.returncode == 2
        assert "the plan has no stage `pretrian`" in done.stderr
        assert "did you mean `pretrain`?" in done.stderr
    done = etude("plan", "tiny.etude", "--until", "pretrain", "--deep", cwd=folder)
    assert done.returncode == 2
    assert "remove --until" in done.stderr


def test_a_plan_until_a_stage_is_shown_without_what_follows(folder: Path) -> None:
    done = etude("plan", "tiny.etude", "--until", "pretrain", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "anneal" not in done.stdout
    assert "a part of the plan: 4 jobs of the plan left out" in done.stdout


def test_data_until_a_stage_are_prepared(folder: Path) -> None:
    done = etude("prepare", "tiny.etude", "--from", "anneal", "--json", cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert begun(done.stdout) == ["tokenizer.words", "dataset.docs", "dataset.sums"]


def test_until_a_stage_makes_its_model_and_the_rest_follows_later(folder: Path) -> None:
    done = etude("run", "tiny.etude", "--until", "pretrain", "--json", cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert begun(done.stdout) == ["pretrain.1", "pretrain.2"]
    shown = json.loads(etude("status", "runs/tiny", "--json", cwd=folder).stdout)
    assert shown["part"]["until"] == "pretrain"
    assert "anneal.1" in shown["part"]["left_out"]
    assert {row["state"] for row in shown["jobs"]} == {"finished"}
    text = etude("status", "runs/tiny", cwd=folder).stdout
    assert "a part of the plan: --until pretrain; 4 jobs of the plan are left out" in text

    refused = etude("run", "tiny.etude", "--only", "report", cwd=folder)
    assert refused.returncode == 1
    assert "begins with the result of anneal.1, which is not there" in refused.stderr

    done = etude("run", "tiny.etude", "--only", "anneal", "--json", cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert begun(done.stdout) == ["anneal.1", "export.anneal"]
    assert weights(folder / "runs" / "tiny", "anneal")

    done = etude("run", "tiny.etude", "--from", "report", "--json", cwd=folder)
    assert begun(done.stdout) == ["heldout.report", "report"]
    done = etude("run", "tiny.etude", "--json", cwd=folder)
    assert done.returncode == 0
    assert begun(done.stdout) == []


def test_what_is_not_needed_any_more_is_not_made_again(folder: Path) -> None:
    """The data of a stage that is aside are gone: its result is what counts."""
    run = folder / "runs" / "tiny"
    plan = json.loads((run / "plan.json").read_bytes())
    made = {
        json.loads((path / "manifest.json").read_bytes())["job"]: path
        for path in (run / "artifacts").iterdir()
    }
    assert {job["id"] for job in plan["jobs"]} == made.keys()
    for gone in ("pretrain.1", "heldout.report", "report"):
        for file in sorted(made[gone].rglob("*"), reverse=True):
            file.unlink() if file.is_file() else file.rmdir()
        made[gone].rmdir()
    done = etude("run", "tiny.etude", "--only", "report", "--json", cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert begun(done.stdout) == ["heldout.report", "report"]


def test_a_part_of_a_variant_and_of_a_miniature(folder: Path) -> None:
    (folder / "tiny.etude").write_text(TINY + "variant brief { anneal.steps = 4 }\n")
    done = etude(
        "run", "tiny.etude", "--variant", "brief", "--until", "anneal", "--json", cwd=folder
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "anneal.1" in begun(done.stdout)
    assert "report" not in begun(done.stdout)
    shown = etude("plan", "tiny.etude", "--miniature", "--until", "pretrain", "--json", cwd=folder)
    assert shown.returncode == 0, shown.stderr
    jobs = json.loads(shown.stdout)["jobs"]
    assert not any(job["stage"] == "anneal" for job in jobs)
