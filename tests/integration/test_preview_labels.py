"""What a preview says is learned is what the engine's loaders hand to the loss."""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import etude
from etude.compiler.plan.plan import DatasetJob, Plan, TokenizerJob, TrainJob
from etude.runtime import preview as previews
from etude.runtime.data.tokens import tokenizer
from etude.runtime.engine.device import prepare
from etude.runtime.engine.train import dataloader
from etude.runtime.preparation.prepare import make_dataset, make_tokenizer
from etude.runtime.preview import Shown

SPEC = """
recipe labels { title = "Labels", seed = 5 }
model tiny { layers = 1, dim = 32, heads = 2, ffn = 64, vocab = 400 }
tokenizer words { train = { on [docs], vocab 320 } }
dialog chat { protocol = llama3 }
dataset docs { sample = python_functions, documents = 40 docs, holdout = 5% }
dataset talk { sample = python_functions, kind = dialogs, documents = 30 docs, holdout = 5% }
dataset pairs { sample = python_functions, kind = preferences, documents = 30 docs, holdout = 5% }
stage pre: train { model = tiny, steps = 2, seq_len = 96, batch = 4 seqs, lr = 1e-3, data = docs }
stage sft: sft { from = pre, dialog = chat, steps = 9, seq_len = 2048, batch = 2 seqs, lr = 1e-5,
  data = talk }
stage whole: sft { from = pre, dialog = chat, steps = 9, seq_len = 2048, batch = 2 seqs, lr = 1e-5,
  data = talk, loss = all }
stage rm: reward { from = pre, dialog = chat, steps = 15, seq_len = 2048, batch = 2 pairs,
  lr = 1e-5, data = pairs }
stage tuned: dpo { from = pre, dialog = chat, steps = 15, seq_len = 2048, batch = 2 pairs,
  lr = 1e-6, data = pairs }
stage masked: dpo { from = pre, dialog = chat, steps = 15, seq_len = 2048, batch = 2 pairs,
  lr = 1e-6, data = pairs, mask = formatting }
"""


@pytest.fixture(scope="module")
def plan() -> Plan:
    return etude.compile(etude.loads(SPEC))


@pytest.fixture(scope="module")
def made(plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Job's key → its result, of the jobs that prepare data, as a run makes them."""
    found: dict[str, Path] = {}
    for job in plan.jobs:
        folder = tmp_path_factory.mktemp("job")
        if isinstance(job, TokenizerJob):
            make_tokenizer(job, folder, folder, lambda event: None)
        elif isinstance(job, DatasetJob):
            inputs = {role: found[key] for role, key in job.inputs.items()}
            make_dataset(job, inputs, folder, folder, lambda event: None)
        else:
            continue
        found[job.key] = folder / "result"
    return found


def batches(
    plan: Plan, made: dict[str, Path], stage: str, folder: Path
) -> Iterator[tuple[dict[str, Any], np.ndarray]]:
    """What the stage's loader yields, step after step."""
    prepare("cpu")
    job = next(j for j in plan.jobs if isinstance(j, TrainJob) and j.stage == stage)
    inputs = {role: made[key] for role, key in job.inputs.items() if role.startswith("data:")}
    for source in job.data:
        path = inputs[f"data:{source}"] / "train-branches.npy"
        if path.exists():
            responses = np.load(path)[:, 1:]
            reference = np.where(responses > 0, 0, np.nan).astype(np.float32)
            np.save(folder / "reference.npy", reference)
        inputs[f"reference:{source}"] = folder
    first = {source: window.first_token for source, window in job.data.items()}
    config = dataloader(job, inputs, folder, first)
    size = job.schedule.batch[0].sequences
    loader = config.build(dp_world_size=1, dp_rank=0, local_batch_size=size)
    steps = iter(loader)
    for _ in range(job.steps):
        batch, labels = next(steps)
        yield {name: tensor.numpy() for name, tensor in batch.items()}, labels.numpy()


def shown(plan: Plan, stage: str, folder: Path) -> list[Shown]:
    """All that the preview shows of a stage, with no run folder."""
    (found,) = previews.preview(plan, folder / "none", folder, stage, records=60)
    return [item for item in found.items if isinstance(item, Shown)]


def mask(record: Shown) -> list[bool]:
    return [part.learned for part in record.parts for _ in range(part.tokens)]


def text(record: Shown, *, learned: bool = False, branch: str = "") -> str:
    return "".join(
        part.text
        for part in record.parts
        if (part.learned or not learned) and branch in ("", part.branch)
    )


def decode(plan: Plan, made: dict[str, Path], ids: np.ndarray) -> str:
    job = next(job for job in plan.jobs if isinstance(job, TokenizerJob))
    loaded = tokenizer.load(made[job.key] / "tokenizer.json")
    return loaded.decode(ids.tolist(), skip_special_tokens=False)


def test_rows_of_pretraining(plan: Plan, made: dict[str, Path], tmp_path: Path) -> None:
    rows = shown(plan, "pre", tmp_path)
    read = [
        row
        for batch, labels in batches(plan, made, "pre", tmp_path)
        for row in zip(batch["input"], labels, strict=True)
    ]
    assert len(rows) == len(read) == 8
    for row, (inputs, labels) in zip(rows, read, strict=True):
        assert mask(row) == [False, *(labels != -100).tolist()]
        assert text(row).startswith(decode(plan, made, inputs))
    assert any(not all(mask(row)[1:]) for row in rows)


@pytest.mark.parametrize("stage", ["sft", "whole"])
def test_dialogs(plan: Plan, made: dict[str, Path], tmp_path: Path, stage: str) -> None:
    records = {text(record): mask(record) for record in shown(plan, stage, tmp_path)}
    read: dict[str, list[bool]] = {}
    for batch, labels in batches(plan, made, stage, tmp_path):
        for inputs, wanted, positions in zip(
            batch["input"], labels, batch["positions"], strict=True
        ):
            begins = [*np.flatnonzero(positions == 0).tolist(), len(inputs)]
            for begin, end in pairwise(begins):
                # The label of a token stands at the place before it.
                taught = [False, *(wanted[begin : end - 1] != -100).tolist()]
                read[decode(plan, made, inputs[begin:end])] = taught
    assert len(records) > 20
    for dialog, taught in records.items():
        assert read[dialog] == taught


@pytest.mark.parametrize("stage", ["tuned", "masked"])
def test_responses_of_dpo(plan: Plan, made: dict[str, Path], tmp_path: Path, stage: str) -> None:
    records = shown(plan, stage, tmp_path)
    wanted = set()
    for record in records:
        best, *_, worst = dict.fromkeys(
            part.branch for part in record.parts if part.branch != "prompt"
        )
        wanted.add(tuple(text(record, learned=True, branch=name) for name in (best, worst)))
    read = set()
    for batch, _ in batches(plan, made, stage, tmp_path):
        targets = np.split(batch["targets"], np.cumsum(batch["counts"])[:-1])
        texts = [decode(plan, made, each) for each in targets]
        read |= set(zip(texts[::2], texts[1::2], strict=True))
    assert len(records) > 20
    assert wanted == read


def test_scores_of_a_reward_model(plan: Plan, made: dict[str, Path], tmp_path: Path) -> None:
    records = {text(r): np.flatnonzero(mask(r)).tolist() for r in shown(plan, "rm", tmp_path)}
    read: dict[str, list[int]] = {}
    for batch, _ in batches(plan, made, "rm", tmp_path):
        rows, width = batch["input"].shape
        for row in range(rows):
            # Each record begins with its prompt.
            firsts = (batch["positions"][row] == 0) & (batch["segments"][row] >= 0)
            begins = np.flatnonzero(firsts).tolist()
            ends = [*begins[1:], int((batch["segments"][row] >= 0).sum())]
            for begin, end in zip(begins, ends, strict=True):
                tokens = batch["input"][row][begin:end]
                asked = (int(place) - row * width for place in batch["places"])
                read[decode(plan, made, tokens)] = [p - begin for p in asked if begin <= p < end]
    assert len(records) > 20
    assert read == records
