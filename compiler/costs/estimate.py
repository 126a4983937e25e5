"""Estimates of GPU memory and step time for a model in a placement."""

from collections.abc import Mapping
from functools import cache
from types import CodeType
from typing import Any, NamedTuple

from ...spec.record import Record, field, replace
from ...spec.schema.precision import budget
from ..families.architectures import (
    attention_flops_per_token,
    flops_per_token,
    widths,
)
from ..pipelines import bubble_kind
from ..values import ModelShape, Resources
from .formulas import FITTED, TIME, Formula, compiled
from .hardware import GPUS, Gpu
from .memory import MEMORY
from .pipeline_ranks import pipeline_ranks
from .shapes import products, shape_symbols

H100 = GPUS["H100 80GB"]
LOSS_CHUNKS = 8
"""Chunks in which torchtitan's chunked loss computes logits on GPUs."""
MEMORY_PARTS = (
    "parameters",
    "gradients",
    "optimizer",
    "activations",
    "logits",
    "buffers",
    "margin",
)
TIME_PARTS = ("compute", "tensor", "context", "expert", "bubble", "pipeline", "data", "update")

ONCE = ("deepep", "hybridep")
"""Dispatchers that send a token once to each GPU that has experts for it."""


class Setting(Record):
    """The input of an estimate: a model in a placement on a kind of GPU.

    Attributes:
        micro_batch: sequences that a data-parallel rank processes at a time (torchtitan's local
            batch); a pipeline cuts them into micro-batches of one.
        sequences: in the global batch.
        precision: of the layers' products: "bf16", "fp32", or in 8 or 4 bits and otherwise bf16:
            "fp8", scaled by tensors, which FSDP gathers in fp8 (torchtitan in 2025), "fp8 rowwise",
            "fp8 rowwise_with_gw_hp", "mxfp8" or "nvfp4".
        low: the share of those products that is in 8 or 4 bits, if any is.
        low_output: whether the output layer's are, too.
        eager: without torch.compile.
        pipeline_batch: sequences of a pipeline's micro-batch.
        plain_loss: the loss is not compiled.
        flash2: attention has the kernels of FlashAttention 2 on a Hopper GPU.
        once: gradients are reduced once a step.
        reads: the model only reads, without gradients (`recompute` is then "none").
        reshard: torchtitan's `fsdp_reshard_after_forward`: "default", "always" or "never".
        offload: the host keeps weights, gradients and moments.
        adapters: parameters of adapters for each of the model's, which is frozen if there are some.
        asked: the loss asks about places in rows, whose logits are made piece by piece.
        likely: it asks about several tokens at each of them.
        scores: its head gives one score, not a logit for each token.
        muon: iterations of Newton–Schulz in Muon, by which the matrices of layers learn; 0: they do
            not.
        adafactor: all parameters learn by Adafactor.
        lion: all parameters learn by Lion.
        dispatcher: how tokens reach experts on other GPUs.
        reached: GPUs that have the experts of a token, if it is not routed at random.
    """

    model: ModelShape
    resources: Resources
    seq_len: int
    micro_batch: int
    sequences: int
    recompute: str
    gpus_per_node: int
    gpu: Gpu
    precision: str = "bf16"
    low: float = 1.0
    low_output: bool = False
    chunks: float = LOSS_CHUNKS
    eager: bool = False
    pipeline_batch: int = 1
    plain_loss: bool = False
    flash2: bool = False
    once: bool = False
    reads: bool = False
    asked: bool = False
    likely: bool = False
    scores: bool = False
    adapters: float = 0.0
    averaged: bool = False
    reshard: str = "default"
    offload: bool = False
    muon: int = 0
    adafactor: bool = False
    lion: bool = False
    dispatcher: str = "all_to_all"
    reached: float = 0.0


class Estimate(Record):
    """The memory and time of one optimizer step.

    Attributes:
        memory: bytes on the fullest GPU by MEMORY_PARTS.
        memory_total: their sum.
        time: seconds of a step by TIME_PARTS; communication counts only what is not overlapped.
        seconds: their sum.
        tokens_per_second: per GPU.
        mfu: model FLOPs (6 N and causal attention scores, without recomputation) over peak.
        values: every symbol and result of the formulas, for `why`.
    """

    memory: dict[str, float]
    memory_total: float
    time: dict[str, float]
    seconds: float
    tokens_per_second: float
    mfu: float
    values: dict[str, float] = field(default_factory=dict, compare=False)


def estimate(setting: Setting, fitted: dict[str, float] | None = None) -> Estimate:
    """The memory and time of a step.

    Args:
        fitted: constants to use instead of FITTED.
    """
    model, setting = setting.model, _with_shared_keys(setting)
    base = _symbols(setting)
    base.update(fitted or FITTED)
    ranks = pipeline_ranks(
        setting.model,
        setting.resources,
        max(setting.micro_batch // setting.pipeline_batch, 1),
        output=setting.model.dim if setting.scores else None,
    )
    each = [evaluate(base | ends, _of_memory()) for ends in ranks.ends]
    values = max(each, key=lambda found: found["memory"])
    # A step takes as long as the slowest rank.
    timed = max(
        (evaluate(each[rank], _of_time()) for rank in ranks.slow),
        key=lambda found: found["time"],
    )
    r = setting.resources
    tokens = setting.sequences * setting.seq_len / r.world_size
    seconds = timed["time"]
    flops = flops_per_token(model) + attention_flops_per_token(model, setting.seq_len)
    time = {part: timed[part] for part in TIME_PARTS}
    for part in ("tensor", "context", "expert"):
        time[part] *= base["m"]
    return Estimate(
        memory={part: values[part] for part in MEMORY_PARTS},
        memory_total=values["memory"],
        time=time,
        seconds=seconds,
        tokens_per_second=tokens / seconds,
        mfu=flops * tokens / seconds / base["peak"],
        values={n: timed[n] for n in TIME} | values,
    )


def _symbols(setting: Setting) -> dict[str, float]:
    model, r, gpu = setting.model, setting.resources, setting.gpu
    pipelined = r.pipeline > 1
    local = setting.sequences // (r.replicate * r.shard)
    batch = setting.pipeline_batch if pipelined else setting.micro_batch
    bytes_of = 4 if setting.precision == "fp32" else 2
    return {
        **shape_symbols(model),
        **({"V": 1} if setting.scores else {}),
        "s": setting.seq_len,
        "S": r.shard * r.context,
        "R": r.replicate,
        "window": min(model.window, setting.seq_len),
        "x": r.expert,
        "X": r.expert if r.expert > 1 else r.tensor,
        "t": r.tensor,
        "c": r.context,
        "p": r.pipeline,
        "v": r.interleave,
        "b": batch,
        "m": max(local // batch, 1),
        "fills": max(local // setting.micro_batch, 1) if pipelined else 0,
        **_sharded(setting),
        "chunks": setting.chunks,
        "chunked": setting.chunks > 1 and not (setting.reads or setting.asked),
        **_kept(setting),
        "eager": setting.eager,
        **_muon(setting),
        **_adafactor(setting),
        "lion": setting.lion,
        "plain_loss": setting.plain_loss,
        "asked": _asked(setting),
        "flash2": setting.flash2,
        "once": setting.once,
        "bytes": bytes_of,
        "gathered": 1 if setting.precision == "fp8" else bytes_of,
        "peak": gpu.fp32 if setting.precision == "fp32" else gpu.bf16,
        **_low(setting),
        "power": gpu.watts / gpu.bf16 / (H100.watts / H100.bf16),
        "hbm": gpu.bandwidth,
        **_bandwidths(setting),
        **_sent(setting),
    }


def _bandwidths(setting: Setting) -> dict[str, float]:
    """Between the ranks of each kind of parallelism, from the innermost of the mesh: tensor,
    context, shard, replicate, pipeline."""
    r, gpu, near = setting.resources, setting.gpu, setting.gpus_per_node
    shard = r.shard * r.context

    def link(inner: int, size: int) -> float:
        """The bandwidth of a ring over `size` ranks that are `inner` ranks apart.

        Between nodes, a ring uses the network cards of all its ranks in a node.
        """
        if inner * size <= near:
            return gpu.link
        return min(gpu.link, gpu.network * max(near // inner, 1))

    return {
        "bw_t": link(1, r.tensor),
        "bw_c": link(r.tensor, r.context),
        "bw_s": link(r.tensor, shard),
        "bw_r": link(r.tensor * shard, r.replicate),
        "bw_p": gpu.link if r.world_size <= near else gpu.network,
    }


def _with_shared_keys(setting: Setting) -> Setting:
    """The setting of a model with as many heads of keys as it takes to give each tensor rank what
    it has: all of them, where ranks share heads. It learns and keeps their weights whole."""
    tensor, model = setting.resources.tensor, setting.model
    if model.latent or model.kv_heads % tensor == 0:
        return setting
    return replace(setting, model=replace(model, kv_heads=model.kv_heads * tensor))


def _sent(setting: Setting) -> dict[str, float]:
    """Copies of a token that leave a GPU for its experts, at random, and the bandwidth on the way.

    Ranks of experts are next to each other. With `all_to_all` there is one copy for each expert.
    DeepEP sends one to each node, over the network, and from there one to each GPU
    (github.com/deepseek-ai/DeepEP, "normal kernels").
    """
    r, gpu, experts = setting.resources, setting.gpu, setting.model.experts
    bandwidth = {"bw_near": gpu.link, "bw_far": gpu.network}
    if experts is None or r.expert == 1:
        return {"sent_near": 0, "sent_far": 0, **bandwidth}
    near = min(r.expert, setting.gpus_per_node)
    nodes = r.expert / near
    if setting.dispatcher not in ONCE:
        at_home, away = near - 1, r.expert - near
        return {
            "sent_near": experts.active * at_home / r.expert,
            "sent_far": experts.active * away / r.expert,
            **bandwidth,
        }
    limited = min(nodes, experts.groups_used or nodes)
    places = setting.reached or _different(r.expert, experts.active)
    of_nodes = 1 if setting.reached else _different(limited, experts.active)
    return {
        "sent_near": places * (r.expert - 1) / r.expert,
        "sent_far": of_nodes * (nodes - 1) / nodes,
        **bandwidth,
    }


def _different(places: float, draws: int) -> float:
    """How many of some places are hit by independent draws, on average."""
    return places * (1 - (1 - 1 / places) ** draws)


def _sharded(setting: Setting) -> dict[str, float]:
    """The schedule of a pipeline, and where weights are between two passes."""
    r = setting.resources
    return {
        **{name: name == bubble_kind(r) for name in ("split", "vee", "dual")},
        "kept": {"always": False, "never": True}.get(setting.reshard, r.pipeline > 1),
        "offload": setting.offload,
    }


def _low(setting: Setting) -> dict[str, float]:
    """The symbols of products in 8 and 4 bits."""
    kind, _, recipe = setting.precision.partition(" ")
    peaks = {"fp8": setting.gpu.fp8, "mxfp8": setting.gpu.fp8, "nvfp4": setting.gpu.fp4}
    peak = peaks.get(kind, 0)
    return {
        "low": setting.low if peak else 0,
        "low_out": setting.low_output and peak > 0,
        "peak_low": peak or 1,
        "rowwise": setting.precision != "fp8",
        "wide": recipe == "rowwise_with_gw_hp",
    }


def _muon(setting: Setting) -> dict[str, float]:
    """The symbols of Muon. An iteration of Newton–Schulz on a matrix of m rows and n ≥ m columns
    takes 2 m² n FLOPs for its Gram matrix, 2 m³ for the square of that, and 2 m² n again."""
    if not setting.muon:
        return {"muon": 0, "matrix": 0, "z_d": 0, "z_e": 0}
    experts = setting.model.experts
    of = _matrices(setting.model)

    def flops(matrices: list[tuple[int, int]]) -> float:
        short = [(min(shape), max(shape)) for shape in matrices]
        return setting.muon * sum(4 * m * m * n + 2 * m**3 for m, n in short)

    layers = flops(of.attention)
    return {
        "muon": 1,
        "matrix": max(m * n for each in of for m, n in each),
        "z_d": layers + flops(of.feed_forward),
        "z_e": layers
        + (experts.count + experts.shared) * flops(of.expert)
        + flops([(experts.count, setting.model.dim)])
        if experts
        else 0,
    }


def _asked(setting: Setting) -> int:
    """Bytes for each logit of a piece, as its gradient is made: three numbers in fp32 for the
    cross-entropy of a token, four where tensor ranks share the vocabulary, and five for
    log-probabilities of several tokens (`runtime/engine/heads.py`)."""
    if not setting.asked or setting.scores:
        return 0
    return 20 if setting.likely else 16 if setting.resources.tensor > 1 else 12


def _adafactor(setting: Setting) -> dict[str, float]:
    """The symbols of Adafactor: a number for each row and column of a layer's matrices, and for
    each element of its norms."""
    if not setting.adafactor:
        return {"adafactor": 0, "k_d": 0, "k_e": 0, "k_x": 0}
    of, d, experts = _matrices(setting.model), setting.model.dim, setting.model.experts

    def kept(matrices: list[tuple[int, int]]) -> int:
        return sum(rows + columns for rows, columns in matrices)

    layers = kept(of.attention) + 2 * d
    shared = experts.shared * kept(of.expert) + experts.count + d if experts else 0
    return {
        "adafactor": 1,
        "k_d": layers + kept(of.feed_forward),
        "k_e": layers + shared,
        "k_x": experts.count * kept(of.expert) if experts else 0,
    }


class _Matrices(NamedTuple):
    """The matrices of a layer, as rows and columns; of one expert."""

    attention: list[tuple[int, int]]
    feed_forward: list[tuple[int, int]]
    expert: list[tuple[int, int]]


def _matrices(model: ModelShape) -> _Matrices:
    queries, keys, values = widths(model)
    d, latent, experts = model.dim, model.latent, model.experts
    attention = [(queries, d), (keys, d), (values, d), (d, values if latent else queries)]
    if latent:
        low = latent.queries
        attention = [
            *([(low, d), (queries, low)] if low else [(queries, d)]),
            (latent.keys + latent.rotary, d),
            (keys - model.heads * latent.rotary + values, latent.keys),
            (d, values),
        ]
    each = [(experts.ffn, d)] * 3 if experts else []
    return _Matrices(attention, [(model.ffn, d)] * (products(model) + 1), each)


def _kept(setting: Setting) -> dict[str, float]:
    """Whether there is a backward pass, and what is kept for it."""
    share = budget(setting.recompute)
    kept = setting.recompute == "none" if share is None else float(share)
    return {
        "backward": not setting.reads,
        "frozen": setting.adapters > 0,
        "adapters": setting.adapters,
        "averaged": setting.averaged,
        "save_all": kept * (not setting.reads),
        "save_some": setting.recompute == "selective",
        "recompute": setting.recompute == "full" if share is None else 1 - float(share),
    }


@cache
def _of_memory() -> CodeType:
    return compiled(MEMORY)


@cache
def _of_time() -> CodeType:
    return compiled(TIME)


def evaluate(symbols: Mapping[str, float], code: CodeType) -> dict[str, float]:
    """The symbols, and the results of compiled formulas in order."""
    values: dict[str, Any] = {**symbols, "max": max, "min": min, "__builtins__": {}}
    exec(code, values)  # our own formulas, never a user's text
    del values["max"], values["min"], values["__builtins__"]
    return values


FORMULAS: dict[str, Formula] = MEMORY | TIME
"""name → formula."""
