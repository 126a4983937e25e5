"""Emitted configurations of torchtitan: they read the recipe's data and list what is missing."""

import re
import runpy
import shlex
import subprocess
import sys
from itertools import islice
from pathlib import Path
from typing import Any

import engine_jobs  # before torchtitan is imported: on CPUs
import pytest
from specs import plan

from etude.compiler.emit import FIELDS, emit, emit_each
from etude.compiler.plan import Plan, TrainJob
from etude.runtime.engine.train import dataloader
from etude.runtime.errors import RunError
from etude.runtime.gang import execute
from etude.runtime.outcomes import results
from etude.runtime.store import Store

assert engine_jobs

SPEC = """recipe emitted { seed = 1, tracking = wandb }
model tiny { layers = 1, dim = 32, heads = 2, ffn = 64, vocab = 300 }
tokenizer letters { bytes }
dataset sums { sample = arithmetic, documents = 100 docs }
dataset docs { sample = python_docs, documents = 20 docs }
dataset talk { sample = python_functions, kind = dialogs, documents = 40 docs }
stage pre: train {
  model = tiny, steps = 8, seq_len = 64, data = { sums 70%, docs 30% }
  batch = 4 seqs for 4 steps then 8 seqs
  lr = 0 -> 1e-3 for 4 steps then -> 1e-4 cosine
}
stage chat: sft { steps = 2, seq_len = 1024, batch = 4 seqs, lr = 1e-4 -> 0, data = talk }
"""


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Plan, Path]:
    """A plan, and a run folder in which its data have been made."""
    folder = tmp_path_factory.mktemp("prepared") / "run"
    made = plan(SPEC)
    execute(made, folder, folder.parent, lambda _: None, prepare=True)
    return made, folder


def configuration(made: Plan, run: Path, folder: Path, name: str) -> Any:
    (folder / "emitted_jobs.py").write_text(emit(made, str(run)))
    return runpy.run_path(str(folder / "emitted_jobs.py"))[name]()


def test_preparing_makes_the_data_and_nothing_else(prepared: tuple[Plan, Path]) -> None:
    made, folder = prepared
    names = {"tokenizer.letters", "dataset.sums", "dataset.docs", "dataset.talk"}
    assert results(made, Store(folder)).keys() == names


@pytest.mark.parametrize("name", ["pre_1", "chat_1"])
@pytest.mark.parametrize("rank", [0, 1])
def test_its_batches_are_those_of_etudes_own_run(
    prepared: tuple[Plan, Path], tmp_path: Path, name: str, rank: int
) -> None:
    """The same sequences in the same order, with the same labels, positions and masks."""
    made, folder = prepared
    job = next(j for j in made.jobs if isinstance(j, TrainJob) and j.id.replace(".", "_") == name)
    folders = {
        f"data:{source}": results(made, Store(folder))[f"dataset.{source}"] for source in job.data
    }
    first = {source: window.first_token for source, window in job.data.items()}
    of_rank = {"dp_world_size": 2, "dp_rank": rank, "local_batch_size": 2}
    ours = dataloader(job, folders, folder, first).build(**of_rank)
    config = configuration(made, folder, tmp_path, name)
    theirs = config.dataloader.build(**of_rank)
    count = job.sequences // 4
    pairs = list(zip(islice(ours, count), islice(theirs, count), strict=True))
    assert len(pairs) == count
    for (inputs, labels), (inputs_there, labels_there) in pairs:
        assert labels.equal(labels_there)
        assert inputs.keys() == inputs_there.keys()
        assert all(inputs[key].equal(inputs_there[key]) for key in inputs)
    if name == "chat_1":
        assert 0 < (pairs[0][0][1] == -100).float().mean() < 1
    assert theirs.state_dict() == ours.state_dict()
    assert config.training.steps * config.training.global_batch_size == job.sequences


def test_schedules_are_counted_in_the_steps_that_torchtitan_takes(
    prepared: tuple[Plan, Path], tmp_path: Path
) -> None:
    made, folder = prepared
    config = configuration(made, folder, tmp_path, "pre_1")
    # 4 × 4 + 4 × 8 sequences are 6 steps of 8; the warm-up takes the first 16 of them.
    assert (config.training.steps, config.lr_scheduler.warmup_steps) == (6, 2)
    assert config.lr_scheduler.decay_ratio == pytest.approx(4 / 6)
    assert config.metrics.enable_wandb
    chat = configuration(made, folder, tmp_path, "chat_1")
    assert chat.checkpoint.initial_load_path.endswith("pre_1/checkpoint/step-6")


def test_without_the_data_it_refuses_to_start(
    prepared: tuple[Plan, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, folder = prepared
    of_rank = {"dp_world_size": 1, "dp_rank": 0, "local_batch_size": 2}
    config = configuration(made, tmp_path / "nowhere", tmp_path, "pre_1")
    with pytest.raises(RunError, match="is no run folder"):
        config.dataloader.build(**of_rank)
    Store(tmp_path / "begun").create()
    (tmp_path / "begun" / "plan.json").write_text(made.to_json())
    config = configuration(made, tmp_path / "begun", tmp_path, "pre_1")
    with pytest.raises(RunError, match=r"dataset\.docs is missing"):
        config.dataloader.build(**of_rank)
    monkeypatch.setenv("ETUDE_RUN", str(folder))
    other = configuration(plan(SPEC.replace("seed = 1", "seed = 2")), tmp_path, tmp_path, "pre_1")
    with pytest.raises(RunError, match=r"no job pre\.1 as it was"):
        other.dataloader.build(**of_rank)


def test_the_printed_command_finds_the_configuration(
    prepared: tuple[Plan, Path], tmp_path: Path
) -> None:
    """As far as CPUs go: torchtitan's flex attention trains on GPUs only."""
    made, folder = prepared
    for file, text in emit_each(made, str(folder)).items():
        (tmp_path / file).write_text(text)
        (command,) = re.findall(r"^#   (torchrun .+)$", text, re.MULTILINE)
        words = shlex.split(command)
        assert words[:2] == ["torchrun", "--standalone"]
        entry = words[words.index("-m") :]
        done = subprocess.run(
            [sys.executable, *entry, "--help"], cwd=tmp_path, capture_output=True, text=True,
            timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert "emitted" in done.stdout or "pre" in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("nodes", "gpus", "shown"),
    [(1, 8, "torchrun --standalone --nproc-per-node 8 "),
     (2, 4, "torchrun --nnodes 2 --rdzv-backend c10d --rdzv-endpoint $HEAD_NODE:29500 "
            "--nproc-per-node 4 ")],
)  # fmt: skip
def test_the_command_is_for_the_recipes_machines(nodes: int, gpus: int, shown: str) -> None:
    cluster = f'cluster box {{ nodes = {nodes}, gpus = {gpus} of "H100 80GB" }}\n'
    spec = SPEC.replace("4 seqs for 4 steps then 8 seqs", "8 seqs").replace("4 seqs", "8 seqs")
    assert shown in emit(plan(spec.replace("stage pre", cluster + "stage pre")))


def test_every_field_of_a_job_is_written_or_said_to_be_left_out() -> None:
    """A field that is added to jobs has to be dealt with here, too."""
    assert FIELDS.keys() == TrainJob.model_fields.keys()
