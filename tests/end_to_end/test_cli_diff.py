"""`etude diff`, `etude plan --against` and `etude verify`, as users call them."""

import json
from pathlib import Path

import pytest
from etude_cli import TINY, etude

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def specs(tmp_path: Path) -> Path:
    (tmp_path / "old.etude").write_text(TINY)
    (tmp_path / "new.etude").write_text(TINY.replace("3e-4", "2e-4"))
    return tmp_path


def test_two_specs(specs: Path) -> None:
    done = etude("diff", "old.etude", "new.etude", cwd=specs)
    assert done.returncode == 0
    assert "pretrain" in done.stdout
    assert "new.etude:" in done.stdout
    assert "rerun" in done.stdout
    assert etude("diff", "old.etude", "old.etude", cwd=specs).stdout.startswith("No difference")


def test_a_changed_placement_is_shown_as_a_change_that_keeps_results(specs: Path) -> None:
    placed = TINY.replace("lr ", "recompute = full\n  lr ", 1)
    assert placed != TINY
    (specs / "placed.etude").write_text(placed)
    done = etude("diff", "old.etude", "placed.etude", cwd=specs)
    assert done.returncode == 0, done.stderr
    assert "= pretrain: train kept, the same result up to rounding" in done.stdout
    assert "recompute: none → full  (placed.etude:" in done.stdout
    assert " 0 rerun, 0 new, 0 gone" in done.stdout
    code = etude("diff", "old.etude", "placed.etude", "--detailed-exitcode", cwd=specs)
    assert code.returncode == 2


def test_the_exit_code_tells_a_difference(specs: Path) -> None:
    code = "--detailed-exitcode"
    assert etude("diff", "old.etude", "new.etude", code, cwd=specs).returncode == 2
    assert etude("diff", "old.etude", "old.etude", code, cwd=specs).returncode == 0
    missing = etude("diff", "old.etude", "none.etude", code, cwd=specs)
    assert missing.returncode == 1
    assert "none.etude" in missing.stderr


def test_a_plan_against_an_earlier_one(specs: Path) -> None:
    assert etude("plan", "old.etude", "-o", "plan.json", cwd=specs).returncode == 0
    done = etude("plan", "new.etude", "--against", "plan.json", "--json", cwd=specs)
    assert done.returncode == 0
    found = json.loads(done.stdout)
    assert {job["what"] for job in found["jobs"]} == {"kept", "again"}
    (specs / "plan.json").write_text('{"etude_plan": 1}')
    broken = etude("plan", "new.etude", "--against", "plan.json", cwd=specs)
    assert broken.returncode == 1
    assert "Traceback" not in broken.stderr
    empty = etude("plan", "new.etude", "--against", ".", cwd=specs)
    assert empty.returncode == 1
    assert "not a run folder" in empty.stderr


def test_claims_are_verified(tmp_path: Path) -> None:
    done = etude("verify", EXAMPLES, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["failed"] == 0
    assert {"parameters", "pretrain.flops"} <= {row["claim"] for row in found["claims"]}
    (tmp_path / "bad.etude").write_text(
        TINY + "expect { pretrain.steps = 24, anneal.steps = 99 within 1% }\n"
    )
    bad = etude("verify", "bad.etude", cwd=tmp_path)
    assert bad.returncode == 1
    assert "does not" in bad.stdout
    assert "1 hold, 1 do not" in bad.stdout
    table = etude("verify", "bad.etude", "--markdown", cwd=tmp_path)
    assert table.stdout.splitlines()[0].startswith("| recipe | claim |")
    nothing = etude("verify", tmp_path / "empty", cwd=tmp_path)
    assert nothing.returncode == 1
    assert "Traceback" not in nothing.stderr
