"""Adapters: beside which matrices of a model they are, and how many parameters they have."""

from collections.abc import Iterator

from ...spec.schema.adapter import Adapter
from ..values import ModelShape
from . import FAMILIES
from .architectures import dense_layers, linear_layers
from .weights import Weight


def has_feed_forward(model: ModelShape) -> bool:
    """Whether there are feed-forward layers that every token takes."""
    return dense_layers(model) > 0 or (model.experts is not None and model.experts.shared > 0)


def adapted(adapter: Adapter, model: ModelShape) -> Iterator[tuple[str, Weight, int]]:
    """The matrices beside which there are adapters: part, matrix, and in how many layers."""
    family, dense = FAMILIES[model.family], dense_layers(model)
    linear = linear_layers(model)
    if "attention" in adapter.on:
        for weights, layers in (
            (family.attention(model), model.layers - linear),
            (family.linear(model) if linear else (), linear),
        ):
            for weight in weights:
                # Not those that make latents, no norms, and of linear attention no small ones.
                if len(weight.shape) == 2 and weight.cut is not None and weight.part is None:
                    yield "attention", weight, layers
    if "feed_forward" in adapter.on:
        for weight in family.feed_forward(model) if dense else ():
            if len(weight.shape) == 2:  # not biases
                yield "feed_forward", weight, dense
        for weight in family.mixture(model) if model.experts else ():
            if weight.part == "shared" and weight.cut is not None:  # not their gate
                yield "feed_forward", weight, model.layers - dense


def adapter_parameters(adapter: Adapter, model: ModelShape) -> int:
    """Parameters of all adapters: A and B have the rank times the sides of the matrix."""
    return sum(
        adapter.rank * sum(weight.shape) * layers for _, weight, layers in adapted(adapter, model)
    )
