"""Models that generate: how many GPUs they need, and the memory and time of generation.

Weights in bf16 and a KV cache, over the tensor and pipeline degrees of vLLM, with the rules of its
version 0.21 (`vllm/config/model.py`, `vllm/distributed/utils.py`). Like the formulas of training,
these are texts that are evaluated as shown.
"""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from functools import cache, lru_cache
from math import fsum
from types import CodeType
from typing import NamedTuple

from ...spec.record import replace
from ..families.architectures import dense_layers
from ..values import Generation, ModelShape
from .digits import digits
from .estimate import evaluate
from .formulas import FITTED, Formula, compiled
from .hardware import Gpu
from .memory import MEMORY
from .shapes import shape_symbols

SHARE = 0.9
"""The share of a GPU's memory that vLLM uses for weights, activations and cache
(`gpu_memory_utilization`)."""
CHUNK = 8192
"""Tokens that the model processes at a time (`max_num_batched_tokens`)."""
MOST = 256
"""Sequences that are generated at a time (`max_num_seqs`)."""
USUAL = 1024
"""Tokens of a prompt and of an answer, if a plan does not say what is generated."""
ENGINE = 75.0
"""Seconds in which vLLM starts, besides the weights: 15 for bytecode and 60 for CUDA graphs, of a
70B model over 8 GPUs (vllm-project/vllm#19824). What it compiles, and which GPUs reach each other,
it keeps for the next start."""
LOADING = 7e9
"""Bytes of weights that a node reads in a second: 70 GB in 10 s, from its page cache (the same)."""
NEAR = 1.25
"""A placement on fewer GPUs may take this multiple of the best placement's time."""
SPARE = 1.02
"""At most half of the replicas that a cluster holds may take this multiple of the time of all."""

SYMBOLS = {
    "G": "KV heads",
    "A": "tokens of an answer",
    "P": "tokens of a prompt",
    "T": "tokens of the longest sequence of the job: prompt and answer",
    "T_w": "the same, at most those of a window",
    "n": "answers, of the replica that has most",
    "b": "sequences sampled at a time",
    "chunk": "tokens that go through the model at a time",
    "most": "the most sequences sampled at a time",
    "engine": "seconds in which vLLM starts, besides the weights",
    "loading": "bytes of weights that a node reads in a second",
}
"""Inputs of the formulas besides the symbols of a training step."""

_SIZES = (
    "L",
    "N_attention",
    "N_layer",
    "N_expert",
    "N_mixed",
    "N_module",
    "N_rest",
    "N_experts",
    "N",
    "F",
)


def _of(text: str, what: str, unit: str = "") -> Formula:
    return Formula(text=text, what=what, unit=unit)


GENERATION: dict[str, Formula] = {
    "N_copied": _of(
        "L_d * (d * (r_q + r_k + r) + 2 * d) + L_e * (d * (r_q + r_k + r) + 2 * d + d * E)",
        "parameters that every tensor rank has: norms, latents, routers",
    ),
    "model": _of(
        "2 * ((N - N_copied) / t + N_copied)", "bf16 weights of the fullest stage", "bytes"
    ),
    "token": _of(
        "2 * L * (1 - linear) * ((r_k + r) if r_k else (k + w) / min(t, G))",
        "cache of a token: bf16 keys and values of the stage's layers, except those with linear "
        "attention; a tensor rank has its KV heads, at least one, and all of a latent "
        "(arXiv:2309.06180 §4; arXiv:2405.04434 §2.1)",
        "bytes",
    ),
    "sequence": _of(
        "token * ((1 - near) * T + near * T_w) + 4 * L * linear * H_l * h_k * h_v / t",
        "cache of the longest sequence, and the state of linear attention in fp32",
        "bytes",
    ),
    "work": _of(
        "2 * chunk * (2 * d + (2 * q + k + w + 3 * F) / t + r_q + r_k) + 12 * most * V",
        "of a chunk of prompts both residuals, attention and the three products of SwiGLU; of "
        "the tokens drawn fp32 logits, sorted and as probabilities",
        "bytes",
    ),
    "least": _of(
        "model + work + sequence",
        "what must fit: weights, work, and the cache of one longest sequence",
        "bytes",
    ),
}
"""name → formula for the memory of a GPU; `L` to `N` and `F` are those of training."""

DRAWING: dict[str, Formula] = {
    "N_token": _of(
        "dense * N_layer + mixed * (N_mixed + K * N_expert)",
        "parameters of all layers that a token goes through",
    ),
    "prompts": _of(
        "n * P * (2 * N_token"
        " + (q + u) * (dense + mixed) * ((1 - near - linear) * P + near * min(P, T_w)))"
        " / (t * e_matmul * peak)",
        "prompts: bound by matrix products, 2 FLOPs a parameter and token (arXiv:2001.08361 "
        "§2.1), and causal attention; the nodes of a pipeline work one after the other "
        "(vllm-project/vllm#18019)",
        "s",
    ),
    "touched": _of(
        "E * (1 - (1 - K / E) ** b) if E else 0",
        "experts of a layer that a step's tokens are routed to, if at random",
    ),
    "read": _of(
        "p * (2 * ((N - N_copied - N_in - L_e * (E - touched) * N_expert) / t + N_copied)"
        " + b * token * ((1 - near) * (P + A / 2) + near * min(P + A / 2, T_w)))",
        "what GPUs read one after the other for the next token of all sequences: weights, and "
        "cache (arXiv:2211.05102 §2)",
        "bytes",
    ),
    "answers": _of("n * A / b * read / hbm", "answers: bound by memory", "s"),
    "drawing": _of("prompts + answers", "all answers, as far as nothing else takes time", "s"),
}
"""name → formula for the time of generation."""

STARTING: dict[str, Formula] = {
    "start": _of(
        "engine + model * t * p / loading",
        "the start of vLLM; each node of a model reads all weights, and keeps its own",
        "s",
    ),
}
"""name → formula for the time until a job begins to generate."""


class Draws(NamedTuple):
    """Similar answers of a job: their number, and the tokens per prompt and answer."""

    number: int
    prompt: int
    answer: int


def generation(
    model: ModelShape,
    gpu: Gpu,
    *,
    per_node: int,
    nodes: int,
    context: int,
    draws: Sequence[Draws] | None,
    spread: bool = False,
    turns: bool = False,
) -> Generation:
    """The GPUs that a model needs to generate, and its memory and time there.

    Tensor parallelism stays within a node; if a node is too small, a pipeline spans several. One
    copy of the model takes the fewest GPUs whose total GPU time is at most `NEAR` times that of the
    best choice: with room for only a few sequences, weights are read too often. A pipeline spans as
    few nodes as possible.

    Replicas share the answers. A replica has the fewest GPUs with which the job takes at most
    `NEAR` times the time of the best choice. There are as many as the cluster holds, or at most
    half of them, as few as take at most `SPARE` times the time of all. On several nodes each node
    has the same number. In turns with training there are as many as the cluster holds if they
    leave no GPU over: the ranks that train then write, and neither they nor vLLM start for it.

    If nothing fits, the result is the nearest choice, and `fits` is false.

    Args:
        per_node, nodes: of the cluster.
        context: tokens of the longest sequence of the job.
        draws: what is generated; None: unknown.
        spread: whether there are replicas.
        turns: whether the job alternates with training on the same cluster.
    """
    known = None if draws is None else tuple(draws)
    return _chosen(_Cluster(gpu, per_node, nodes, turns), model, context, known, spread)


class _Cluster(NamedTuple):
    gpu: Gpu
    per_node: int
    nodes: int
    turns: bool


# The turns of a policy are alike.
@lru_cache(maxsize=1024)
def _chosen(
    on: _Cluster,
    model: ModelShape,
    context: int,
    draws: tuple[Draws, ...] | None,
    spread: bool,
) -> Generation:
    usual = (Draws(MOST, min(USUAL, context // 2), min(USUAL, context // 2)),)
    tried = []
    for tensor, pipeline in _degrees(model, on.per_node, on.nodes):
        at = _memory(model, tensor, pipeline, context)
        one = _generation(on.gpu, at, tensor, pipeline, context, draws or usual)
        tried.append(_replicas(on, at, one, draws) if spread and one.fits else one)
        if one.fits and pipeline > 1:
            break
    fitting = [each for each in tried if each.fits]
    if not fitting:
        return replace(tried[-1], seconds=None)
    cost = _job_seconds if spread and draws else _gpu_seconds
    least = min(map(cost, fitting))
    chosen = next(each for each in fitting if cost(each) <= NEAR * least)
    return chosen if draws is not None else replace(chosen, seconds=None)


def _replicas(
    on: _Cluster, at: dict[str, float], one: Generation, draws: Sequence[Draws] | None
) -> Generation:
    """Replicas of a model that share what is drawn."""
    of_node = on.per_node // one.tensor
    most = of_node * on.nodes if one.pipeline == 1 else on.nodes // one.pipeline
    if draws is None:
        return replace(one, replicas=most)

    def seconds(replicas: int) -> float:
        shares = [each._replace(number=-(-each.number // replicas)) for each in draws]
        return _seconds(on.gpu, at, one.context, shares)

    if on.turns and most * one.tensor * one.pipeline == on.per_node * on.nodes:
        # Only the first turn starts vLLM.
        return replace(one, replicas=most, seconds=digits(seconds(most) - ENGINE))
    most = min(most, sum(each.number for each in draws))
    enough = SPARE * seconds(most)
    number = bisect_left(range(1, most), True, key=lambda n: seconds(n) <= enough) + 1
    number = most if 2 * number > most else number
    if one.pipeline == 1 and number > of_node:
        number = -(-number // of_node) * of_node
    return replace(one, replicas=number, seconds=digits(seconds(number)))


def _job_seconds(of: Generation) -> float:
    return of.seconds or 0


def _gpu_seconds(of: Generation) -> float:
    return _job_seconds(of) * of.tensor * of.pipeline


def tensor_degrees(model: ModelShape, per_node: int) -> list[int]:
    """The GPU counts of a node that vLLM can spread a model's layers over, fewest first.

    The degree divides heads, feed-forward layers, and KV heads or their copies
    (`get_num_kv_heads`).
    """
    widths = [model.heads, *filter(None, (model.ffn, model.experts and model.experts.ffn))]
    return [
        t
        for t in range(1, max(per_node, 1) + 1)
        if not any(width % t for width in widths)
        and (model.latent or model.kv_heads % t == 0 or t % model.kv_heads == 0)
    ]


def _degrees(model: ModelShape, per_node: int, nodes: int) -> Iterator[tuple[int, int]]:
    """Tensor and pipeline degrees, fewest GPUs first."""
    within = tensor_degrees(model, per_node)
    yield from ((t, 1) for t in within)
    yield from ((within[-1], p) for p in range(2, min(nodes, model.layers) + 1))


def _memory(model: ModelShape, tensor: int, pipeline: int, context: int) -> dict[str, float]:
    """The symbols and results of the memory formulas, for the fullest stage."""
    # The remainder of the layers goes to the stages between the first and the last, or to the
    # first (`get_pp_indices`). Layers with experts are the larger ones.
    layers = -(-model.layers // pipeline)
    mixed = min(layers, model.layers - dense_layers(model))
    table = model.vocab * model.dim
    whole = pipeline == 1
    window = min(model.window, context) if model.window else context
    symbols = {
        **shape_symbols(model.main),
        "L_d": layers - mixed,
        "L_e": mixed,
        "N_in": table if whole and not model.tied else 0,
        "N_out": table,
        "G": model.kv_heads,
        "t": tensor,
        "p": pipeline,
        "T": context,
        "T_w": window,
        "window": window,
        "chunk": CHUNK,
        "most": MOST,
        "dense": dense_layers(model),
        "mixed": model.layers - dense_layers(model),
    }
    return evaluate(symbols, _memory_code())


def _generation(
    gpu: Gpu,
    at: dict[str, float],
    tensor: int,
    pipeline: int,
    context: int,
    draws: Sequence[Draws],
) -> Generation:
    return Generation(
        tensor=tensor,
        pipeline=pipeline,
        context=context,
        memory={
            "weights": round(at["model"]),
            "work": round(at["work"]),
            "sequence": round(at["sequence"]),
        },
        least=round(at["least"]),
        share=SHARE,
        gpu_memory=gpu.memory,
        fits=at["least"] <= SHARE * gpu.memory,
        at_a_time=_held(gpu, at, at["sequence"]),
        seconds=digits(_seconds(gpu, at, context, draws)),
    )


def _held(gpu: Gpu, at: dict[str, float], sequence: float) -> int:
    """How many sequences of `sequence` bytes the cache holds, at most `MOST`."""
    room = SHARE * gpu.memory - at["model"] - at["work"]
    return max(min(int(room / sequence), MOST), 0)


def _seconds(gpu: Gpu, at: dict[str, float], context: int, draws: Sequence[Draws]) -> float:
    start = evaluate(at | {"engine": ENGINE, "loading": LOADING}, _start_code())["start"]
    return start + fsum(_drawing(gpu, at, context, each) for each in draws)


def _drawing(gpu: Gpu, at: dict[str, float], context: int, draws: Draws) -> float:
    length = min(draws.prompt + draws.answer, context)
    symbols = at | {"T": length, "T_w": min(at["window"], length)}
    sequence = evaluate(symbols, _sequence_code())["sequence"]
    symbols |= {
        "n": draws.number,
        "P": draws.prompt,
        "A": draws.answer,
        "b": max(min(_held(gpu, at, sequence), draws.number), 1),
        "e_matmul": FITTED["e_matmul"],
        "peak": gpu.bf16,
        "hbm": gpu.bandwidth,
    }
    return evaluate(symbols, _time_code())["drawing"]


@cache
def _memory_code() -> CodeType:
    return compiled({name: MEMORY[name] for name in _SIZES} | GENERATION)


@cache
def _sequence_code() -> CodeType:
    return compiled({"sequence": GENERATION["sequence"]})


@cache
def _start_code() -> CodeType:
    return compiled(STARTING)


@cache
def _time_code() -> CodeType:
    return compiled(DRAWING)
