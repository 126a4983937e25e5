"""Decoders put together from parts: torchtitan's where it has them.

Names carry shapes: B sequences, L tokens, N heads, H dimensions per head, D model dimensions.
"""

import re
from dataclasses import dataclass
from functools import partial
from math import log
from typing import Any

import spmd_types as spmd
import torch
from torch import nn
from torchtitan.models.common import CosSinRoPE, Linear, RMSNorm
from torchtitan.models.common.attention import (
    GQAttention,
    QKVLinear,
    get_causal_mask_mod,
    get_efficient_causal_mask_mod_for_packed_document,
    get_sliding_window_mask_mod,
)
from torchtitan.models.common.config_utils import get_attention_config
from torchtitan.models.common.decoder import Decoder, TransformerBlock
from torchtitan.models.common.decoder_sharding import (
    colwise_config,
    dense_activation_placement,
    dense_param_placement,
    dense_sequence_parallel_placement,
    norm_config,
    rowwise_config,
    set_decoder_sharding_config,
    set_gqa_attention_sharding,
    set_gqa_inner_attention_local_map,
)
from torchtitan.models.common.linear import ScaledBiasRowwiseLinear
from torchtitan.models.common.nn_modules import LayerNorm
from torchtitan.models.common.param_init import depth_scaled_std
from torchtitan.models.llama3 import parallelize_llama
from torchtitan.models.utils import get_dense_model_nparams_and_flops
from torchtitan.protocols.module import Module
from torchtitan.protocols.sharding import ShardingConfig
from torchtitan.protocols.state_dict_adapter import StateDictAdapter

from .family import Family
from .parts import Init, cut, linear, norm, whole

ACTIVATION = {
    "silu": nn.functional.silu,
    "gelu": nn.functional.gelu,
    "gelu_tanh": partial(nn.functional.gelu, approximate="tanh"),
    "relu": nn.functional.relu,
    "relu2": lambda x: nn.functional.relu(x).square(),
}


class Rotary(CosSinRoPE):
    """Rotary positions of the first `dim` elements of a head, or of none.

    With YaRN, queries and keys are scaled besides (arXiv:2309.00071 §3.4).
    """

    @dataclass(kw_only=True, slots=True)
    class Config(CosSinRoPE.Config):
        skipped: bool = False

    def _precompute_cache(self) -> torch.Tensor:
        cache, of = super()._precompute_cache(), self.config
        longer = of.scaling == "yarn" and of.rope_factor > 1
        return cache * (0.1 * log(of.rope_factor) + 1) if longer else cache

    def forward(
        self, query: torch.Tensor, key: torch.Tensor, positions: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns queries and keys, shape (B, L, N, H), rotated."""
        of: Any = self.config
        if of.skipped:
            return query, key
        if of.dim == query.shape[-1]:
            return super().forward(query, key, positions)
        q, k = super().forward(query[..., : of.dim], key[..., : of.dim], positions)
        rest = (each[..., of.dim :] for each in (query, key))
        return torch.cat([q, next(rest)], -1), torch.cat([k, next(rest)], -1)


class WideNorm(RMSNorm):
    """RMSNorm over all heads together."""

    @dataclass(kw_only=True, slots=True)
    class Config(RMSNorm.Config):
        pass

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns x, shape (B, L, N, H), normed."""
        return super().forward(x.flatten(2)).view_as(x)


class PartsAttention(GQAttention):
    """Grouped-query attention whose norm of keys may be of another width than that of queries."""

    @dataclass(kw_only=True, slots=True)
    class Config(GQAttention.Config):
        k_norm: RMSNorm.Config | None = None

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        if config.k_norm is not None:
            self.k_norm = config.k_norm.build()


class PartsFeedForward(Module):
    """A feed-forward layer of three matrices, of which one gates, or of two."""

    @dataclass(kw_only=True, slots=True)
    class Config(Module.Config):
        activation: str
        w1: Linear.Config
        w2: Linear.Config
        w3: Linear.Config | None

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.activate = ACTIVATION[config.activation]
        self.w1 = config.w1.build()
        self.w2 = config.w2.build()
        self.w3 = config.w3.build() if config.w3 else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns the outputs for x, shape (B, L, D)."""
        hidden = self.activate(self.w1(x))
        return self.w2(hidden if self.w3 is None else hidden * self.w3(x))


class PartsBlock(TransformerBlock):
    """Attention and feed-forward layer, one after the other or side by side, with their norms."""

    @dataclass(kw_only=True, slots=True)
    class Config(TransformerBlock.Config):
        ffn_norm: Any  # None: one norm for both
        feed_forward: Any = None
        norms: str
        parallel: bool
        near: bool  # the layer has the window
        after_attention_norm: Any = None
        after_ffn_norm: Any = None

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.after, self.parallel = config.norms == "after", config.parallel
        self.mask = "sliding_window_mask" if config.near else "basic_mask"
        self.attention = config.attention.build()
        self.feed_forward = config.feed_forward.build()
        self.attention_norm = config.attention_norm.build()
        self.ffn_norm = config.ffn_norm.build() if config.ffn_norm else None
        both = config.norms == "both"
        self.after_attention_norm = config.after_attention_norm.build() if both else None
        self.after_ffn_norm = config.after_ffn_norm.build() if both else None

    def forward(
        self, x: torch.Tensor, attention_masks: Any, positions: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Returns the layer's outputs, shape (B, L, D).

        Args:
            attention_masks: one mask, or those of layers with and without a window by their names.
        """
        mask = attention_masks[self.mask] if isinstance(attention_masks, dict) else attention_masks
        normed = x if self.after else self.attention_norm(x)
        mixed = self._normed(
            self.attention(normed, mask, positions), self.attention_norm, self.after_attention_norm
        )
        h = x if self.parallel else x + mixed
        if self.ffn_norm is not None:
            normed = h if self.after else self.ffn_norm(h)
        fed = self._normed(self.feed_forward(normed), self.ffn_norm, self.after_ffn_norm)
        return x + mixed + fed if self.parallel else h + fed

    def _normed(self, x: torch.Tensor, norm: Any, after: Any) -> torch.Tensor:
        last = norm if self.after else after
        return x if last is None else last(x)


class PartsModel(Decoder):
    """A decoder of such blocks."""

    @dataclass(kw_only=True, slots=True)
    class Config(Decoder.Config):
        window: int
        published: str

        def update_from_config(self, *, config: Any, **kwargs: Any) -> None:
            """Takes torchtitan's settings, and says how ranks share weights and activations."""
            Decoder.Config.update_from_config(self, config=config, **kwargs)
            shard_parts(self, enable_sp=config.parallelism.enable_sequence_parallel)

        def get_nparams_and_flops(self, model: nn.Module, seq_len: int) -> tuple[int, int]:
            """Parameters, and FLOPs of a token in training."""
            attention = self.layers[0].attention
            return get_dense_model_nparams_and_flops(
                model,
                n_layers=len(self.layers),
                n_heads=attention.n_heads,
                head_dims=2 * attention.head_dim,
                seq_len=seq_len,
                enable_weight_tying=self.enable_weight_tying,
            )

    def get_attention_masks(self, positions: torch.Tensor) -> Any:
        """FlexAttention's masks for packed documents, where layers have a window by their names."""
        of: Any = self.config
        if not of.window:
            return super().get_attention_masks(positions)
        mods = [
            get_causal_mask_mod(),
            get_efficient_causal_mask_mod_for_packed_document(positions),
        ]
        near = [*mods, get_sliding_window_mask_mod(of.window)]
        attention = of.layers[0].attention
        return {
            "basic_mask": self._create_flex_attention_mask(positions, attention, mods),
            "sliding_window_mask": self._create_flex_attention_mask(positions, attention, near),
        }


def shard_parts(config: Any, *, enable_sp: bool) -> None:
    """How tensor and sequence parallelism share weights and activations: as in torchtitan's
    Llama 3, with biases and further norms."""
    layout = (
        dense_sequence_parallel_placement() if enable_sp else dense_activation_placement(tp=spmd.I)
    )
    set_decoder_sharding_config(config, enable_sp=enable_sp)
    config.norm.sharding_config.state_shardings["bias"] = dense_param_placement(
        tp=spmd.R if enable_sp else spmd.I
    )
    for layer in config.layers:
        names = ("attention_norm", "ffn_norm", "after_attention_norm", "after_ffn_norm")
        for of in (getattr(layer, name) for name in names):
            if of is not None:
                of.sharding_config = norm_config(enable_sp=enable_sp)
                states = of.sharding_config.state_shardings
                states["bias"] = states["weight"]
        set_gqa_attention_sharding(layer.attention, enable_sp=enable_sp)
        set_gqa_inner_attention_local_map(layer.attention.inner_attention)
        heads = dense_activation_placement(tp=spmd.S(2))
        for of in (layer.attention.qk_norm, layer.attention.k_norm):
            if of is not None:
                wide = isinstance(of, WideNorm.Config)
                # A norm over all heads needs those of all ranks.
                inside = dense_activation_placement(tp=spmd.R) if wide else heads
                of.sharding_config = ShardingConfig(
                    state_shardings={"weight": dense_param_placement(tp=spmd.R)},
                    in_src_shardings={"x" if wide else "input": heads},
                    in_dst_shardings={"x" if wide else "input": inside},
                    out_src_shardings=inside,
                    out_dst_shardings=heads,
                )
        fed = layer.feed_forward
        fed.sharding_config = ShardingConfig(
            in_src_shardings={"x": layout},
            in_dst_shardings={"x": dense_activation_placement(tp=spmd.R)},
        )
        fed.w1.sharding_config = colwise_config()
        if fed.w3 is not None:
            fed.w3.sharding_config = colwise_config()
        fed.w2.sharding_config = rowwise_config(output_sp=enable_sp)


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
APART = {
    "olmo2": OLMO,
    "olmo3": OLMO,
    "nemotron": {"feed_forward.w1": "mlp.up_proj"},
    "starcoder2": {"feed_forward.w1": "mlp.c_fc", "feed_forward.w2": "mlp.c_proj"},
}
"""model_type → what it names otherwise."""
WHOLE = {"tok_embeddings": "model.embed_tokens", "norm": "model.norm", "lm_head": "lm_head"}


class PartsAdapter(StateDictAdapter):
    """Weights under transformers' names, one to one."""

    def __init__(self, model_config: Any, hf_assets_path: str | None) -> None:
        super().__init__(model_config, hf_assets_path)
        kind = model_config.published
        self.tied = model_config.enable_weight_tying
        self.layer = LAYER | APART.get(kind, {})
        # Nemotron's norms multiply by the weight and one (transformers, `modeling_nemotron.py`).
        self.more = 1.0 if kind == "nemotron" else 0.0

    def to_hf(self, state_dict: dict[str, Any]) -> dict[str, Any]:
        """Weights under transformers' names."""
        found = {}
        for name, weight in state_dict.items():
            if self.tied and name == "lm_head.weight":
                continue
            ours, _, last = name.rpartition(".")
            of = re.fullmatch(r"layers\.(\d+)\.(.+)", ours)
            theirs = f"model.layers.{of[1]}.{self.layer[of[2]]}" if of else WHOLE[ours]
            more = self.more and last == "weight" and "norm" in ours
            found[f"{theirs}.{last}"] = weight - self.more if more else weight
        return found

    def from_hf(self, hf_state_dict: dict[str, Any]) -> dict[str, Any]:
        """The inverse of `to_hf`; rotary frequencies are left out."""
        layer = {theirs: ours for ours, theirs in self.layer.items()}
        whole = {theirs: ours for ours, theirs in WHOLE.items()}
        found = {}
        for name, weight in hf_state_dict.items():
            theirs, _, last = name.rpartition(".")
            of = re.fullmatch(r"model\.layers\.(\d+)\.(.+)", theirs)
            inside = layer.get(of[2]) if of else None
            ours = f"layers.{of[1]}.{inside}" if of and inside else whole.get(theirs)
            if ours is not None:
                more = self.more and last == "weight" and "norm" in ours
                found[f"{ours}.{last}"] = weight + self.more if more else weight
        if self.tied and "lm_head.weight" not in found:
            found["lm_head.weight"] = found["tok_embeddings.weight"]
        return found


def joined(
    rows: int, columns: int, init: Init, bias: bool, kind: type[Linear] = Linear
) -> Linear.Config:
    """A layer from `columns` to `rows`, with or without a bias."""
    if not bias:
        return linear(rows, columns, init)
    return kind.Config(
        in_features=columns,
        out_features=rows,
        bias=True,
        param_init={"weight": init, "bias": nn.init.zeros_},
    )


def norm_of(kind: str, width: int, eps: float) -> Any:
    """An RMSNorm or a LayerNorm."""
    if kind == "rms":
        return norm(width, eps)
    return LayerNorm.Config(
        normalized_shape=width,
        eps=eps,
        param_init={"weight": nn.init.ones_, "bias": nn.init.zeros_},
    )


def attention_of(
    parts: dict[str, Any],
    rope: dict[str, Any],
    drawn: Init,
    last: Init,
    *,
    dim: int,
    heads: int,
    kv_heads: int,
    head_dim: int,
    norm_eps: float,
    near: bool,
    skipped: bool,
) -> PartsAttention.Config:
    """Attention of one layer. Layers with a window rotate as before a scaling (transformers,
    `modeling_olmo3.py`)."""
    wide, narrow = heads * head_dim, kv_heads * head_dim
    bias, norms = parts["biases"], parts["qk_norm"]
    widths = {"none": (), "head": (head_dim, head_dim), "width": (wide, narrow)}[norms]
    made = [
        (WideNorm if norms == "width" else RMSNorm).Config(
            normalized_shape=width, eps=norm_eps, param_init={"weight": nn.init.ones_}
        )
        for width in widths
    ]
    values: dict[str, Any] = {**rope, "dim": int(head_dim * parts["rotary"])}
    if near:
        values["scaling"] = "none"
    return PartsAttention.Config(
        dim=dim,
        n_heads=heads,
        n_kv_heads=kv_heads,
        head_dim=head_dim,
        qkv_linear=QKVLinear.Config(
            head_dim=head_dim,
            wq=joined(wide, dim, drawn, bias != "none"),
            wkv=joined(narrow, dim, drawn, bias != "none"),
        ),
        wo=joined(dim, wide, last, bias == "all", ScaledBiasRowwiseLinear),
        qk_norm=made[0] if made else None,
        k_norm=made[1] if made else None,
        inner_attention=get_attention_config("flex"),
        rope=Rotary.Config(**values, skipped=skipped),
    )


def feed_forward_of(
    parts: dict[str, Any], dim: int, ffn: int, drawn: Init, last: Init
) -> PartsFeedForward.Config:
    """The feed-forward layer of a layer."""
    bias = parts["biases"] == "all"
    return PartsFeedForward.Config(
        activation=parts["activation"],
        w1=joined(ffn, dim, drawn, bias),
        w2=joined(dim, ffn, last, bias, ScaledBiasRowwiseLinear),
        w3=joined(ffn, dim, last, bias) if parts["gated"] else None,
    )


def is_nth(every: int, layer: int) -> bool:
    """Whether a layer, counted from 0, is an `every`-th one; 0: none is."""
    return every > 0 and (layer + 1) % every == 0


def decoder(
    *,
    layers: int,
    dim: int,
    heads: int,
    kv_heads: int,
    head_dim: int,
    ffn: int,
    vocab: int,
    tied: bool,
    norm_eps: float,
    window: int,
    parts: dict[str, Any],
    rope: dict[str, Any],
) -> Decoder.Config:
    """A decoder of these parts, initialized as torchtitan's Llama 3."""
    drawn = cut(0.02)

    def block(layer: int) -> PartsBlock.Config:
        last = cut(depth_scaled_std(0.02, layer))
        near = window > 0 and not is_nth(parts["window_skips"], layer)
        made = partial(norm_of, parts["norm"], dim, norm_eps)
        both = parts["norms"] == "both"
        return PartsBlock.Config(
            norms=parts["norms"],
            parallel=parts["parallel"] != "none",
            near=near,
            attention_norm=made(),
            ffn_norm=None if parts["parallel"] == "one" else made(),
            after_attention_norm=made() if both else None,
            after_ffn_norm=made() if both else None,
            attention=attention_of(
                parts,
                rope,
                drawn,
                last,
                dim=dim,
                heads=heads,
                kv_heads=kv_heads,
                head_dim=head_dim,
                norm_eps=norm_eps,
                near=near,
                skipped=is_nth(parts["rotary_skips"], layer),
            ),
            feed_forward=feed_forward_of(parts, dim, ffn, drawn, last),
        )

    return whole(
        partial(PartsModel.Config, window=window, published=parts["published"]),
        [block(layer) for layer in range(layers)],
        nn.init.normal_,
        dim=dim,
        vocab=vocab,
        tied=tied,
        last=norm_of(parts["norm"], dim, norm_eps),
    )


FAMILY = Family(build=decoder, parallelize=parallelize_llama, adapter=PartsAdapter)
