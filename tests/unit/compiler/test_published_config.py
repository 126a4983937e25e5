"""Configurations of published weights: what they describe, and what in them is not computed."""

from typing import Any

import pytest
from published_configs import (
    DEEPSEEK,
    DEEPSEEK_V2,
    GPT_OSS,
    LLAMA,
    LONGER,
    MISTRAL,
    MIXED,
    QWEN,
    SMALL,
)

from etude.compiler.families import FAMILIES
from etude.compiler.families.architectures import published
from etude.compiler.families.config_json import Kind
from etude.compiler.files.published_config import Described, describe
from etude.compiler.files.published_keys import FIXED, HARMLESS, KINDS, SHAPE
from etude.compiler.files.published_weights import differences
from etude.spec.record import replace

DOTS = {
    "model_type": "dots1",
    "n_routed_experts": 8,
    "num_experts_per_tok": 2,
    "n_shared_experts": 1,
}

llama31 = {"rope_scaling": "llama", "rope_factor": 8.0, "rope_original": 8192}


@pytest.mark.parametrize(
    ("config", "family", "size", "changes", "longest"),
    [
        (LLAMA, "llama3", "8B", llama31, 131072),
        (LLAMA | {"rope_scaling": None, "max_position_embeddings": 8192}, "llama3", "8B", {}, 8192),
        (
            LLAMA | SMALL | {"rope_scaling": LONGER},
            "llama3",
            "1B",
            llama31 | {"rope_factor": 32.0},
            131072,
        ),
        (
            {k: v for k, v in LLAMA.items() if k not in ("rope_theta", "rope_scaling")}
            | {"rope_parameters": LONGER | {"rope_theta": 500000.0}},
            "llama3",
            "8B",
            llama31 | {"rope_factor": 32.0},
            131072,
        ),
        (
            LLAMA | {"rope_scaling": LONGER | {"type": "llama3", "rope_type": None}},
            "llama3",
            "8B",
            llama31 | {"rope_factor": 32.0},
            131072,
        ),
        (QWEN, "qwen3", "0.6B", {}, 40960),
        (MIXED, "qwen3", "30B-A3B", {}, 40960),
        (
            DEEPSEEK,
            "deepseek_v3",
            "671B",
            {"rope_scaling": "yarn", "rope_factor": 40.0, "rope_original": 4096},
            163840,
        ),
        (
            DEEPSEEK_V2,
            "deepseek_v2",
            "16B-A2.4B",
            {"rope_scaling": "yarn", "rope_factor": 40.0, "rope_original": 4096},
            163840,
        ),
        (GPT_OSS, "gpt_oss", "20B", {}, 131072),
    ],
    ids=[
        "Llama 3.1",
        "Llama 3",
        "Llama 3.2 1B",
        "rope_parameters",
        "type",
        "Qwen3",
        "Qwen3 MoE",
        "DeepSeek-V3",
        "DeepSeek-V2-Lite",
        "gpt-oss",
    ],
)
def test_published_configurations_describe_published_sizes(
    config: dict[str, Any], family: str, size: str, changes: dict[str, Any], longest: int
) -> None:
    found = describe(config)
    assert (found.family, found.problems, found.unknown) == (family, (), ())
    assert (found.longest, found.bound) == (longest, "max_position_embeddings")
    assert found.model
    assert list(differences(found.model, replace(published(family, size), **changes))) == []


def kind_of(name: str) -> Kind:
    return FAMILIES[KINDS[name]].kinds[name]


def test_a_window_bounds_the_context_where_it_is_used() -> None:
    found = describe(MISTRAL)
    assert (found.longest, found.bound) == (4096, "sliding_window")
    assert found.problems == ()
    assert describe(MISTRAL | {"sliding_window": None}).longest == 32768
    del (without := dict(MISTRAL))["sliding_window"]
    assert describe(without).longest == 4096  # as transformers takes it where it is not said
    assert describe(QWEN | {"sliding_window": 4096}).longest == 40960
    used = QWEN | {"sliding_window": 4096, "use_sliding_window": True}
    assert (describe(used).longest, describe(used).bound) == (4096, "sliding_window")


def keys(found: Described) -> list[str]:
    return [problem.key for problem in found.problems]


OTHERWISE: dict[str, tuple[dict[str, Any], str, str]] = {
    "an activation": (LLAMA | {"hidden_act": "gelu"}, "hidden_act", "SwiGLU"),
    "no biases": (GPT_OSS | {"attention_bias": False}, "attention_bias", "adds biases"),
    "part of a head": (LLAMA | {"partial_rotary_factor": 0.5}, "partial_rotary_factor", "rotary"),
    "neighbours": (LLAMA | {"rope_interleaved": True}, "rope_interleaved", "half a head"),
    "halves": (DEEPSEEK | {"rope_interleave": False}, "rope_interleave", "neighbouring"),
    "capped logits": (LLAMA | {"final_logit_softcapping": 30.0}, "final_logit_softcapping", "caps"),
    "scaled embeddings": (LLAMA | {"scale_emb": 12}, "scale_emb", "factor"),
    "scaled residuals": (
        LLAMA | {"residual_multiplier": 0.22},
        "residual_multiplier",
        "factor",
    ),
    "layers without positions": (
        LLAMA | {"no_rope_layers": [1, 1, 1, 0]},
        "no_rope_layers",
        "has positional encoding",
    ),
    "quantized": (
        LLAMA | {"quantization_config": {"quant_method": "fp8"}},
        "quantization_config",
        "quantized",
    ),
    "mlx": (LLAMA | {"quantization": {"bits": 4}}, "quantization", "quantized"),
    "linear": (
        LLAMA | {"rope_scaling": {"type": "linear", "factor": 2.0}},
        "rope_scaling",
        "by linear",
    ),
    "dynamic": (
        LLAMA | {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}},
        "rope_scaling",
        "by dynamic",
    ),
    "longrope": (
        LLAMA | {"rope_parameters": {"rope_type": "longrope"}, "rope_scaling": None},
        "rope_scaling",
        "by longrope",
    ),
    "of no dictionary": (LLAMA | {"rope_scaling": "linear"}, "rope_scaling", "not supported"),
    "by kind of layer": (
        LLAMA | {"rope_scaling": {"full_attention": {"rope_type": "default"}}},
        "rope_scaling",
        "each kind of layer",
    ),
    "Llama's of gpt-oss": (GPT_OSS | {"rope_scaling": LONGER}, "rope_scaling", "by llama3"),
    "bounds of YaRN": (
        GPT_OSS | {"rope_scaling": GPT_OSS["rope_scaling"] | {"beta_fast": 64}},
        "rope_scaling",
        "beta_fast = 64 instead of 32",
    ),
    "whole bounds": (
        GPT_OSS | {"rope_scaling": GPT_OSS["rope_scaling"] | {"truncate": True}},
        "rope_scaling",
        "truncate = true instead of false",
    ),
    "mscale": (
        DEEPSEEK | {"rope_scaling": DEEPSEEK["rope_scaling"] | {"mscale_all_dim": 0.707}},
        "rope_scaling",
        "mscale_all_dim = 0.707 instead of 1",
    ),
    "windows": (QWEN | {"layer_types": ["sliding_attention"] * 28}, "layer_types", "order"),
    "windows elsewhere": (
        GPT_OSS | {"layer_types": ["full_attention", "sliding_attention"] * 12},
        "layer_types",
        "order",
    ),
    "experts": (LLAMA | {"num_local_experts": 8}, "num_local_experts", "no experts"),
    "experts now and then": (MIXED | {"decoder_sparse_step": 2}, "decoder_sparse_step", "experts"),
    "no experts at the end": (
        {"model_type": "ernie4_5_moe", "moe_layer_end_index": 3},
        "moe_layer_end_index",
        "have experts",
    ),
    "experts in groups": (DOTS | {"n_group": 2}, "n_group", "chosen from all"),
    "windows from a layer on": (DOTS | {"max_window_layers": 3}, "max_window_layers", "window"),
    "experts first": (MIXED | {"mlp_only_layers": [3]}, "mlp_only_layers", "the first ones"),
    "shared experts of no whole number": (
        {"model_type": "qwen2_moe", "shared_expert_intermediate_size": 2000},
        "shared_expert_intermediate_size",
        "a whole number of experts",
    ),
    "layers of their own numbers": (
        {"model_type": "hunyuan_v1_moe", "moe_topk": [1, 2]},
        "moe_topk",
        "as many experts",
    ),
    "experts before layers without": (
        {"model_type": "exaone_moe", "mlp_layer_types": ["sparse"] * 31 + ["dense"]},
        "mlp_layer_types",
        "the first ones",
    ),
    "layers of which none rotates": (
        {"model_type": "exaone_moe", "layer_types": ["full_attention"] * 32},
        "layer_types",
        "no layer has a window",
    ),
    "first layers of which none rotates": (
        {"model_type": "afmoe", "layer_types": ["full_attention", "sliding_attention"] * 16},
        "layer_types",
        "the first layer has no window",
    ),
    "the same of another kind": (
        {"model_type": "exaone_moe", "layer_types": ["full_attention", "sliding_attention"] * 16},
        "layer_types",
        "the first layer has no window",
    ),
    "windows in no layer": (
        {"model_type": "exaone4", "layer_types": ["full_attention"] * 32},
        "layer_types",
        "no layer has a window",
    ),
    "the first layer without a window": (
        {"model_type": "cohere2", "layer_types": ["full_attention", "sliding_attention"] * 20},
        "layer_types",
        "the first layer has no window",
    ),
    "a base at two places": (
        {
            "model_type": "dbrx",
            "attn_config": {"clip_qkv": 8.0, "rope_theta": 500_000.0},
            "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0},
        },
        "attn_config",
        "500000 in attn_config, and 10000",
    ),
    "queries that are not clipped": (
        {"model_type": "dbrx", "attn_config": {"clip_qkv": None}},
        "attn_config",
        "no clip_qkv",
    ),
    "scores of which the squares add up": (
        {
            "model_type": "dbrx",
            "attn_config": {"clip_qkv": 8.0},
            "ffn_config": {"moe_normalize_expert_weights": 2.0},
        },
        "ffn_config",
        "add up to 1",
    ),
    "dense layers of Solar": (
        {"model_type": "solar_open", "first_k_dense_replace": 1},
        "first_k_dense_replace",
        "all layers have experts",
    ),
    "experts by another method": (
        DEEPSEEK_V2 | {"topk_method": "noaux_tc"},
        "topk_method",
        "from the best groups",
    ),
    "scores that add up": (
        DEEPSEEK_V2 | {"norm_topk_prob": True},
        "norm_topk_prob",
        "not divided by their sum",
    ),
    "V3's YaRN in a V2": (
        DEEPSEEK_V2 | {"rope_scaling": DEEPSEEK["rope_scaling"]},
        "rope_scaling",
        "mscale_all_dim = 1",
    ),
    "another router": (DEEPSEEK | {"scoring_func": "softmax"}, "scoring_func", "sigmoid"),
    "another clamp": (GPT_OSS | {"swiglu_limit": 6.0}, "swiglu_limit", "clamped at 7"),
    "a classifier": (
        LLAMA | {"architectures": ["LlamaForSequenceClassification"]},
        "num_labels",
        "with 2 labels",
    ),
    "a text for a number": (LLAMA | {"hidden_size": "4096"}, "hidden_size", "'4096'"),
    "no heads": (LLAMA | {"num_attention_heads": 0}, "num_attention_heads", "says 0"),
}


@pytest.mark.parametrize(("config", "key", "message"), OTHERWISE.values(), ids=OTHERWISE.keys())
def test_what_is_computed_otherwise_is_refused_with_the_reason(
    config: dict[str, Any], key: str, message: str
) -> None:
    found = describe(config)
    assert keys(found) == [key]
    assert message in found.problems[0].message
    assert found.problems[0].help


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        ("jetmoe", "experts"),
        ("gemma3", "gemma3_text"),
        ("bert", "an encoder"),
        (None, "names no model_type"),
        (7, "no family"),
    ],
)
def test_other_architectures_are_refused_with_what_is_taken(kind: Any, why: str) -> None:
    (problem,) = describe(LLAMA | {"model_type": kind}).problems
    assert why in problem.message
    assert "llama, mistral, qwen3" in problem.help


@pytest.mark.parametrize(
    "config",
    [
        LLAMA | {"attention_bias": True},
        LLAMA | {"mlp_bias": True},
        QWEN | {"attention_bias": True},
        QWEN | {"rope_scaling": LONGER},
        QWEN | {"rope_scaling": {"rope_type": "yarn", "factor": 4.0}},
    ],
)
def test_what_one_family_lacks_another_may_compute(config: dict[str, Any]) -> None:
    found = describe(config)
    assert (found.family, found.problems) == ("decoder", ())
    assert describe(config, "llama3" if config["model_type"] == "llama" else "qwen3").problems


@pytest.mark.parametrize("nothing", [None, False, "", {}, []])
@pytest.mark.parametrize("key", ["quantization_config", "no_rope_layers", "residual_multiplier"])
def test_what_says_nothing_refuses_nothing(key: str, nothing: Any) -> None:
    assert describe(LLAMA | {key: nothing}).problems == ()


def test_keys_of_which_nothing_is_known_are_named() -> None:
    more = {"sandwich_norms": True, "unused": None, "off": False, "torch_dtype": "float16"}
    assert describe(LLAMA | more).unknown == ("sandwich_norms",)


@pytest.mark.parametrize(
    ("config", "key"),
    [
        (LLAMA, "kv_lora_rank"),
        (QWEN, "routed_scaling_factor"),
        (MIXED, "n_shared_experts"),
        (MIXED, "scoring_func"),
        (MISTRAL, "swiglu_limit"),
    ],
)
def test_keys_of_other_families_are_named(config: dict[str, Any], key: str) -> None:
    assert describe(config | {key: 2}).unknown == (key,)


def test_every_key_has_one_meaning() -> None:
    for kind in KINDS:
        fixed = FIXED.keys() | kind_of(kind).fixed.keys()
        assert not fixed & HARMLESS
        assert not HARMLESS & SHAPE
        assert kind_of(kind).defaults.keys() <= SHAPE


@pytest.mark.parametrize("kind", KINDS)
def test_a_configuration_that_says_nothing_is_what_transformers_takes_it_for(kind: str) -> None:
    # transformers says no numbers of dots1's experts, nor how many a DeepSeek-V2 uses, and computes
    # no DBRX as it says it.
    unsaid = {
        "dots1": DOTS,
        "deepseek_v2": {"num_experts_per_tok": 6},
        "dbrx": {"attn_config": {"clip_qkv": 8.0}},
    }
    said = {"model_type": kind} | unsaid.get(kind, {})
    found = describe(said | {"norm_topk_prob": True})
    assert found.model
    assert found.model.vocab == kind_of(kind).defaults["vocab_size"]
