"""Parts of templates: the machines, the model and its pre-training, or another spec's."""

from fractions import Fraction
from math import lcm
from typing import Any, NamedTuple

from . import writing as w
from .tree import ConfigError

# Peak learning rates: 8B, 70B and 405B from arXiv:2407.21783, Table 3; 1B and 3B as 8B.
_PEAKS = {"tiny": "3e-3", "1B": "3e-4", "3B": "3e-4", "8B": "3e-4", "70B": "1.5e-4", "405B": "8e-5"}
_LOWS = {"tiny": "3e-4", "1B": "3e-6", "3B": "3e-6", "8B": "3e-6", "70B": "1.5e-6", "405B": "8e-7"}
# Tokens per batch; 405B: arXiv:2407.21783, §3.4.1.
_BATCHES = {"1B": 2**21, "3B": 2**22, "8B": 2**22, "70B": 2**23, "405B": 2**24}
_LENGTH = 8192
_FEWEST_STEPS = 200


class Model(NamedTuple):
    """A trained model that stages continue from.

    Attributes:
        stage: the stage that made it.
        length: the sequence length at its end.
        rope_theta: the base of its rotary positions.
        ranks: processes on the cluster.
        tensor: degree of tensor parallelism at its end.
        pipeline: degree of pipeline parallelism at its end.
        batch: tokens per step at its end.
        small: whether it is a tiny one, on CPUs.
        rate: the learning rate before it was annealed to 0; None if it was not.
        context: degree of context parallelism at its end.
        dialogs: the declared chat protocols.
    """

    stage: str
    length: int
    rope_theta: float
    ranks: int
    tensor: int
    pipeline: int
    batch: int
    small: bool
    rate: Fraction | None = None
    context: int = 1
    dialogs: tuple[str, ...] = ()
    names: frozenset[str] = frozenset()


def header(name: str, title: str) -> str:
    """The `recipe` block."""
    return w.block(f"recipe {name}", ("title", w.quoted(title)), ("seed", "1"))


def pretrained(answers: dict[str, Any], *, last: bool) -> tuple[list[str], Model]:
    """Blocks that train a model of the requested size from new weights.

    Args:
        last: whether this ends the recipe; the learning rate is then annealed.

    Raises: ConfigError: the GPUs do not fit, or there are too few tokens.
    """
    if answers["size"] == "tiny":
        return _tiny(answers, last=last)
    return _large(answers, last=last)


def _tiny(answers: dict[str, Any], *, last: bool) -> tuple[list[str], Model]:
    blocks = [
        "# The shape of Llama 3, very small: it trains on a laptop's CPU.\n"
        + w.block(
            "model tiny",
            ("layers", "2"),
            ("dim", "96"),
            ("heads", "4"),
            ("kv_heads", "2"),
            ("ffn", "256"),
            ("rope_theta", "100_000"),
        ),
        "# Functions of the running Python's library, with what they are for.\n"
        + w.block("dataset corpus", ("sample", "python_functions"), ("documents", "3000")),
        w.block("tokenizer words", ("train", "{ on [corpus], vocab 512 }")),
        _stage(answers, "tiny", 256, 8, last=last),
    ]
    return blocks, Model(_end(last), 256, 100_000, 1, 1, 1, 8 * 256, True)


def _large(answers: dict[str, Any], *, last: bool) -> tuple[list[str], Model]:
    size, gpus = answers["size"], answers["gpus"]
    tensor = 8 if size in ("70B", "405B") else 1
    if gpus % tensor:
        raise ConfigError(
            f"{gpus} GPUs cannot be divided by {tensor}, the degree of tensor "
            f"parallelism of {size}",
            help="use a multiple of 8",
        )
    pipeline = 1
    while size == "405B" and pipeline < 16 and gpus % (tensor * pipeline * 2) == 0:
        pipeline *= 2
    data_parallel = gpus // tensor // pipeline
    per_rank = max(round(_BATCHES[size] / _LENGTH / data_parallel), pipeline, 1)
    batch = per_rank * data_parallel
    node = next(n for n in range(min(8, gpus), 0, -1) if gpus % n == 0)
    nodes = ("nodes", w.plain(gpus // node)) if gpus > node else None
    blocks = [
        w.block("cluster machines", nodes, ("gpus", f"{node} of {w.quoted(answers['gpu'])}")),
        w.block(f"model llama_{size.lower()}", ("size", w.quoted(size))),
        w.block("tokenizer words", ("hub", w.quoted(answers["tokenizer"]))),
        "# `tokens = …` says how many there are, as far as you know: then the plan counts epochs.\n"
        + w.block("dataset corpus", ("files", w.quoted(answers["data"]))),
        _stage(answers, f"llama_{size.lower()}", _LENGTH, batch, tensor, pipeline, last=last),
    ]
    return blocks, Model(
        _end(last), _LENGTH, 500_000, gpus, tensor, pipeline, batch * _LENGTH, False
    )


def _end(last: bool) -> str:
    return "anneal" if last else "pretrain"


def _stage(
    answers: dict[str, Any],
    model: str,
    length: int,
    batch: int,
    tensor: int = 1,
    pipeline: int = 1,
    *,
    last: bool,
) -> str:
    """The stage that trains from new weights, and the annealing after it."""
    tokens = answers["tokens"]
    least = _FEWEST_STEPS * batch * length
    if tokens < least:
        raise ConfigError(
            f"{w.count(tokens)} tokens are fewer than {_FEWEST_STEPS} steps of {batch} sequences",
            help=f"use at least {w.plain(least)}",
        )
    size = answers["size"]
    degrees = {"tensor": tensor, "pipeline": pipeline, "micro_batch": 1}
    shown = ", ".join(f"{name} {n}" for name, n in degrees.items() if n > 1 or pipeline > 1)
    recompute = {"70B": "full", "405B": "full"}.get(size, "selective")
    pretrain = w.block(
        "stage pretrain: train",
        ("model", model),
        ("tokens", w.count(tokens)),
        ("seq_len", w.count(length)),
        ("batch", f"{w.plain(batch)} seqs"),
        ("lr", f"0 -> {_PEAKS[size]} for 1% then -> {_LOWS[size]} cosine"),
        ("data", "corpus"),
        ("parallel", f"{{ {shown} }}") if shown else None,
        ("recompute", recompute) if size != "tiny" else None,
    )
    comment = "# The learning rate warms up and falls along a cosine; a batch is " + (
        f"{w.count(batch * length)} tokens.\n"
    )
    if not last:
        return comment + pretrain
    anneal = w.block(
        "stage anneal: train",
        ("tokens", w.plain(max(tokens // 50, 20 * batch * length))),
        ("lr", "last -> 0"),
        ("average", "polyak every 1 step over 50%"),
    )
    return (
        f"{comment}{pretrain}\n\n# To nothing in the end; the mean of the last weights is the "
        f"result.\n{anneal}"
    )


def batch_of_all(model: Model, lengths: list[int], contexts: list[int]) -> int:
    """Tokens of a batch that is a whole number of sequences on all ranks at every length."""
    ranks = model.ranks // model.tensor // model.pipeline
    unit = lcm(
        *(length * (ranks // context) for length, context in zip(lengths, contexts, strict=True))
    )
    return max(round(model.batch / unit), 1) * unit
