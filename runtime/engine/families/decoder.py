"""Decoders put together from parts.

Names carry shapes: B sequences, L tokens, N heads, H dimensions per head, D model dimensions.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import spmd_types as spmd
import torch
from torch import nn
from torchtitan.models.common import Embedding, Linear, RMSNorm, SigmoidGatedFeedForward
from torchtitan.models.common.attention import (
    FlexAttention,
    QKVLinear,
    get_causal_mask_mod,
    get_efficient_causal_mask_mod_for_packed_document,
    get_sliding_window_mask_mod,
)
from torchtitan.models.common.config_utils import get_attention_config
from torchtitan.models.common.decoder import Decoder
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
from torchtitan.models.common.moe_sharding import set_moe_sharding_config
from torchtitan.models.common.nn_modules import LayerNorm
from torchtitan.models.common.param_init import depth_scaled_std
from torchtitan.models.deepseek_v3.mtp import MTPDecoder
from torchtitan.models.qwen3 import parallelize_qwen3
from torchtitan.models.utils import (
    get_dense_model_nparams_and_flops,
    get_moe_model_nparams_and_flops,
)
from torchtitan.protocols.sharding import LocalMapConfig, ShardingConfig

from .decoder_attention import HeadsNorm, PartsAttention, Rotary, WideNorm
from .decoder_blocks import (
    OutputLinear,
    PartsBlock,
    PartsFeedForward,
    ScaleNorm,
    Start,
    Xielu,
    slope,
)
from .decoder_further import shard_module
from .decoder_linear import delta_net, shard_delta
from .decoder_weights import PartsAdapter
from .family import Family
from .parts import Init, cut, further, linear, mixture, norm, whole


class PartsModel(MTPDecoder):
    """A decoder of such blocks."""

    @dataclass(kw_only=True, slots=True)
    class Config(MTPDecoder.Config):
        window: int
        published: str

        def update_from_config(self, *, config: Any, **kwargs: Any) -> None:
            """Takes torchtitan's settings, and says how ranks share weights and activations."""
            MTPDecoder.Config.update_from_config(self, config=config, **kwargs)
            cut = config.parallelism.context_parallel_degree > 1
            if cut and any(layer.attention is None for layer in self.layers):
                raise ValueError("Context parallelism cuts the state of linear attention.")
            if cut and any(layer.attention.alibi for layer in self.layers):
                raise ValueError("Context parallelism reorders tokens, which ALiBi cannot follow.")
            shard_parts(
                self,
                enable_sp=config.parallelism.enable_sequence_parallel,
                enable_ep=config.parallelism.expert_parallel_degree > 1,
            )

        def get_nparams_and_flops(self, model: nn.Module, seq_len: int) -> tuple[int, int]:
            """Parameters, and FLOPs of a token in training."""
            attention: Any = self.first_attention
            if any(layer.moe for layer in self.layers):
                return get_moe_model_nparams_and_flops(
                    self, model, attention.n_heads, 2 * attention.head_dim, seq_len
                )
            return get_dense_model_nparams_and_flops(
                model,
                n_layers=len(self.layers),
                n_heads=attention.n_heads,
                head_dims=2 * attention.head_dim,
                seq_len=seq_len,
                enable_weight_tying=self.enable_weight_tying,
            )

    def get_attention_masks(self, positions: torch.Tensor) -> Any:
        """Masks for packed documents: FlexAttention's, where layers have a window, by names."""
        of: Any = self.config
        inner = of.first_attention.inner_attention
        if not of.window or not isinstance(inner, FlexAttention.Config):
            return super().get_attention_masks(positions)
        mods = [
            get_causal_mask_mod(),
            get_efficient_causal_mask_mod_for_packed_document(positions),
        ]
        near = [*mods, get_sliding_window_mask_mod(of.window)]
        attention = of.first_attention
        return {
            "basic_mask": self._create_flex_attention_mask(positions, attention, mods),
            "sliding_window_mask": self._create_flex_attention_mask(positions, attention, near),
        }


def shard_parts(config: Any, *, enable_sp: bool, enable_ep: bool) -> None:
    """How tensor and sequence parallelism share weights and activations: as in torchtitan's
    Llama 3, with biases and further norms; experts as in its Qwen3."""
    layout = (
        dense_sequence_parallel_placement() if enable_sp else dense_activation_placement(tp=spmd.I)
    )
    set_decoder_sharding_config(config, enable_sp=enable_sp)
    config.norm.sharding_config.state_shardings["bias"] = dense_param_placement(
        tp=spmd.R if enable_sp else spmd.I
    )
    config.lm_head.sharding_config.state_shardings["bias"] = dense_param_placement(tp=spmd.S(0))
    for module in config.mtp_layers:
        shard_module(module, layout, enable_sp=enable_sp)
    for layer in [*config.layers, *config.mtp_layers]:
        if getattr(layer, "start", None) is not None:
            shard_start(layer.start, layout, enable_sp=enable_sp)
        names = ("attention_norm", "ffn_norm", "after_attention_norm", "after_ffn_norm")
        for of in (getattr(layer, name, None) for name in names):
            if of is not None:
                of.sharding_config = norm_config(enable_sp=enable_sp)
                states = of.sharding_config.state_shardings
                states["bias"] = states["weight"]
        if layer.attention is None:
            shard_delta(layer.delta_net, layout, enable_sp=enable_sp)
        else:
            shard_attention(layer.attention, enable_sp=enable_sp)
        if layer.moe is None:
            shard_feed_forward(layer.feed_forward, layout, enable_sp=enable_sp)
        else:
            set_moe_sharding_config(
                layer.moe,
                enable_ep=enable_ep,
                enable_sp=enable_sp,
                expert_param_layout={"w1_EFD": spmd.S(1), "w2_EDF": spmd.S(2), "w3_EFD": spmd.S(1)},
            )
            if isinstance(layer.moe.shared_experts, SigmoidGatedFeedForward.Config):
                shard_gate(layer.moe.shared_experts.gate, enable_sp=enable_sp)


def shard_gate(gate: Linear.Config, *, enable_sp: bool) -> None:
    """The same for the gate of shared experts, which every rank has; as torchtitan's Qwen3.5."""
    whole = dense_activation_placement(tp=spmd.R)
    gate.sharding_config = ShardingConfig(
        state_shardings={"weight": dense_param_placement(tp=spmd.R)},
        out_src_shardings=whole,
        out_dst_shardings=dense_sequence_parallel_placement() if enable_sp else whole,
    )


def shard_attention(attention: PartsAttention.Config, *, enable_sp: bool) -> None:
    """The same for attention."""
    set_gqa_attention_sharding(attention, enable_sp=enable_sp)
    states: Any = attention.sharding_config
    if attention.alibi:
        states.state_shardings["slopes"] = dense_param_placement(tp=spmd.R)
    if attention.gate is not None:
        attention.gate.sharding_config = colwise_config()
    set_gqa_inner_attention_local_map(attention.inner_attention)
    for of in (attention.qk_norm, attention.k_norm):
        if of is not None:
            shard_norm_of_heads(of)


def shard_feed_forward(fed: PartsFeedForward.Config, layout: Any, *, enable_sp: bool) -> None:
    """The same for a feed-forward layer."""
    if fed.learned is not None:
        hidden = dense_activation_placement(tp=spmd.S(-1))
        fed.learned.sharding_config = ShardingConfig(
            state_shardings=dict.fromkeys(("alpha_p", "alpha_n"), dense_param_placement(tp=spmd.R)),
            in_src_shardings={"x": hidden},
            out_src_shardings=hidden,
        )
    fed.sharding_config = ShardingConfig(
        in_src_shardings={"x": layout},
        in_dst_shardings={"x": dense_activation_placement(tp=spmd.R)},
    )
    fed.w1.sharding_config = colwise_config()
    if fed.w3 is not None:
        fed.w3.sharding_config = colwise_config()
    fed.w2.sharding_config = rowwise_config(output_sp=enable_sp)


def shard_norm_of_heads(of: Any) -> None:
    """The same for a norm of queries or keys."""
    heads = dense_activation_placement(tp=spmd.S(2))
    wide, each = isinstance(of, WideNorm.Config), isinstance(of, HeadsNorm.Config)
    # A norm over all heads needs those of all ranks.
    inside = dense_activation_placement(tp=spmd.R) if wide else heads
    whole = dense_param_placement(tp=spmd.S(0) if each else spmd.R)
    given = "x" if wide or each else "input"
    of.sharding_config = ShardingConfig(
        state_shardings={"weight": whole, "bias": whole},
        in_src_shardings={given: heads},
        in_dst_shardings={given: inside},
        out_src_shardings=inside,
        out_dst_shardings=heads,
    )


def shard_start(start: Start.Config, layout: Any, *, enable_sp: bool) -> None:
    """The same for what happens to embeddings: positions as torchtitan's table of tokens."""
    if start.norm is not None:
        start.norm.sharding_config = norm_config(enable_sp=enable_sp)
        states = start.norm.sharding_config.state_shardings
        states["bias"] = states["weight"]
    if start.positions is not None:
        whole = dense_activation_placement(tp=spmd.R)
        start.positions.sharding_config = ShardingConfig(
            state_shardings={"weight": dense_param_placement(tp=spmd.S(0))},
            in_src_shardings={"input": whole},
            in_dst_shardings={"input": whole},
            out_src_shardings=dense_activation_placement(tp=spmd.P),
            out_dst_shardings=layout,
            local_map=LocalMapConfig(in_grad_placements=None),
        )


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
    """An RMSNorm or a LayerNorm, with a scale, with a bias too, or with neither."""
    if kind == "rms":
        return norm(width, eps)
    drawn = {"weight": nn.init.ones_, "bias": nn.init.zeros_}
    if kind == "layer_scale":
        del drawn["bias"]
        return ScaleNorm.Config(normalized_shape=width, eps=eps, param_init=drawn)
    if kind == "layer":
        return LayerNorm.Config(normalized_shape=width, eps=eps, param_init=drawn)
    made: Any = RMSNorm if kind == "rms_plain" else LayerNorm
    return made.Config(normalized_shape=width, eps=eps, elementwise_affine=False, param_init={})


def norm_of_heads(kind: str, heads: int, width: int, eps: float) -> Any:
    """A norm of queries or keys; None: there is none."""
    if kind == "layers":
        return HeadsNorm.Config(
            heads=heads, width=width, eps=eps, param_init={"weight": nn.init.ones_}
        )
    if kind == "width":
        return WideNorm.Config(
            normalized_shape=heads * width, eps=eps, param_init={"weight": nn.init.ones_}
        )
    same = {"head": "rms", "plain": "rms_plain", "layer": "layer"}
    return norm_of(same[kind], width, eps) if kind in same else None


def biases_of(where: str) -> tuple[bool, bool, bool]:
    """Whether queries, keys and values, attention's output, and feed-forward layers have biases."""
    return (
        where in ("qkv", "attention", "all"),
        where in ("attention", "but_qkv", "all"),
        where in ("ffn", "but_qkv", "all"),
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
    `modeling_olmo3.py`), unless `window_scaled` (`modeling_exaone4.py`)."""
    wide, narrow = heads * head_dim, kv_heads * head_dim
    inside, outside, _ = biases_of(parts["biases"])
    values: dict[str, Any] = {**rope, "dim": int(head_dim * parts["rotary"])}
    if near:
        if not parts["window_scaled"]:
            values["scaling"] = "none"
        values["theta"] = parts["window_theta"] or values["theta"]
    return PartsAttention.Config(
        dim=dim,
        n_heads=heads,
        n_kv_heads=kv_heads,
        head_dim=head_dim,
        qkv_linear=QKVLinear.Config(
            head_dim=head_dim,
            wq=joined(wide, dim, drawn, inside),
            wkv=joined(narrow, dim, drawn, inside),
        ),
        wo=joined(dim, wide, last, outside, ScaledBiasRowwiseLinear),
        qk_norm=norm_of_heads(parts["qk_norm"], heads, head_dim, norm_eps),
        k_norm=norm_of_heads(parts["qk_norm"], kv_heads, head_dim, norm_eps),
        late=parts["qk_norm_late"],
        clip=parts["qkv_clip"],
        cap=parts["attention_cap"],
        factor=parts["attention_scale"],
        alibi=parts["alibi"],
        gate=linear(wide, dim, drawn) if parts["gate"] else None,
        inner_attention=get_attention_config("flex"),
        rope=Rotary.Config(**values, skipped=skipped),
    )


def feed_forward_of(
    parts: dict[str, Any], dim: int, ffn: int, drawn: Init, last: Init
) -> PartsFeedForward.Config:
    """The feed-forward layer of a layer."""
    bias, learned = biases_of(parts["biases"])[2], parts["activation"] == "xielu"
    # Slopes of 0.8 to begin with, of which β is 0.5 below 0 (transformers, `activations.py`).
    slopes = {"alpha_p": slope(0.8), "alpha_n": slope(0.3)}
    return PartsFeedForward.Config(
        activation=parts["activation"],
        learned=Xielu.Config(param_init=slopes) if learned else None,
        w1=joined(ffn, dim, drawn, bias),
        w2=joined(dim, ffn, last, bias, ScaledBiasRowwiseLinear),
        w3=joined(ffn, dim, last, bias) if parts["gated"] else None,
    )


ABSENT = {
    "learned": 0,
    "alibi": False,
    "attention_cap": 0.0,
    "logit_cap": 0.0,
    "scaled": False,
    "embedding_norm": False,
    "attention_scale": 0.0,
    "embedding_scale": 1.0,
    "residual_scale": 1.0,
    "logit_scale": 1.0,
    "window_theta": 0.0,
    "qk_norm_late": False,
    "qkv_clip": 0.0,
    "output_bias": False,
    "window_first": False,
    "window_scaled": False,
    "gate": False,
    "linear_heads": 0,
}
"""Parts that need not be said, as they are then."""


def start_of(parts: dict[str, Any], dim: int, norm_eps: float, init: Init) -> Start.Config | None:
    """What happens to embeddings before the first layer; None if nothing does."""
    learned, normed = parts["learned"], parts["embedding_norm"]
    factor = dim**0.5 if parts["scaled"] else parts["embedding_scale"]
    if not (factor != 1 or learned or normed):
        return None
    table = Embedding.Config(num_embeddings=learned, embedding_dim=dim, param_init={"weight": init})
    return Start.Config(
        factor=factor,
        positions=table if learned else None,
        norm=norm_of(parts["norm"], dim, norm_eps) if normed else None,
    )


def changed(output: Linear.Config, parts: dict[str, Any]) -> Linear.Config:
    """The output layer, with logits times a scale, capped, and with a bias, by the parts."""
    scale, cap, bias = parts["logit_scale"], parts["logit_cap"], parts["output_bias"]
    if not cap and scale == 1 and not bias:
        return output
    zero = {"bias": nn.init.zeros_} if bias else {}
    return OutputLinear.Config(
        in_features=output.in_features,
        out_features=output.out_features,
        bias=bias,
        param_init={**(output.param_init or {}), **zero},
        scale=scale,
        cap=cap,
    )


def is_nth(every: int, layer: int) -> bool:
    """Whether a layer, counted from 0, is an `every`-th one; 0: none is."""
    return every > 0 and (layer + 1) % every == 0


def is_whole(parts: dict[str, Any], layer: int) -> bool:
    """Whether a layer sees the whole document although others have a window."""
    return is_nth(parts["window_skips"], layer - 1 if parts["window_first"] else layer)


# Long because a block and a model name each of their parts on a line.
def decoder(
    *,
    layers: int,
    dim: int,
    heads: int,
    kv_heads: int,
    head_dim: int,
    ffn: int,
    experts: dict[str, Any] | None,
    vocab: int,
    tied: bool,
    norm_eps: float,
    window: int,
    parts: dict[str, Any],
    rope: dict[str, Any],
    mtp: int,
) -> Decoder.Config:
    """A decoder of these parts, initialized as torchtitan's Llama 3."""
    parts, drawn = {**ABSENT, **parts}, cut(0.02)
    unrotated = parts["alibi"] or parts["learned"] > 0
    sizes = {"dim": dim, "heads": heads, "kv_heads": kv_heads, "head_dim": head_dim}

    def block(layer: int) -> PartsBlock.Config:
        last = cut(depth_scaled_std(0.02, layer))
        near = window > 0 and not is_whole(parts, layer)
        mixed = experts is not None and layer >= experts["dense"]
        delta = parts["linear_heads"] > 0 and not is_nth(parts["linear_skips"], layer)
        both, made = parts["norms"] == "both", partial(norm_of, parts["norm"], dim, norm_eps)
        return PartsBlock.Config(
            norms=parts["norms"],
            parallel=parts["parallel"] != "none",
            share=parts["residual_scale"],
            near=near,
            start=start_of(parts, dim, norm_eps, drawn) if layer == 0 else None,
            attention_norm=made(),
            ffn_norm=None if parts["parallel"] == "one" else made(),
            after_attention_norm=made() if both else None,
            after_ffn_norm=made() if both else None,
            delta_net=delta_net(parts, dim, norm_eps, drawn, last) if delta else None,
            attention=None
            if delta
            else attention_of(
                parts,
                rope,
                drawn,
                last,
                **sizes,
                norm_eps=norm_eps,
                near=near,
                skipped=unrotated or is_nth(parts["rotary_skips"], layer),
            ),
            feed_forward=None if mixed else feed_forward_of(parts, dim, ffn, drawn, last),
            moe=mixture(dim, drawn, drawn, last, last, **experts) if experts and mixed else None,
        )

    modules = [further(block(layers + depth), dim, norm_eps) for depth in range(mtp)]
    own = {"window": window, "published": parts["published"], "mtp_layers": modules}
    made = whole(
        partial(PartsModel.Config, **own),
        list(map(block, range(layers))),
        nn.init.normal_,
        dim=dim,
        vocab=vocab,
        tied=tied,
        last=norm_of(parts["norm"], dim, norm_eps),
    )
    made.lm_head = changed(made.lm_head, parts)
    return made


FAMILY = Family(build=decoder, parallelize=parallelize_qwen3, adapter=PartsAdapter)
