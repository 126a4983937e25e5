"""Every kind of decoder that etude reads: made by transformers, read, computed, exported."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_jobs import tensors
from safetensors.torch import load_file, save_file
from test_engine_weights import job
from transformers import AutoConfig, AutoModelForCausalLM

from etude.compiler.families import FAMILIES
from etude.compiler.files.published_config import describe
from etude.compiler.plan.plan import ExportJob
from etude.compiler.values import Architecture
from etude.runtime.data.tokens import tokenizer
from etude.runtime.engine.attention.documents import by_window, document_mask
from etude.runtime.engine.families import model_spec
from etude.runtime.engine.weights.convert import weights as read
from etude.runtime.engine.weights.export import export
from etude.runtime.errors import DataError

SMALL: dict[str, Any] = {
    "vocab_size": 300,
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 96,
    "max_position_embeddings": 64,
    "sliding_window": 16,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
"""A shape that every kind can have."""
GPT = {"n_embd": 64, "n_layer": 3, "n_head": 4, "n_inner": 96, "n_positions": 64}
STRETCHED = {
    "rope_type": "llama3",
    "rope_theta": 10_000.0,
    "factor": 8.0,
    "original_max_position_embeddings": 16,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
}
PLAIN = {"rope_type": "default", "rope_theta": 10_000.0}
HEADS = {"num_key_value_heads": 4}
ALONE = {
    "n_routed_experts": 8,
    "num_experts_per_tok": 3,
    "moe_intermediate_size": 32,
    "n_shared_experts": 2,
    "first_k_dense_replace": 1,
    "routed_scaling_factor": 2.5,
    "norm_topk_prob": True,
}
"""Experts that are scored one by one."""
MIXED = {"num_local_experts": 8, "num_experts_per_tok": 3}
GRANITE_FACTORS = {
    "attention_multiplier": 0.5,
    "embedding_multiplier": 12.0,
    "residual_multiplier": 0.22,
    "logits_scaling": 8.0,
}
MELLUM: dict[str, Any] = {
    "head_dim": 16,
    "num_experts": 8,
    "num_experts_per_tok": 3,
    "moe_intermediate_size": 32,
    "rope_parameters": {
        "full_attention": {"rope_type": "default", "rope_theta": 10_000.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
    },
}
LATENT = {
    **{name: value for name, value in ALONE.items() if name != "norm_topk_prob"},
    "kv_lora_rank": 32,
    "q_lora_rank": 24,
    "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 8,
    "v_head_dim": 16,
    "num_key_value_heads": 4,
}
"""The same behind attention through latents."""
DELTA = {
    "head_dim": 32,
    "num_hidden_layers": 4,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 12,
}
"""Linear attention in three of four layers."""
OWN: dict[str, dict[str, Any]] = {
    "llama": {"attention_bias": True, "mlp_bias": True},
    "gpt2": GPT,
    "gpt_bigcode": {**GPT, "num_key_value_heads": 1},
    "gptj": {**GPT, "rotary_dim": 8},
    "codegen": {**GPT, "rotary_dim": 8},
    "gpt_neo": {
        "num_layers": 3,
        "num_heads": 4,
        "window_size": 16,
        "attention_types": [[["global", "local", "global"], 1]],
    },
    "bloom": {"n_layer": 3, "n_head": 4},
    "falcon": {"new_decoder_architecture": True, "num_kv_heads": 2, "ffn_hidden_size": 96},
    "mpt": {
        "d_model": 64,
        "n_layers": 3,
        "n_heads": 4,
        "max_seq_len": 64,
        "attn_config": {"clip_qkv": 1.0},
    },
    "opt": {"ffn_dim": 96},
    "olmo": {"clip_qkv": 1.0},
    "cohere": {"use_qk_norm": True},
    "stablelm": {"qk_layernorm": True, "use_parallel_residual": True, "use_qkv_bias": True},
    "phi": {"qk_layernorm": True},
    "nemotron": {"mlp_bias": True},
    "apertus": {"rope_parameters": STRETCHED},
    "cwm": {"rope_parameters": STRETCHED, "head_dim": 16},
    "exaone4": {"rope_parameters": STRETCHED},
    "hunyuan_v1_dense": {
        "rope_parameters": {
            "rope_type": "dynamic",
            "rope_theta": 10_000.0,
            "factor": 1.0,
            "alpha": 1000.0,
        },
        "head_dim": 16,
    },
    "hyperclovax": {
        "attention_multiplier": 0.5,
        "embedding_multiplier": 12.0,
        "residual_multiplier": 0.22,
        "logits_scaling": 0.125,
    },
    "granite": GRANITE_FACTORS,
    "ernie4_5": {"use_bias": True, "head_dim": 16},
    "helium": {"head_dim": 16},
    "internlm3": {"head_dim": 16, "rope_parameters": PLAIN},
    "iquestcoder": {"head_dim": 16, "rope_parameters": PLAIN},
    **{kind: {"head_dim": 16} for kind in ("glm", "glm4", "qwen3", "seed_oss", "ministral")},
    "mixtral": {"sliding_window": None},
    "olmoe": {"num_experts": 8, "num_experts_per_tok": 3},
    "dots1": {**ALONE, "attention_bias": True, "sliding_window": None},
    "glm4_moe": {**ALONE, "attention_bias": True, "use_qk_norm": True, "head_dim": 32},
    "minimax_m2": {
        "head_dim": 32,
        "rotary_dim": 16,
        "num_local_experts": 8,
        "num_experts_per_tok": 3,
    },
    "ernie4_5_moe": {
        "moe_num_experts": 8,
        "moe_k": 3,
        "moe_intermediate_size": 32,
        "moe_num_shared_experts": 2,
    },
    # As DeepSeek-V2-Lite says: groups that nothing reads, since experts are chosen from all.
    "deepseek_v2": {**LATENT, "q_lora_rank": None, "n_group": 1, "topk_group": 1},
    "glm4_moe_lite": {**LATENT, "norm_topk_prob": True},
    "granitemoe": {**GRANITE_FACTORS, **MIXED},
    "granitemoeshared": {**GRANITE_FACTORS, **MIXED, "shared_intermediate_size": 192},
    "flex_olmo": {"num_experts": 8, "num_experts_per_tok": 3},
    "solar_open": {**ALONE, "head_dim": 32, "first_k_dense_replace": 0},
    "hunyuan_v1_moe": {"num_experts": 8, "moe_topk": 3, "head_dim": 16},
    "qwen2_moe": {
        "num_experts": 8,
        "num_experts_per_tok": 3,
        "moe_intermediate_size": 32,
        "shared_expert_intermediate_size": 64,
        "mlp_only_layers": [0],
    },
    "exaone_moe": {
        "num_experts": 8,
        "num_experts_per_tok": 3,
        "moe_intermediate_size": 32,
        "num_shared_experts": 2,
        "sliding_window_pattern": 2,
    },
    "hy_v3": {
        "head_dim": 32,
        "num_experts": 8,
        "num_experts_per_tok": 3,
        "moe_intermediate_size": 32,
        "num_shared_experts": 2,
        "router_scaling_factor": 2.5,
    },
    "mellum": {
        **MELLUM,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
        "mlp_layer_types": ["dense", "sparse", "sparse"],
    },
    "qwen3_moe": {
        "head_dim": 16,
        "num_experts": 8,
        "num_experts_per_tok": 3,
        "moe_intermediate_size": 32,
        "mlp_only_layers": [0],
    },
    **{
        kind: {
            **DELTA,
            "num_experts": 8,
            "num_experts_per_tok": 3,
            "moe_intermediate_size": 32,
            "shared_expert_intermediate_size": 64,
        }
        for kind in ("qwen3_next", "qwen3_5_moe_text")
    },
    "qwen3_5_text": DELTA,
    "afmoe": {
        "head_dim": 32,
        "num_experts": 8,
        "num_experts_per_tok": 3,
        "moe_intermediate_size": 32,
        "num_shared_experts": 2,
        "route_scale": 2.5,
        "global_attn_every_n_layers": 2,
        "mup_enabled": True,
    },
    "dbrx": {
        "d_model": 64,
        "n_heads": 4,
        "n_layers": 3,
        "max_seq_len": 64,
        "attn_config": {"kv_n_heads": 2, "clip_qkv": 1.0, "rope_theta": 500.0},
        "rope_parameters": {"rope_type": "default", "rope_theta": 500.0},
        "ffn_config": {"ffn_hidden_size": 32, "moe_num_experts": 8, "moe_top_k": 3},
    },
    **{kind: {"head_dim": 16} for kind in ("gemma", "gemma2", "gemma3_text", "vaultgemma")},
}
"""model_type → what it calls its shape, and options that its defaults leave out."""
OTHERWISE: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt_bigcode, as a GPT-2": ("gpt_bigcode", {**GPT, **HEADS, "multi_query": False}),
    "cohere, without norms of heads": ("cohere", {"use_qk_norm": False, "attention_bias": True}),
    "exaone4, without windows": (
        "exaone4",
        {"sliding_window": None, "layer_types": ["full_attention"] * 3},
    ),
    "gpt_neo, without windows": (
        "gpt_neo",
        {"num_layers": 3, "num_heads": 4, "attention_types": [[["global"], 3]]},
    ),
    "hyperclovax, with norms before": ("hyperclovax", {"use_post_norm": False}),
    "falcon, one norm": ("falcon", {"multi_query": True, "bias": True}),
    "stablelm, plain": ("stablelm", {}),
    "persimmon, without norms of heads": ("persimmon", {"qk_layernorm": False}),
    "mixtral, with windows": ("mixtral", {"head_dim": 32}),
    "olmoe, whose scores add up": (
        "olmoe",
        {**OWN["olmoe"], "norm_topk_prob": True, "attention_bias": True},
    ),
    "glm4_moe, plain": ("glm4_moe", {**ALONE, "norm_topk_prob": False}),
    "ernie4_5_moe, without shared experts": (
        "ernie4_5_moe",
        {**OWN["ernie4_5_moe"], "moe_num_shared_experts": 0, "moe_layer_start_index": 0},
    ),
    "deepseek_v2, of groups": (
        "deepseek_v2",
        {
            **LATENT,
            "topk_method": "group_limited_greedy",
            "n_group": 4,
            "topk_group": 2,
            "rope_parameters": {
                "rope_type": "yarn",
                "rope_theta": 10_000.0,
                "factor": 4.0,
                "original_max_position_embeddings": 16,
                "mscale": 0.707,
                "mscale_all_dim": 0.707,
            },
        },
    ),
    "qwen2_moe, whose scores add up": (
        "qwen2_moe",
        {**OWN["qwen2_moe"], "norm_topk_prob": True, "qkv_bias": False, "mlp_only_layers": []},
    ),
    "exaone_moe, with windows everywhere": (
        "exaone_moe",
        {**OWN["exaone_moe"], "layer_types": ["sliding_attention"] * 3, "head_dim": 32},
    ),
    "mellum, without windows": (
        "mellum",
        {**MELLUM, "layer_types": ["full_attention"] * 3, "norm_topk_prob": False},
    ),
    "qwen3, with biases": ("qwen3", {"head_dim": 16, "attention_bias": True}),
    "afmoe, with windows everywhere": (
        "afmoe",
        {**OWN["afmoe"], "layer_types": ["sliding_attention"] * 3, "attention_bias": True},
    ),
    "dbrx, whose scores are left": (
        "dbrx",
        {
            **OWN["dbrx"],
            "num_key_value_heads": 1,
            "attn_config": {"kv_n_heads": 1, "clip_qkv": 0.5, "rope_theta": 500.0},
            "ffn_config": {
                "ffn_hidden_size": 32,
                "moe_num_experts": 8,
                "moe_top_k": 2,
                "moe_normalize_expert_weights": None,
            },
        },
    ),
    "nanochat, with biases": ("nanochat", {"attention_bias": True}),
    "ministral, in part": (
        "ministral",
        {
            "head_dim": 16,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
        },
    ),
}
KINDS = [*FAMILIES["decoder"].kinds, "deepseek_v2", "glm4_moe_lite"]
CASES = {kind: (kind, OWN.get(kind, {})) for kind in KINDS} | OTHERWISE
ROUNDING: dict[str, float] = dict.fromkeys(("qwen3_next", "qwen3_5_moe_text"), 5e-5)
"""How far logits may differ, as a share of the largest, where it is not 1e-5: of these, both sides
are up to 4e-5 from the same in fp64."""
SAMPLE = (
    *("codegen", "cohere", "deepseek_v2, of groups", "gpt_neo", "hunyuan_v1_dense", "mpt"),
    *("nanochat", "opt", "qwen3_next"),
)
"""Kinds that between them have every part and every arrangement of weights."""


def made(kind: str, own: dict[str, Any], folder: Path) -> Any:
    """A model that transformers has made with weights that matter, and written."""
    torch.manual_seed(3)
    usual: Any = AutoConfig.for_model(kind)
    known = {*usual.to_dict(), *usual.attribute_map}
    given = {name: value for name, value in SMALL.items() if name in known}
    config = AutoConfig.for_model(kind, **{**given, **own})
    model: Any = AutoModelForCausalLM.from_config(config).float().eval()
    for name, weight in model.named_parameters():
        start = 1.0 if "norm" in name and name.endswith("weight") else 0.0
        torch.nn.init.normal_(weight, mean=start, std=0.2)
    for name, bias in model.named_buffers():
        if name.endswith("e_score_correction_bias"):
            torch.nn.init.normal_(bias, std=0.2)
    model.save_pretrained(folder)
    return model


def computed(shape: Architecture, state: dict[str, torch.Tensor], tokens: torch.Tensor) -> Any:
    """Our model and its logits of the tokens."""
    model: Any = model_spec(shape, "cpu", shape.context).model.build()
    model.init_weights(buffer_device=torch.device("cpu"))
    model.load_state_dict(state)
    positions = torch.arange(tokens.shape[1])[None]
    masks = by_window(document_mask(positions), positions, shape.window)
    return model, model(tokens, positions=positions, attention_masks=masks)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name in SAMPLE else [pytest.mark.exhaustive])
        for name in CASES
    ],
)
def test_a_model_of_transformers_is_read_computed_and_exported(name: str, tmp_path: Path) -> None:
    kind, own = CASES[name]
    theirs = made(kind, own, tmp_path / "theirs")
    found = describe(json.loads((tmp_path / "theirs" / "config.json").read_text()), "decoder")
    assert found.problems == ()
    assert found.model
    parts = found.model.parts
    assert parts is None or parts.published, "no kind of model computes these parts"
    assert (parts is None) == (kind not in FAMILIES["decoder"].kinds)
    shape = found.model.knowing(64)
    read(job(shape, tmp_path / "theirs"), tmp_path / "read", root=tmp_path)
    state = tensors(tmp_path / "read" / "result" / "weights")
    tokens = torch.randint(300, (1, 48))
    ours, logits = computed(shape, state, tokens)
    with torch.no_grad():
        expected = theirs(tokens).logits
    assert expected.std() > 0.01
    torch.testing.assert_close(
        logits, expected, rtol=1e-4, atol=ROUNDING.get(kind, 1e-5) * float(expected.abs().max())
    )

    logits.square().mean().backward()
    assert all(weight.grad is not None for weight in ours.parameters())
    assert all(weight.grad.isfinite().all() for weight in ours.parameters())

    tokenizer.save(tokenizer.byte_level(), tmp_path / "tokenizer")
    asked = ExportJob(key="x", id="x", stage="toy", inputs={}, model=shape)
    roles = {"model": tmp_path / "read" / "result", "tokenizer": tmp_path / "tokenizer"}
    export(asked, roles, tmp_path / "export")
    again: Any = AutoModelForCausalLM.from_pretrained(
        tmp_path / "export" / "result", output_loading_info=True
    )
    assert not any(again[1][problem] for problem in ("missing_keys", "unexpected_keys"))
    # By which vLLM, for one, finds the model.
    assert again[0].config.architectures == [type(again[0]).__name__]
    with torch.no_grad():
        torch.testing.assert_close(
            again[0](tokens).logits,
            expected,
            rtol=1e-4,
            atol=ROUNDING.get(kind, 1e-5) * float(expected.abs().max()),
        )


def test_a_layer_that_predicts_further_tokens_is_left_out_with_a_word(tmp_path: Path) -> None:
    made("glm4_moe", OWN["glm4_moe"], tmp_path)
    file, config = tmp_path / "model.safetensors", tmp_path / "config.json"
    further = {"model.layers.3.eh_proj.weight": torch.ones(64, 128)}
    save_file(load_file(file) | further, file, metadata={"format": "pt"})
    said = json.loads(config.read_text())
    assert said["num_nextn_predict_layers"] == 1
    found = describe(said)
    assert found.model
    asked = job(found.model.knowing(64), tmp_path)
    notes = read(asked, tmp_path / "read", root=tmp_path)["notes"]
    assert "model.layers.3 predicts further tokens: it is left out, as transformers does" in notes
    config.write_text(json.dumps(said | {"num_nextn_predict_layers": 0}))
    with pytest.raises(DataError, match=r"has the tensor model\.layers\.3\.eh_proj\.weight"):
        read(asked, tmp_path / "again", root=tmp_path)
