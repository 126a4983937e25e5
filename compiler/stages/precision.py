"""What the precision and the recomputation of a stage need of its hardware and its model."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from ...spec.schema import recipe as r
from ...spec.schema.precision import budget
from ...spec.source import Span
from ..costs.hardware import Gpu, gpu
from ..families.low_precision import KERNELS, converted, layers
from ..program import Hardware
from ..resolve.scope import Scope
from ..torchtitan.told import is_compiled
from ..values import ModelShape


class Chosen(NamedTuple):
    """What is in force in a stage."""

    precision: r.Precision
    recompute: str
    settings: dict[str, Any]


def check(
    scope: Scope, spec: r.Training, chosen: Chosen, where: Hardware, model: ModelShape
) -> None:
    """Reports what the stage's hardware or model does not have.

    What the stage inherits on the same hardware was reported where it was written.
    """
    moved = spec.cluster is not None
    precision = chosen.precision
    if spec.precision or moved:
        place = spec.at("precision" if spec.precision else "cluster")
        if scope.ranks is None and (lacking := _lacking(precision, where)):
            scope.error("E564", lacking[0], place, lacking[1])
    kernels = chosen.settings["attention"]
    written = scope.ranks is None and (spec.precision or spec.attention)
    # On a CPU no backend but `flex` is there, which `attention.in_force` says.
    written = written and where.device != "cpu"
    if kernels in ("flex_flash", "varlen") and written and precision.kind == "fp32":
        scope.error(
            "E567",
            f"`{kernels}` computes in bf16, and this stage in fp32",
            spec.at("attention" if spec.attention else "precision"),
            "write `attention = flex`, or `precision = bf16`",
        )
    if spec.precision and precision.low:
        for message, at, help in _wrong_group(precision, model):
            scope.error("E566", message, precision.at(at), help)
    if scope.ranks is None and (spec.recompute or spec.torchtitan or moved):
        given = (name for name in ("recompute", "torchtitan", "cluster") if getattr(spec, name))
        _compiled(scope, spec.at(next(given)), chosen, where)


def _compiled(scope: Scope, place: Span | None, chosen: Chosen, where: Hardware) -> None:
    """Reports a budget of memory where nothing is compiled: the compiler keeps it."""
    if budget(chosen.recompute) is None:
        return
    if where.device == "cpu":
        scope.error(
            "E565",
            f"`{chosen.recompute}` needs a compiled model, and on CPUs nothing is compiled",
            place,
            "write `recompute = full`, which recomputes all, or `recompute = none`",
        )
    elif not is_compiled(where.torchtitan, chosen.settings["torchtitan"]):
        scope.error(
            "E565",
            f"`{chosen.recompute}` needs a compiled model, but `compile` leaves it out",
            place,
            "write `recompute = selective`, or compile the model: remove `enable = false` and "
            "`components` without `model`",
        )


def _lacking(precision: r.Precision, where: Hardware) -> tuple[str, str] | None:
    """Why a device has no products of a precision, and what it has."""
    if not precision.low:
        return None
    if where.device == "cpu":
        return (
            f"`{precision.kind}` needs GPUs, but this stage runs on CPUs",
            "write `precision = fp32` or bf16, or give the stage a cluster with `gpus`",
        )
    known = gpu(where.device)
    if known is None or _has(known, precision.kind):
        return None
    nearest = next((kind for kind in ("fp8",) if _has(known, kind)), "bf16")
    needs = (
        "Ada, Hopper or newer (compute capability 8.9), or an MI300X"
        if precision.kind == "fp8"
        else "Blackwell (compute capability 10.0)"
    )
    found = f" has {known.capability:.1f}" if known.capability else " is none"
    return (
        f"`{precision.kind}` needs {needs}, but {known.name}{found}",
        f"write `precision = {nearest}`",
    )


def _has(known: Gpu, kind: str) -> bool:
    return bool(known.fp8 if kind == "fp8" else known.fp4)


def _wrong_group(precision: r.Precision, model: ModelShape) -> Iterator[tuple[str, str, str]]:
    """What of a group does not apply to it: message, attribute, and the way out."""
    kind = precision.kind
    if precision.recipe and kind != "fp8":
        yield f"`{kind}` has no recipe to choose", "recipe", "remove `recipe`, which is of fp8"
    parts, inside = converted(precision, model), layers(precision, model)
    whole = len(inside) == model.layers
    if not parts or (not inside and "output" not in parts):
        at = "except" if not parts else "bf16_last" if precision.bf16_last else "bf16_first"
        yield (
            f"nothing of this model is left for `{kind}`: all of it stays in bf16",
            at,
            "write `precision = bf16`, or leave fewer out",
        )
    elif KERNELS[kind].experts and "experts" in parts and not whole:
        out = ", ".join(dict.fromkeys(("experts", *precision.except_)))
        yield (
            "torchtitan converts the experts of all layers, not of some",
            "bf16_last" if precision.bf16_last else "bf16_first",
            f"write `except = [{out}]`, or remove `bf16_first` and `bf16_last`",
        )
