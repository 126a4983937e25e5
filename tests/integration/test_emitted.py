"""Emitted configurations of torchtitan: they read the recipe's data and list what is missing."""

import os
import re
import runpy
import shlex
import subprocess
import sys
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import engine_jobs  # before torchtitan is imported: on CPUs
import pytest
import torch
from specs import plan

from etude.compiler.plan.plan import Plan, TrainJob
from etude.compiler.schedule.timeline import Timeline
from etude.runtime.emission.emit import FIELDS, emit, emit_each
from etude.runtime.engine.train import dataloader
from etude.runtime.errors import RunError
from etude.runtime.gang import execute
from etude.runtime.run_folder.outcomes import results
from etude.runtime.run_folder.store import Store

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
    """The same sequences in the same order, with the same labels, positions and masks, as on a
    GPU: on CPUs etude's own run cuts rows of dialogs, and takes the fullest first."""
    made, folder = prepared
    job = next(j for j in made.jobs if isinstance(j, TrainJob) and j.id.replace(".", "_") == name)
    folders = {
        f"data:{source}": results(made, Store(folder))[f"dataset.{source}"] for source in job.data
    }
    first = {source: window.first_token for source, window in job.data.items()}
    of_rank = {"dp_world_size": 2, "dp_rank": rank, "local_batch_size": 2}
    own: Any = dataloader(job, folders, folder, first)
    if name == "chat_1":
        own = replace(own, multiple=None)
    ours = own.build(**of_rank)
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
    assert list(theirs) == []
    assert config.training.steps * config.training.global_batch_size == job.sequences


def test_a_start_that_no_job_makes_is_to_be_filled_in(
    prepared: tuple[Plan, Path], tmp_path: Path
) -> None:
    spec = SPEC.replace(
        "stage chat: sft {", "stage mean: average { of = [pre] }\nstage chat: sft { from = mean,"
    )
    with pytest.raises(SystemExit, match=r"fill in initial_load_path of chat\.1"):
        configuration(plan(spec), prepared[1], tmp_path, "chat_1")


def test_what_is_otherwise_is_listed_at_the_top() -> None:
    top = emit(plan(SPEC)).partition("import os")[0]
    assert "#   pre.1: one batch, of 8 sequences; attention for GPUs" in top
    assert "#   chat.1: attention for GPUs" in top


def test_a_loader_resumes_amid_a_step_of_the_recipe(
    prepared: tuple[Plan, Path], tmp_path: Path
) -> None:
    made, folder = prepared
    of_rank = {"dp_world_size": 1, "dp_rank": 0, "local_batch_size": 2}
    config = configuration(made, folder, tmp_path, "pre_1").dataloader
    labels = [labels for _, labels in config.build(**of_rank)]
    assert len(labels) == 24
    for given in (0, 1, 3, 8, 11, 23, 24):
        resumed = config.build(**of_rank)
        resumed.load_state_dict({"micro_batches": given})
        rest = [labels for _, labels in resumed]
        assert len(rest) == 24 - given
        assert all(map(torch.equal, rest, labels[given:]))
        assert resumed.state_dict() == {"micro_batches": 24}


@pytest.mark.parametrize("name", ["pre_1", "chat_1"])
def test_the_rates_are_those_of_the_plan(
    prepared: tuple[Plan, Path], tmp_path: Path, name: str
) -> None:
    made, folder = prepared
    job = next(j for j in made.jobs if isinstance(j, TrainJob) and j.id.replace(".", "_") == name)
    config = configuration(made, folder, tmp_path, name)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    rates = config.lr_scheduler.build(optimizers=[optimizer], training_steps=config.training.steps)
    found = []
    for _ in range(config.training.steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        rates.step()
    # The first two steps of 8 sequences read what the first four of 4 do.
    steps = [0, 2, 4, 5, 6, 7] if name == "pre_1" else range(job.steps)
    assert found == [Timeline.of(job).lr(step) for step in steps]
    rates.load_state_dict({"last_epoch": 1, "job": job.key})
    assert optimizer.param_groups[0]["lr"] == found[1]
    rates.load_state_dict({"last_epoch": 1, "job": "that before"})
    assert optimizer.param_groups[0]["lr"] == found[0]


def test_a_decay_that_is_cut_in_two_goes_on_where_it_was(tmp_path: Path) -> None:
    made = plan(SPEC.replace("seq_len = 64,", "seq_len = 64 for 6 steps then 128,"))
    execute(made, tmp_path / "run", tmp_path, lambda _: None, prepare=True)
    job = next(j for j in made.jobs if isinstance(j, TrainJob) and j.id == "pre.2")
    config = configuration(made, tmp_path / "run", tmp_path, "pre_2")
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    config.lr_scheduler.build(optimizers=[optimizer], training_steps=2)
    assert optimizer.param_groups[0]["lr"] == Timeline.of(job).lr(6) < 1e-3
    assert config.checkpoint.exclude_from_loading == ["dataloader", "train_state"]


ON_CPU = """
from etude.runtime.engine.device import prepare
prepare("cpu")
from torchtitan.models.common import config_utils
from torchtitan.models.common.attention import ScaledDotProductAttention
config_utils.get_attention_config = lambda _: ScaledDotProductAttention.Config()
from torchtitan.train import main
main()
"""


def test_torchtitans_own_entry_point_trains_both_jobs(
    prepared: tuple[Plan, Path], tmp_path: Path
) -> None:
    """On a CPU, with attention that runs there in place of torchtitan's flex."""
    made, folder = prepared
    (tmp_path / "emitted_jobs.py").write_text(emit(made, str(folder)))
    (tmp_path / "on_cpu.py").write_text(ON_CPU)
    place = {
        "RANK": "0",
        "WORLD_SIZE": "1",
        "LOCAL_RANK": "0",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": "29571",
        "OMP_NUM_THREADS": "1",
        "WANDB_MODE": "disabled",
    }
    for name, steps in (("pre_1", 6), ("chat_1", 2)):
        done = subprocess.run(
            [
                sys.executable,
                "on_cpu.py",
                "--module",
                "emitted_jobs",
                "--config",
                name,
                "--metrics.log_freq",
                "1",
                "--metrics.no-enable-wandb",
            ],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
            env={**os.environ, **place},
        )
        said = re.sub(r"\x1b\[[\d;]*m", "", done.stdout + done.stderr)
        assert done.returncode == 0, said[-3000:]
        losses = [float(loss) for loss in re.findall(r"step: +\d+ +loss: +([\d.]+)", said)]
        assert len(losses) == steps
        assert (tmp_path / f"outputs/{name}/checkpoint/step-{steps}").is_dir()


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
    with pytest.raises(RunError, match="is not a run folder"):
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


@pytest.mark.exhaustive
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
            [sys.executable, *entry, "--help"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert "emitted" in done.stdout or "pre" in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("nodes", "gpus", "shown"),
    [
        (1, 8, "torchrun --standalone --nproc-per-node 8 "),
        (
            2,
            4,
            "torchrun --nnodes 2 --rdzv-backend c10d --rdzv-endpoint $HEAD_NODE:29500 "
            "--nproc-per-node 4 ",
        ),
    ],
)
def test_the_command_is_for_the_recipes_machines(nodes: int, gpus: int, shown: str) -> None:
    cluster = f'cluster box {{ nodes = {nodes}, gpus = {gpus} of "H100 80GB" }}\n'
    spec = SPEC.replace("4 seqs for 4 steps then 8 seqs", "8 seqs").replace("4 seqs", "8 seqs")
    assert shown in emit(plan(spec.replace("stage pre", cluster + "stage pre")))


def test_jobs_with_muon_are_left_out_with_the_reason() -> None:
    text = SPEC.replace("stage pre: train {", "stage pre: train {\n  optimizer = muon")
    assert "left out: torchtitan's Muon wants the place of every matrix" in emit(plan(text))


def test_jobs_with_lion_are_left_out_with_the_reason() -> None:
    text = SPEC.replace("stage pre: train {", "stage pre: train {\n  optimizer = lion")
    assert "left out: torchtitan has no Lion" in emit(plan(text))


def test_jobs_with_adafactor_are_left_out_with_the_reason() -> None:
    text = SPEC.replace("stage pre: train {", "stage pre: train {\n  optimizer = adafactor")
    assert "left out: torchtitan has no Adafactor" in emit(plan(text))


def test_every_field_of_a_job_is_written_or_said_to_be_left_out() -> None:
    """A field that is added to jobs has to be dealt with here, too."""
    assert FIELDS.keys() == TrainJob.model_fields.keys()
