"""`etude plan`, in a process of its own."""

import json
import os
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
from etude_cli import COMMAND, etude
from specs import HEAD, POST_TRAINING, after, stage
from test_cli_check import HEAVY

SPEC = (
    HEAD.replace("seed = 1", 'seed = 1, title = "A [/b] :smile: title", cite = "[Table 3]"')
    + 'cluster box { gpus = 2 of "H[/x]100" }\n'
    + stage(
        lr="0 -> 1e-3 for 10 steps then -> 1e-5", seq_len="16 for 50 steps then 32", tokens="10k"
    )
    + after(
        body="gate seq_len {\nrequire needle >= 10%\nrequire loss(short) <= 100% of start\n}",
        average="polyak every 1 step",
    )
    + "stage report: evaluate { loss = [web] }\n"
    + 'expect { first.tokens = 10k within 1% cite "[1]" }\n'
)


def plan(folder: Path, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    done = etude("plan", *arguments, cwd=folder, **options)
    assert "Traceback" not in done.stderr
    assert "bug in etude" not in done.stderr
    return done


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "spec.etude").write_text(SPEC)
    (tmp_path / "bad.etude").write_text(SPEC.replace("10k", "1.5"))
    return tmp_path


def test_the_table_is_plain_text_in_a_pipe(folder: Path) -> None:
    done = plan(folder, "spec.etude")
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout
    for shown in (
        "A [/b] :smile: title",
        "([Table 3])",
        "first.1",
        "first.2",
        "second.1",
        "H[/x]100",
        "1e-05",
        "requested at 10,000 tokens",
        "needle >= ",
        "× start",
        "report: evaluate of second",
        "parameters",
        "FLOPs",
        "claim first.tokens = 10,000 within 1.00%: computed",
        ", [1]",
        "(from first)",
        "(etude)",
        "(spec)",
    ):
        assert shown in done.stdout


def test_post_training_is_shown_with_its_pauses(folder: Path) -> None:
    (folder / "post.etude").write_text(POST_TRAINING)
    done = plan(folder, "post.etude")
    assert (done.returncode, done.stderr) == (0, "")
    lines = [" ".join(line.replace("|", " ").split()) for line in done.stdout.splitlines()]
    for shown in (
        "align.1.drafts sample first 4 draws of each of asked[1], 1 kept by align.1.rm",
        "labels[2] pause waits for 2.jsonl, with the draws of align.2.drafts to label",
        "reference.align.1.dpo.labels[1] reference align.1.sft labels[1]",
        "align.2.chat average 0.5 × align.2.dpo, 0.5 × align.1.dpo",
        "exam evaluate align.2.chat reward(align.2.rm)",
        "pick best align.2.chat, align.1.chat the lowest loss(web)",
        "align.1.rm: reward, ≤ 640 tokens, 10 steps",
        "align.2.drafts: sample of align.1.chat, as align.1.drafts but",
        "keep best (etude)",
        "draws 4 (spec)",
        "similar 90% (spec)",
        "reference align.1.sft (etude)",
        "beta 0.1 (etude)",
        "of align.2.dpo, align.1.dpo (spec)",
        "batch 4 pairs (spec)",
    ):
        assert shown in lines, shown
    pauses = [n for n, line in enumerate(lines) if " pause waits for " in line]
    second = next(n for n, line in enumerate(lines) if line.startswith("align.2.drafts sample"))
    assert pauses[0] < second < pauses[1]
    assert any(" ≤ 640 10 16 4 pairs " in line for line in lines)


def test_the_table_goes_through_any_encoding(folder: Path) -> None:
    for encoding in ("ascii", "latin-1"):
        environment = os.environ | {"PYTHONIOENCODING": encoding}
        done = plan(folder, "spec.etude", env=environment, encoding=encoding)
        assert done.returncode == 0
        assert "first.1" in done.stdout


def test_the_plan_as_json_is_the_plan_in_the_file(folder: Path) -> None:
    shown = plan(folder, "spec.etude", "--json")
    written = plan(folder, "spec.etude", "-o", "plan.json")
    assert (shown.returncode, written.returncode) == (0, 0)
    assert (written.stdout, written.stderr) == ("", "")
    assert (folder / "plan.json").read_text() == shown.stdout
    assert json.loads(shown.stdout)["etude_plan"] == 1


def test_errors_are_those_of_check(folder: Path) -> None:
    done, checked = plan(folder, "bad.etude"), etude("check", "bad.etude", cwd=folder)
    assert (done.returncode, done.stdout) == (1, "")
    # Notes are what `check` alone shows.
    assert done.stderr.startswith("error[E207]")
    assert done.stderr.removesuffix("\n1 error\n") in checked.stderr
    done = plan(folder, "bad.etude", "--json", "-o", "plan.json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["diagnostics"]
    assert not (folder / "plan.json").exists()


@pytest.mark.parametrize("output", [".", "missing/plan.json", "x" * 300, "/dev/full"])
def test_a_file_that_cannot_be_written_is_an_error(output: str, folder: Path) -> None:
    done = plan(folder, "spec.etude", "-o", output)
    assert done.returncode == 1
    assert "cannot be written: " in done.stderr


def test_ranks_take_the_place_of_the_cluster(folder: Path) -> None:
    done = plan(folder, "spec.etude", "--ranks", "4", "--json")
    jobs = [job for job in json.loads(done.stdout)["jobs"] if job["kind"] == "train"]
    assert {(job["resources"]["world_size"], job["resources"]["device"]) for job in jobs} == {
        (4, "cpu")
    }
    assert plan(folder, "spec.etude", "--ranks", "3").returncode == 1


def test_planning_imports_nothing_heavy(folder: Path) -> None:
    done = plan(folder, "spec.etude", env=os.environ | {"PYTHONPROFILEIMPORTTIME": "1"})
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "etude.compiler.stages.lower" in imported
    assert not imported & set(HEAVY)


def test_a_reader_that_stops_reading_is_no_error(folder: Path) -> None:
    done = subprocess.run(
        f"{shlex.join(COMMAND)} plan spec.etude --json | head -c 10",
        shell=True,
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert done.stderr == ""
