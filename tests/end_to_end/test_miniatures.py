"""Miniatures run from end to end, and their logs obey their plans.

`make miniatures` runs those of all published recipes.
"""

import json
import time
from pathlib import Path

import pytest
from etude_cli import etude, metrics

from etude.compiler.plan.plan import Plan, TrainJob
from etude.compiler.schedule.timeline import Timeline

EXAMPLES = Path(__file__).parents[2] / "examples"
MINUTES = 10
SPECS = [
    *(
        EXAMPLES / f"{name}.etude"
        for name in ("llama3_405b", "quickstart", "llama3_posttraining_tiny")
    ),
    *(
        path
        for path in sorted((EXAMPLES / "published").rglob("*.etude"))
        if "\nrecipe " in "\n" + path.read_text()
    ),
]

FAR = """
recipe far { seed = 5 }
model large { size = "70B" }
tokenizer theirs { hub = "nobody/nothing" }
dataset web  { files = "s3://nowhere/web/*.parquet" }
dataset math { hub = "nobody/math" }
cluster big { nodes = 128, gpus = 8 of "H100 80GB" }
stage pretrain: train {
  model   = large
  steps   = 20
  seq_len = 4Ki for 6 steps then 8Ki
  batch   = 1024 seqs -> 2048 seqs for 9 steps then 2048 seqs
  lr      = 0 -> 1e-4 for 4 steps then -> 1e-5 cosine
  data    = { web 80%, math 20% } -> { web 50%, math 50% } for 12 steps then web
  parallel = { tensor 8 }
  gate seq_len { require needle >= 100% }
}
stage half: checkpoint { from = pretrain, after = 75% }
stage soup: average { of = [half, pretrain], weights = [1, 3] }
"""


def runs_as_planned(spec: Path, folder: Path) -> None:
    begun = time.monotonic()
    done = etude("run", spec, "--miniature", "--json", cwd=folder)
    assert done.returncode == 0, done.stderr + done.stdout[-2000:]
    assert time.monotonic() - begun < MINUTES * 60
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert events[0]["event"] == "miniature"
    (run,) = (folder / "runs").iterdir()
    assert run.name.endswith("_miniature")
    plan = Plan.model_validate_json((run / "plan.json").read_bytes())
    assert plan.miniature
    trained = [job for job in plan.jobs if isinstance(job, TrainJob) and not job.extends]
    for job in trained:
        logged = metrics(run, job.id)
        timeline = Timeline.of(job)
        steps = range(job.first_step, job.first_step + job.steps)
        assert [entry["step"] for entry in logged] == list(steps)
        for entry in logged:
            step = entry["step"]
            assert entry["lr"] == timeline.lr(step)
            assert entry["sequences"] == timeline.batch(step)
            assert entry["seq_len"] == job.seq_len
            assert entry["mixture"] == timeline.mixture(step)
    status = json.loads(etude("status", run, "--json", cwd=folder).stdout)
    assert {job["state"] for job in status["jobs"] if not job["conditional"]} == {"finished"}
    assert etude("report", run, cwd=folder).returncode == 0


@pytest.mark.exhaustive
def test_a_recipe_for_a_cluster_whose_data_are_elsewhere_runs_in_miniature(tmp_path: Path) -> None:
    spec = tmp_path / "far.etude"
    spec.write_text(FAR)
    runs_as_planned(spec, tmp_path)
    table = (tmp_path / "runs" / "far_miniature" / "miniature.txt").read_text()
    assert "s3://nowhere/web/*.parquet" in table


@pytest.mark.exhaustive
@pytest.mark.parametrize("spec", SPECS, ids=lambda path: path.stem)
def test_the_miniature_of_a_published_recipe_runs_as_planned(spec: Path, tmp_path: Path) -> None:
    runs_as_planned(spec, tmp_path)
