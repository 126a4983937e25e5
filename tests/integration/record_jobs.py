"""Small jobs of post-training: dialogs and preferences of random tokens, and their references."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from engine_jobs import architecture, run, tensors, train_job
from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification

from etude.compiler.plan.measures import AccuracyMeasure, LossMeasure
from etude.compiler.plan.plan import (
    Architecture,
    Dpo,
    HeldOutJob,
    Objective,
    ReferenceJob,
    TeacherJob,
    TrainJob,
)
from etude.runtime.data.dialogs.encode import CONTENT, FORMATTING, OTHER, TERMINATION
from etude.runtime.data.records.shards import Record, write_records
from etude.runtime.engine.families import hf_config, model_spec
from etude.runtime.engine.measures.forward import reference
from etude.runtime.engine.train import make_trainer

SEQ_LEN = 64
Roles = dict[str, Path]


def dialog(rng: np.random.Generator) -> Record:
    """Turns of tokens: a question, a header, an answer and what ends it."""
    parts: list[int] = []
    for _ in range(int(rng.integers(1, 3))):
        parts += [OTHER] * int(rng.integers(1, 8)) + [FORMATTING] * 2
        parts += [CONTENT] * int(rng.integers(1, 12)) + [TERMINATION]
    return Record(rng.integers(0, 512, len(parts)), np.array(parts, np.uint8))


def preference(rng: np.random.Generator, responses: int) -> Record:
    """A prompt with its responses, each a header, content and a terminator."""
    prompt = int(rng.integers(2, 12))
    lengths = [int(rng.integers(4, 14)) for _ in range(responses)]
    parts = [OTHER] * prompt
    for length in lengths:
        parts += [FORMATTING] + [CONTENT] * (length - 2) + [TERMINATION]
    return Record(rng.integers(0, 512, len(parts)), np.array(parts, np.uint8), (prompt, *lengths))


def solution(rng: np.random.Generator, steps: int) -> Record:
    """A prompt with the steps of its answer, the first of which has a header."""
    made = preference(rng, steps)
    return replace(made, labels=tuple((rng.random(steps) < 0.6).tolist()))


def make_records(folder: Path, holdout: Fraction = Fraction(0), count: int = 60) -> dict[str, Path]:
    """The inputs `data:chat`, `data:prefer`, `data:rated` and `data:checked`, of so many records
    each."""
    rng = np.random.default_rng(3)
    made = {
        "chat": ("dialogs", [dialog(rng) for _ in range(count)]),
        "prefer": ("preferences", [preference(rng, 2 + i % 2) for i in range(count)]),
        "rated": ("ratings", [replace(preference(rng, 1), good=i % 3 > 0) for i in range(count)]),
        "checked": ("solutions", [solution(rng, 1 + i % 4) for i in range(count)]),
    }
    for source, (form, records) in made.items():
        write_records(
            records,
            folder / source,
            form=form,
            vocab=512,
            holdout=holdout,
            seed=1,
            name=source,
        )
    return {f"data:{source}": folder / source for source in made}


def record_job(objective: Objective, **keywords: Any) -> TrainJob:
    sources = {"sft": "chat", "distill": "chat", "kto": "rated", "prm": "checked"}
    source = sources.get(objective.name, "prefer")
    values: dict[str, Any] = {"steps": 6, "seq_len": SEQ_LEN, "mixture": [(0, {source: 1})]}
    return train_job(**{**values, **keywords}).model_copy(update={"objective": objective})


def held_out_job(*measures: Any, **changes: Any) -> Any:
    return forward_job(HeldOutJob, None, measures=list(measures), **changes)


LOSSES = (
    LossMeasure(name="documents", data=["web", "code"], seq_len=16, tokens=150),
    LossMeasure(name="chats", data=["chat"], seq_len=SEQ_LEN, tokens=10_000),
    LossMeasure(name="whole", data=["chat"], seq_len=SEQ_LEN, tokens=10_000, every_token=True),
)
ACCURACY = AccuracyMeasure(name="accuracy", data=["prefer"])


def forward_job(kind: Any, source: str | None, **changes: Any) -> Any:
    job = record_job_defaults(changes.pop("world_size", 1))
    values = {
        "key": "x",
        "id": "x",
        "stage": "toy",
        "inputs": {},
        "model": architecture(),
        **({"source": source} if source else {}),
        "seq_len": SEQ_LEN,
        **job,
    }
    if kind is ReferenceJob:
        values["mask"] = "none"
    if kind is TeacherJob:
        values |= {"temperature": 1.0, "top_k": 16, "vocab": 512, "every_token": False}
    return kind(**{**values, **changes})


def record_job_defaults(world_size: int) -> dict[str, Any]:
    job = train_job(steps=1, world_size=world_size)
    sections = {**job.torchtitan, "training": {**(job.torchtitan["training"])}}
    for name in ("steps", "seq_len"):
        sections["training"].pop(name)
    return {"resources": job.resources, "torchtitan": sections}


def transformers_model(checkpoint: Path, shape: Architecture, *, score: bool = False) -> Any:
    """The checkpoint in transformers, which computes the expected losses."""
    config = LlamaConfig(**{**hf_config(shape, score=score), "attn_implementation": "eager"})
    model = (LlamaForSequenceClassification if score else LlamaForCausalLM)(config)
    names = hf_names(shape, score)
    state = tensors(checkpoint)
    found = to_hf({name: state[name] for name in names if name in state}, shape, score)
    missing, unexpected = model.load_state_dict(found, strict=False)
    assert not unexpected
    assert all("rotary" in name or shape.tied for name in missing), missing
    return model.eval()


def hf_names(shape: Architecture, score: bool) -> list[str]:
    spec = model_spec(shape, "cpu", shape.context, "score" if score else "logits")
    return list(spec.model.build().state_dict())


def to_hf(
    state: dict[str, torch.Tensor], shape: Architecture, score: bool
) -> dict[str, torch.Tensor]:
    """Tensors (weights or their gradients) under the names of transformers."""
    spec = model_spec(shape, "cpu", shape.context, "score" if score else "logits")
    assert spec.state_dict_adapter is not None
    found = spec.state_dict_adapter(spec.model, None).to_hf(state)
    if score:
        found["score.weight"] = found.pop("lm_head.weight")
    return found


def dpo(**changes: Any) -> Dpo:
    values = {"beta": 0.3, "nll": 0.2, "label_smoothing": 0.0, "normalize": False, "mask": "none"}
    return Dpo(**{**values, **changes})


@contextmanager
def loaded(job: TrainJob, roles: Roles, folder: Path) -> Iterator[Any]:
    """The job's trainer with its weights loaded."""
    objective: Any = job.objective
    given = dict(roles)
    if objective.name == "dpo" and objective.compares:
        given["reference:prefer"] = roles[objective.mask]
    if objective.name == "kto" and "reference:rated" not in given:
        given["reference:rated"] = roles[f"rated {objective.mask}"]
    with make_trainer(job, given, folder, folder.parent, lambda _: None, {}) as trainer:
        trainer.checkpoints.load()
        yield trainer


def responses_of(record: Record) -> list[tuple[torch.Tensor, np.ndarray]]:
    """Each response behind its prompt, (n,), and the parts of the response."""
    prompt, *lengths = record.branches
    begin, found = prompt, []
    for length in lengths:
        tokens = np.concatenate([record.tokens[:prompt], record.tokens[begin : begin + length]])
        found.append((torch.from_numpy(tokens), record.parts[begin : begin + length]))
        begin += length
    return found


def make_roles(inputs: Roles, folder: Path) -> Roles:
    """`inputs` with records, and with two trained models and the references of one."""
    run(train_job(steps=2), inputs, folder / "lm")
    # Weights are drawn from the job's seed: with the same, policy and reference were one model.
    other = train_job(steps=2).model_copy(update={"seed": 3})
    run(other, inputs, folder / "other")
    made = make_records(folder)
    references = {}
    for mask in ("none", "formatting"):
        job = forward_job(ReferenceJob, "prefer", mask=mask)
        given = {**made, "model": folder / "other" / "result"}
        reference(job, given, folder / mask, root=folder, on_event=lambda _: None)
        references[mask] = folder / mask / "result"
        job = forward_job(ReferenceJob, "rated", mask=mask, form="ratings")
        reference(job, given, folder / f"rated {mask}", root=folder, on_event=lambda _: None)
        references[f"rated {mask}"] = folder / f"rated {mask}" / "result"
    return {
        **inputs,
        **made,
        **references,
        "model": folder / "lm" / "result",
        "other": folder / "other" / "result",
    }
