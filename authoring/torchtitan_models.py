"""Model shapes in torchtitan's configurations: by the name of a size, or layer by layer."""

from fractions import Fraction

from ..compiler.families import FAMILIES
from ..compiler.resolve.shape_attributes import llama_scaling
from .config import Config
from .tree import ConfigError

BUILT = "model_spec.model"
_BALANCE = 0.001
"""The step size of the bias that balances experts, for every size."""


def model_shape(config: Config, family: str) -> dict[str, object]:
    """Attributes of a model in a spec, groups as dicts.

    Raises: ConfigError: the family, or its size, is unknown.
    """
    # Job files are not read for the parts of blocks.
    known = [name for name, of in FAMILIES.items() if of.parts is None]
    if family not in known:
        raise ConfigError(
            f"models of the family `{family}` cannot be imported",
            help=f"supported families, in any shape: {', '.join(known)}",
        )
    if isinstance(config.node(f"{BUILT}.layers"), list):
        config.carried("model_spec.flavor")
        return _layered(config, family)
    flavor = config.text("model_spec.flavor", "model.flavor", default="debugmodel")
    sizes, flavors = FAMILIES[family].sizes, FAMILIES[family].flavors
    known = {name.lower(): name for name in (*sizes, *flavors)}
    name = known.get(flavor.partition("_")[0].lower())
    if name is None:
        raise ConfigError(
            f"`{flavor}` is not a published size of {family}",
            help=f"the sizes are {', '.join(known.values())}; for others, import what torchtitan "
            "saves (--debug.save_config_file)",
        )
    shape = dict(sizes.get(name, {}))
    if shape.get("rope_scaling") == "yarn":
        for of in ("rope_scaling", "rope_factor", "rope_original"):
            del shape[of]
    if "experts" in shape:
        shape["experts"] = shape["experts"] | {"balance": _BALANCE}
    return shape | dict(flavors.get(name, {}))


def _layered(config: Config, family: str) -> dict[str, object]:
    kind = FAMILIES[family]
    layer, layers = f"{BUILT}.layers[0]", config.count(f"{BUILT}.layers")
    attention = f"{layer}.attention"
    linear, rope = f"{attention}.qkv_linear", f"{attention}.rope"
    heads = config.whole(f"{attention}.n_heads", least=1)
    dim = config.whole(f"{BUILT}.dim", least=1)
    shape: dict[str, object] = {"layers": layers, "dim": dim, "heads": heads}
    if kind.latent:
        shape["latent"] = {
            name: config.whole(f"{attention}.{theirs}")
            for name, theirs in (
                ("queries", "q_lora_rank"),
                ("keys", "kv_lora_rank"),
                ("plain", "qk_nope_head_dim"),
                ("rotary", "qk_rope_head_dim"),
                ("values", "v_head_dim"),
            )
        }
    else:
        shape["kv_heads"] = config.whole(
            f"{linear}.n_kv_heads", f"{attention}.n_kv_heads", default=heads
        )
        width = config.whole(f"{attention}.head_dim", f"{linear}.head_dim", default=None)
        if width is not None and width * heads != dim:
            shape["head_dim"] = width
    mixed = [n for n in range(layers) if isinstance(config.node(f"{BUILT}.layers[{n}].moe"), dict)]
    if not kind.sparse:
        # If all layers have experts, no feed-forward layer has this width.
        shape["ffn"] = config.whole(f"{layer}.feed_forward.w1.out_features", default=dim, least=1)
    if kind.windowed:
        shape["window"] = config.whole(f"{attention}.sliding_window_size", default=0)
    shape |= {
        "vocab": config.whole(f"{BUILT}.vocab_size", least=1),
        "rope_theta": float(config.number(f"{rope}.theta", default=Fraction(10_000))),
        "rope_scaling": _scaling(config, rope),
        "tied": config.flag(f"{BUILT}.enable_weight_tying"),
        "norm_eps": float(config.number(f"{BUILT}.norm.eps", default=Fraction("1e-5"))),
    }
    if mixed:
        shape["experts"] = _experts(config, family, mixed[0])
    return shape


def _experts(config: Config, family: str, dense: int) -> dict[str, object]:
    """The experts; the first `dense` layers have none."""
    kind, moe = FAMILIES[family], f"{BUILT}.layers[{dense}].moe"
    router, inner = f"{moe}.router", f"{moe}.routed_experts.inner_experts"
    width = config.whole(f"{inner}.hidden_dim", least=1)
    if config.text(f"{router}.score_func", default=kind.score) != kind.score:
        config.lost(f"{router}.score_func", f"{family} scores experts by {kind.score}")
    if not config.flag(f"{router}.route_norm", default=True):
        config.lost(f"{router}.route_norm", "the scores of the selected experts add up to 1")
    found: dict[str, object] = {
        "count": config.whole(f"{moe}.num_experts", least=1),
        "active": config.whole(f"{router}.top_k", least=1),
        "ffn": width,
        "balance": float(config.number(f"{moe}.load_balance_coeff", default=Fraction(0))),
    }
    if dense or not kind.sparse:
        found["dense"] = dense
    if kind.latent:
        shared = config.whole(f"{moe}.shared_experts.w1.out_features", default=width)
        found["shared"] = shared // width
        found["scale"] = float(config.number(f"{router}.route_scale", default=Fraction(1)))
        groups = config.whole(f"{router}.num_expert_groups", default=None)
        if groups is not None:
            found["groups"] = groups
            found["groups_used"] = config.whole(f"{router}.num_limited_groups", default=groups)
    return found


def _scaling(config: Config, rope: str) -> object:
    kind = config.text(f"{rope}.scaling", default="none")
    if kind == "yarn":
        return {
            "factor": float(config.number(f"{rope}.rope_factor", default=Fraction(1))),
            "original": config.whole(f"{rope}.original_seq_len", default=4096),
        }
    if kind == "llama":
        return llama_scaling(
            config.number(f"{rope}.scaling_factor"),
            config.whole(f"{rope}.original_max_position_embeddings", default=None),
            config.number(f"{rope}.low_freq_factor"),
            config.number(f"{rope}.high_freq_factor"),
        )
    if kind != "none":
        config.lost(f"{rope}.scaling", "`llama`, `yarn` or none; none is used")
        return "none"
    return kind
