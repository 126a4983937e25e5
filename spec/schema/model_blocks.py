"""The attributes of models."""

from typing import ClassVar

from . import group_kinds as g
from . import kinds as k
from . import number_kinds as nk
from .declaration import Declaration, attribute
from .parts_blocks import Parts


class Experts(Declaration):
    """Feed-forward layers that are mixtures of experts."""

    count: int | None = attribute(
        nk.Whole(most=nk.MOST), None, otherwise="from the size", doc="experts in a layer"
    )
    active: int | None = attribute(
        nk.Whole(most=nk.MOST),
        None,
        otherwise="from the size",
        doc="experts that a token is routed to",
    )
    shared: int | None = attribute(
        nk.Whole(least=0, most=nk.MOST),
        None,
        otherwise="from the size, else 1 for `deepseek_v2` and `deepseek_v3`, and none for the "
        "others",
        doc="experts that every token goes through; none for `qwen3` and `gpt_oss`",
    )
    ffn: int | None = attribute(
        nk.Whole(most=nk.MOST), None, otherwise="from the size", doc="width of an expert"
    )
    dense: int | None = attribute(
        nk.Whole(least=0, most=nk.MOST),
        None,
        otherwise="from the size, else none",
        doc="number of initial layers without experts; none for `gpt_oss`",
    )
    groups: int | None = attribute(
        nk.Whole(most=nk.MOST),
        None,
        otherwise="from the size, else one",
        doc="number of groups of experts; experts are chosen from the best groups",
    )
    groups_used: int | None = attribute(
        nk.Whole(most=nk.MOST),
        None,
        otherwise="from the size",
        doc="number of groups to choose from",
    )
    scale: float | None = attribute(
        nk.Real(above=0),
        None,
        otherwise="from the size, else 1",
        doc="factor for the scores",
    )
    score: str | None = attribute(
        k.OneOf("softmax", "sigmoid"),
        None,
        otherwise="from the size, else `sigmoid` for `deepseek_v3` and `softmax` for the others",
        doc="how a router scores experts: all together, or each alone (arXiv:2412.19437 §2.1.2); "
        "for `decoder`",
    )
    normalized: bool | None = attribute(
        k.Flag(),
        None,
        otherwise="from the size, else `false` for `deepseek_v2` and `true` for the others",
        doc="the scores of a token's experts add up to 1, before `scale`; `false` is for "
        "`decoder`, `deepseek_v2` and `deepseek_v3`",
    )
    balance: float | None = attribute(
        nk.Real(least=0),
        None,
        otherwise="0.001 where `score` is `sigmoid`, else 0",
        doc="step size of the routing bias towards experts with little load (arXiv:2408.15664); "
        "0: no balancing. Models with `score = softmax` have no such bias in transformers",
    )
    shared_gate: bool | None = attribute(
        k.Flag(),
        None,
        otherwise="from the size, else `false`",
        doc="what the shared experts make of a token is multiplied by a sigmoid of it, as in "
        "Qwen1.5-MoE; for `decoder`",
    )


class Latent(Declaration):
    """Multi-head latent attention: widths."""

    queries: int | None = attribute(
        nk.Whole(least=0, most=nk.MOST),
        None,
        otherwise="from the size, else none",
        doc="width of the latent for queries; 0: queries come from the hidden state",
    )
    keys: int | None = attribute(
        nk.Whole(most=nk.MOST),
        None,
        otherwise="from the size",
        doc="width of the latent for keys and values",
    )
    plain: int | None = attribute(
        nk.Whole(most=nk.MOST),
        None,
        otherwise="from the size",
        doc="width of the part of a head's queries and keys without positions",
    )
    rotary: int | None = attribute(
        nk.Whole(most=nk.MOST),
        None,
        otherwise="from the size",
        doc="width of the part with rotary positions; even",
    )
    values: int | None = attribute(
        nk.Whole(most=nk.MOST), None, otherwise="from the size", doc="width of a head's values"
    )


class RopeScaling(Declaration):
    """How rotary positions are stretched: by `factor` over an `original` length.

    `llama` leaves frequencies with more than `high` turns over the original length unchanged, and
    stretches those with less than `low` turns by the whole factor.
    """

    kind: str
    factor: float | None = attribute(
        nk.Real(above=1),
        None,
        otherwise="8 for `llama`; required for `yarn`",
        doc="how many times longer sequences become",
    )
    original: int | None = attribute(
        nk.Whole("tokens"),
        None,
        otherwise="8Ki for `llama`; required for `yarn`",
        doc="the original length",
    )
    low: float | None = attribute(
        nk.Real(above=0),
        None,
        otherwise="1",
        doc="frequencies with fewer turns over the original length are scaled by the whole "
        "factor; `llama` only",
    )
    high: float | None = attribute(
        nk.Real(above=0),
        None,
        takes="number above `low`",
        otherwise="4",
        doc="frequencies with more turns are not scaled, those between the two in part; `llama` "
        "only",
    )


ROPE_SCALING = g.Tagged(
    tags=("yarn", "llama"),
    names=("none", "llama"),
    holds=RopeScaling,
    typical="factor = 8, original = 8Ki",
    what="a way of scaling positions",
    help="write `none`, `llama`, `llama { factor = 32 }`, or `yarn { factor = 8, original = 8Ki }`",
)


class Model(Declaration):
    """An architecture, of a published size or your own shape, and its weights, if it has any."""

    ways: ClassVar[tuple[tuple[str, ...], ...]] = (("weights", "hub"),)

    family: str = attribute(k.Name(), "llama3", doc="model family")
    size: str | None = attribute(k.Text(), None, doc="a published size of the family")
    layers: int | None = attribute(
        nk.Whole(most=nk.MOST), None, otherwise="from the size", doc="transformer layers"
    )
    dim: int | None = attribute(
        nk.Whole(most=nk.MOST),
        None,
        otherwise="from the size",
        doc="model width; a multiple of `heads`, unless `head_dim` is set",
    )
    heads: int | None = attribute(
        nk.Whole(most=nk.MOST),
        None,
        otherwise="from the size",
        doc="attention heads; a multiple of `kv_heads`",
    )
    kv_heads: int | None = attribute(
        nk.Whole(most=nk.MOST), None, otherwise="from the size, else `heads`", doc="key-value heads"
    )
    head_dim: int | None = attribute(
        nk.Whole(most=nk.MOST),
        None,
        otherwise="from the size, else `dim` / `heads`",
        doc="width of a head; even",
    )
    ffn: int | None = attribute(
        nk.Whole(most=nk.MOST),
        None,
        otherwise="from the size",
        doc="width of the feed-forward layer (in layers without experts; `gpt_oss` has none)",
    )
    vocab: int | None = attribute(
        nk.Whole(most=nk.MOST),
        None,
        otherwise="from the size, else from a tokenizer with `train`",
        doc="vocabulary size, at least the tokenizer's",
    )
    rope_theta: float | None = attribute(
        nk.Real(above=0),
        None,
        otherwise="from the size, else 10,000",
        doc="RoPE base at the beginning of training; stages may change it",
    )
    rope_scaling: RopeScaling | None = attribute(
        ROPE_SCALING,
        None,
        otherwise="from the size, else `none`",
        doc="scales positions for longer sequences, see [below](#yarn-and-llama-of-rope_scaling); "
        "stages may change it. `llama`: as in Llama 3.1, factor 8 over 8192 positions "
        "(`llama3` and `decoder`)",
    )
    tied: bool | None = attribute(
        k.Flag(),
        None,
        otherwise="from the size, else `false`",
        doc="embedding and output share one matrix",
    )
    norm_eps: float | None = attribute(
        nk.Real(above=0), None, otherwise="from the size, else 1e-5", doc="epsilon of RMSNorm"
    )
    window: int | None = attribute(
        nk.Whole("tokens", least=0),
        None,
        otherwise="from the size, else none",
        doc="number of tokens that a token sees, including itself, in every other layer from the "
        "first of a `gpt_oss`, in the layers that `parts` says of a `decoder`; 0: all layers see "
        "the whole document (no other family)",
    )
    latent: Latent | None = attribute(
        g.Group(Latent, "keys = 512, plain = 128, rotary = 64, values = 128"),
        None,
        otherwise="from the size",
        doc="[latents](#latent-of-a-model), for `deepseek_v2` and `deepseek_v3`",
    )
    experts: Experts | None = attribute(
        g.Group(Experts, "count = 64, active = 6, ffn = 1408"),
        None,
        otherwise="from the size, else none",
        doc="[experts](#experts-of-a-model), for all families except `llama3`",
    )
    parts: Parts | None = attribute(
        g.Group(Parts, "norms = after, qk_norm = width"),
        None,
        otherwise="from the size, else as in Llama",
        doc="[parts](#parts-of-a-model), for `decoder`",
    )
    mtp: int | None = attribute(
        nk.Whole(least=0, most=8),
        None,
        otherwise="none",
        doc="further tokens that the model learns to predict, each by a module of its own "
        "([multi-token prediction](#multi-token-prediction)), for `deepseek_v3`, and for a "
        "`decoder` as GLM-4.5",
    )
    weights: str | None = attribute(
        k.Text(),
        None,
        doc="a folder with [published weights](#published-weights), relative to the spec's folder, "
        "which says everything else; or its URL in an [object store](cluster.md#object-stores)",
    )
    hub: str | None = attribute(
        k.Text(), None, doc="a Hugging Face repository with published weights, instead of `weights`"
    )
    revision: str | None = attribute(
        k.Text(),
        None,
        needs=("hub",),
        otherwise="`main`",
        doc="revision of the repository; preferably a commit, which cannot change",
    )
    context: int | None = attribute(
        nk.Whole("tokens", least=2),
        None,
        needs=("weights", "hub"),
        otherwise="from the folder",
        doc="the longest sequence that the weights were trained on; required with `hub`, and with "
        "weights in a store",
    )
    head: str | None = attribute(
        k.OneOf("tokens", "score"),
        None,
        needs=("weights", "hub"),
        otherwise="from the folder, else `tokens`",
        doc="what the weights end in: `tokens`, a language model; `score`, a "
        "[reward model](#published-reward-models), which judges",
    )

    @property
    def judges(self) -> bool:
        """Whether its weights are those of a reward model."""
        return self.head == "score"
