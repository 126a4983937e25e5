"""The definition of a model family: sizes, traits, weights, and its `config.json`."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ...spec.record import Record
from ..values import Architecture, ModelShape, Resources
from .config_json import Kind
from .weights import Weight, dense, grouped_attention, last_norm, mixture, nothing, two_norms

BALANCE = 0.001
"""The usual speed of the bias that balances the load of experts (arXiv:2412.19437 §4.2)."""
Shape = Mapping[str, Any]
"""Fields of `ModelShape` by name; `latent` and `experts` as their fields by name."""


def _nothing(model: ModelShape, resources: Resources) -> tuple[str, ...]:
    return ()


def _no(model: ModelShape) -> bool:
    return False


class Known(Record):
    """Published weights, recognized by their name.

    Attributes:
        name: a pattern that occurs in their name; its group, if any, is a published size.
        shape: attributes of the model in a spec, besides that size; with its own `size`, where
            names and sizes differ.
        context: the longest sequence that they were trained on.
    """

    name: str
    shape: Shape
    context: int


class Family(Record):
    """What models of a family have in common.

    Attributes:
        sizes: the published ones, by name.
        kinds: model_type of `config.json` → how to read such a configuration.
        config_json: the keys of `config.json` besides those of every family: model_type, the stem
            of transformers' class names as `name`, those that do not follow from it as `classes`
            by the end that others have, and the family's own keys.
        yarn: the YaRN keys of `config.json` for the family as built, besides the factor and the
            original length.
        attention, mixture, feed_forward, norms: the weights of a layer's attention, of its experts,
            of its feed-forward layer if it has none, and of its norms.
        linear: the weights of a layer with linear attention, in place of those of attention.
        last_norm: the weights of the norm before the output.
        start: the weights between the embedding of tokens and the first layer.
        output: the weights of the output layer besides its matrix.
        parts: fields of `Parts`, complete and with `published`, from a shape with those that
            a spec gives; None: blocks are always the same.
        unscored: model_types that are exported, and of which transformers has no reward model.
        known: weights published by others, of these sizes or of other shapes.
        flavors: torchtitan's own names of sizes → how its models differ from the published ones;
            the whole shape if there is no such published size.
        emitted_otherwise: lines about what etude fixes in torchtitan for a placement.
        qk_norm: queries and keys are normed per head.
        latent: attention uses latents.
        experts: feed-forward layers may be mixtures of experts.
        score: how the router scores experts, unless a spec says otherwise.
        normalized: the scores of a token's experts add up to 1, unless a spec says otherwise;
            False: they never do.
        routed: a spec says how experts are scored, and whether some are shared.
        scalings: of rotary positions.
        complex_rotary: torchtitan keeps the angles of positions as complex numbers, one for each
            pair of elements, and not as cosine and sine of each element.
        sparse: every layer has experts.
        biased: attention, routers and experts add biases.
        sinks: attention has sinks.
        further: whether modules may predict further tokens (multi-token prediction) of a model.
        windowed: whether a layer, counted from 0, has the model's window; None: no layer has one.
    """

    sizes: Mapping[str, Shape]
    kinds: Mapping[str, Kind]
    config_json: Callable[[Architecture], dict[str, Any]]
    yarn: Mapping[str, Any] = {"attention_factor": 1.0}
    attention: Callable[[ModelShape], Iterator[Weight]] = grouped_attention
    linear: Callable[[ModelShape], Iterator[Weight]] = nothing
    mixture: Callable[[ModelShape], Iterator[Weight]] = mixture
    feed_forward: Callable[[ModelShape], Iterator[Weight]] = dense
    norms: Callable[[ModelShape], Iterator[Weight]] = two_norms
    last_norm: Callable[[ModelShape], Iterator[Weight]] = last_norm
    start: Callable[[ModelShape], Iterator[Weight]] = nothing
    output: Callable[[ModelShape], Iterator[Weight]] = nothing
    parts: Callable[[Shape], dict[str, Any]] | None = None
    unscored: frozenset[str] = frozenset()
    known: tuple[Known, ...] = ()
    flavors: Mapping[str, Shape] = {}
    emitted_otherwise: Callable[[ModelShape, Resources], tuple[str, ...]] = _nothing
    qk_norm: bool = False
    latent: bool = False
    experts: bool = False
    score: str = "softmax"
    normalized: bool = True
    routed: bool = False
    scalings: tuple[str, ...] = ("none", "llama", "yarn")
    complex_rotary: bool = False
    sparse: bool = False
    biased: bool = False
    sinks: bool = False
    further: Callable[[ModelShape], bool] = _no
    windowed: Callable[[int], bool] | None = None

    def usual_experts(self, score: str | None = None) -> dict[str, Any]:
        """Default fields of `Experts`; a bias balances those that are scored by a sigmoid.

        Args:
            score: how the router scores experts; None: as usual in the family.
        """
        score = score or self.score
        return {
            "shared": 1 if self.latent else 0,
            "dense": 0,
            "groups": None,
            "groups_used": None,
            "score": score,
            "normalized": self.normalized,
            "scale": 1.0,
            "balance": BALANCE if score == "sigmoid" else 0.0,
            "shared_gate": False,
        }
