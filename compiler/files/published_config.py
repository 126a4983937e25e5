"""Reads `config.json` of published weights: the architecture that it describes, and what no family
here computes. Works without transformers, whose defaults are listed here.

Every known key describes the shape, must have the one value that the family computes with, or does
not affect the computation. Any other key is reported.
"""

import re
from collections.abc import Mapping
from typing import Any

from ...spec.record import Record
from ..families import FAMILIES
from ..families.architectures import complete, linear_layers, windowed
from ..families.config_json import MOST, Problem, Values, attention_factor, head_width
from ..values import ModelShape
from .published_keys import FIXED, HARMLESS, KINDS, READ, ROPE, nearest
from .unread_kinds import UNREAD

ENDLESS = MOST - 1
"""The longest sequence where a configuration names none, and no position is too far."""
CLASSIFIER = "ForSequenceClassification"
"""How transformers' names of classifiers end."""
_CLASS_END = re.compile(r"(ForCausalLM|LMHeadModel|_ForCausalLM|ForSequenceClassification)$")
_NAMED = {"hunyuan_v1_dense": "hunyuandensev1", "hunyuan_v1_moe": "hunyuanmoev1"}
"""model_type → what its classes are called, where that is something else."""
_ROPES = {"default": "none", "none": "none", "llama3": "llama", "yarn": "yarn"}


class Described(Record):
    """What a configuration describes.

    Attributes:
        model: the architecture; None if a problem prevents it.
        longest: the longest sequence for which etude computes the weights correctly; 0: any.
        bound: the key that sets this limit.
        head: "tokens" of a language model, "score" of a classifier with one label.
        unknown: keys with a value that are not known here.
        code: the class of the folder's own code that computes the model, by the name of
            transformers' class; "" if it names none.
    """

    family: str = ""
    model: ModelShape | None = None
    longest: int = 0
    bound: str = "max_position_embeddings"
    head: str = "tokens"
    problems: tuple[Problem, ...] = ()
    unknown: tuple[str, ...] = ()
    code: str = ""


def describe(config: Mapping[str, Any], family: str = "") -> Described:
    """Reads a configuration. Never raises: whatever is wrong is among the problems.

    Args:
        family: the one to prefer, where several compute such models.
    """
    kind = config.get("model_type")
    if not isinstance(kind, str) or kind not in KINDS:
        why = UNREAD.get(str(kind), "no family works this way")
        problem = Problem(
            key="model_type",
            message=(f"is of the model_type {kind}: {why}" if kind else "names no model_type")
            + ("; the code that comes with it is never run" if config.get("auto_map") else ""),
            help=nearest(kind),
        )
        return Described(problems=(problem,))
    able = [name for name, of in FAMILIES.items() if kind in of.kinds]
    able = [family] if family in able else able
    found = (_Reader(config, kind, name).described() for name in able)
    first = next(found)
    if not first.problems:
        return first
    # Another family may have what the first lacks.
    return next((each for each in found if not each.problems), first)


class _Reader:
    def __init__(self, config: Mapping[str, Any], kind: str, family: str) -> None:
        self.config = config
        self.name = family
        self.family = FAMILIES[self.name]
        self.kind = self.family.kinds[kind]
        self.values = Values(config, self.kind.defaults, self.kind.names)

    def described(self) -> Described:
        head = self._head()
        for key, (value, why) in self._only().items():
            self._fixed(key, value, why)
        code = self._code(head)
        shape = self._shape()
        rope = self._rope()
        longest, bound = self._longest()
        shaping = {*self.kind.defaults, *self.kind.read, *READ}
        known = shaping | {*FIXED, *self.kind.fixed, *HARMLESS}
        unknown = tuple(key for key, value in self.config.items() if key not in known and value)
        problems = self.values.problems
        model = None
        if not any(problem.key in shaping or problem.key in ROPE for problem in problems):
            model = complete(self.name, None, rope | self._near_scaled(shape, rope))
            self._layers(model)
            self._computed(model)
        return Described(
            family=self.name,
            model=model,
            longest=longest,
            bound=bound,
            head=head,
            problems=tuple(problems),
            unknown=unknown,
            code=code,
        )

    def _only(self) -> dict[str, tuple[Any, str]]:
        """Keys that must have one value, and why: those of all families that the kind does not
        read, and its own."""
        read = {*self.kind.defaults, *self.kind.read}
        return {key: of for key, of in FIXED.items() if key not in read} | dict(self.kind.fixed)

    def _head(self) -> str:
        """What the model ends in: a language model's tokens, or the score of a reward model."""
        named = self.config.get("architectures")
        names = [str(name) for name in named] if isinstance(named, list) else []
        if not names or any("CausalLM" in name or "LMHead" in name for name in names):
            return "tokens"
        if not any(name.endswith(CLASSIFIER) for name in names):
            self.values.problem(
                "architectures",
                f"describes {names[0]}, which is neither a language model nor a reward model",
                f"use the weights of a language model, …ForCausalLM, or of a reward model, "
                f"…{CLASSIFIER} with one label",
            )
        elif (labels := _labels(self.config)) != 1:
            self.values.problem(
                "num_labels",
                f"describes {names[0]} with {labels} labels: a reward model has one, its score",
                'use the weights of a reward model, whose config.json has "num_labels": 1, or '
                '"id2label" with one entry',
            )
        return "score"

    def _code(self, head: str) -> str:
        """The class of the folder's code that computes the model. Reports one that computes another
        model than that of the model_type: it is never run. Many folders bring the code of a model
        that transformers has, too."""
        given = self.config.get("auto_map")
        name = f"AutoModel{CLASSIFIER}" if head == "score" else "AutoModelForCausalLM"
        code = given.get(name) if isinstance(given, dict) else None
        if not isinstance(code, str):
            return ""
        kind = str(self.config["model_type"])
        own = _bare(_CLASS_END.sub("", code.rpartition(".")[2]))
        if own not in (_bare(kind), _bare(kind.removesuffix("_text")), _NAMED.get(kind)):
            self.values.problem(
                "auto_map",
                f"says that the code {code} computes the model, and not transformers' code of the "
                f"model_type {kind}; the code that comes with it is never run",
                "if transformers computes the same without `trust_remote_code`, remove `auto_map` "
                "from config.json; if not, use other weights",
            )
        return code

    def _fixed(self, key: str, value: Any, why: str) -> None:
        given = self.values.get(key)
        # Null, false and empty count as missing.
        if not given and not (isinstance(value, bool) and value and given is False):
            return
        if given != value:
            self.values.problem(
                key,
                f"says {key} = {_shown(given)}: {why}",
                "use weights without it: these would not compute what they were trained to",
            )

    def _shape(self) -> dict[str, Any]:
        values = self.values
        heads, dim = values.number("num_attention_heads"), values.number("hidden_size")
        shape: dict[str, Any] = {
            "layers": values.number("num_hidden_layers"),
            "dim": dim,
            "heads": heads,
            "kv_heads": values.number("num_key_value_heads", heads),
            # Those without an attribute of their own have feed-forward layers four times as wide.
            "ffn": values.number("intermediate_size", 4 * dim if self.kind.names else None),
            "vocab": values.number("vocab_size"),
            "tied": bool(values.get("tie_word_embeddings")),
            "norm_eps": values.real(self.config, self.kind.eps, self.kind.defaults[self.kind.eps]),
        }
        return shape | self.kind.shape(values, shape)

    def _head_dim(self) -> int:
        values = self.values
        heads, dim = values.number("num_attention_heads"), values.number("hidden_size")
        return head_width(values, {"heads": heads, "dim": dim})["head_dim"]

    def _rope(self) -> dict[str, Any]:
        """RoPE's base and the scaling of positions, under the two names that it has had."""
        given = self.config.get("rope_scaling") or self.values.get("rope_parameters")
        rope = given if isinstance(given, dict) else {}
        near, whole = rope.get("sliding_attention"), rope.get("full_attention")
        if self.family.parts and isinstance(near, dict) and isinstance(whole, dict):
            # Layers with windows rotate as before the scaling of the others.
            before = {"rope_type": "default", "rope_theta": whole.get("rope_theta")}
            if {"rope_type": "default"} | near == before or self._own_base(near):
                rope = whole
        base = self.values.real(self.config, "rope_theta", self.kind.base)
        found: dict[str, Any] = {"rope_theta": self.values.real(rope, "rope_theta", base)}
        name = str(rope.get("rope_type") or rope.get("type") or "default")
        if name == "dynamic" and "alpha" in self.kind.read and rope.get("alpha"):
            # Another base, whatever the length (`modeling_hunyuan_v1_dense.py`).
            width = self._head_dim()
            alpha = self.values.real(rope, "alpha", 1.0)
            return {"rope_theta": found["rope_theta"] * alpha ** (width / max(width - 2, 1))}
        scaling = _ROPES.get(name)
        if any(isinstance(each, dict) for each in rope.values()):
            name, scaling = "differently in each kind of layer", None
        if scaling not in self.family.scalings or (given and not rope):
            self.values.problem(
                "rope_scaling",
                f"scales positions by {name}, which is not supported",
                f"positions of {self.name} can be scaled by "
                + " and ".join(
                    n
                    for n, of in _ROPES.items()
                    if n != "none" and of != "none" and of in self.family.scalings
                )
                + "; use the weights from before the scaling, or others",
            )
            return found
        if scaling == "none":
            return found
        longest = self.values.get("max_position_embeddings") or 0
        found |= {
            "rope_scaling": scaling,
            "rope_factor": self.values.real(rope, "factor", 1.0),
            "rope_original": int(
                self.values.real(rope, "original_max_position_embeddings", longest)
            ),
        }
        if scaling == "llama":
            return found | {
                "rope_low": self.values.real(rope, "low_freq_factor", 1.0),
                "rope_high": self.values.real(rope, "high_freq_factor", 4.0),
            }
        self._yarn(rope, found["rope_factor"])
        return found

    def _near_scaled(self, shape: dict[str, Any], rope: Mapping[str, Any]) -> dict[str, Any]:
        """The shape, which says whether a scaling of positions is one of layers with windows."""
        scaled = rope.get("rope_scaling", "none") != "none"
        if not (self.family.parts and scaled and shape.get("window")) or self.kind.apart:
            return shape
        return {**shape, "parts": {**shape["parts"], "window_scaled": True}}

    def _own_base(self, near: Mapping[str, Any]) -> bool:
        """Whether the kind reads a base for layers with windows, and nothing else is said of it."""
        plain = near.get("rope_type") in (None, "default") and not {*near} - {
            "rope_type",
            "rope_theta",
        }
        return plain and "rope_local_base_freq" in self.kind.read

    def _yarn(self, rope: Mapping[str, Any], factor: float) -> None:
        """YaRN has one form per family; other parameters would be computed as those."""
        usual = {"beta_fast": 32, "beta_slow": 1, "truncate": True}
        given, wanted = (usual | dict(of) | {"factor": factor} for of in (rope, self.family.yarn))
        given["truncate"] = bool(given["truncate"])
        for each in (given, wanted):
            each["attention_factor"] = attention_factor(each)
        differs = [
            f"{key} = {_shown(given.get(key))} instead of {_shown(value)}"
            for key, value in wanted.items()
            if key != "factor" and not alike(given.get(key), value)
        ]
        if differs:
            self.values.problem(
                "rope_scaling",
                f"scales positions by a YaRN that {self.name} does not support: "
                f"{', '.join(differs)}",
                "use the weights from before the scaling, and scale in a stage (`rope_scaling = "
                "yarn { … }`); or use others",
            )

    def _longest(self) -> tuple[int, str]:
        """The longest sequence in which every token sees all before it, and the key that limits it.

        A window is no limit for models that have windows here, nor if it is turned off.
        """
        # Kinds that need not say it have positions without an end.
        longest = self.values.number(
            "max_position_embeddings", ENDLESS if self.kind.names else None
        )
        window = self.values.get("sliding_window")
        used = self.values.get("use_sliding_window")
        if (
            self.family.windowed is None
            and used
            and isinstance(window, int)
            and 0 < window < longest
        ):
            return window, "sliding_window"
        return longest, self.values.named("max_position_embeddings")

    def _computed(self, model: ModelShape) -> None:
        """Checks that a scaling of positions leaves layers with windows alone, as here."""
        if model.parts and not model.parts.published and model.rope_scaling != "none":
            self.values.problem(
                "rope_scaling",
                "scales positions also in layers with windows, which rotate here as before",
                "use the weights from before the scaling, or others",
            )

    def _layers(self, model: ModelShape) -> None:
        """Checks that the layers with windows are the family's."""
        given = self.config.get("layer_types")
        if given is None:
            return
        if not isinstance(given, list) or len(given) != model.layers:
            self.values.problem(
                "layer_types",
                f"has layer_types that are no list of {model.layers} kinds, one for each layer",
                "use a folder whose config.json is as its publisher wrote it",
            )
            return
        near = [windowed(model, layer) for layer in range(model.layers)]
        says = [kind == "sliding_attention" for kind in given]
        plain = {"sliding_attention", "full_attention"}
        if linear_layers(model):
            plain = {"full_attention", "linear_attention"}
        other = says != near and (any(says) or any(near))
        if other or not plain.issuperset(map(str, given)):
            others = ", ".join(sorted({str(kind) for kind in given}))
            self.values.problem(
                "layer_types",
                f"says layers of the kinds {others} in an order that {self.name} does not have",
                "use weights in which all layers see the whole document"
                if not any(near)
                else "every other layer has a window, from the first",
            )


def _labels(config: Mapping[str, Any]) -> int:
    """How many labels a classifier has: transformers writes their names, unless they are two."""
    names = config.get("id2label")
    if isinstance(names, dict):
        return len(names)
    count = config.get("num_labels")
    return count if isinstance(count, int) and not isinstance(count, bool) else 2


def alike(one: Any, other: Any) -> bool:
    """Whether two values are equal except for the last bits of a float."""
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


def _bare(name: str) -> str:
    """A name of a class, or a model_type, without case and underscores."""
    return name.replace("_", "").lower()
