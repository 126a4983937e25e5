"""`etude sweep --on slurm`: points that share a stage wait for it, and not for each other."""

import json
from collections.abc import Callable
from pathlib import Path

from slurm_runs import SMALL, Runs, needs_slurm

pytestmark = needs_slurm
Clusters = Callable[[int], Runs]
TWO = (
    SMALL.replace("steps   = 60", "steps   = 6") + "stage anneal: train { steps = 2, lr = 1e-3 }\n"
)
SWEEP = ("sweep", "r.etude", "--over")


def test_what_points_share_is_trained_once_before_them(clusters: Clusters, tmp_path: Path) -> None:
    runs = clusters(3)
    (tmp_path / "r.etude").write_text(TWO)
    before = runs.cluster.states()
    words = (*SWEEP, "pair.nodes=8, anneal.lr=1e-3,1e-4", "--on", "slurm", "--submit")
    done = runs.etude(*words, cwd=tmp_path)
    assert done.returncode == 1
    assert "the partition `main` has 3" in " ".join(done.stderr.split())
    assert runs.cluster.states() == before, "some of it was queued"

    over = "anneal.lr=1e-3,1e-4"
    done = runs.etude(*SWEEP, over, "--on", "slurm", "--submit", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    folders = {name: Path(folder) for name, folder in json.loads(done.stdout)["folders"].items()}
    assert list(folders) == ["sweep_shared", "sweep_lr_1e_3", "sweep_lr_1e_4"]
    jobs = {name: list(runs.jobs(folder).values()) for name, folder in folders.items()}
    trunk, *points = jobs.values()
    for first, *_ in points:
        assert runs.waits_for(first) in (set(trunk[-1:]), set())
    for folder in folders.values():
        runs.finish(folder)
    done = runs.etude(*SWEEP, over, "--ranks", "2", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    home = tmp_path / "runs" / "small"
    started = [
        event["job"]
        for journal in home.rglob("journal.jsonl")
        for event in map(json.loads, journal.read_text().splitlines())
        if event["event"] == "started"
    ]
    # The last command has found everything done.
    assert {job: started.count(job) for job in ("pretrain.1", "anneal.1")} == {
        "pretrain.1": 1,
        "anneal.1": 2,
    }


VARIANTS = "variant slow { anneal.lr = 1e-4 }\nvariant brief { anneal.steps = 1 }\n"


def test_a_recipe_and_its_variants_run_at_the_same_time(clusters: Clusters, tmp_path: Path) -> None:
    runs = clusters(3)
    (tmp_path / "r.etude").write_text(TWO + VARIANTS)
    words = ("launch", "r.etude", "--variant", "all", "--on", "slurm", "--submit", "--json")
    done = runs.etude(*words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    folders = {name: Path(folder) for name, folder in json.loads(done.stdout)["folders"].items()}
    assert list(folders) == ["variants_shared", "small", "slow", "brief"]
    home = tmp_path / "runs" / "small"
    assert folders["small"] == home
    trunk, *others = [list(runs.jobs(folder).values()) for folder in folders.values()]
    for first, *_ in others:
        assert runs.waits_for(first) in (set(trunk[-1:]), set())
    for folder in folders.values():
        runs.finish(folder)
    done = runs.etude("run", "r.etude", "--variant", "all", "--ranks", "2", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    started = [
        event["job"]
        for journal in home.rglob("journal.jsonl")
        for event in map(json.loads, journal.read_text().splitlines())
        if event["event"] == "started"
    ]
    assert (started.count("pretrain.1"), started.count("anneal.1")) == (1, 3)
