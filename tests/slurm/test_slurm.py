"""Runs on a real, virtual Slurm: whatever happens to jobs, ranks and nodes, they end with the bits
of an undisturbed run."""

import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from slurm_runs import COMMAND, SMALL, Runs, figures, needs_slurm, steps, weights

from etude.runtime.launchers.allocation import PORTS

pytestmark = needs_slurm
Clusters = Callable[[int], Runs]


@pytest.fixture(scope="module")
def undisturbed(clusters: Clusters, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that nothing happens to."""
    runs = clusters(3)
    run = runs.launch(tmp_path_factory.mktemp("undisturbed"))
    runs.finish(run)
    return run


def test_a_preempted_run_goes_on_and_ends_with_the_same_bits(
    clusters: Clusters, undisturbed: Path, tmp_path: Path
) -> None:
    runs = clusters(3)
    assert list(runs.jobs(undisturbed)) == ["1-cpu", "2-gang", "3-small"]
    assert (undisturbed / "logs" / "2-gang.rank-1.log").exists(), "no second rank"
    run = runs.launch(tmp_path)
    job = runs.jobs(run)["2-gang"]
    runs.wait(lambda: steps(run) >= 3, run, "training")
    runs.cluster.run("scancel", "--signal=USR1", f"{job}.0")
    runs.wait(lambda: runs.restarts(job) == 1, run, "requeued")
    saved = steps(run)
    assert saved < 60, "it was not stopped in the middle"
    runs.finish(run)
    assert runs.restarts(job) == 1
    assert figures(run) == figures(undisturbed)
    assert weights(run) == weights(undisturbed)


@pytest.mark.exhaustive
def test_a_killed_rank_is_started_again(
    clusters: Clusters, undisturbed: Path, tmp_path: Path
) -> None:
    runs = clusters(3)
    run = runs.launch(tmp_path)
    job = runs.jobs(run)["2-gang"]
    runs.wait(lambda: steps(run) >= 8, run, "training")
    os.kill(runs.rank(run, 1), signal.SIGKILL)
    runs.finish(run)
    assert runs.restarts(job) == 1
    assert figures(run) == figures(undisturbed)
    assert weights(run) == weights(undisturbed)


@pytest.mark.exhaustive
def test_another_node_takes_the_place_of_one_that_dies(
    clusters: Clusters, undisturbed: Path, tmp_path: Path
) -> None:
    runs = clusters(3)
    run = runs.launch(tmp_path)
    job = runs.jobs(run)["2-gang"]
    runs.wait(lambda: steps(run) >= 8, run, "training")
    assert runs.nodes(job) == ["n1", "n2"]
    runs.cluster.kill_node("n2")
    try:
        runs.finish(run)
        assert runs.nodes(job) == ["n1", "n3"]
    finally:
        runs.cluster.node("n2")
    assert runs.restarts(job) >= 1
    assert figures(run) == figures(undisturbed)
    assert weights(run) == weights(undisturbed)


@pytest.mark.exhaustive
def test_a_port_that_is_taken_is_changed_by_the_next_start(
    clusters: Clusters, undisturbed: Path, tmp_path: Path
) -> None:
    runs = clusters(3)
    run = runs.launch(tmp_path)
    job = runs.jobs(run)["2-gang"]
    with socket.socket() as other:
        other.bind(("", PORTS[int(job) % len(PORTS)]))
        other.listen()
        runs.finish(run)
    assert runs.restarts(job) == 1
    assert "the port is taken" in (run / "logs" / "2-gang.log").read_text()
    assert weights(run) == weights(undisturbed)


@pytest.mark.exhaustive
def test_an_array_tokenizes_and_the_first_phase_joins(clusters: Clusters, tmp_path: Path) -> None:
    """Data this small are one unit, which the first phase makes: what is shown here is the array.
    That parts make the same bytes is shown in `test_units`."""
    runs = clusters(3)
    text = SMALL.replace("sample = arithmetic, documents = 200 docs", 'files = "docs/*.jsonl"')
    found = []
    for parts in (1, 3):
        folder = tmp_path / str(parts)
        (folder / "docs").mkdir(parents=True)
        for number in range(5):
            lines = [f'{{"text": "{n} and {n * number}"}}\n' for n in range(60)]
            (folder / "docs" / f"{number}.jsonl").write_text("".join(lines))
        (folder / "site.toml").write_text(f"[slurm]\nparts = {parts}\n")
        run = runs.launch(folder, text, "--site", "site.toml")
        runs.finish(run)
        found.append((list(runs.jobs(run)), weights(run)))
    (alone, once), (together, again) = found
    assert together == ["0-cpu", *alone]
    assert again == once
    logs = [(run / "logs" / f"0-cpu.rank-{number}.log").read_text() for number in (1, 2, 3)]
    assert [
        line.partition(" is tokenized: ")[0] for log in logs for line in log.splitlines()[-1:]
    ] == ["part 1 of 3", "part 2 of 3", "part 3 of 3"]


@pytest.mark.exhaustive
def test_inside_an_allocation_etude_run_is_a_rank(
    clusters: Clusters, undisturbed: Path, tmp_path: Path
) -> None:
    runs = clusters(3)
    (tmp_path / "r.etude").write_text(SMALL)
    command = ["salloc", "--nodes=2", "--ntasks-per-node=1", "srun", *_etude("run", "r.etude")]
    runs.cluster.run(*command, cwd=tmp_path, env=runs.environment, timeout=900)
    run = tmp_path / "runs" / "small"
    assert figures(run) == figures(undisturbed)
    assert weights(run) == weights(undisturbed)


def _etude(*arguments: str) -> list[str]:
    return [*COMMAND, *arguments]
