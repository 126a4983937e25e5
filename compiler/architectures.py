"""Published model sizes, and parameter and FLOP counts from the shape alone."""

from typing import Any

from ..spec.record import Record
from .values import Architecture, Experts, Latent

_LLAMA3: dict[str, Any] = {
    "kv_heads": 8,
    "vocab": 128_256,
    "rope_theta": 500_000.0,
    "norm_eps": 1e-5,
}

_QWEN3: dict[str, Any] = {
    "kv_heads": 8,
    "head_dim": 128,
    "vocab": 151_936,
    "rope_theta": 1_000_000.0,
    "norm_eps": 1e-6,
}
_QWEN3_MOE: dict[str, Any] = _QWEN3 | {"kv_heads": 4}

_GPT_OSS: dict[str, Any] = {
    "dim": 2880,
    "heads": 64,
    "kv_heads": 8,
    "head_dim": 64,
    "vocab": 201_088,
    "window": 128,
    "rope_theta": 150_000.0,
    "rope_scaling": "yarn",
    "rope_factor": 32.0,
    "rope_original": 4096,
    "norm_eps": 1e-5,
}

_DEEPSEEK: dict[str, Any] = {"rope_theta": 10_000.0, "norm_eps": 1e-6}
_LATENT = {"queries": 1536, "keys": 512, "plain": 128, "rotary": 64, "values": 128}

PUBLISHED: dict[str, dict[str, dict[str, Any]]] = {
    # arXiv:2407.21783, Table 3; 1B and 3B: the model cards of Llama 3.2.
    "llama3": {
        "1B": _LLAMA3 | {"layers": 16, "dim": 2048, "heads": 32, "ffn": 8192, "tied": True},
        "3B": _LLAMA3 | {"layers": 28, "dim": 3072, "heads": 24, "ffn": 8192, "tied": True},
        "8B": _LLAMA3 | {"layers": 32, "dim": 4096, "heads": 32, "ffn": 14336},
        "70B": _LLAMA3 | {"layers": 80, "dim": 8192, "heads": 64, "ffn": 28672},
        "405B": _LLAMA3 | {"layers": 126, "dim": 16384, "heads": 128, "ffn": 53248},
    },
    # arXiv:2505.09388, Tables 1 and 2; widths: config.json of the published weights.
    "qwen3": {
        "0.6B": _QWEN3 | {"layers": 28, "dim": 1024, "heads": 16, "ffn": 3072, "tied": True},
        "1.7B": _QWEN3 | {"layers": 28, "dim": 2048, "heads": 16, "ffn": 6144, "tied": True},
        "4B": _QWEN3 | {"layers": 36, "dim": 2560, "heads": 32, "ffn": 9728, "tied": True},
        "8B": _QWEN3 | {"layers": 36, "dim": 4096, "heads": 32, "ffn": 12288},
        "14B": _QWEN3 | {"layers": 40, "dim": 5120, "heads": 40, "ffn": 17408},
        "32B": _QWEN3 | {"layers": 64, "dim": 5120, "heads": 64, "ffn": 25600},
        "30B-A3B": _QWEN3_MOE
        | {
            "layers": 48,
            "dim": 2048,
            "heads": 32,
            "ffn": 6144,
            "experts": {"count": 128, "active": 8, "ffn": 768},
        },
        "235B-A22B": _QWEN3_MOE
        | {
            "layers": 94,
            "dim": 4096,
            "heads": 64,
            "ffn": 12288,
            "experts": {"count": 128, "active": 8, "ffn": 1536},
        },
    },
    # 671B: arXiv:2412.19437, §4.2. 16B-A3B, Moonlight: arXiv:2502.16982; 1T-A32B, Kimi K2:
    # arXiv:2507.20534, Table 2; widths: config.json of the published weights.
    "deepseek_v3": {
        "16B-A3B": _DEEPSEEK
        | {
            "layers": 27,
            "dim": 2048,
            "heads": 16,
            "ffn": 11264,
            "vocab": 163_840,
            "rope_theta": 50_000.0,
            "norm_eps": 1e-5,
            "latent": _LATENT | {"queries": 0},
            "experts": {
                "count": 64,
                "active": 6,
                "shared": 2,
                "ffn": 1408,
                "dense": 1,
                "scale": 2.446,
            },
        },
        "671B": _DEEPSEEK
        | {
            "layers": 61,
            "dim": 7168,
            "heads": 128,
            "ffn": 18432,
            "vocab": 129_280,
            "latent": _LATENT,
            "experts": {
                "count": 256,
                "active": 8,
                "shared": 1,
                "ffn": 2048,
                "dense": 3,
                "groups": 8,
                "groups_used": 4,
                "scale": 2.5,
            },
        },
        "1T-A32B": _DEEPSEEK
        | {
            "layers": 61,
            "dim": 7168,
            "heads": 64,
            "ffn": 18432,
            "vocab": 163_840,
            "rope_theta": 50_000.0,
            "latent": _LATENT,
            "experts": {
                "count": 384,
                "active": 8,
                "shared": 1,
                "ffn": 2048,
                "dense": 1,
                "scale": 2.827,
            },
        },
    },
    # arXiv:2508.10925, §2 and Table 1; widths: config.json of the published weights.
    "gpt_oss": {
        "20B": _GPT_OSS | {"layers": 24, "experts": {"count": 32, "active": 4, "ffn": 2880}},
        "120B": _GPT_OSS | {"layers": 36, "experts": {"count": 128, "active": 4, "ffn": 2880}},
    },
}
"""family → size → shape: what the engine can build."""


class Family(Record):
    """What models of a family have in common.

    Attributes:
        qk_norm: queries and keys are normed, head by head.
        latent: attention goes through latents.
        experts: feed-forward layers may be mixtures of experts.
        score: how the router scores experts.
        balance: how fast the bias that balances their load moves, where a model does not say.
        scalings: of rotary positions.
        sparse: every layer has experts.
        biased: attention, routers and experts add biases.
        sinks: attention has sinks.
        windows: layers may have a window: those that `windowed` names.
    """

    qk_norm: bool = False
    latent: bool = False
    experts: bool = False
    score: str = "softmax"
    balance: float = 0.0
    scalings: tuple[str, ...] = ("none", "llama", "yarn")
    sparse: bool = False
    biased: bool = False
    sinks: bool = False
    windows: bool = False

    def usual_experts(self) -> dict[str, Any]:
        """Fields of `Experts` where a model does not say."""
        return {
            "shared": 1 if self.latent else 0,
            "dense": 0,
            "groups": None,
            "groups_used": None,
            "score": self.score,
            "normalized": True,
            "scale": 1.0,
            "balance": self.balance,
        }


FAMILIES: dict[str, Family] = {
    "llama3": Family(),
    "qwen3": Family(qk_norm=True, experts=True, scalings=("none", "yarn")),
    "deepseek_v3": Family(
        latent=True, experts=True, score="sigmoid", balance=0.001, scalings=("none", "yarn")
    ),
    "gpt_oss": Family(
        experts=True,
        sparse=True,
        biased=True,
        sinks=True,
        windows=True,
        scalings=("none", "yarn"),
    ),
}


def published(family: str, size: str, context: int = 0) -> Architecture:
    """The architecture of a published size, for sequences of up to `context` tokens."""
    return complete(family, size, dict(PUBLISHED[family][size]), context)


def complete(
    family: str, size: str | None, shape: dict[str, Any], context: int = 0
) -> Architecture:
    """The architecture of a shape: what it does not say is as usual in the family.

    Args:
        shape: fields of `Architecture`; `latent` and `experts` as their fields by name.
    """
    kind = FAMILIES[family]
    latent, experts = shape.get("latent"), shape.get("experts")
    usual: dict[str, Any] = {
        "kv_heads": shape["heads"],
        "rope_theta": 10_000.0,
        "tied": False,
        "norm_eps": 1e-5,
        "head_dim": latent["plain"] + latent["rotary"]
        if latent
        else shape["dim"] // shape["heads"],
        "rope_scaling": "none",
        "rope_factor": 1.0,
        "rope_original": 0,
        "window": 0,
        "ffn": experts["ffn"] if experts else 0,
    }
    return Architecture(
        family=family,
        size=size,
        context=context,
        qk_norm=kind.qk_norm,
        biased=kind.biased,
        sinks=kind.sinks,
        **usual
        | shape
        | {
            "latent": Latent(**{"queries": 0} | latent) if latent else None,
            "experts": Experts(**kind.usual_experts() | experts) if experts else None,
        },
    )


class Weights(Record):
    """Parameters of a model by where they are; those of layers are of one layer."""

    attention: int
    norms: int
    feed_forward: int
    shared: int
    router: int
    expert: int
    embedding: int
    output: int
    final_norm: int


def dense_layers(model: Architecture) -> int:
    """Layers without experts."""
    return min(model.experts.dense, model.layers) if model.experts else model.layers


def windowed(model: Architecture, layer: int) -> bool:
    """Whether a layer, counted from 0, has the model's window: every other one, from the first
    (arXiv:2508.10925 §2.2)."""
    return model.window > 0 and layer % 2 == 0


def windowed_layers(model: Architecture) -> int:
    """Layers with a window."""
    return sum(windowed(model, layer) for layer in range(model.layers))


def weights(model: Architecture) -> Weights:
    """Counts of parameters. Biases that balance the load of experts are no parameters."""
    dim, heads, latent, experts = model.dim, model.heads, model.latent, model.experts
    if latent:
        queries = heads * (latent.plain + latent.rotary)
        through = latent.queries
        attention = through * (dim + 1 + queries) if through else dim * queries
        attention += dim * (latent.keys + latent.rotary) + latent.keys
        attention += latent.keys * heads * (latent.plain + latent.values)
        attention += heads * latent.values * dim
    else:
        attention = dim * model.head_dim * (2 * heads + 2 * model.kv_heads)
        attention += 2 * model.head_dim * model.qk_norm
        attention += model.biased * ((heads + 2 * model.kv_heads) * model.head_dim + dim)
        attention += model.sinks * heads
    expert = 3 * dim * experts.ffn + model.biased * (2 * experts.ffn + dim) if experts else 0
    table = model.vocab * dim
    return Weights(
        attention=attention,
        norms=2 * dim,
        feed_forward=3 * dim * model.ffn,
        shared=expert * experts.shared if experts else 0,
        router=(dim + model.biased) * experts.count if experts else 0,
        expert=expert,
        embedding=table,
        output=0 if model.tied else table,
        final_norm=dim,
    )


def parameters(model: Architecture) -> int:
    """All parameters: embedding, attention, feed-forward, experts, norms and output layer."""
    return _parameters(model, model.experts.count if model.experts else 0)


def active_parameters(model: Architecture) -> int:
    """Parameters that a token goes through: of the experts those that it is routed to."""
    return _parameters(model, model.experts.active if model.experts else 0)


def _parameters(model: Architecture, experts: int) -> int:
    of, dense = weights(model), dense_layers(model)
    mixed = of.shared + of.router + experts * of.expert
    layers = model.layers * (of.attention + of.norms)
    layers += dense * of.feed_forward + (model.layers - dense) * mixed
    return layers + of.embedding + of.output + of.final_norm


def flops_per_token(model: Architecture) -> int:
    """Training FLOPs a token without attention scores: 6 N, N all parameters that it goes through.

    This is the count that reports publish (Kaplan et al., arXiv:2001.08361, §2.1, with embeddings;
    Llama 3, arXiv:2407.21783, §1: 3.8e25 for 405B and 15.6T tokens).
    """
    return 6 * active_parameters(model)


def widths(model: Architecture) -> tuple[int, int, int]:
    """Widths of all queries, all keys and all values together, as attention computes with them."""
    if model.latent:
        wide = model.heads * (model.latent.plain + model.latent.rotary)
        return wide, wide, model.heads * model.latent.values
    keys = model.kv_heads * model.head_dim
    return model.heads * model.head_dim, keys, keys


def attention_flops_per_token(model: Architecture, seq_len: int) -> int:
    """Training FLOPs a token of causal attention scores: 3 · heads · (w + v) · seq_len a layer,
    where queries and keys are w wide a head and values v.

    Scores and weighted sums take 2 · heads · (w + v) FLOPs a key, three times over for forward and
    backward; half of the keys lie in the future (PaLM, arXiv:2204.02311, Appendix B, halved). In a
    window of n tokens a token has n keys, but for the first n, which have half as many: in place
    of seq_len stands n · (2 - n / seq_len).
    """
    latent = model.latent
    width = latent.plain + latent.rotary + latent.values if latent else 2 * model.head_dim
    near, window = windowed_layers(model), min(model.window, seq_len)
    twice = (model.layers - near) * seq_len**2 + near * window * (2 * seq_len - window)
    return 3 * model.heads * width * twice // seq_len
