"""Reading and writing `config.json` of a model as transformers defines it, without transformers,
whose defaults are listed with the families."""

from collections.abc import Callable, Mapping
from math import log
from typing import Any

from ...spec.record import Record
from ..values import Architecture

MOST = 2**60
"""Above any number in a model."""
LLAMA_DEFAULTS: Mapping[str, Any] = {
    "vocab_size": 32_000,
    "hidden_size": 4096,
    "intermediate_size": 11_008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": None,
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
    "head_dim": None,
}
"""Defaults of transformers for missing keys of a Llama configuration; other models differ."""


class Problem(Record):
    """Something in a configuration that etude does not compute.

    Attributes:
        key: of config.json.
        message: what is wrong, phrased to follow the name of the file.
    """

    key: str
    message: str
    help: str


class Values:
    """The values of a configuration, with the defaults of its model_type; reading an invalid one
    adds to `problems`."""

    def __init__(
        self,
        config: Mapping[str, Any],
        defaults: Mapping[str, Any],
        names: Mapping[str, tuple[str, ...]] = {},
    ) -> None:
        self.config = config
        self.defaults = defaults
        self._names = names
        self.problems: list[Problem] = []

    def get(self, key: str) -> Any:
        """The value, or the default if the key is missing."""
        key = self.named(key)
        return self.config[key] if key in self.config else self.defaults.get(key)

    def named(self, key: str) -> str:
        """What the kind of configuration calls a key: the first name that it has, else the last."""
        names = self._names.get(key, (key,))
        return next((name for name in names if name in self.config), names[-1])

    def problem(self, key: str, message: str, help: str) -> None:
        """Adds a problem."""
        self.problems.append(Problem(key=key, message=message, help=help))

    def number(self, key: str, otherwise: Any = None, *, least: int = 1) -> Any:
        """A whole number; `otherwise` if the key is null, or is missing without a default."""
        value = self.get(key)
        if value is None:
            value = otherwise
        if isinstance(value, int) and not isinstance(value, bool) and least <= value < MOST:
            return value
        shown, key = "nothing" if value is None else repr(value), self.named(key)
        self.problem(key, f"says {shown} as {key}", "download the file again")
        return least

    def real(self, of: Mapping[str, Any], key: str, otherwise: float) -> float:
        """A number above 0 in the configuration or in an object of it."""
        value = of.get(key)
        if value is None:
            return otherwise
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < MOST:
            return float(value)
        self.problem(key, f"says {value!r} as {key}", "download the file again")
        return otherwise


def _no_more(values: Values, shape: dict[str, Any]) -> dict[str, Any]:
    return {}


class Kind(Record):
    """How to read configurations of a model_type.

    Attributes:
        defaults: key → transformers' default if it is missing.
        read: further keys that are read and have no default.
        fixed: key → the value that the family computes with, and why.
        shape: the fields of the shape that are specific to the kind; called with the fields common
            to all families.
        eps: the key of the norms' epsilon.
        near: model_types that no family takes, and to which this one comes closest.
        example: well-known models of this kind.
        names: key of most configurations → what this kind calls it, the name to prefer first.
        base: RoPE's, where the configuration says none; of layers without a window.
        apart: layers with a window rotate as before a scaling of positions.
    """

    defaults: Mapping[str, Any]
    read: tuple[str, ...] = ()
    fixed: Mapping[str, tuple[Any, str]] = {}
    shape: Callable[[Values, dict[str, Any]], dict[str, Any]] = _no_more
    eps: str = "rms_norm_eps"
    near: tuple[str, ...] = ()
    example: str = ""
    names: Mapping[str, tuple[str, ...]] = {}
    base: float = 10_000.0
    apart: bool = False


def head_width(values: Values, shape: dict[str, Any]) -> dict[str, Any]:
    """The width of a head: the model's width divided by the heads, if not given."""
    return {"head_dim": values.number("head_dim", max(shape["dim"] // shape["heads"], 1))}


def attention_factor(rope: Mapping[str, Any]) -> Any:
    """YaRN's factor on queries and keys (transformers, `modeling_rope_utils.py`)."""
    if given := rope.get("attention_factor"):
        return given
    if rope.get("mscale") and rope.get("mscale") == rope.get("mscale_all_dim"):
        return 1.0
    return 0.1 * log(rope["factor"]) + 1 if rope["factor"] > 1 else 1.0


def written(model: Architecture, yarn: Mapping[str, Any]) -> dict[str, Any]:
    """The part of `config.json` that is the same for every family.

    Args:
        yarn: the YaRN keys besides the factor and the original length.
    """
    return {
        "hidden_size": model.dim,
        "intermediate_size": model.ffn,
        "num_hidden_layers": model.layers,
        "num_attention_heads": model.heads,
        "num_key_value_heads": model.kv_heads,
        "vocab_size": model.vocab,
        "max_position_embeddings": model.context,
        "rms_norm_eps": model.norm_eps,
        "rope_theta": model.rope_theta,
        "rope_parameters": _rope(model, yarn),
        "hidden_act": "silu",
        "attention_bias": False,
    }


def _rope(model: Architecture, yarn: Mapping[str, Any]) -> dict[str, Any]:
    rope: dict[str, Any] = {"rope_theta": model.rope_theta}
    if model.rope_scaling == "none":
        return rope | {"rope_type": "default"}
    stretched = {
        "factor": model.rope_factor,
        "original_max_position_embeddings": model.rope_original,
    }
    if model.rope_scaling == "llama":
        bounds = {"low_freq_factor": model.rope_low, "high_freq_factor": model.rope_high}
        return rope | {"rope_type": "llama3"} | stretched | bounds
    # torchtitan rotates by YaRN's angles; what else a family does with queries and keys is `yarn`.
    return {**rope, "rope_type": "yarn", **stretched, **yarn}
