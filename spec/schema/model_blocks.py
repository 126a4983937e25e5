"""The attributes of models."""

from typing import ClassVar

from . import group_kinds as g
from . import kinds as k
from . import number_kinds as nk
from .declaration import Declaration, attribute


class Experts(Declaration):
    """Feed-forward layers that are mixtures of experts."""

    count: int | None = attribute(
        nk.Whole(most=nk.MOST), None, otherwise="of the size", doc="experts of a layer"
    )
    active: int | None = attribute(
        nk.Whole(most=nk.MOST),
        None,
        otherwise="of the size",
        doc="experts that a token is routed to",
    )
    shared: int | None = attribute(
        nk.Whole(least=0, most=nk.MOST),
        None,
        otherwise="of the size, else 1 of `deepseek_v3` and none of the others",
        doc="experts that every token goes through",
    )
    ffn: int | None = attribute(
        nk.Whole(most=nk.MOST), None, otherwise="of the size", doc="width of an expert"
    )
    dense: int | None = attribute(
        nk.Whole(least=0, most=nk.MOST),
        None,
        otherwise="of the size, else none",
        doc="how many layers at the beginning have no experts; of `gpt_oss` none",
    )
    groups: int | None = attribute(
        nk.Whole(most=nk.MOST),
        None,
        otherwise="of the size, else one",
        doc="experts are split into this many groups, and chosen from the best of them",
    )
    groups_used: int | None = attribute(
        nk.Whole(most=nk.MOST), None, otherwise="of the size", doc="how many groups"
    )
    scale: float | None = attribute(
        nk.Real(above=0),
        None,
        otherwise="of the size, else 1",
        doc="what the scores are multiplied with",
    )
    balance: float | None = attribute(
        nk.Real(least=0),
        None,
        otherwise="0.001 of `deepseek_v3`, 0 of the others",
        doc="by so much a step the bias on the choice moves towards experts with little load "
        "(arXiv:2408.15664); 0: nothing balances them. Qwen3 and gpt-oss have no place for that "
        "bias in transformers",
    )


class Latent(Declaration):
    """Attention through latents: widths."""

    queries: int | None = attribute(
        nk.Whole(least=0, most=nk.MOST),
        None,
        otherwise="of the size, else none",
        doc="of the latent that queries come from; 0: from the hidden state",
    )
    keys: int | None = attribute(
        nk.Whole(most=nk.MOST),
        None,
        otherwise="of the size",
        doc="of the latent that keys and values come from",
    )
    plain: int | None = attribute(
        nk.Whole(most=nk.MOST),
        None,
        otherwise="of the size",
        doc="of the part of a head's queries and keys that knows no position",
    )
    rotary: int | None = attribute(
        nk.Whole(most=nk.MOST), None, otherwise="of the size", doc="of the part that does; even"
    )
    values: int | None = attribute(
        nk.Whole(most=nk.MOST), None, otherwise="of the size", doc="of a head's values"
    )


class RopeScaling(Declaration):
    """How rotary positions are stretched: by `factor` over an `original` length.

    `llama` leaves alone what turns more than `high` times over the original length, and stretches
    by the whole factor what turns less than `low` times.
    """

    kind: str
    factor: float | None = attribute(
        nk.Real(above=1),
        None,
        otherwise="8 of `llama`; `yarn` needs it",
        doc="how many times longer",
    )
    original: int | None = attribute(
        nk.Whole("tokens"),
        None,
        otherwise="8Ki of `llama`; `yarn` needs it",
        doc="the length before",
    )
    low: float | None = attribute(
        nk.Real(above=0),
        None,
        otherwise="1",
        doc="what turns fewer times over the original length is stretched by the whole factor; "
        "`llama` only",
    )
    high: float | None = attribute(
        nk.Real(above=0),
        None,
        takes="number above `low`",
        otherwise="4",
        doc="what turns more often is not stretched; between the two it is in part; `llama` only",
    )


ROPE_SCALING = g.Tagged(
    tags=("yarn", "llama"),
    names=("none", "llama"),
    holds=RopeScaling,
    typical="factor = 8, original = 8Ki",
    what="a way of stretching positions",
    help="write `none`, `llama`, `llama { factor = 32 }`, or `yarn { factor = 8, original = 8Ki }`",
)


class Model(Declaration):
    """An architecture, of a published size or a shape of one's own; and weights that it has."""

    ways: ClassVar[tuple[tuple[str, ...], ...]] = (("weights", "hub"),)

    family: str = attribute(k.Name(), "llama3", doc="model family")
    size: str | None = attribute(k.Text(), None, doc="a published size of the family")
    layers: int | None = attribute(
        nk.Whole(most=nk.MOST), None, otherwise="of the size", doc="transformer layers"
    )
    dim: int | None = attribute(
        nk.Whole(most=nk.MOST),
        None,
        otherwise="of the size",
        doc="width; an even multiple of `heads`, unless `head_dim` is given",
    )
    heads: int | None = attribute(
        nk.Whole(most=nk.MOST),
        None,
        otherwise="of the size",
        doc="attention heads; a multiple of `kv_heads`",
    )
    kv_heads: int | None = attribute(
        nk.Whole(most=nk.MOST), None, otherwise="of the size, else `heads`", doc="key-value heads"
    )
    head_dim: int | None = attribute(
        nk.Whole(most=nk.MOST),
        None,
        otherwise="of the size, else `dim` / `heads`",
        doc="width of a head; even",
    )
    ffn: int | None = attribute(
        nk.Whole(most=nk.MOST),
        None,
        otherwise="of the size",
        doc="width of the feed-forward layer (of layers without experts; `gpt_oss` has none)",
    )
    vocab: int | None = attribute(
        nk.Whole(most=nk.MOST),
        None,
        otherwise="of the size, else that of a tokenizer with `train`",
        doc="vocabulary",
    )
    rope_theta: float | None = attribute(
        nk.Real(above=0),
        None,
        otherwise="of the size, else 10,000",
        doc="base of the rotary positions where training begins; stages may change it",
    )
    rope_scaling: RopeScaling | None = attribute(
        ROPE_SCALING,
        None,
        otherwise="of the size, else `none`",
        doc="stretches positions, see [below](#yarn-and-llama-of-rope_scaling); stages may "
        "change it. `llama` as Llama 3.1 does: factor 8 over 8192 positions (`llama3` only)",
    )
    tied: bool | None = attribute(
        k.Flag(),
        None,
        otherwise="of the size, else `false`",
        doc="one matrix for embedding and output",
    )
    norm_eps: float | None = attribute(
        nk.Real(above=0), None, otherwise="of the size, else 1e-5", doc="epsilon of RMSNorm"
    )
    window: int | None = attribute(
        nk.Whole("tokens", least=0),
        None,
        otherwise="of the size, else none",
        doc="how many tokens, itself included, a token sees in every other layer, from the first; "
        "0: all layers see the whole document (`gpt_oss` only)",
    )
    latent: Latent | None = attribute(
        g.Group(Latent, "keys = 512, plain = 128, rotary = 64, values = 128"),
        None,
        otherwise="of the size",
        doc="[latents](#latent-of-a-model), of `deepseek_v3`",
    )
    experts: Experts | None = attribute(
        g.Group(Experts, "count = 64, active = 6, ffn = 1408"),
        None,
        otherwise="of the size, else none",
        doc="[experts](#experts-of-a-model), of all families but `llama3`",
    )
    weights: str | None = attribute(
        k.Text(),
        None,
        doc="a folder with [published weights](#published-weights), relative to the spec's folder",
    )
    hub: str | None = attribute(
        k.Text(), None, doc="a Hugging Face repository with them; in place of `weights`"
    )
    revision: str | None = attribute(
        k.Text(),
        None,
        needs=("hub",),
        otherwise="`main`",
        doc="of the repository: best a commit, which does not change",
    )
    context: int | None = attribute(
        nk.Whole("tokens", least=2),
        None,
        needs=("weights", "hub"),
        doc="the longest sequence that the weights were trained on; required with them",
    )
