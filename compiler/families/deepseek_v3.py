"""DeepSeek-V3: latent attention, and experts (arXiv:2412.19437 §2.1)."""

from collections.abc import Iterator
from typing import Any

from ..values import Architecture, ModelShape
from .config_json import LLAMA_DEFAULTS, Kind, Values
from .family import Family
from .mixed_kinds import dense_first
from .weights import Weight

_DEEPSEEK: dict[str, Any] = {"rope_theta": 10_000.0, "norm_eps": 1e-6}
_LATENT = {"queries": 1536, "keys": 512, "plain": 128, "rotary": 64, "values": 128}

SIZES: dict[str, dict[str, Any]] = {
    # 671B: arXiv:2412.19437, §4.2. 16B-A3B, Moonlight: arXiv:2502.16982; 1T-A32B, Kimi K2:
    # arXiv:2507.20534, Table 2; widths: config.json of the published weights.
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
}


def _shape(values: Values, shape: dict[str, Any]) -> dict[str, Any]:
    groups, used = values.number("n_group", 1), values.number("topk_group", 1)
    return {
        "latent": {
            "queries": values.number("q_lora_rank", 0, least=0),
            "keys": values.number("kv_lora_rank"),
            "plain": values.number("qk_nope_head_dim"),
            "rotary": values.number("qk_rope_head_dim"),
            "values": values.number("v_head_dim"),
        },
        "experts": {
            "count": values.number("n_routed_experts"),
            "active": values.number("num_experts_per_tok"),
            "ffn": values.number("moe_intermediate_size"),
            "shared": values.number("n_shared_experts"),
            "dense": values.number("first_k_dense_replace", 0, least=0),
            "groups": groups if groups > 1 else None,
            "groups_used": used if groups > 1 else None,
            "scale": values.real(values.config, "routed_scaling_factor", 2.5),
            "normalized": bool(values.get("norm_topk_prob")),
        },
    }


def _lite(values: Values, shape: dict[str, Any]) -> dict[str, Any]:
    found = _shape(values, shape)
    scale = values.real(values.config, "routed_scaling_factor", 1.8)
    dense = dense_first(values, shape["layers"], found["experts"]["dense"])
    return found | {"experts": {**found["experts"], "scale": scale, "dense": dense}}


KIND = Kind(
    example="Moonlight 16B-A3B",
    defaults={
        **LLAMA_DEFAULTS,
        "vocab_size": 129_280,
        "hidden_size": 7168,
        "intermediate_size": 18_432,
        "num_hidden_layers": 61,
        "num_attention_heads": 128,
        "num_key_value_heads": 128,
        "max_position_embeddings": 4096,
        "moe_intermediate_size": 2048,
        "n_shared_experts": 1,
        "n_routed_experts": 256,
        "routed_scaling_factor": 2.5,
        "kv_lora_rank": 512,
        "q_lora_rank": 1536,
        "qk_rope_head_dim": 64,
        "v_head_dim": 128,
        "qk_nope_head_dim": 128,
        "n_group": 8,
        "topk_group": 4,
        "num_experts_per_tok": 8,
        "first_k_dense_replace": 3,
        "norm_topk_prob": True,
    },
    read=("qk_head_dim",),
    fixed={
        "moe_layer_freq": (1, "all layers after the dense ones have experts"),
        "topk_method": ("noaux_tc", "experts are chosen by score and bias"),
        "scoring_func": ("sigmoid", "experts are scored by a sigmoid"),
        "rope_interleave": (True, "neighbouring elements rotate together"),
    },
    shape=_shape,
)


LITE = Kind(
    example="GLM-4.7-Flash",
    defaults={
        **KIND.defaults,
        "vocab_size": 154_880,
        "hidden_size": 2048,
        "intermediate_size": 10_240,
        "num_hidden_layers": 47,
        "num_attention_heads": 20,
        "num_key_value_heads": 20,
        "max_position_embeddings": 202_752,
        "rms_norm_eps": 1e-5,
        "moe_intermediate_size": 1536,
        "n_routed_experts": 64,
        "routed_scaling_factor": 1.8,
        "q_lora_rank": 768,
        "v_head_dim": 256,
        "qk_nope_head_dim": 192,
        "n_group": 1,
        "topk_group": 1,
        "num_experts_per_tok": 4,
        "first_k_dense_replace": 1,
    },
    read=(*KIND.read, "mlp_layer_types"),
    fixed=KIND.fixed,
    shape=_lite,
)


def written_latent(model: Architecture) -> dict[str, Any]:
    """The keys of `config.json` for latents and experts."""
    latent, experts = model.latent, model.experts
    assert latent
    assert experts
    return {
        "q_lora_rank": latent.queries or None,
        "kv_lora_rank": latent.keys,
        "qk_nope_head_dim": latent.plain,
        "qk_rope_head_dim": latent.rotary,
        "v_head_dim": latent.values,
        "first_k_dense_replace": min(experts.dense, model.layers),
        "n_routed_experts": experts.count,
        "n_shared_experts": experts.shared,
        "num_experts_per_tok": experts.active,
        "moe_intermediate_size": experts.ffn,
        "routed_scaling_factor": experts.scale,
    }


def config_json(model: Architecture) -> dict[str, Any]:
    """The `config.json` of a DeepSeek-V3."""
    experts = model.experts
    assert experts
    return {
        "name": "DeepseekV3",
        "model_type": "deepseek_v3",
        **written_latent(model),
        "n_group": experts.groups or 1,
        "topk_group": experts.groups_used or 1,
        "norm_topk_prob": experts.normalized,
        "rope_interleave": True,
        "num_nextn_predict_layers": model.mtp,
    }


def attention(model: ModelShape) -> Iterator[Weight]:
    """Latent attention."""
    dim, heads, latent = model.dim, model.heads, model.latent
    assert latent
    queries = heads * (latent.plain + latent.rotary)
    if latent.queries:
        yield Weight((latent.queries, dim), None)
        yield Weight((latent.queries,), None)
        yield Weight((queries, latent.queries), 0)
    else:
        yield Weight((queries, dim), 0)
    yield Weight((latent.keys + latent.rotary, dim), None)
    yield Weight((latent.keys,), None)
    yield Weight((heads * (latent.plain + latent.values), latent.keys), 0)
    yield Weight((dim, heads * latent.values), 1)


FAMILY = Family(
    sizes=SIZES,
    kinds={"deepseek_v3": KIND, "glm4_moe_lite": LITE},
    config_json=config_json,
    # Both are needed: transformers sharpens the softmax by the second, and rotates by their ratio.
    yarn={"mscale": 1.0, "mscale_all_dim": 1.0},
    attention=attention,
    flavors={"671B": {"rope_scaling": {"factor": 40.0, "original": 4096}}},
    latent=True,
    experts=True,
    score="sigmoid",
    routed=True,
    scalings=("none", "yarn"),
    complex_rotary=True,
    further=lambda model: True,
)
