"""What `config.json` of published weights says: the architecture that it describes, and what in it
no family computes. Without transformers, whose defaults stand here.

Every key is known: it describes the shape, has to have the one value that the family computes
with, or changes nothing of what is computed. What is none of these is named.
"""

from collections.abc import Mapping
from math import log
from typing import Any

from ..spec.record import Record
from .architectures import FAMILIES, complete, windowed
from .published_keys import (
    DEFAULTS,
    FIXED,
    FIXED_OF,
    HARMLESS,
    KINDS,
    READ,
    READ_OF,
    SHAPE,
    UNKNOWN_KINDS,
)
from .values import Architecture

MOST = 2**60
"""No number of a model is as large."""
_ROPES = {"default": "none", "none": "none", "llama3": "llama", "yarn": "yarn"}


class Problem(Record):
    """Something in a configuration that is not computed here.

    Attributes:
        key: of config.json.
        message: what is wrong, in words that follow the name of the file.
    """

    key: str
    message: str
    help: str


class Described(Record):
    """What a configuration describes.

    Attributes:
        model: the architecture; None where a problem keeps it from being one.
        longest: the longest sequence that the weights take as etude computes them; 0: any.
        bound: the key that says so.
        unknown: keys that say something, of which nothing is known here.
    """

    family: str = ""
    model: Architecture | None = None
    longest: int = 0
    bound: str = "max_position_embeddings"
    problems: tuple[Problem, ...] = ()
    unknown: tuple[str, ...] = ()


def describe(config: Mapping[str, Any]) -> Described:
    """Reads a configuration. It raises nothing: whatever is wrong is among the problems."""
    kind = config.get("model_type")
    if not isinstance(kind, str) or kind not in KINDS:
        why = UNKNOWN_KINDS.get(str(kind), "no family is computed so")
        problem = Problem(
            key="model_type",
            message=f"is of the model_type {kind}: {why}" if kind else "names no model_type",
            help=f"weights of these are taken: {', '.join(KINDS)}",
        )
        return Described(problems=(problem,))
    return _Reader(config, kind).described()


class _Reader:
    def __init__(self, config: Mapping[str, Any], kind: str) -> None:
        self.config = config
        self.kind = kind
        self.family = KINDS[kind]
        self.problems: list[Problem] = []

    def described(self) -> Described:
        self._language_model()
        for key, (value, why) in (FIXED | FIXED_OF.get(self.kind, {})).items():
            self._fixed(key, value, why)
        shape = self._shape()
        rope = self._rope(shape)
        longest, bound = self._longest(shape)
        own = {*DEFAULTS[self.kind], *READ, *READ_OF.get(self.kind, ())}
        known = own | {*FIXED, *FIXED_OF.get(self.kind, {}), *HARMLESS}
        unknown = tuple(key for key, value in self.config.items() if key not in known and value)
        model = None
        if not any(problem.key in SHAPE for problem in self.problems):
            model = complete(self.family, None, shape | rope, longest)
            self._layers(model)
        return Described(
            family=self.family,
            model=model,
            longest=longest,
            bound=bound,
            problems=tuple(self.problems),
            unknown=unknown,
        )

    def _get(self, key: str) -> Any:
        return self.config[key] if key in self.config else DEFAULTS[self.kind].get(key)

    def _problem(self, key: str, message: str, help: str) -> None:
        self.problems.append(Problem(key=key, message=message, help=help))

    def _number(self, key: str, otherwise: Any = None, *, least: int = 1) -> Any:
        """A whole number; `otherwise` where the key is null, or is missing and has no default."""
        value = self._get(key)
        if value is None:
            value = otherwise
        if isinstance(value, int) and not isinstance(value, bool) and least <= value < MOST:
            return value
        shown = "nothing" if value is None else repr(value)
        self._problem(key, f"says {shown} as {key}", "download the file again")
        return least

    def _real(self, of: Mapping[str, Any], key: str, otherwise: float) -> float:
        value = of.get(key)
        if value is None:
            return otherwise
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < MOST:
            return float(value)
        self._problem(key, f"says {value!r} as {key}", "download the file again")
        return otherwise

    def _language_model(self) -> None:
        named = self.config.get("architectures")
        if isinstance(named, list) and named and not any("CausalLM" in str(n) for n in named):
            self._problem(
                "architectures",
                f"describes {named[0]}, which is no language model",
                "take the weights of a language model, …ForCausalLM",
            )

    def _fixed(self, key: str, value: Any, why: str) -> None:
        given = self._get(key)
        # Null, false and empty say that there is none.
        if not given and not (isinstance(value, bool) and value and given is False):
            return
        if given != value:
            self._problem(
                key,
                f"says {key} = {_shown(given)}: {why}",
                "take weights without it: they would be computed otherwise than they were trained",
            )

    def _shape(self) -> dict[str, Any]:
        heads = self._number("num_attention_heads")
        dim = self._number("hidden_size")
        shape: dict[str, Any] = {
            "layers": self._number("num_hidden_layers"),
            "dim": dim,
            "heads": heads,
            "kv_heads": self._number("num_key_value_heads", heads),
            "ffn": self._number("intermediate_size"),
            "vocab": self._number("vocab_size"),
            "tied": bool(self._get("tie_word_embeddings")),
            "norm_eps": self._real(
                self.config, "rms_norm_eps", DEFAULTS[self.kind]["rms_norm_eps"]
            ),
        }
        if self.family == "deepseek_v3":
            return shape | self._deepseek()
        shape["head_dim"] = self._number("head_dim", max(dim // heads, 1))
        if self.kind == "qwen3_moe":
            shape["experts"] = {
                "count": self._number("num_experts", self.config.get("num_local_experts", 128)),
                "active": self._number("num_experts_per_tok"),
                "ffn": self._number("moe_intermediate_size"),
                "dense": self._dense(shape["layers"]),
            }
        if self.family == "gpt_oss":
            kinds = self.config.get("layer_types")
            near = not isinstance(kinds, list) or "sliding_attention" in kinds
            shape["window"] = self._number("sliding_window", 0, least=0) if near else 0
            shape["experts"] = {
                "count": self._number("num_local_experts", self.config.get("num_experts")),
                "active": self._number("num_experts_per_tok", self.config.get("experts_per_token")),
                "ffn": shape["ffn"],
            }
        return shape

    def _deepseek(self) -> dict[str, Any]:
        groups, used = self._number("n_group", 1), self._number("topk_group", 1)
        return {
            "latent": {
                "queries": self._number("q_lora_rank", 0, least=0),
                "keys": self._number("kv_lora_rank"),
                "plain": self._number("qk_nope_head_dim"),
                "rotary": self._number("qk_rope_head_dim"),
                "values": self._number("v_head_dim"),
            },
            "experts": {
                "count": self._number("n_routed_experts"),
                "active": self._number("num_experts_per_tok"),
                "ffn": self._number("moe_intermediate_size"),
                "shared": self._number("n_shared_experts"),
                "dense": self._number("first_k_dense_replace", 0, least=0),
                "groups": groups if groups > 1 else None,
                "groups_used": used if groups > 1 else None,
                "scale": self._real(self.config, "routed_scaling_factor", 2.5),
                "normalized": bool(self._get("norm_topk_prob")),
            },
        }

    def _dense(self, layers: int) -> int:
        """How many layers at the beginning have no experts."""
        plain = self.config.get("mlp_only_layers") or []
        if not isinstance(plain, list) or plain != list(range(len(plain))) or len(plain) > layers:
            self._problem(
                "mlp_only_layers",
                f"says mlp_only_layers = {plain}: layers without experts are the first ones",
                "take weights whose first layers are those without experts",
            )
            return 0
        return len(plain)

    def _rope(self, shape: Mapping[str, Any]) -> dict[str, Any]:
        """RoPE's base and how positions are stretched, under both of the names that it has had."""
        given = self.config.get("rope_scaling") or self.config.get("rope_parameters")
        if not given and self.kind == "gpt_oss" and "rope_parameters" not in self.config:
            given = DEFAULTS["gpt_oss"]["rope_parameters"]
        rope = given if isinstance(given, dict) else {}
        base = self._real(self.config, "rope_theta", 10_000.0)
        found: dict[str, Any] = {"rope_theta": self._real(rope, "rope_theta", base)}
        name = str(rope.get("rope_type") or rope.get("type") or "default")
        scaling = _ROPES.get(name)
        if any(isinstance(each, dict) for each in rope.values()):
            name, scaling = "another way in each kind of layer", None
        if scaling not in FAMILIES[self.family].scalings or (given and not rope):
            self._problem(
                "rope_scaling",
                f"stretches positions by {name}, which is not built",
                f"positions of {self.family} can be stretched by "
                + " and ".join(
                    n
                    for n, of in _ROPES.items()
                    if n != "none" and of != "none" and of in FAMILIES[self.family].scalings
                )
                + "; take the weights from before they were stretched, or others",
            )
            return found
        if scaling == "none":
            return found
        longest = self._get("max_position_embeddings") or 0
        found |= {
            "rope_scaling": scaling,
            "rope_factor": self._real(rope, "factor", 1.0),
            "rope_original": int(self._real(rope, "original_max_position_embeddings", longest)),
        }
        if scaling == "llama":
            return found | {
                "rope_low": self._real(rope, "low_freq_factor", 1.0),
                "rope_high": self._real(rope, "high_freq_factor", 4.0),
            }
        self._yarn(rope, found["rope_factor"])
        return found

    def _yarn(self, rope: Mapping[str, Any], factor: float) -> None:
        """YaRN has one form in each family; other numbers would be computed as those."""
        wanted: dict[str, float] = {"beta_fast": 32, "beta_slow": 1}
        sharper = 0.1 * log(factor) + 1 if factor > 1 else 1.0
        given: dict[str, Any] = {"beta_fast": 32, "beta_slow": 1} | dict(rope)
        if self.family == "deepseek_v3":
            wanted |= {"mscale": 1, "mscale_all_dim": 1}
        else:
            # What is not said is as YaRN sharpens the softmax.
            given["attention_factor"] = given.get("attention_factor") or sharper
            wanted["attention_factor"] = sharper if self.family == "gpt_oss" else 1.0
        truncated = self.family != "gpt_oss"
        differs = [
            f"{key} = {_shown(given.get(key))} in place of {value:g}"
            for key, value in wanted.items()
            if not alike(given.get(key), value)
        ]
        if bool(given.get("truncate", True)) != truncated:
            differs.append(f"truncate = {_shown(not truncated)} in place of {_shown(truncated)}")
        if differs:
            self._problem(
                "rope_scaling",
                f"stretches positions by a YaRN that {self.family} is not built "
                f"with: {', '.join(differs)}",
                "take the weights from before they were stretched, and stretch them in a stage "
                "(`rope_scaling = yarn { … }`); or others",
            )

    def _longest(self, shape: Mapping[str, Any]) -> tuple[int, str]:
        """The longest sequence in which every token sees all before it, and the key that says so.

        A window is no bound to models that have windows of their own here, nor where it is off.
        """
        longest = self._number("max_position_embeddings")
        window = self._get("sliding_window")
        used = self.config.get("use_sliding_window", self.kind == "mistral")
        if self.family != "gpt_oss" and used and isinstance(window, int) and 0 < window < longest:
            return window, "sliding_window"
        return longest, "max_position_embeddings"

    def _layers(self, model: Architecture) -> None:
        """Whether windows are where the family has them."""
        given = self.config.get("layer_types")
        if not isinstance(given, list):
            return
        near = [windowed(model, layer) for layer in range(model.layers)]
        says = [kind == "sliding_attention" for kind in given]
        plain = {"sliding_attention", "full_attention"}
        other = says != near and (any(says) or any(near))
        if other or not plain.issuperset(map(str, given)):
            others = ", ".join(sorted({str(kind) for kind in given}))
            self._problem(
                "layer_types",
                f"says layers of the kinds {others} in an order that {self.family} does not have",
                "take weights in which all layers see the whole document"
                if not any(near)
                else "every other layer has a window, from the first",
            )


def alike(one: Any, other: Any) -> bool:
    """Whether two values are the same but for the last bits of a float."""
    numbers = isinstance(one, int | float) and isinstance(other, int | float)
    if numbers and not isinstance(one, bool) and not isinstance(other, bool):
        return abs(one - other) <= 1e-9 * max(abs(one), abs(other))
    return one == other


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "{ … }"
    return f"{value:g}" if isinstance(value, float) else str(value)
