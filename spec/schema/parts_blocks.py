"""The attributes of the parts that a decoder is put together from."""

from . import kinds as k
from . import number_kinds as nk
from .declaration import Declaration, attribute


class Parts(Declaration):
    """What the blocks of a `decoder` consist of. What is left out is as in the size, else as in
    Llama."""

    norm: str | None = attribute(
        k.OneOf("rms", "rms_plain", "layer", "layer_scale", "layer_plain"),
        None,
        otherwise="from the size, else `rms`",
        doc="RMSNorm (arXiv:1910.07467), or LayerNorm with scale and bias (arXiv:1607.06450), with "
        "a `scale` alone (Cohere, MPT); `plain`: without weights (OLMo, arXiv:2402.00838 §2.1)",
    )
    norms: str | None = attribute(
        k.OneOf("before", "after", "both"),
        None,
        otherwise="from the size, else `before`",
        doc="where the norms are: `before` attention and feed-forward layers; `after` them, inside "
        "the residual (OLMo 2, arXiv:2501.00656 §2.1); or `both`",
    )
    qk_norm: str | None = attribute(
        k.OneOf("none", "head", "width", "plain", "layer", "layers"),
        None,
        otherwise="from the size, else `none`",
        doc="norm of queries and keys: RMSNorm over each `head`, over the `width` of all heads "
        "together, or over each head without weights (`plain`); LayerNorm over each head, with "
        "weights that all heads share (`layer`) or a scale for each head (`layers`)",
    )
    activation: str | None = attribute(
        k.OneOf("silu", "gelu", "gelu_tanh", "relu", "relu2", "xielu"),
        None,
        otherwise="from the size, else `silu`",
        doc="of the feed-forward layers; `relu2` is squared ReLU (arXiv:2109.08668), `gelu_tanh` "
        "the approximation of GELU by tanh, `xielu` has two learned slopes (arXiv:2411.13010)",
    )
    gated: bool | None = attribute(
        k.Flag(),
        None,
        otherwise="from the size, else `true`",
        doc="feed-forward layers have a third matrix as a gate (arXiv:2002.05202): SwiGLU, GeGLU; "
        "`false`: two matrices",
    )
    biases: str | None = attribute(
        k.OneOf("none", "qkv", "attention", "ffn", "but_qkv", "all"),
        None,
        otherwise="from the size, else `none`",
        doc="matrices with a bias: those of queries, keys and values, of `attention`, of the "
        "feed-forward layer, `all` of a layer, or all `but_qkv`",
    )
    parallel: str | None = attribute(
        k.OneOf("none", "one", "two"),
        None,
        otherwise="from the size, else `none`",
        doc="attention and feed-forward layer side by side (arXiv:2204.02311 §2), behind `one` "
        "norm for both or `two`",
    )
    rotary: float | None = attribute(
        nk.Real(above=0),
        None,
        takes="share of 1",
        otherwise="from the size, else 1",
        doc="share of a head's elements that rotate with the position, such as 0.25",
    )
    rotary_skips: int | None = attribute(
        nk.Whole(least=0, most=nk.MOST),
        None,
        otherwise="from the size, else none",
        doc="every so manieth layer has no positions (arXiv:2501.18795): with 4 the 4th, 8th, …",
    )
    window_skips: int | None = attribute(
        nk.Whole(least=0, most=nk.MOST),
        None,
        otherwise="from the size, else none",
        doc="every so manieth layer sees the whole document in spite of `window`: with 4, three of "
        "four layers have the window",
    )
    learned: int | None = attribute(
        nk.Whole("tokens", least=0, most=nk.MOST),
        None,
        otherwise="from the size, else none",
        doc="as many positions with a learned embedding, instead of rotary ones (GPT-2)",
    )
    alibi: bool | None = attribute(
        k.Flag(),
        None,
        otherwise="from the size, else `false`",
        doc="attention scores fall with the distance, each head's by its own slope, instead of "
        "rotary positions (arXiv:2108.12409)",
    )
    attention_cap: float | None = attribute(
        nk.Real(least=0),
        None,
        otherwise="from the size, else none",
        doc="attention scores are kept within ± this by tanh (arXiv:2408.00118 §2)",
    )
    logit_cap: float | None = attribute(
        nk.Real(least=0), None, otherwise="from the size, else none", doc="the same of logits"
    )
    scaled: bool | None = attribute(
        k.Flag(),
        None,
        otherwise="from the size, else `false`",
        doc="embeddings are multiplied by the square root of `dim`",
    )
    embedding_norm: bool | None = attribute(
        k.Flag(),
        None,
        otherwise="from the size, else `false`",
        doc="a norm between the embeddings and the first layer (arXiv:2211.05100 §3.2)",
    )
    attention_scale: float | None = attribute(
        nk.Real(least=0),
        None,
        otherwise="from the size, else 1 / √`head_dim`",
        doc="factor on the products of queries and keys (Gemma 2 27B: 144^-0.5, arXiv:2408.00118)",
    )
    embedding_scale: float | None = attribute(
        nk.Real(above=0),
        None,
        otherwise="from the size, else 1",
        doc="factor on embeddings, as in μP (arXiv:2404.06395 §3); not with `scaled`",
    )
    residual_scale: float | None = attribute(
        nk.Real(above=0),
        None,
        otherwise="from the size, else 1",
        doc="factor on what attention and feed-forward layers add to the residual",
    )
    logit_scale: float | None = attribute(
        nk.Real(above=0),
        None,
        otherwise="from the size, else 1",
        doc="factor on logits, before their cap",
    )
    window_theta: float | None = attribute(
        nk.Real(least=0),
        None,
        otherwise="from the size, else `rope_theta`",
        doc="RoPE base of the layers with a `window`, which stages do not change "
        "(arXiv:2503.19786 §2)",
    )
    qk_norm_late: bool | None = attribute(
        k.Flag(),
        None,
        otherwise="from the size, else `false`",
        doc="queries and keys are normed once they are rotated, not before",
    )
    qkv_clip: float | None = attribute(
        nk.Real(least=0),
        None,
        otherwise="from the size, else none",
        doc="queries, keys and values are kept within ± this (MPT, OLMo)",
    )
    output_bias: bool | None = attribute(
        k.Flag(),
        None,
        otherwise="from the size, else `false`",
        doc="logits have a bias",
    )
    window_first: bool | None = attribute(
        k.Flag(),
        None,
        otherwise="from the size, else `false`",
        doc="of so many layers as `window_skips` says, the first sees the whole document, not the "
        "last",
    )
    window_scaled: bool | None = attribute(
        k.Flag(),
        None,
        otherwise="from the size, else `false`",
        doc="`rope_scaling` scales the positions of layers with a `window`, too",
    )
    gate: bool | None = attribute(
        k.Flag(),
        None,
        otherwise="from the size, else `false`",
        doc="what attention gathers is multiplied by a sigmoid, of a product of its input "
        "(arXiv:2505.06708)",
    )
    linear_heads: int | None = attribute(
        nk.Whole(least=0, most=nk.MOST),
        None,
        otherwise="from the size, else none",
        doc="heads of values of a gated delta net (arXiv:2412.06464), which layers have in place "
        "of attention, except those that `linear_skips` says",
    )
    linear_key_heads: int | None = attribute(
        nk.Whole(least=0, most=nk.MOST),
        None,
        otherwise="from the size, else `linear_heads`",
        doc="its heads of queries and keys, which divide `linear_heads`",
    )
    linear_key_dim: int | None = attribute(
        nk.Whole(least=0, most=nk.MOST),
        None,
        otherwise="from the size, else 128",
        doc="width of its heads of queries and keys",
    )
    linear_value_dim: int | None = attribute(
        nk.Whole(least=0, most=nk.MOST),
        None,
        otherwise="from the size, else 128",
        doc="width of its heads of values",
    )
    linear_convolution: int | None = attribute(
        nk.Whole(least=0, most=nk.MOST),
        None,
        otherwise="from the size, else 4",
        doc="tokens, with its own, that the convolution of each of its queries, keys and values "
        "sees",
    )
    linear_skips: int | None = attribute(
        nk.Whole(least=0, most=nk.MOST),
        None,
        otherwise="from the size, else 4",
        doc="every so manieth layer has attention in spite of `linear_heads`: with 4, three of "
        "four layers are linear",
    )
