"""What can go from a run folder, and what never does."""

import json
import os
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
from specs import HEAD, after, plan, stage

from etude.cli import clean
from etude.cli.diff import _finished
from etude.compiler.plan.part import part_of
from etude.compiler.plan.plan import Plan
from etude.runtime.errors import RunError
from etude.runtime.run_folder.cleaning import Item, removable, remove
from etude.runtime.run_folder.outcomes import outcomes
from etude.runtime.run_folder.store import Store
from etude.runtime.run_folder.variant_folders import variant_folder

BASE = HEAD + stage() + after()
CHANGED = HEAD + stage() + after(steps="11")
RENAMED = HEAD + stage() + after("other", steps="9")
VARIED = BASE + "variant brief { second.steps = 5 }\n"


def ran(folder: Path, of: Plan, *, data: str = "") -> Store:
    """A folder in which a plan was run to its end; keys of artifacts stand for those of runs."""
    store = Store(folder)
    store.create()
    (folder / "plan.json").write_text(of.to_json())
    for job in of.jobs:
        key = job.key[:20] + data
        if store.artifact(key):
            store.record(job.id, key, "kept", {"plan": job.key})
            continue
        store.record(job.id, key, "started", {"plan": job.key})
        result = store.work(key) / "result"
        result.mkdir(parents=True)
        (result / "weights").write_bytes(b"x" * 1000)
        store.publish(key, result, job.id)
        store.record(job.id, key, "finished", {"plan": job.key})
    for name, key in of.outputs.items():
        store.link(name, key[:20] + data)
    return store


def named(items: list[Item]) -> set[tuple[str, str]]:
    return {(item.kind, item.job or item.path.name) for item in items}


def test_what_the_plan_uses_stays(tmp_path: Path) -> None:
    ran(tmp_path, plan(BASE))
    assert removable(tmp_path) == []


def test_results_of_an_earlier_recipe_can_go_and_shared_ones_stay(tmp_path: Path) -> None:
    ran(tmp_path, plan(BASE))
    store = ran(tmp_path, plan(CHANGED))
    found = removable(tmp_path)
    assert named(found) == {("artifacts", "second.1"), ("artifacts", "export.second")}
    assert all(item.bytes > 1000 for item in found)
    assert {item.why for item in found} == {"the recipe's last plan does not use it"}
    remove(tmp_path, found)
    assert removable(tmp_path) == []
    for job in plan(CHANGED).jobs:
        assert store.artifact(job.key[:20])
    assert (tmp_path / "models" / "second" / "weights").read_bytes()
    assert not any((tmp_path / "work").iterdir())


def test_a_link_to_what_is_gone_goes_too(tmp_path: Path) -> None:
    ran(tmp_path, plan(BASE))
    ran(
        tmp_path, plan(BASE.replace("stage second", "stage other").replace("steps = 10", "steps=9"))
    )
    assert (tmp_path / "models" / "second").exists()
    remove(tmp_path, removable(tmp_path))
    assert not os.path.lexists(tmp_path / "models" / "second")
    assert (tmp_path / "models" / "other").exists()


def test_what_a_variant_uses_stays_for_all(tmp_path: Path) -> None:
    ran(tmp_path, plan(VARIED))
    own = variant_folder(tmp_path, "brief")
    ran(own, plan(VARIED, variant="brief"))
    assert removable(tmp_path) == removable(own) == []
    ran(tmp_path, plan(VARIED.replace("steps = 100", "steps = 90")))
    # The first stage of the recipe is another one now, and the variant still has the old one.
    assert named(removable(tmp_path)) == {("artifacts", "second.1"), ("artifacts", "export.second")}


def test_what_a_part_leaves_out_stays(tmp_path: Path) -> None:
    whole = plan(BASE)
    ran(tmp_path, whole)
    ran(tmp_path, part_of(whole, until="first"))
    assert removable(tmp_path) == []


def test_results_of_earlier_data_can_go(tmp_path: Path) -> None:
    ran(tmp_path, plan(BASE), data="old")
    ran(tmp_path, plan(BASE), data="new")
    found = removable(tmp_path)
    assert len(found) == len(plan(BASE).jobs)
    assert all(item.path.name.endswith("old") for item in found)


def test_work_of_finished_and_unused_jobs_can_go_and_that_of_others_stays(tmp_path: Path) -> None:
    made = plan(BASE)
    store = ran(tmp_path, made)
    finished, begun = made.jobs[0], "f" * 20
    for key in (finished.key[:20], begun, "unknown"):
        (store.work(key) / "checkpoints").mkdir(parents=True)
    store.record("first.1", begun, "started", {"plan": made.jobs[-1].key})
    for step in (5, 10, 15, 20):
        folder = store.work(begun) / "checkpoints" / f"step-{step}"
        folder.mkdir()
        (folder / "shard").write_bytes(b"x" * 10)
        if step != 20:
            (folder / ".metadata").touch()
    found = removable(tmp_path)
    assert {(i.kind, i.path.name) for i in found if i.kind != "artifacts"} == {
        ("work", finished.key[:20]),
        ("work", "unknown"),
        ("checkpoints", "step-5"),
        ("checkpoints", "step-20"),
    }
    whys = {item.path.name: item.why for item in found}
    assert whys["step-5"] == "there are newer ones"
    assert whys["step-20"] == "it was never finished"
    assert whys[finished.key[:20]] == "the job is finished"
    remove(tmp_path, found)
    left = sorted(path.name for path in (store.work(begun) / "checkpoints").iterdir())
    assert left == ["step-10", "step-15"]


def test_the_cache_can_go_and_kinds_can_be_kept(tmp_path: Path) -> None:
    ran(tmp_path, plan(BASE))
    (tmp_path / "cache" / "order.npy").write_bytes(b"x" * 64)
    assert [(item.kind, item.bytes) for item in removable(tmp_path)] == [("cache", 64)]
    assert removable(tmp_path, ["artifacts", "work"]) == []


def test_profiles_go_only_when_they_are_named(tmp_path: Path) -> None:
    ran(tmp_path, plan(BASE))
    trace = tmp_path / "profiles" / "first" / "rank-0-steps-1-2.trace.json.gz"
    trace.parent.mkdir(parents=True)
    trace.write_bytes(b"x" * 64)
    assert removable(tmp_path) == []
    (found,) = removable(tmp_path, ["cache", "profiles"])
    assert (found.kind, found.job, found.bytes) == ("profiles", "first", 64)
    remove(tmp_path, [found])
    assert not trace.exists()


def test_what_has_a_link_elsewhere_frees_nothing(tmp_path: Path) -> None:
    ran(tmp_path, plan(BASE))
    cache = tmp_path / "cache" / "one"
    cache.write_bytes(b"x" * 100)
    os.link(cache, tmp_path / "elsewhere")
    assert [item.bytes for item in removable(tmp_path)] == [0]
    os.rename(tmp_path / "elsewhere", tmp_path / "cache" / "two")
    assert sum(item.bytes for item in removable(tmp_path)) == 100


def test_an_artifact_is_whole_or_gone_wherever_a_removal_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran(tmp_path, plan(BASE))
    store = ran(tmp_path, plan(CHANGED))
    found = removable(tmp_path)

    class Killed(Exception):
        pass

    def die(path: Path, **rest: Any) -> None:
        if path.exists():
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("shutil.rmtree", die)
        with pytest.raises(Killed):
            remove(tmp_path, found)
    for item in found:
        assert not item.path.exists() or store.artifact(item.path.name)
    remove(tmp_path, removable(tmp_path))
    assert removable(tmp_path) == []
    assert not any((tmp_path / "work").iterdir())


def test_a_plan_that_cannot_be_read_keeps_everything(tmp_path: Path) -> None:
    ran(tmp_path, plan(BASE))
    (tmp_path / "plan.json").write_text('{"etude_plan": 0}')
    with pytest.raises(RunError, match="so what it needs is not known"):
        removable(tmp_path)


def test_what_was_removed_counts_as_done_no_longer(tmp_path: Path) -> None:
    """The recipe is changed back: status, and a plan against the run, say what `run` then does."""
    ran(tmp_path, plan(BASE))
    store = ran(tmp_path, plan(CHANGED))
    assert outcomes(plan(BASE), store)["second.1"].state == "finished"
    remove(tmp_path, removable(tmp_path))
    assert outcomes(plan(BASE), store).keys() == {"dataset.web", "first.1"}
    (key,) = [job.key for job in plan(BASE).jobs if job.id == "second.1"]
    assert key not in _finished(store)


def test_a_clock_that_is_set_back_changes_no_outcome(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.time", lambda: next(clock))
    clock = iter(range(10**6, 0, -1000))  # each line of the journal is earlier than the last
    store = ran(tmp_path, plan(BASE))
    assert {each.state for each in outcomes(plan(BASE), store).values()} == {"finished"}


def run(folder: Path, **given: Any) -> int:
    options = {"keep": [], "profiles": False, "yes": False, "json": False} | given
    return clean.run(Namespace(folder=str(folder), **options))


def test_the_command_shows_first_and_removes_when_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ran(tmp_path, plan(BASE))
    ran(tmp_path, plan(CHANGED))
    assert run(tmp_path) == 0
    shown = capsys.readouterr().out
    assert "second.1" in shown
    assert "can be removed: artifacts" in shown
    assert "nothing was removed: --yes removes it" in shown
    assert len(removable(tmp_path)) == 2

    assert run(tmp_path, json=True) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["removed"] is False
    assert {item["job"] for item in found["items"]} == {"second.1", "export.second"}
    assert found["bytes"] == sum(item["bytes"] for item in found["items"])

    assert run(tmp_path, yes=True, keep=["artifacts"]) == 0
    assert "has nothing to remove" in capsys.readouterr().out
    assert run(tmp_path, yes=True) == 0
    assert "freed" in capsys.readouterr().out
    assert run(tmp_path, yes=True, json=True) == 0
    assert json.loads(capsys.readouterr().out) == {"removed": False, "bytes": 0, "items": []}


def test_a_run_in_use_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = ran(tmp_path, plan(BASE))
    ran(tmp_path, plan(CHANGED))
    with store.lease():
        assert run(tmp_path, yes=True) == 1
    problem = capsys.readouterr().err
    assert "a run is using" in problem
    assert "etude cancel" in problem
    assert len(removable(tmp_path)) == 2


def test_what_is_no_run_folder_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, yes=True) == 1
    assert "is not a run folder" in capsys.readouterr().err
