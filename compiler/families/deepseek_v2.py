"""DeepSeek-V2: latent attention, and experts by softmax (arXiv:2405.04434 §2)."""

from typing import Any

from ..values import Architecture
from .config_json import LLAMA_DEFAULTS, Kind, Values
from .deepseek_v3 import attention, written_latent
from .family import Family

_SHARED: dict[str, Any] = {"vocab": 102_400, "rope_theta": 10_000.0, "norm_eps": 1e-6}
_LATENT = {"queries": 1536, "keys": 512, "plain": 128, "rotary": 64, "values": 128}

SIZES: dict[str, dict[str, Any]] = {
    # 236B: arXiv:2405.04434 §3.1.2; 16B-A2.4B, DeepSeek-V2-Lite: Appendix B.1. Widths of dense
    # layers, groups and the factor of scores: config.json of the published weights.
    "16B-A2.4B": _SHARED
    | {
        "layers": 27,
        "dim": 2048,
        "heads": 16,
        "ffn": 10_944,
        "latent": _LATENT | {"queries": 0},
        "experts": {"count": 64, "active": 6, "shared": 2, "ffn": 1408, "dense": 1},
    },
    "236B": _SHARED
    | {
        "layers": 60,
        "dim": 5120,
        "heads": 128,
        "ffn": 12_288,
        "latent": _LATENT,
        "experts": {
            "count": 160,
            "active": 6,
            "shared": 2,
            "ffn": 1536,
            "dense": 1,
            "groups": 8,
            "groups_used": 3,
            "scale": 16.0,
        },
    },
}


def _shape(values: Values, shape: dict[str, Any]) -> dict[str, Any]:
    method = values.get("topk_method") or "greedy"
    grouped = method == "group_limited_greedy"
    if method not in ("greedy", "group_limited_greedy"):
        values.problem(
            "topk_method",
            f"says topk_method = {method}: experts are chosen from all, or from the best groups",
            "use weights whose topk_method is greedy or group_limited_greedy",
        )
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
            "groups": values.number("n_group") if grouped else None,
            "groups_used": values.number("topk_group") if grouped else None,
            "scale": values.real(values.config, "routed_scaling_factor", 1.0),
        },
    }


KIND = Kind(
    example="DeepSeek-V2-Lite 16B-A2.4B",
    defaults={
        **LLAMA_DEFAULTS,
        "vocab_size": 102_400,
        "moe_intermediate_size": 1407,
        "n_shared_experts": 2,
        "n_routed_experts": 64,
        "routed_scaling_factor": 1.0,
        "kv_lora_rank": 512,
        "q_lora_rank": 1536,
        "qk_rope_head_dim": 64,
        "v_head_dim": 128,
        "qk_nope_head_dim": 128,
        "n_group": None,
        "topk_group": None,
        "topk_method": "greedy",
        "num_experts_per_tok": None,
        "first_k_dense_replace": 0,
    },
    read=("qk_head_dim", "head_dim"),
    fixed={
        "moe_layer_freq": (1, "all layers after the dense ones have experts"),
        "scoring_func": ("softmax", "experts are scored by a softmax"),
        "norm_topk_prob": (False, "the scores of a token's experts are not divided by their sum"),
    },
    shape=_shape,
)


def config_json(model: Architecture) -> dict[str, Any]:
    """The `config.json` of a DeepSeek-V2."""
    experts = model.experts
    assert experts
    # Where experts are chosen from all, folders have any groups, and transformers reads none.
    chosen: dict[str, Any] = {"topk_method": "greedy"}
    if experts.groups is not None:
        chosen = {
            "topk_method": "group_limited_greedy",
            "n_group": experts.groups,
            "topk_group": experts.groups_used,
        }
    return {
        "name": "DeepseekV2",
        "model_type": "deepseek_v2",
        **written_latent(model),
        **chosen,
        "norm_topk_prob": False,
    }


FAMILY = Family(
    sizes=SIZES,
    kinds={"deepseek_v2": KIND},
    config_json=config_json,
    # As published: §3.1.4, and config.json of the weights.
    yarn={"mscale": 0.707, "mscale_all_dim": 0.707},
    attention=attention,
    latent=True,
    experts=True,
    normalized=False,
    routed=True,
    scalings=("none", "yarn"),
    complex_rotary=True,
)
