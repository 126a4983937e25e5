"""Small jobs for the tests of the engine: a model of two layers, and documents made of words."""

import time
import warnings
from collections.abc import Callable, Iterable
from fractions import Fraction
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load

from etude.compiler.families.architectures import LATENT_EPS
from etude.compiler.families.decoder import parts
from etude.compiler.plan.plan import (
    Architecture,
    Averaging,
    Cost,
    MixturePiece,
    Resources,
    Schedule,
    TrainJob,
    Window,
)
from etude.compiler.schedule.timeline import Timeline
from etude.compiler.values import BatchPiece, Experts, Latent, LrPiece, Parts, Saving, Spikes
from etude.runtime.data.tokens import tokenizer
from etude.runtime.data.tokens.shards import write_shards
from etude.runtime.engine.checkpoints.checksums import is_whole
from etude.runtime.engine.device import prepare
from etude.runtime.engine.train import train
from etude.spec.record import replace

# Before a test module, whose imports come after this one's, imports torchtitan.
prepare("cpu")

# As in the worker processes, so that sums are taken in the same order.
torch.set_num_threads(1)

from etude.runtime.engine.trainer import Trainer  # noqa: E402

Events = list[dict[str, Any]]

WORDS = [
    "the",
    "a",
    "cat",
    "dog",
    "tree",
    "sees",
    "chases",
    "green",
    "small",
    "old",
    "and",
    "then",
    "it",
    "runs",
    "home",
]


def make_inputs(folder: Path, sources: tuple[str, ...] = ("web", "code")) -> dict[str, Path]:
    """Shards of generated documents for every source, and a tokenizer: the inputs of a job."""
    bytes_only = tokenizer.byte_level()
    tokenizer.save(bytes_only, folder / "tokenizer")
    inputs = {"tokenizer": folder / "tokenizer"}
    for source in sources:
        random = Random(source)
        texts = (" ".join(random.choices(WORDS, k=random.randint(3, 40))) for _ in range(300))
        write_shards(
            texts, bytes_only, folder / source, holdout=Fraction(1, 50), seed=1, name=source
        )
        inputs[f"data:{source}"] = folder / source
    return inputs


def architecture(**changes: Any) -> Architecture:
    values: dict[str, Any] = {
        "family": "llama3",
        "size": None,
        "layers": 2,
        "dim": 64,
        "heads": 4,
        "kv_heads": 2,
        "head_dim": 16,
        "ffn": 128,
        "vocab": 512,
        "context": 256,
        "rope_theta": 10_000.0,
        "rope_scaling": "none",
        "rope_factor": 1.0,
        "rope_original": 0,
        "tied": False,
        "norm_eps": 1e-5,
        "qk_norm": False,
        "biased": False,
        "sinks": False,
        "window": 0,
        "latent": None,
        "experts": None,
    }
    return Architecture(**{**values, **changes})


def decoder(**changes: Any) -> Architecture:
    """A decoder of these `parts`."""
    shape = vars(architecture(family="decoder", **{**changes, "parts": None}))
    made = Parts(**parts(shape | {"parts": changes.get("parts", {})}))
    return replace(architecture(family="decoder", **{**changes, "parts": None}), parts=made)


def experts(**changes: Any) -> Experts:
    values: dict[str, Any] = {
        "count": 8,
        "active": 2,
        "ffn": 32,
        "shared": 0,
        "dense": 0,
        "groups": None,
        "groups_used": None,
        "score": "softmax",
        "normalized": True,
        "scale": 1.0,
        "balance": 0.0,
    }
    return Experts(**{**values, **changes})


def latent(**changes: Any) -> Latent:
    """Of an `architecture`, whose `norm_eps` is not that of latents."""
    widths = {"queries": 48, "keys": 32, "plain": 16, "rotary": 8, "values": 16}
    return Latent(**{**widths, "eps": LATENT_EPS, **changes})


def lr(from_step: int, to_step: int, shape: Any, start: float, end: float) -> LrPiece:
    """A ramp (or hold) on the clock of steps, exactly as long as its piece."""
    return LrPiece(
        from_step=from_step,
        to_step=to_step,
        shape=shape,
        start=start,
        end=end,
        clock="steps",
        origin=from_step,
        length=to_step - from_step,
    )


def train_job(
    *,
    steps: int,
    first_step: int = 0,
    first_token: int = 0,
    seq_len: int = 32,
    batch: int | list[tuple[int, int]] = 4,
    schedule_lr: list[LrPiece] | None = None,
    mixture: list[tuple[int, dict[str, int]]] | None = None,
    first_tokens: dict[str, int] | None = None,
    model: Architecture | None = None,
    optimizer_state: Any = "fresh",
    average: Averaging | None = None,
    checkpoint_every: int = 5,
    saving: Saving | None = None,
    world_size: int = 1,
    torchtitan: dict[str, dict[str, Any] | None] | None = None,
    id: str = "toy",
    **adamw: Any,
) -> TrainJob:
    """A train job of stage steps [first_step, first_step + steps).

    Args:
        batch: sequences a step, or (from_step, sequences) pieces.
        mixture: (from_step, weights) pieces.
        adamw: keyword arguments of the optimizer.
    """
    end = first_step + steps
    sizes = [(first_step, batch)] if isinstance(batch, int) else batch
    mixes = mixture or [(first_step, {"web": 3, "code": 1})]
    batches = [
        BatchPiece(from_step=begin, to_step=until, sequences=size)
        for (begin, size), until in zip(sizes, [*(s for s, _ in sizes[1:]), end], strict=True)
    ]
    mixtures = [
        MixturePiece(from_step=begin, to_step=until, weights=weights)
        for (begin, weights), until in zip(mixes, [*(s for s, _ in mixes[1:]), end], strict=True)
    ]
    sources = list(dict.fromkeys(name for _, weights in mixes for name in weights))
    sequences = sum((piece.to_step - piece.from_step) * piece.sequences for piece in batches)
    sections: dict[str, Any] = {
        "training": {
            "local_batch_size": 2,
            "seq_len": seq_len,
            "steps": steps,
            "max_norm": 1.0,
            "mixed_precision_param": "float32",
            "disable_cuda_graphs": True,
        },
        "optimizer": {
            "implementation": "fused",
            "param_groups": [
                {
                    "pattern": ".*",
                    "optimizer_name": "AdamW",
                    "optimizer_kwargs": {"betas": [0.9, 0.95], "weight_decay": 0.1, **adamw},
                }
            ],
        },
        "activation_checkpoint": None,
        "comm": {"trace_buf_size": 0},
        **(torchtitan or {}),
    }
    return TrainJob(
        key=id,
        id=id,
        stage="toy",
        inputs={},
        steps=steps,
        tokens=sequences * seq_len,
        model=model or architecture(),
        drawn="by name",
        seed=7,
        seq_len=seq_len,
        first_step=first_step,
        first_token=first_token,
        segment=0,
        segments=1,
        sequences=sequences,
        schedule=Schedule(
            lr=schedule_lr or [lr(first_step, end, "hold", 1e-3, 1e-3)],
            batch=batches,
            mixture=mixtures,
        ),
        data={
            name: Window(
                first_token=(first_tokens or {}).get(name, 0),
                last_token=0,
                sequences=0,
                epochs=None,
            )
            for name in sources
        },
        optimizer_state=optimizer_state,
        average=average,
        saving=saving or Saving(every=checkpoint_every, seconds=None),
        roundings=[],
        resources=Resources(
            world_size=world_size,
            device="cpu",
            replicate=1,
            shard=world_size,
            tensor=1,
            context=1,
            pipeline=1,
            interleave=1,
            expert=1,
        ),
        cost=Cost(
            parameters=0,
            active_parameters=0,
            flops_per_token=0,
            attention_flops_per_token=0,
            flops=0,
        ),
        torchtitan=sections,
    )


def rolling(steps: int = 24, at_most: int = 3, **changes: Any) -> TrainJob:
    """A job that goes back at spikes, by five steps or more."""
    made = train_job(steps=steps, saving=Saving(every=7, seconds=None, last=1), **changes)
    policy = Spikes(do="rollback", above=10.0, back=5)
    return made.model_copy(update={"spikes": policy, "rollbacks": at_most})


def run(job: TrainJob, inputs: dict[str, Path], folder: Path, **keywords: Any) -> Events:
    """Trains in this process, and returns the events."""
    events: Events = []
    train(job, inputs, folder, **{"root": folder.parent, "on_event": events.append, **keywords})
    return events


def spoiled(job: TrainJob, steps: Iterable[int], factor: float = 1000.0) -> Callable[..., Any]:
    """A trainer's `forward_backward_step` whose gradients are so many times as large wherever it
    learns what an undisturbed job reads at these steps."""
    timeline = Timeline.of(job)
    bad = {(name, i * job.seq_len) for name, i in (timeline.sequence(step, 0) for step in steps)}
    real = Trainer.forward_backward_step

    def forward_backward_step(self: Trainer, **arguments: Any) -> torch.Tensor:
        loss = real(self, **arguments)
        if self.loader._locate(self.job.first_step + self.step - 1, 0) not in bad:
            return loss
        for part in self.model_parts:
            for parameter in part.parameters():
                if parameter.grad is not None:
                    parameter.grad.mul_(factor)
        return loss * factor

    return forward_backward_step


def tensors(checkpoint: Path) -> dict[str, torch.Tensor]:
    """All tensors of a checkpoint, those of the optimizer included."""
    state: dict[str, Any] = {
        name: torch.empty(entry.size, dtype=entry.properties.dtype)
        for name, entry in FileSystemReader(checkpoint).read_metadata().state_dict_metadata.items()
        if isinstance(entry, TensorStorageMetadata)
    }
    with warnings.catch_warnings(action="ignore"):
        load(state, checkpoint_id=checkpoint, no_dist=True)
    return state


def weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    """The model's tensors of a checkpoint."""
    return {
        name: tensor
        for name, tensor in tensors(checkpoint).items()
        if not name.startswith(("optimizer.", "average.", "spikes."))
    }


def same(one: Path, other: Path) -> bool:
    """Whether two checkpoints hold the same tensors, bit for bit."""
    left, right = tensors(one), tensors(other)
    return left.keys() == right.keys() and all(
        torch.equal(left[name], right[name]) for name in left
    )


def interrupted(job: TrainJob, inputs: dict[str, Path], folder: Path, *, lost: int) -> None:
    """Runs a job until the power is lost after a step."""

    class Lost(Exception):
        pass

    def lose_power(event: dict[str, Any]) -> None:
        if event.get("step") == lost:
            raise Lost

    with pytest.raises(Lost):
        run(job, inputs, folder, on_event=lose_power)


def interrupted_and_resumed(
    job: TrainJob, inputs: dict[str, Path], folder: Path, *, lost: int, again: list[int]
) -> Events:
    """Checks that a job that loses power has the bits of one that does not; returns the events of
    the latter.

    Args:
        lost: the step after which the power is lost.
        again: the steps that are taken once it is back.
    """

    whole = run(job, inputs, folder / "whole")
    interrupted(job, inputs, folder / "job", lost=lost)
    events = run(job, inputs, folder / "job")
    assert [event["step"] for event in events if event["event"] == "step"] == again
    assert same(folder / "whole" / "result" / "state", folder / "job" / "result" / "state")
    return whole


def same_weights(one: Path, other: Path) -> bool:
    """Whether two checkpoints hold the same weights of the model, bit for bit."""
    left, right = weights(one), weights(other)
    return left.keys() == right.keys() and all(
        torch.equal(left[name], right[name]) for name in left
    )


class Snapshots:
    """An `on_event` that adds up the weights after the job's steps in `wanted` (from 1).

    It needs a checkpoint after every step: the event of step s comes before the checkpoint of
    step s is written, and after the writing of that of s - 1 has begun.
    """

    def __init__(self, folder: Path, wanted: set[int]) -> None:
        self._folder = folder
        self._wanted = wanted
        self.taken: list[dict[str, torch.Tensor]] = []

    def __call__(self, event: dict[str, Any]) -> None:
        if event["step"] in self._wanted:
            path = self._folder / "checkpoints" / f"step-{event['step']}"
            deadline = time.monotonic() + 60
            while not is_whole(path):
                assert time.monotonic() < deadline, f"{path} does not come"
                time.sleep(0.01)
            self.taken.append(weights(path))

    def mean(self) -> dict[str, torch.Tensor]:
        names = self.taken[0]
        return {name: torch.stack([each[name] for each in self.taken]).mean(0) for name in names}
