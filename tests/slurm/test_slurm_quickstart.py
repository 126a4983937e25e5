"""The quickstart across two nodes, through all of its phases, whatever happens in them."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from slurm_runs import PAIR, Runs, figures, needs_slurm, steps

pytestmark = [needs_slurm, pytest.mark.exhaustive]
Clusters = Callable[[int], Runs]
SPEC = Path(__file__).parents[2] / "examples" / "quickstart.etude"
HOURS = 2 * 3600.0


def launched(runs: Runs, folder: Path) -> Path:
    text = SPEC.read_text().replace("micro_batch 4", "micro_batch 2")
    return runs.launch(folder, text + PAIR)


def trained(run: Path) -> dict[str, list[str]]:
    """Phase → the jobs that train in it in any case."""
    plan = json.loads((run / "plan.json").read_text())
    jobs = {job["id"] for job in plan["jobs"] if job["kind"] == "train" and not job["extends"]}
    return {
        f"{phase['number']}-{phase['kind']}": [job for job in phase["jobs"] if job in jobs]
        for phase in plan["phases"]
    }


def results(run: Path) -> dict[str, bytes]:
    """The weights of all exports."""
    return {
        str(file.relative_to(run)): file.read_bytes()
        for model in sorted((run / "models").iterdir())
        for file in sorted(model.glob("*.safetensors"))
    }


def test_it_ends_with_the_same_bits_after_all_that_can_happen(
    clusters: Clusters, tmp_path: Path
) -> None:
    runs = clusters(3)
    undisturbed = launched(runs, tmp_path / "undisturbed")
    kinds = [phase.partition("-")[2] for phase in runs.jobs(undisturbed)]
    assert kinds == ["cpu", *["gang", "generate"] * 4]
    runs.finish(undisturbed, HOURS)
    assert {"anneal", "before", "after"} <= {
        path.name for path in (undisturbed / "models").iterdir()
    }

    run = launched(runs, tmp_path / "disturbed")
    jobs = runs.jobs(run)
    gangs = {phase: first[0] for phase, first in trained(run).items() if first}
    preempted, killed, lost, *_ = gangs

    def at_work(phase: str) -> None:
        """Waits until a phase is in the middle of its first job."""
        runs.wait(lambda: steps(run, gangs[phase]) >= 10, run, f"{phase} trains", HOURS)

    at_work(preempted)
    runs.cluster.run("scancel", "--signal=USR1", f"{jobs[preempted]}.0")
    at_work(killed)
    os.kill(runs.rank(run, 1), signal.SIGKILL)
    at_work(lost)
    assert runs.nodes(jobs[lost]) == ["n1", "n2"]
    runs.cluster.kill_node("n2")
    try:
        runs.finish(run, HOURS)
    finally:
        runs.cluster.node("n2")
    assert [runs.restarts(jobs[phase]) >= 1 for phase in (preempted, killed, lost)] == [True] * 3
    assert results(undisturbed)
    assert results(run) == results(undisturbed)
    for job in [job for found in trained(run).values() for job in found]:
        assert figures(run, job) == figures(undisturbed, job), job
