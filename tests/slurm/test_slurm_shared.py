"""Phases that need the same nodes are one Slurm job, which does one after the other."""

from collections.abc import Callable
from pathlib import Path

import pytest
from slurm_runs import PAIR, Runs, figures, needs_slurm, steps, weights

pytestmark = needs_slurm
Clusters = Callable[[int], Runs]
TRAINS = "steps = 40, seq_len = 32, batch = 8 seqs, data = sums, checkpoint every 5 steps"
SPEC = (
    """
recipe small { seed = 7 }
model tiny {
  family = qwen3, layers = 2, dim = 32, heads = 4, kv_heads = 2, head_dim = 8, ffn = 64
  experts { count = 4, active = 2, ffn = 32, balance = 0.001 }
}
tokenizer words { train = { on [sums], vocab 300 } }
dataset sums { sample = arithmetic, documents = 200 docs, holdout = 5% }
"""
    + f"stage first: train {{ model = tiny, lr = 1e-3, parallel = {{ expert 2 }}, {TRAINS} }}\n"
    + f"stage second: train {{ from = first, lr = 3e-4, parallel = {{ }}, {TRAINS} }}\n"
    + PAIR
)
"""Two phases on both nodes: processes do not change how experts are placed."""


@pytest.mark.exhaustive
def test_a_job_of_two_phases_that_has_to_leave_in_the_second_ends_with_the_same_bits(
    clusters: Clusters, tmp_path: Path
) -> None:
    runs = clusters(3)
    undisturbed = runs.launch(tmp_path / "undisturbed", SPEC)
    run = runs.launch(tmp_path / "disturbed", SPEC)
    assert list(runs.jobs(run)) == ["1-cpu", "2-gang", "4-small"]
    job = runs.jobs(run)["2-gang"]
    runs.wait(lambda: steps(run, "second.1") >= 3, run, "training in the second phase")
    runs.cluster.run("scancel", "--batch", "--signal=USR1", job)
    runs.wait(lambda: runs.restarts(job) == 1, run, "requeued")
    assert 0 < steps(run, "second.1") < 40, "it was not stopped in the middle"
    for each in (undisturbed, run):
        runs.finish(each)
    assert runs.restarts(job) == 1
    script = (run / "logs" / "2-gang.log").read_text()
    assert "is saved after step" in script
    starts = (run / "logs" / "2-gang.rank-0.log").read_text().count("==== rank 0 ")
    assert starts == 3, "the first phase is started once, the second one twice"
    for stage in ("first.1", "second.1"):
        assert figures(run, stage) == figures(undisturbed, stage)
    assert weights(run, "second") == weights(undisturbed, "second")
