"""`etude cancel` of runs that Slurm has."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from slurm_runs import SMALL, Runs, needs_slurm, steps

pytestmark = needs_slurm
Clusters = Callable[[int], Runs]
LONG = SMALL.replace("steps   = 60", "steps   = 4000").replace("every 5 steps", "every 500 steps")


@pytest.mark.exhaustive
def test_a_run_saves_is_not_queued_again_and_continues_when_it_is_launched(
    clusters: Clusters, tmp_path: Path
) -> None:
    runs = clusters(2)
    run = runs.launch(tmp_path, LONG)
    jobs = runs.jobs(run)
    runs.wait(lambda: steps(run) > 20, run, "training")
    status = runs.etude("status", run, "--json", cwd=tmp_path)
    assert json.loads(status.stdout)["progress"]["phase"] == "2-gang"
    done = runs.etude("cancel", run, "--yes", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    states = runs.cluster.states()
    assert states[jobs["3-small"]] == "CANCELLED"
    assert states[jobs["2-gang"]] not in ("RUNNING", "PENDING", "COMPLETING")
    assert runs.restarts(jobs["2-gang"]) == 0
    reached = steps(run)
    saved = [path.parent.name for path in run.glob("work/*/checkpoints/step-*/.metadata")]
    # On a slow machine training has passed step 500, which has a checkpoint of its own.
    assert f"step-{reached}" in saved, runs.logs(run)
    assert not (run / "launch.json").exists()
    said = runs.etude("status", run, cwd=tmp_path).stdout
    assert said.startswith("stopped: "), said
    # What was saved is what the next launch continues from.
    again = runs.launch(tmp_path, LONG)
    assert list(runs.jobs(again)) == ["2-gang", "3-small"]
    runs.wait(lambda: steps(run) > reached, run, "training again")
    assert runs.etude("cancel", run, "--yes", cwd=tmp_path).returncode == 0
