"""Keys of `config.json` that mean the same in every family: read, limited to one value, or ignored
because they do not affect the computation."""

from typing import Any

from ..families import FAMILIES
from .unread_kinds import UNREAD

_COMPUTED = [(kind, name) for name, family in FAMILIES.items() for kind in family.kinds]
KINDS = dict(_COMPUTED) | dict(reversed(_COMPUTED))
"""model_type → the family with the same computation; the first, where several have it."""

_KNOWN = {kind: FAMILIES[name].kinds[kind] for kind, name in KINDS.items()}
_NEAR = {other: kind for kind, of in _KNOWN.items() for other in of.near}
"""model_type → the one that comes closest to it, where one does."""


def nearest(kind: Any) -> str:
    """Advice on weights of a model_type that no family takes."""
    work = f"these model types work: {', '.join(KINDS)}"
    if not isinstance(kind, str):
        return work
    if near := _NEAR.get(kind):
        return f"the nearest that works is {near}, such as {_KNOWN[near].example}; {work}"
    if kind in UNREAD:
        return work
    import difflib  # only after an error: checking a spec may take only 0.1 s

    alike = difflib.get_close_matches(kind, KINDS, n=1, cutoff=0.75)
    return f"the nearest by its name is {alike[0]}; {work}" if alike else work


READ = (
    "rope_theta",
    "rope_scaling",
    "rope_parameters",
    "layer_types",
    "sliding_window",
    "use_sliding_window",
    "max_window_layers",
)
"""Further keys of every kind that are read and have no default."""
ROPE = frozenset(
    {
        "factor",
        "low_freq_factor",
        "high_freq_factor",
        "original_max_position_embeddings",
    }
)
"""Keys inside what is said of positions."""
SHAPE = ROPE | frozenset(
    key
    for family in FAMILIES.values()
    for kind in family.kinds.values()
    for key in (*kind.defaults, *kind.read, *READ)
)
"""Keys that are read into the architecture, including those of positions."""

_MULTIPLIED = "no family here has this factor"
_CAPPED = "no family here caps logits"
_NO_BIAS = "the family has no biases there"
FIXED: dict[str, tuple[Any, str]] = {
    "hidden_act": ("silu", "feed-forward layers are SwiGLU"),
    "hidden_activation": ("silu", "feed-forward layers are SwiGLU"),
    "attention_bias": (False, _NO_BIAS),
    "mlp_bias": (False, _NO_BIAS),
    "qkv_bias": (False, _NO_BIAS),
    "use_bias": (False, _NO_BIAS),
    "bias": (False, _NO_BIAS),
    "lm_head_bias": (False, _NO_BIAS),
    "partial_rotary_factor": (1.0, "all elements of a head are rotary"),
    "rotary_pct": (1.0, "all elements of a head are rotary"),
    "rope_interleaved": (False, "the elements that rotate together are half a head apart"),
    "no_rope_layers": (None, "every layer has positional encoding"),
    "no_rope_layer_interval": (None, "every layer has positional encoding"),
    "attn_logit_softcapping": (None, _CAPPED),
    "final_logit_softcapping": (None, _CAPPED),
    "clip_qkv": (None, "queries, keys and values are not clipped"),
    "logit_scale": (1.0, _MULTIPLIED),
    "logits_scaling": (1.0, _MULTIPLIED),
    "embedding_multiplier": (1.0, _MULTIPLIED),
    "residual_multiplier": (1.0, _MULTIPLIED),
    "attention_multiplier": (None, _MULTIPLIED),
    "scale_emb": (1, _MULTIPLIED),
    "scale_depth": (1, _MULTIPLIED),
    "dim_model_base": (None, _MULTIPLIED),
    "query_pre_attn_scalar": (None, "the softmax is scaled by the width of a head"),
    "attention_chunk_size": (None, "every token sees all before it"),
    "alibi": (False, "positions are rotary"),
    "quantization_config": (
        None,
        "the weights are quantized, but training needs bf16, fp16 or fp32 (load them with "
        "transformers and `dequantize=True`, then save_pretrained; or use such a version)",
    ),
    "quantization": (None, "the weights are quantized"),
    "compression_config": (None, "the weights are compressed"),
}
"""Key → the value that the families compute with, and why; null, false and empty count as missing.
"""

HARMLESS = frozenset(
    {
        "architectures",
        "model_type",
        "torch_dtype",
        "dtype",
        "transformers_version",
        "use_cache",
        "bos_token_id",
        "eos_token_id",
        "eod_token_id",
        "pad_token_id",
        "sep_token_id",
        "decoder_start_token_id",
        "initializer_range",
        "pretraining_tp",
        "attention_dropout",
        "hidden_dropout",
        "resid_pdrop",
        "residual_dropout",
        "embedding_dropout",
        "embd_pdrop",
        "dropout",
        "_name_or_path",
        "name_or_path",
        "auto_map",
        "unsloth_version",
        "unsloth_fixed",
        "return_dict",
        "output_attentions",
        "output_hidden_states",
        "id2label",
        "label2id",
        "problem_type",
        "num_labels",
        "task_specific_params",
        "torchscript",
        "is_encoder_decoder",
        "is_decoder",
        "add_cross_attention",
        "chunk_size_feed_forward",
        "pruned_heads",
        "tie_encoder_decoder",
        "cross_attention_hidden_size",
        "finetuning_task",
        "tokenizer_class",
        "prefix",
        "_attn_implementation",
        "_attn_implementation_autoset",
        "attn_implementation",
        "is_llama_config",
        "transformers.js_config",
        "output_router_logits",
        "router_aux_loss_coef",
        "aux_loss_alpha",
        "seq_aux",
        "ep_size",
        "num_nextn_predict_layers",
        "initial_context_length",
        "router_jitter_noise",
        "max_length",
        "temperature",
        "top_p",
        "top_k",
        "do_sample",
        "repetition_penalty",
        "_flash_attn_2_enabled",
        "use_flash_attn",
        "neftune_noise_alpha",
        "rope_ratio",
        "model_name",
        "eos_token",
        "bos_token",
        "pad_token",
        "license",
        "trained_with",
        "attn_pdrop",
        "attention_softmax_in_fp32",
        "masked_softmax_fusion",
        "bias_dropout_fusion",
        "skip_bias_add",
        "skip_bias_add_qkv",
        "slow_but_exact",
        "reorder_and_upcast_attn",
        "summary_type",
        "summary_use_proj",
        "summary_activation",
        "summary_proj_to_labels",
        "summary_first_dropout",
        "classifier_dropout",
        "gradient_checkpointing",
        "unk_token_id",
        "offset_alibi",
        "cache_implementation",
    }
)
"""Keys that do not affect the computation of loaded weights: how they are stored and read, how text
is generated, or how they were trained."""
