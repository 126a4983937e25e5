"""The weights of decoders that are put together from parts, under transformers' names."""

import re
from typing import Any

import torch
from torchtitan.protocols.state_dict_adapter import StateDictAdapter

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
    "attention_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}
"""Our modules of a layer → transformers', as most of its models name them."""
OLMO = {
    "attention_norm": "post_attention_layernorm",
    "ffn_norm": "post_feedforward_layernorm",
}
MEGATRON = {
    "feed_forward.w1": "mlp.dense_h_to_4h",
    "feed_forward.w2": "mlp.dense_4h_to_h",
}
BLOOM = MEGATRON | {"attention.wo": "self_attention.dense"}
GEMMA = {
    "after_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "after_ffn_norm": "post_feedforward_layernorm",
}
APART = {
    "olmo2": OLMO,
    "olmo3": OLMO,
    "nemotron": {"feed_forward.w1": "mlp.up_proj"},
    "starcoder2": {"feed_forward.w1": "mlp.c_fc", "feed_forward.w2": "mlp.c_proj"},
    "gemma2": GEMMA,
    "gemma3_text": GEMMA,
    "arcee": {"feed_forward.w1": "mlp.up_proj"},
    "gpt2": {
        "attention.wo": "attn.c_proj",
        "feed_forward.w1": "mlp.c_fc",
        "feed_forward.w2": "mlp.c_proj",
        "attention_norm": "ln_1",
        "ffn_norm": "ln_2",
    },
    "gpt_neox": MEGATRON | {"attention.wo": "attention.dense"},
    "bloom": BLOOM,
    "falcon": BLOOM | {"attention_norm": "ln_attn", "ffn_norm": "ln_mlp"},
}
"""model_type → what it names otherwise."""
WHOLE = {"tok_embeddings": "model.embed_tokens", "norm": "model.norm", "lm_head": "lm_head"}
TRANSFORMER = {
    "tok_embeddings": "transformer.word_embeddings",
    "norm": "transformer.ln_f",
    "lm_head": "lm_head",
}
WHOLES = {
    "gpt2": TRANSFORMER
    | {
        "tok_embeddings": "transformer.wte",
        "layers.0.start.position_bias": "transformer.wpe",
    },
    "gpt_neox": {
        "tok_embeddings": "gpt_neox.embed_in",
        "norm": "gpt_neox.final_layer_norm",
        "lm_head": "embed_out",
    },
    "bloom": TRANSFORMER | {"layers.0.start.norm": "transformer.word_embeddings_layernorm"},
    "falcon": TRANSFORMER,
}
"""model_type → the same of what is no part of a layer."""
LAYERS = {
    "gpt2": "transformer.h",
    "gpt_neox": "gpt_neox.layers",
    "bloom": "transformer.h",
    "falcon": "transformer.h",
}
QKV = ("attention.qkv_linear.wq", "attention.qkv_linear.wk", "attention.qkv_linear.wv")
FUSED = {
    "gpt2": {QKV: "attn.c_attn"},
    "gpt_neox": {QKV: "attention.query_key_value"},
    "bloom": {QKV: "self_attention.query_key_value"},
    "falcon": {QKV: "self_attention.query_key_value"},
    "phi3": {
        QKV: "self_attn.qkv_proj",
        ("feed_forward.w1", "feed_forward.w3"): "mlp.gate_up_proj",
    },
}
"""model_type → our modules of a layer that are one there."""
ASIDE = {
    "gpt2": ("attn.bias", "attn.masked_bias"),
    "gpt_neox": ("attention.bias", "attention.masked_bias", "attention.rotary_emb.inv_freq"),
}
"""model_type → what published layers have besides weights."""


class PartsAdapter(StateDictAdapter):
    """Weights under transformers' names: one to one, but for matrices that are one there, which
    are given once all of their parts have been."""

    def __init__(self, model_config: Any, hf_assets_path: str | None) -> None:
        super().__init__(model_config, hf_assets_path)
        kind, layer = model_config.published, model_config.layers[0]
        self.tied = model_config.enable_weight_tying
        self.layer = LAYER | APART.get(kind, {})
        if kind == "falcon" and layer.ffn_norm is None:
            self.layer["attention_norm"] = "input_layernorm"
        self.whole = WHOLES.get(kind, WHOLE)
        self.layers = LAYERS.get(kind, "model.layers")
        self.from_hf_map = {f"{self.layers}.{{}}.{name}": None for name in ASIDE.get(kind, ())}
        # GPT-2 holds matrices as inputs × outputs.
        self.turned = kind == "gpt2"
        # One part after the other; others hold the queries, the key and the value of each
        # key-value head.
        self.apart = kind in ("gpt2", "phi3")
        attention, fed = layer.attention, layer.feed_forward
        self.heads = attention.n_kv_heads
        keys = self.heads * attention.head_dim
        queries = attention.n_heads * attention.head_dim
        self.rows: dict[str, int] = dict(zip(QKV, (queries, keys, keys), strict=True))
        self.rows |= dict.fromkeys(("feed_forward.w1", "feed_forward.w3"), fed.w1.out_features)
        self.fused: dict[Any, str] = FUSED.get(kind, {})
        self.joined: dict[str, Any] = {part: of for of in self.fused for part in of}
        # These norms multiply by the weight and one (transformers, `modeling_nemotron.py`,
        # `modeling_gemma.py`, `modeling_gemma2.py` and `modeling_gemma3.py`).
        self.more = 1.0 if kind in ("nemotron", "gemma", "gemma2", "gemma3_text") else 0.0
        self.waiting: dict[str, dict[str, Any]] = {}

    def sources(self, name: str, tensor: Any) -> dict[str, Any]:
        """transformers' tensors that one of ours is made from, as tensors of their shapes."""
        of = re.fullmatch(r"layers\.(\d+)\.(.+)\.(\w+)", name)
        if not of or of[2] not in self.joined:
            return self.to_hf({name: tensor})
        parts = {
            f"layers.{of[1]}.{part}.{of[3]}": tensor.new_empty((self.rows[part], *tensor.shape[1:]))
            for part in self.joined[of[2]]
        }
        return self.to_hf(parts)

    def to_hf(self, state_dict: dict[str, Any]) -> dict[str, Any]:
        """Weights under transformers' names."""
        found = {}
        for name, weight in state_dict.items():
            if self.tied and name == "lm_head.weight":
                continue
            ours, _, last = name.rpartition(".")
            of = re.fullmatch(r"layers\.(\d+)\.(.+)", ours)
            if of and of[2] in self.joined:
                parts = self.joined[of[2]]
                fused = f"{self.layers}.{of[1]}.{self.fused[parts]}.{last}"
                have = self.waiting.setdefault(fused, {})
                have[of[2]] = weight
                if len(have) == len(parts):
                    del self.waiting[fused]
                    found[fused] = self.turn(self.join([have[each] for each in parts]))
                continue
            theirs = self.whole.get(ours)
            if theirs is None:
                assert of is not None
                theirs = f"{self.layers}.{of[1]}.{self.layer[of[2]]}"
            more = self.more and last == "weight" and "norm" in ours
            weight = weight - self.more if more else weight
            found[f"{theirs}.{last}"] = self.turn(weight) if of and theirs[-3:] != "wpe" else weight
        return found

    def from_hf(self, hf_state_dict: dict[str, Any]) -> dict[str, Any]:
        """The inverse of `to_hf`; rotary frequencies are left out."""
        layer = {theirs: ours for ours, theirs in self.layer.items() if ours not in self.joined}
        whole = {theirs: ours for ours, theirs in self.whole.items()}
        fused = {theirs: parts for parts, theirs in self.fused.items()}
        found = {}
        for name, weight in hf_state_dict.items():
            theirs, _, last = name.rpartition(".")
            of = re.fullmatch(rf"{re.escape(self.layers)}\.(\d+)\.(.+)", theirs)
            if of and (parts := fused.get(of[2])):
                split = zip(parts, self.split(self.turn(weight), parts), strict=True)
                found |= {f"layers.{of[1]}.{part}.{last}": each for part, each in split}
                continue
            inside = layer.get(of[2]) if of else None
            ours = f"layers.{of[1]}.{inside}" if of and inside else whole.get(theirs)
            if ours is not None:
                more = self.more and last == "weight" and "norm" in ours
                weight = weight + self.more if more else weight
                found[f"{ours}.{last}"] = self.turn(weight) if of else weight
        if self.tied and "lm_head.weight" not in found:
            found["lm_head.weight"] = found["tok_embeddings.weight"]
        return found

    def turn(self, weight: torch.Tensor) -> torch.Tensor:
        """A matrix of a layer as the other side holds it."""
        return weight.t().contiguous() if self.turned and weight.ndim == 2 else weight

    def join(self, parts: list[torch.Tensor]) -> torch.Tensor:
        """Weights or biases of several modules as one, by rows."""
        if self.apart:
            return torch.cat(parts)
        split = [part.unflatten(0, (self.heads, -1)) for part in parts]
        return torch.cat(split, dim=1).flatten(0, 1)

    def split(self, fused: torch.Tensor, parts: tuple[str, ...]) -> list[torch.Tensor]:
        """The inverse of `join`."""
        rows = [self.rows[part] for part in parts]
        if self.apart:
            return [part.contiguous() for part in fused.split(rows)]
        split = fused.unflatten(0, (self.heads, -1))
        each = split.split([n // self.heads for n in rows], dim=1)
        return [part.flatten(0, 1).contiguous() for part in each]
