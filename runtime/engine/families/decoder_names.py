"""What transformers calls the modules of decoders that are put together from parts."""

LAYER = {
    "attention.qkv_linear.wq": "self_attn.q_proj",
    "attention.qkv_linear.wk": "self_attn.k_proj",
    "attention.qkv_linear.wv": "self_attn.v_proj",
    "attention.wo": "self_attn.o_proj",
    "attention.q_norm": "self_attn.q_norm",
    "attention.k_norm": "self_attn.k_norm",
    "feed_forward.w1": "mlp.gate_proj",
    "feed_forward.w2": "mlp.down_proj",
    "feed_forward.w3": "mlp.up_proj",
    "feed_forward.activation_bias": "mlp.act_fn",
    "attention_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "moe.router.gate": "mlp.gate",
    "moe.shared_experts.w1": "mlp.shared_experts.gate_proj",
    "moe.shared_experts.w2": "mlp.shared_experts.down_proj",
    "moe.shared_experts.w3": "mlp.shared_experts.up_proj",
}
"""Our modules of a layer → transformers', as most of its models name them."""
FURTHER = {
    "enorm": "enorm",
    "hnorm": "hnorm",
    "eh_proj": "eh_proj",
    "mtp_norm": "shared_head.norm",
}
"""What modules that predict further tokens have besides a layer → their names in published files,
as vLLM and SGLang read them."""
OLMO = {
    "attention_norm": "post_attention_layernorm",
    "ffn_norm": "post_feedforward_layernorm",
}
NORMS = {"attention_norm": "ln_1", "ffn_norm": "ln_2"}
CONVOLVED = {"feed_forward.w1": "mlp.c_fc", "feed_forward.w2": "mlp.c_proj"}
MEGATRON = {
    "feed_forward.w1": "mlp.dense_h_to_4h",
    "feed_forward.w2": "mlp.dense_4h_to_h",
}
BLOOM = MEGATRON | {"attention.wo": "self_attention.dense"}
NUMBERED = {"feed_forward.w1": "mlp.fc1", "feed_forward.w2": "mlp.fc2"}
PER_HEAD = {
    "attention.q_norm": "self_attn.q_layernorm",
    "attention.k_norm": "self_attn.k_layernorm",
}
LATE_NORMS = {
    "attention.q_norm": "self_attn.query_layernorm",
    "attention.k_norm": "self_attn.key_layernorm",
}
GEMMA = {
    "after_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "after_ffn_norm": "post_feedforward_layernorm",
}
UP = {"feed_forward.w1": "mlp.up_proj"}


def within(folder: str, output: str) -> dict[str, str]:
    """The matrices of attention, in a module of this name."""
    parts = {f"attention.qkv_linear.w{which}": f"{folder}.{which}_proj" for which in "qkv"}
    return parts | {"attention.wo": f"{folder}.{output}"}


SHARED_GATE = {
    "moe.shared_experts.w1": "mlp.shared_expert.gate_proj",
    "moe.shared_experts.w2": "mlp.shared_expert.down_proj",
    "moe.shared_experts.w3": "mlp.shared_expert.up_proj",
    "moe.shared_experts.gate": "mlp.shared_expert_gate",
}
DELTA = {
    "delta_net.wz": "linear_attn.in_proj_z",
    "delta_net.wa": "linear_attn.in_proj_a",
    "delta_net.wb": "linear_attn.in_proj_b",
    "delta_net.wo": "linear_attn.out_proj",
    "delta_net.norm": "linear_attn.norm",
}
ALONE = {
    "delta_net.rate_bias": "linear_attn.A_log",
    "delta_net.shift_bias": "linear_attn.dt_bias",
}
"""Our modules of one parameter → parameters of transformers."""
GPTJ = {
    **within("attn", "out_proj"),
    "feed_forward.w1": "mlp.fc_in",
    "feed_forward.w2": "mlp.fc_out",
    "attention_norm": "ln_1",
}
FAIRSEQ = {
    "attention.wo": "self_attn.out_proj",
    "feed_forward.w1": "fc1",
    "feed_forward.w2": "fc2",
    "attention_norm": "self_attn_layer_norm",
    "ffn_norm": "final_layer_norm",
}
APART = {
    "olmo2": OLMO,
    "olmo3": OLMO,
    "exaone4": OLMO,
    "exaone": {
        **within("attn.attention", "out_proj"),
        **NORMS,
        "feed_forward.w1": "mlp.c_fc_0",
        "feed_forward.w2": "mlp.c_proj",
        "feed_forward.w3": "mlp.c_fc_1",
    },
    "nemotron": UP,
    "jais2": UP,
    "arcee": UP,
    "apertus": {
        **UP,
        "attention_norm": "attention_layernorm",
        "ffn_norm": "feedforward_layernorm",
    },
    "starcoder2": CONVOLVED,
    "stablelm": {name: f"{theirs}.norms" for name, theirs in PER_HEAD.items()},
    "gemma2": GEMMA,
    "gemma3_text": GEMMA,
    "vaultgemma": GEMMA,
    "glm4": {
        "after_attention_norm": "post_self_attn_layernorm",
        "after_ffn_norm": "post_mlp_layernorm",
    },
    "hyperclovax": {"after_attention_norm": "post_norm1", "after_ffn_norm": "post_norm2"},
    "hunyuan_v1_dense": LATE_NORMS,
    "nanochat": NUMBERED,
    "phi": {**NUMBERED, **PER_HEAD, "attention.wo": "self_attn.dense"},
    "persimmon": {**MEGATRON, **PER_HEAD, "attention.wo": "self_attn.dense"},
    "gpt2": {**CONVOLVED, **NORMS, "attention.wo": "attn.c_proj"},
    "gpt_bigcode": {**CONVOLVED, **NORMS, "attention.wo": "attn.c_proj"},
    "gpt_neo": {**CONVOLVED, **NORMS, **within("attn.attention", "out_proj")},
    "gptj": GPTJ,
    "codegen": GPTJ,
    "gpt_neox": MEGATRON | {"attention.wo": "attention.dense"},
    "bloom": BLOOM,
    "falcon": BLOOM | {"attention_norm": "ln_attn", "ffn_norm": "ln_mlp"},
    "mpt": {
        "attention.wo": "attn.out_proj",
        "feed_forward.w1": "ffn.up_proj",
        "feed_forward.w2": "ffn.down_proj",
        "attention_norm": "norm_1",
        "ffn_norm": "norm_2",
    },
    "opt": FAIRSEQ,
    "biogpt": FAIRSEQ,
    "qwen3_5_text": DELTA,
    "mixtral": {"moe.router.gate": "block_sparse_moe.gate"},
    "granitemoe": {"moe.router.gate": "block_sparse_moe.router.layer"},
    "granitemoeshared": {
        "moe.router.gate": "block_sparse_moe.router.layer",
        "moe.shared_experts.w2": "shared_mlp.output_linear",
    },
    "flex_olmo": OLMO,
    "hunyuan_v1_moe": {
        **LATE_NORMS,
        "moe.router.gate": "mlp.gate.wg",
        "moe.shared_experts.w1": "mlp.shared_mlp.gate_proj",
        "moe.shared_experts.w2": "mlp.shared_mlp.down_proj",
        "moe.shared_experts.w3": "mlp.shared_mlp.up_proj",
    },
    "hy_v3": {
        "moe.router.gate": "mlp.router.gate",
        "moe.shared_experts.w1": "mlp.shared_mlp.gate_proj",
        "moe.shared_experts.w2": "mlp.shared_mlp.down_proj",
        "moe.shared_experts.w3": "mlp.shared_mlp.up_proj",
    },
    "qwen2_moe": SHARED_GATE,
    "qwen3_next": DELTA | SHARED_GATE,
    "qwen3_5_moe_text": DELTA | SHARED_GATE,
    "minimax_m2": {"moe.router.gate": "block_sparse_moe.gate"},
    "afmoe": {
        "attention.gate": "self_attn.gate_proj",
        "after_attention_norm": "post_attention_layernorm",
        "ffn_norm": "pre_mlp_layernorm",
        "after_ffn_norm": "post_mlp_layernorm",
        "moe.router.gate": "mlp.router.gate",
    },
    "dbrx": {
        "attention.wo": "norm_attn_norm.attn.out_proj",
        "attention_norm": "norm_attn_norm.norm_1",
        "ffn_norm": "norm_attn_norm.norm_2",
        "moe.router.gate": "ffn.router.layer",
    },
}
"""model_type → what it names otherwise."""
WHOLE = {"tok_embeddings": "model.embed_tokens", "norm": "model.norm", "lm_head": "lm_head"}
TRANSFORMER = {
    "tok_embeddings": "transformer.word_embeddings",
    "norm": "transformer.ln_f",
    "lm_head": "lm_head",
}
GPT = TRANSFORMER | {"tok_embeddings": "transformer.wte"}
POSITIONS = "layers.0.start.position_bias"
LEARNED = GPT | {POSITIONS: "transformer.wpe"}
WHOLES = {
    "gpt2": LEARNED,
    "gpt_bigcode": LEARNED,
    "gpt_neo": LEARNED,
    "gptj": GPT,
    "codegen": GPT,
    "exaone": GPT,
    "mpt": GPT | {"norm": "transformer.norm_f"},
    "dbrx": GPT | {"norm": "transformer.norm_f"},
    "gpt_neox": {
        "tok_embeddings": "gpt_neox.embed_in",
        "norm": "gpt_neox.final_layer_norm",
        "lm_head": "embed_out",
    },
    "bloom": TRANSFORMER | {"layers.0.start.norm": "transformer.word_embeddings_layernorm"},
    "falcon": TRANSFORMER,
    "phi": WHOLE | {"norm": "model.final_layernorm"},
    "persimmon": WHOLE | {"norm": "model.final_layernorm"},
    "opt": {
        "tok_embeddings": "model.decoder.embed_tokens",
        "norm": "model.decoder.final_layer_norm",
        "lm_head": "lm_head",
        POSITIONS: "model.decoder.embed_positions",
    },
    "biogpt": {
        "tok_embeddings": "biogpt.embed_tokens",
        "norm": "biogpt.layer_norm",
        "lm_head": "output_projection",
        POSITIONS: "biogpt.embed_positions",
    },
}
"""model_type → the same of what is no part of a layer."""
LAYERS = {
    "gpt2": "transformer.h",
    "gpt_bigcode": "transformer.h",
    "gpt_neo": "transformer.h",
    "gptj": "transformer.h",
    "codegen": "transformer.h",
    "exaone": "transformer.h",
    "gpt_neox": "gpt_neox.layers",
    "bloom": "transformer.h",
    "falcon": "transformer.h",
    "mpt": "transformer.blocks",
    "dbrx": "transformer.blocks",
    "opt": "model.decoder.layers",
    "biogpt": "biogpt.layers",
}
"""model_type → where it has its layers."""
Q = "attention.qkv_linear.wq"
K = "attention.qkv_linear.wk"
V = "attention.qkv_linear.wv"
QKV = (Q, K, V)
GATED = ("feed_forward.w1", "feed_forward.w3")
SHARED = ("moe.shared_experts.w1", "moe.shared_experts.w3")
GATE = (Q, "attention.gate")
DELTA_QKV = tuple(f"delta_net.w{which}" for which in "qkv")
FILTERS = tuple(f"delta_net.{which}_filter" for which in "qkv")
DELTA_QKVZ = (*DELTA_QKV, "delta_net.wz")
DELTA_BA = ("delta_net.wb", "delta_net.wa")
QWEN = {
    GATE: "self_attn.q_proj",
    DELTA_QKV: "linear_attn.in_proj_qkv",
    FILTERS: "linear_attn.conv1d",
}
FUSED = {
    "gpt2": {QKV: "attn.c_attn"},
    "gpt_bigcode": {QKV: "attn.c_attn"},
    "gpt_neox": {QKV: "attention.query_key_value"},
    "bloom": {QKV: "self_attention.query_key_value"},
    "falcon": {QKV: "self_attention.query_key_value"},
    "persimmon": {QKV: "self_attn.query_key_value"},
    "mpt": {QKV: "attn.Wqkv"},
    "dbrx": {QKV: "norm_attn_norm.attn.Wqkv"},
    "codegen": {(Q, V, K): "attn.qkv_proj"},
    "phi3": {QKV: "self_attn.qkv_proj", GATED: "mlp.gate_up_proj"},
    "glm": {GATED: "mlp.gate_up_proj"},
    "glm4": {GATED: "mlp.gate_up_proj"},
    "granitemoeshared": {SHARED: "shared_mlp.input_linear"},
    "qwen3_5_text": QWEN,
    "qwen3_5_moe_text": QWEN,
    "qwen3_next": {
        GATE: "self_attn.q_proj",
        DELTA_QKVZ: "linear_attn.in_proj_qkvz",
        DELTA_BA: "linear_attn.in_proj_ba",
        FILTERS: "linear_attn.conv1d",
    },
}
"""model_type → our modules of a layer that are one there."""
PIECES = {
    **dict.fromkeys(("gpt2", "phi3", "glm", "glm4", "mpt", "dbrx", "granitemoeshared"), 1),
    "codegen": 4,
}
"""model_type → in how many pieces such a matrix holds a part of each module; that of others holds
the queries, the key and the value of each key-value head."""
ASIDE = {
    "gpt2": ("attn.bias", "attn.masked_bias"),
    "gpt_neo": ("attn.attention.bias", "attn.attention.masked_bias"),
    "gptj": ("attn.bias", "attn.masked_bias"),
    "codegen": ("attn.causal_mask",),
    "gpt_neox": ("attention.bias", "attention.masked_bias", "attention.rotary_emb.inv_freq"),
    "apertus": ("mlp.act_fn.beta", "mlp.act_fn.eps"),
    "persimmon": ("self_attn.rotary_emb.inv_freq",),
}
"""model_type → what published layers have besides weights."""
PAIRED = (
    *("cohere", "cohere2", "glm", "glm4", "helium"),
    *("ernie4_5", "ernie4_5_moe", "gptj", "codegen"),
)
"""model_types in which neighbours rotate together; here elements half a head apart do, so rows of
queries and keys are sorted."""
FLIPPED = ("nanochat",)
"""model_types that rotate backwards: here with the halves of a head exchanged."""
LINEAR = ("qwen3_5_text", "qwen3_5_moe_text", "qwen3_next")
"""model_types with gated delta nets."""
ADDED = ("nemotron", "gemma", "gemma2", "gemma3_text", "vaultgemma", *LINEAR)
"""model_types whose norms multiply by the weight and one (transformers, `modeling_nemotron.py`,
`modeling_gemma.py`, `modeling_gemma2.py`, `modeling_gemma3.py` and `modeling_qwen3_5.py`)."""
OFFSET = {"opt": 2, "biogpt": 2}
"""model_type → rows before the first position, which are for padding (`modeling_opt.py`)."""
ROUTED = "moe.routed_experts.inner_experts"
EXPERTS = {
    "w1_EFD": "mlp.experts.{}.gate_proj",
    "w2_EDF": "mlp.experts.{}.down_proj",
    "w3_EFD": "mlp.experts.{}.up_proj",
}
"""Our weights of all experts → transformers' modules of one, as most of its models name them."""
MIXTRAL = {
    "w1_EFD": "block_sparse_moe.experts.{}.w1",
    "w2_EDF": "block_sparse_moe.experts.{}.w2",
    "w3_EFD": "block_sparse_moe.experts.{}.w3",
}
EXPERTS_APART = {"mixtral": MIXTRAL, "minimax_m2": MIXTRAL}
"""model_type → what it names otherwise."""
GRANITE = {
    "w1_EFD": "block_sparse_moe.input_linear",
    "w2_EDF": "block_sparse_moe.output_linear",
    "w3_EFD": "block_sparse_moe.input_linear",
}
EXPERTS_TOGETHER = {"granitemoe": GRANITE, "granitemoeshared": GRANITE}
"""model_type → our weights of all experts → its modules of all; two of ours may be one there, with
the rows of the first before those of the second."""
EXPERTS_STACKED = {
    "dbrx": {
        "w1_EFD": "ffn.experts.mlp.w1",
        "w2_EDF": "ffn.experts.mlp.w2",
        "w3_EFD": "ffn.experts.mlp.v1",
    },
}
"""model_type → our weights of all experts → its parameters, matrices with the rows of all experts
one after the other; of the last matrix of an expert, the rows are its inputs."""
CHOICE = "moe.expert_bias_E"
CHOICES = {
    "dots1": "mlp.gate.e_score_correction_bias",
    "glm4_moe": "mlp.gate.e_score_correction_bias",
    "solar_open": "mlp.gate.e_score_correction_bias",
    "hy_v3": "mlp.expert_bias",
    "exaone_moe": "mlp.e_score_correction_bias",
    "minimax_m2": "block_sparse_moe.e_score_correction_bias",
    "ernie4_5_moe": "mlp.moe_statics.e_score_correction_bias",
    "afmoe": "mlp.expert_bias",
}
"""model_type → the bias on the choice of experts; the others have none."""
