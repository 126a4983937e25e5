"""Text of the modules that `emit` makes: what torchtitan's models of each family are built from.

The functions in these texts build what the engine's families build, with torchtitan's parts alone.
"""

from ..spec.record import Record

HEAD = """# The train jobs of the recipe {recipe}, for torchtitan 0.3.
# Made by `etude plan --emit torchtitan`.
#
# Each function is a configuration; a job that continues from another loads its checkpoint. Gates,
# averages, evaluations and post-training by preferences are etude's, and not here. The data are
# those of a run of the recipe: `etude run SPEC --prepare` makes them and trains nothing.
#
# Save this as {file} and run, in its folder:"""

IMPORTS = """
import os
from functools import partial
from pathlib import Path

from torch import nn
from etude.runtime.engine.emitted import RunData, RunRates
from etude.runtime.engine.loader import NoTokenizer
from torchtitan.components.checkpoint import CheckpointManager
from torchtitan.components.loss import ChunkedLossWrapper, CrossEntropyLoss
from torchtitan.components.metrics import MetricsProcessor
from torchtitan.components.optimizer import (
    OptimizersContainer,
    ParamGroupConfig,
    register_moe_load_balancing_hook,
)
from torchtitan.config import CompileConfig, ParallelismConfig, TrainingConfig
from torchtitan.config.configs import CommConfig, DebugConfig
from torchtitan.distributed.activation_checkpoint import FullAC, SelectiveAC
from torchtitan.distributed.pipeline_parallel import pipeline_llm
from torchtitan.models.common import ComplexRoPE, CosSinRoPE, Embedding, Linear, RMSNorm
from torchtitan.models.common.config_utils import (
    get_attention_config,
    make_ffn_config,
    make_gqa_config,
    make_moe_config,
    make_routed_experts_config,
    make_router_config,
    make_token_dispatcher_config,
)
from torchtitan.models.common.param_init import depth_scaled_std, skip_param_init
"""

COMMON = '''from torchtitan.protocols.model_spec import ModelSpec
from torchtitan.trainer import Trainer

OUTPUTS = Path("outputs").resolve()
"""Checkpoints; torchtitan wants the whole path."""


def cut(std):
    """Draws from a normal distribution cut at two."""
    return partial(nn.init.trunc_normal_, std=std)


def norm(width, eps):
    return RMSNorm.Config(normalized_shape=width, eps=eps, param_init={"weight": nn.init.ones_})


def linear(rows, columns, init):
    return Linear.Config(in_features=columns, out_features=rows, param_init={"weight": init})


def decoder(kind, layers, embedding, *, dim, vocab, tied, norm_eps):
    std = dim**-0.5
    return kind(
        dim=dim,
        vocab_size=vocab,
        enable_weight_tying=tied,
        tok_embeddings=Embedding.Config(
            num_embeddings=vocab,
            embedding_dim=dim,
            param_init={"weight": skip_param_init if tied else embedding},
        ),
        norm=norm(dim, norm_eps),
        lm_head=linear(vocab, dim, partial(nn.init.trunc_normal_, std=std, a=-3 * std, b=3 * std)),
        layers=layers,
    )'''

RUN = '''

RUN = Path(os.environ.get("ETUDE_RUN", {run!r})).resolve()
"""The run folder whose data are read."""


def fill_in(what):
    """Stops a job of which something is open; put a value in place of the call."""
    raise SystemExit(f"{{__file__}}: fill in {{what}}")'''

_MIXTURE = '''


def mixture(dim, gate, first, gated, last, *, count, active, ffn, shared, groups, groups_used,
            score, normalized, scale, balance, dense):
    """A layer of experts; `dense` layers before it have none."""
    return make_moe_config(
        num_experts=count,
        router=make_router_config(
            dim=dim, num_experts=count, gate_param_init={"weight": gate}, top_k=active,
            score_func=score, route_norm=normalized, route_scale=scale,
            num_expert_groups=groups, num_limited_groups=groups_used,
        ),
        routed_experts=make_routed_experts_config(
            dim=dim, hidden_dim=ffn, num_experts=count, top_k=active, comm_backend="standard",
            param_init={"w1_EFD": first, "w2_EDF": last, "w3_EFD": gated},
        ),
        shared_experts=make_ffn_config(
            dim=dim, hidden_dim=ffn * shared, w1_param_init={"weight": first},
            w2w3_param_init={"weight": gated},
        ) if shared else None,
        load_balance_coeff=balance or None,
    )'''

_LLAMA3 = '''


def llama3(*, layers, dim, heads, kv_heads, head_dim, ffn, vocab, rope, tied, norm_eps):
    """Torchtitan's Llama 3 of any shape."""
    weight = {"weight": cut(0.02)}

    def block(layer):
        scaled = {"weight": cut(depth_scaled_std(0.02, layer))}
        return Llama3TransformerBlock.Config(
            attention_norm=norm(dim, norm_eps),
            ffn_norm=norm(dim, norm_eps),
            attention=make_gqa_config(
                dim=dim, n_heads=heads, n_kv_heads=kv_heads, head_dim=head_dim,
                wqkv_param_init=weight, wo_param_init=scaled,
                inner_attention=get_attention_config("flex"), rope=ComplexRoPE.Config(**rope),
            ),
            feed_forward=make_ffn_config(
                dim=dim, hidden_dim=ffn, w1_param_init=weight, w2w3_param_init=scaled
            ),
        )

    return decoder(
        Llama3Model.Config, [block(layer) for layer in range(layers)], nn.init.normal_,
        dim=dim, vocab=vocab, tied=tied, norm_eps=norm_eps,
    )'''

_QWEN3 = '''


def qwen3(*, layers, dim, heads, kv_heads, head_dim, ffn, vocab, rope, tied, norm_eps, experts):
    """Torchtitan's Qwen3 of any shape, dense or with experts."""
    drawn = partial(nn.init.normal_, std=0.02)
    last = partial(nn.init.normal_, std=0.02 / (2 * layers) ** 0.5)
    weight = {"weight": drawn}

    def block(layer):
        dense = experts is None or layer < experts["dense"]
        return Qwen3TransformerBlock.Config(
            attention_norm=norm(dim, norm_eps),
            ffn_norm=norm(dim, norm_eps),
            attention=make_gqa_config(
                dim=dim, n_heads=heads, n_kv_heads=kv_heads, head_dim=head_dim,
                wqkv_param_init=weight, wo_param_init={"weight": last} if experts else weight,
                inner_attention=get_attention_config("flex"), rope=CosSinRoPE.Config(**rope),
                qk_norm=norm(head_dim, norm_eps),
            ),
            feed_forward=make_ffn_config(
                dim=dim, hidden_dim=ffn, w1_param_init=weight, w2w3_param_init=weight
            ) if dense else None,
            moe=None if dense else mixture(dim, drawn, drawn, drawn, last, **experts),
        )

    return decoder(
        Qwen3Model.Config, [block(layer) for layer in range(layers)], drawn,
        dim=dim, vocab=vocab, tied=tied, norm_eps=norm_eps,
    )'''

_DEEPSEEK_V3 = '''


def deepseek_v3(*, layers, dim, heads, ffn, vocab, rope, tied, norm_eps, latent, experts):
    """Torchtitan's DeepSeek-V3 of any shape."""
    drawn = cut(0.02)
    through, keys, plain = latent["queries"], latent["keys"], latent["plain"]
    rotary, values = latent["rotary"], latent["values"]
    queries = heads * (plain + rotary)

    def block(layer):
        scaled = cut(depth_scaled_std(0.02, layer))
        dense = layer < experts["dense"]
        return DeepSeekV3TransformerBlock.Config(
            attention_norm=norm(dim, norm_eps),
            ffn_norm=norm(dim, norm_eps),
            attention=LatentAttention.Config(
                dim=dim, n_heads=heads, q_lora_rank=through, kv_lora_rank=keys,
                qk_nope_head_dim=plain, qk_rope_head_dim=rotary, v_head_dim=values,
                wq=None if through else linear(queries, dim, drawn),
                wq_a=linear(through, dim, drawn) if through else None,
                wq_b=linear(queries, through, drawn) if through else None,
                q_norm=norm(through or 1, norm_eps),
                wkv_a=linear(keys + rotary, dim, drawn),
                kv_norm=norm(keys, norm_eps),
                wkv_b=linear(heads * (plain + values), keys, drawn),
                wo=linear(dim, heads * values, scaled),
                inner_attention=get_attention_config("flex"),
                rope=ComplexRoPE.Config(**rope),
            ),
            feed_forward=make_ffn_config(
                dim=dim, hidden_dim=ffn, w1_param_init={"weight": drawn},
                w2w3_param_init={"weight": scaled},
            ) if dense else None,
            moe=None if dense else mixture(dim, scaled, drawn, scaled, scaled, **experts),
        )

    return decoder(
        DeepSeekV3Model.Config, [block(layer) for layer in range(layers)], nn.init.normal_,
        dim=dim, vocab=vocab, tied=tied, norm_eps=norm_eps,
    )'''

_GPT_OSS = '''


def gpt_oss(*, layers, dim, heads, kv_heads, head_dim, vocab, rope, tied, norm_eps, window,
            experts):
    """Torchtitan's gpt-oss of any shape."""

    def block(layer):
        drawn = cut(depth_scaled_std(0.02, layer))
        biased = {"weight": drawn, "bias": nn.init.zeros_}

        def project(rows, columns, kind=Linear):
            return kind.Config(
                in_features=columns, out_features=rows, bias=True, param_init=biased
            )

        return GptOssTransformerBlock.Config(
            attention_norm=norm(dim, norm_eps),
            ffn_norm=norm(dim, norm_eps),
            attention=SinkAttention.Config(
                dim=dim, n_heads=heads, n_kv_heads=kv_heads, head_dim=head_dim,
                qkv_linear=QKVLinear.Config(
                    head_dim=head_dim,
                    wq=project(heads * head_dim, dim),
                    wkv=project(kv_heads * head_dim, dim),
                ),
                wo=project(dim, heads * head_dim, ScaledBiasRowwiseLinear),
                sliding_window_size=window if window and layer % 2 == 0 else None,
                inner_attention=get_attention_config("flex"),
                param_init={"sinks": drawn},
                rope=CosSinRoPE.Config(**rope, truncate=False),
            ),
            moe=GptOssMoE.Config(
                num_experts=experts["count"],
                load_balance_coeff=experts["balance"] or None,
                routed_experts=RoutedExperts.Config(
                    inner_experts=GptOssGroupedExperts.Config(
                        dim=dim, hidden_dim=experts["ffn"], num_experts=experts["count"],
                        param_init=dict.fromkeys(
                            ("mlp1_weight_EGD", "mlp1_bias_EG", "mlp2_weight_EDF", "mlp2_bias_ED"),
                            drawn,
                        ),
                    ),
                    token_dispatcher=make_token_dispatcher_config(
                        num_experts=experts["count"], top_k=experts["active"],
                        comm_backend="standard", hidden_dim=dim,
                    ),
                ),
                router=TokenChoiceTopKRouter.Config(
                    num_experts=experts["count"], score_func=experts["score"],
                    route_norm=experts["normalized"], top_k=experts["active"],
                    gate=project(experts["count"], dim),
                ),
            ),
        )

    return decoder(
        GptOssModel.Config, [block(layer) for layer in range(layers)],
        partial(nn.init.normal_, std=0.02), dim=dim, vocab=vocab, tied=tied, norm_eps=norm_eps,
    )'''

_EVERY = ("layers", "dim", "heads")
_GROUPED = (*_EVERY, "kv_heads", "head_dim")


class Builder(Record):
    """How models of a family are written.

    Attributes:
        imports: lines that the text needs beside `IMPORTS`.
        text: functions, of which that with the family's name builds the model's configuration.
        takes: fields of `Architecture` that the function takes, beside `vocab`, `tied`, `norm_eps`
            and `rope`.
        parallelize, adapter: names of torchtitan's functions and classes.
        needs_mixture: whether the text uses `MIXTURE`.
    """

    imports: tuple[str, ...]
    text: str
    takes: tuple[str, ...]
    parallelize: str
    adapter: str
    needs_mixture: bool = False


MIXTURE = _MIXTURE
BUILDERS = {
    "llama3": Builder(
        imports=(
            "from torchtitan.models.llama3 import Llama3Model, parallelize_llama",
            "from torchtitan.models.llama3.model import Llama3TransformerBlock",
            "from torchtitan.models.llama3.state_dict_adapter import Llama3StateDictAdapter",
        ),
        text=_LLAMA3,
        takes=(*_GROUPED, "ffn"),
        parallelize="parallelize_llama",
        adapter="Llama3StateDictAdapter",
    ),
    "qwen3": Builder(
        imports=(
            "from torchtitan.models.qwen3 import Qwen3Model, parallelize_qwen3",
            "from torchtitan.models.qwen3.model import Qwen3TransformerBlock",
            "from torchtitan.models.qwen3.state_dict_adapter import Qwen3StateDictAdapter",
        ),
        text=_QWEN3,
        takes=(*_GROUPED, "ffn", "experts"),
        parallelize="parallelize_qwen3",
        adapter="Qwen3StateDictAdapter",
        needs_mixture=True,
    ),
    "deepseek_v3": Builder(
        imports=(
            "from torchtitan.models.deepseek_v3 import DeepSeekV3Model, parallelize_deepseekv3",
            "from torchtitan.models.deepseek_v3.model import Attention as LatentAttention",
            "from torchtitan.models.deepseek_v3.model import DeepSeekV3TransformerBlock",
            "from torchtitan.models.deepseek_v3.state_dict_adapter import (",
            "    DeepSeekV3StateDictAdapter,",
            ")",
        ),
        text=_DEEPSEEK_V3,
        takes=(*_EVERY, "ffn", "latent", "experts"),
        parallelize="parallelize_deepseekv3",
        adapter="DeepSeekV3StateDictAdapter",
        needs_mixture=True,
    ),
    "gpt_oss": Builder(
        imports=(
            "from torchtitan.models.common.attention import QKVLinear",
            "from torchtitan.models.common.linear import ScaledBiasRowwiseLinear",
            "from torchtitan.models.common.moe import RoutedExperts, TokenChoiceTopKRouter",
            "from torchtitan.models.gpt_oss import GptOssModel, parallelize_gptoss",
            "from torchtitan.models.gpt_oss.model import Attention as SinkAttention",
            "from torchtitan.models.gpt_oss.model import GptOssTransformerBlock",
            "from torchtitan.models.gpt_oss.moe import GptOssGroupedExperts, GptOssMoE",
            "from torchtitan.models.gpt_oss.state_dict_adapter import GptOssStateDictAdapter",
        ),
        text=_GPT_OSS,
        takes=(*_GROUPED, "window", "experts"),
        parallelize="parallelize_gptoss",
        adapter="GptOssStateDictAdapter",
    ),
}
"""family → how its models are written."""
