"""What is wrong is said before anything is queued; what goes wrong later ends the chain."""

from collections.abc import Callable
from pathlib import Path

import pytest
from slurm_runs import SMALL, Runs, needs_slurm, weights

pytestmark = needs_slurm
Clusters = Callable[[int], Runs]
HELD = '[slurm]\noptions = ["--hold"]\n'


PARTS = SMALL + "stage anneal: train { steps = 20, lr = last -> 0 }\n"


def launched(
    runs: Runs, folder: Path, site: str = "", text: str = SMALL, *options: str
) -> tuple[int, str]:
    """Exit code of a launch, and what it has said."""
    (folder / "r.etude").write_text(text)
    (folder / "site.toml").write_text(site)
    words = ("launch", "r.etude", "--on", "slurm", "--submit", "--site", "site.toml")
    done = runs.etude(*words, *options, cwd=folder)
    return done.returncode, " ".join((done.stdout + done.stderr).split())


@pytest.mark.parametrize(
    ("site", "message", "help"),
    [
        (
            '[slurm]\npartition = "mian"\n',
            "Slurm has no partition `mian`",
            "did you mean `main`?",
        ),
        (
            '[slurm]\npartition = "short"\ntime = "1:00:00"\n',
            '`time = "1:00:00"` is more than the 5 minutes that the partition `short` allows',
            "write a shorter time",
        ),
        (
            '[slurm]\noptions = ["--constraint=nothing"]\n',
            "Slurm rejects",
            "correct the site file",
        ),
        ('[slurm]\npartiton = "main"\n', "site.toml:2: [slurm] has no key `partiton`", "partition"),
    ],
)
def test_what_the_site_file_asks_for_has_to_be_there(
    site: str, message: str, help: str, clusters: Clusters, tmp_path: Path
) -> None:
    runs = clusters(2)
    before = runs.cluster.states()
    code, said = launched(runs, tmp_path, site)
    assert code == 1
    assert message in said
    assert help in said
    assert runs.cluster.states() == before
    assert not (tmp_path / "runs" / "small" / "launch.json").exists()


def test_a_partition_needs_as_many_nodes_as_the_plan(clusters: Clusters, tmp_path: Path) -> None:
    text = SMALL.replace("nodes = 2", "nodes = 4")
    code, said = launched(clusters(2), tmp_path, text=text)
    assert code == 1
    assert "the phase 2-gang needs 4 nodes, but the partition `main` has 2" in said


def test_a_run_that_is_queued_is_not_launched_again(clusters: Clusters, tmp_path: Path) -> None:
    runs = clusters(2)
    code, said = launched(runs, tmp_path, HELD)
    assert code == 0, said
    run = tmp_path / "runs" / "small"
    jobs = runs.jobs(run)
    assert list(jobs) == ["1-cpu", "2-gang", "3-small"]
    code, said = launched(runs, tmp_path, HELD)
    assert code == 1
    assert "is queued already: Slurm's 3 jobs" in said
    assert f"{jobs['1-cpu']} (pending)" in said
    assert "etude cancel" in said
    runs.cluster.run("scancel", *jobs.values())
    runs.wait(lambda: {runs.cluster.states()[j] for j in jobs.values()} == {"CANCELLED"}, run, "")
    code, said = launched(runs, tmp_path, HELD)
    assert code == 0, said
    runs.cluster.run("scancel", *runs.jobs(run).values())


def test_no_other_part_of_a_run_is_launched_while_one_is_queued(
    clusters: Clusters, tmp_path: Path
) -> None:
    runs = clusters(2)
    run = tmp_path / "runs" / "small"
    code, said = launched(runs, tmp_path, HELD, PARTS, "--from", "anneal")
    assert code == 1
    assert "`--from anneal` begins with the result of pretrain.1, which is not there" in said
    assert not run.exists()
    code, said = launched(runs, tmp_path, HELD, PARTS, "--until", "pretrain")
    assert code == 0, said
    plan = (run / "plan.json").read_text()
    code, said = launched(runs, tmp_path, HELD, PARTS, "--from", "anneal")
    assert code == 1
    assert f"the run in {run} (--until pretrain) is queued already: Slurm's 2 jobs" in said
    assert (run / "plan.json").read_text() == plan, "the plan of queued jobs has changed"
    runs.cluster.run("scancel", *runs.jobs(run).values())


@pytest.mark.exhaustive
def test_a_run_in_parts_ends_as_the_whole(clusters: Clusters, tmp_path: Path) -> None:
    runs = clusters(2)
    whole = runs.launch(tmp_path / "whole", PARTS)
    part = tmp_path / "parts"
    for options in (("--until", "pretrain"), ("--from", "anneal")):
        part.mkdir(exist_ok=True)
        code, said = launched(runs, part, "", PARTS, *options)
        assert code == 0, said
        runs.finish(part / "runs" / "small")
    runs.finish(whole)
    assert weights(part / "runs" / "small", "anneal") == weights(whole, "anneal")


def test_a_login_node_says_what_to_type(clusters: Clusters, tmp_path: Path) -> None:
    (tmp_path / "r.etude").write_text(
        SMALL.replace("cpus = 1", "cpus = 512").replace("8 seqs", "1024 seqs")
    )
    done = clusters(2).etude("run", "r.etude", cwd=tmp_path)
    said = " ".join(done.stderr.split())
    assert done.returncode == 1
    assert "needs 1,024 processes, but this machine has" in said
    assert "etude launch SPEC --on slurm" in said


def test_where_a_person_is_needed_the_chain_ends(clusters: Clusters, tmp_path: Path) -> None:
    runs = clusters(2)
    (tmp_path / "lines.jsonl").write_text('{"text": "a line of text"}\n' * 50)
    text = SMALL.replace("sample = arithmetic, documents = 200 docs", 'files = "lines.jsonl"')
    code, said = launched(runs, tmp_path, HELD, text)
    assert code == 0, said
    (tmp_path / "lines.jsonl").unlink()
    run = tmp_path / "runs" / "small"
    jobs = runs.jobs(run)
    runs.cluster.run("scontrol", "release", *jobs.values())

    def ended() -> bool:
        states = runs.cluster.states()
        return [states[job] for job in jobs.values()] == ["FAILED", "CANCELLED", "CANCELLED"]

    runs.wait(ended, run, "the chain has ended")
    assert runs.restarts(jobs["1-cpu"]) == 0

    def status() -> str:
        return runs.etude("status", run, cwd=tmp_path).stdout

    runs.wait(lambda: status().startswith("stopped: "), run, "status says it")
    assert "lines.jsonl" in status()
