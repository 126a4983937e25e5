"""Run folders that this version cannot work in, or may not."""

import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from run_folders import SPEC
from specs import plan

from etude.compiler.plan.plan import VERSION
from etude.compiler.plan.plan_schema import PlanError, read_plan
from etude.runtime.errors import RunError, Stopped
from etude.runtime.gang import execute
from etude.runtime.run_folder.store import Store


def prepare(folder: Path) -> None:
    """Makes the data of a small spec in a run folder."""
    execute(plan(SPEC), folder, folder.parent, lambda event: None, prepare=True)


def test_a_folder_of_a_later_version_is_refused_and_stays_as_it_is(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    text = json.dumps({"etude_plan": VERSION + 1, "unheard_of": []})
    (run / "plan.json").write_text(text)
    with pytest.raises(RunError, match="last used by a later version of etude") as refused:
        prepare(run)
    assert "--folder" in refused.value.help
    assert os.listdir(run) == ["plan.json"]
    assert (run / "plan.json").read_text() == text
    with pytest.raises(PlanError, match="a plan of a later version of etude") as unread:
        read_plan(run / "plan.json")
    assert unread.value.help.startswith("update etude")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"etude_plan": "2"}', "\x00" * 9])
def test_a_plan_that_is_damaged_is_written_anew(text: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "plan.json").write_text(text)
    prepare(run)
    assert read_plan(run / "plan.json") == plan(SPEC)


@pytest.fixture(params=[0o077, 0o022, 0])
def mask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def test_files_are_for_whom_the_umask_says(mask: int, tmp_path: Path) -> None:
    prepare(tmp_path / "run")
    for path in (tmp_path / "run").rglob("*"):
        if not path.is_symlink():
            most = 0o777 if path.is_dir() else 0o666
            assert stat.S_IMODE(path.stat().st_mode) == most & ~mask, path


def test_a_folder_of_another_user_is_one_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(tmp_path / "run")
    real = os.open

    def refused(path: str, flags: int, *rest: int, **named: int) -> int:
        if str(path).endswith("journal.jsonl") and flags & os.O_RDWR:
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, flags, *rest, **named)

    monkeypatch.setattr(os, "open", refused)
    with pytest.raises(Stopped, match=r"journal\.jsonl cannot be used: permission denied") as said:
        Store(tmp_path / "run").record("job", "key", "started")
    assert said.value.help.startswith("make it writable for this user and run again")


def test_what_a_job_left_that_was_killed_while_it_ended_is_removed(tmp_path: Path) -> None:
    run = tmp_path / "run"
    prepare(run)
    for artifact in (run / "artifacts").iterdir():
        (run / "work" / artifact.name).mkdir(parents=True)
        (run / "work" / artifact.name / "ran.json").write_text("[]")
    prepare(run)
    assert os.listdir(run / "work") == []
