"""Claims that do not hold: shown by every command, decided by `check`, `verify` and `run`."""

import json
from pathlib import Path

import pytest
from etude_cli import etude
from specs import HEAD, stage

SPEC = HEAD + stage() + "expect { first.tokens = 6.5k within 1% }\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "spec.etude").write_text(SPEC)
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        ((), "computed 6,400"),
        (("--why", "first.tokens"), "6,400"),
        (("--provenance",), "first"),
        (("--json",), '"holds": false'),
    ],
)
def test_plan_reports_the_claim_and_shows_what_was_asked(
    folder: Path, arguments: tuple[str, ...], shown: str
) -> None:
    done = etude("plan", "spec.etude", *arguments, cwd=folder)
    assert done.returncode == 0
    assert "error[E462]: `first.tokens` is 6,400 in this plan, not 6,500" in done.stderr
    assert shown in done.stdout


def test_plan_writes_a_plan_that_says_which_claims_fail(folder: Path) -> None:
    done = etude("plan", "spec.etude", "-o", "plan.json", cwd=folder)
    assert (done.returncode, "E462" in done.stderr) == (0, True)
    (claim,) = json.loads((folder / "plan.json").read_text())["claims"]
    assert (claim["computed"], claim["holds"]) == (6400, False)


@pytest.mark.parametrize("command", ["check", "verify"])
def test_check_and_verify_fail(folder: Path, command: str) -> None:
    assert etude(command, "spec.etude", cwd=folder).returncode == 1


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("spec.etude", "error[E462]: `first.tokens` is 6,400 in this plan, not 6,500"),
        ("plan.json", "claims 6,500 for `first.tokens`, but this plan has 6,400"),
    ],
)
def test_run_says_it_once_and_trains_nothing(folder: Path, file: str, said: str) -> None:
    etude("plan", "spec.etude", "-o", "plan.json", cwd=folder)
    done = etude("run", file, cwd=folder)
    assert done.returncode == 1
    assert said in done.stderr
    assert done.stderr.count("error") == (1 if file == "plan.json" else 2)  # "1 error"
    assert not (folder / "runs").exists()


def test_with_a_change_of_the_command_line_claims_are_not_asked(folder: Path) -> None:
    done = etude("prepare", "spec.etude", "--set", "recipe.seed=2", cwd=folder)
    assert "E462" not in done.stderr
    assert "6,500" not in done.stderr


def test_estimates_are_not_compared_where_other_machines_stand_in(folder: Path) -> None:
    gpus = 'cluster box { gpus = 1 of "H100 80GB" }\nexpect { first.gpu_hours = 7 }\n'
    (folder / "gpus.etude").write_text(HEAD + gpus + stage())
    assert "E462" in etude("check", "gpus.etude", cwd=folder).stderr
    assert "E46" not in etude("check", "gpus.etude", "--ranks", "1", cwd=folder).stderr
