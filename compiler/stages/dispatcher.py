"""The token dispatcher of a stage: what it needs of hardware, model and stage."""

from collections.abc import Iterator
from typing import Any

from ...spec.schema import recipe as r
from ..costs.hardware import HOPPER, gpu
from ..families.low_precision import converted
from ..program import Hardware
from ..resolve.scope import Scope
from ..torchtitan.told import told
from ..values import ModelShape

PADS = ("all_to_all", "hybridep")
"""Dispatchers that give experts in 8 bits as many rows as these need (torchtitan 0.3,
`swap_token_dispatcher` of `components/quantization/utils.py`)."""
Wrong = tuple[str, str]
"""Why a stage cannot use a dispatcher, and the way out."""
_OTHER = "remove `dispatcher`: `all_to_all` is the default"


def sending(
    scope: Scope,
    spec: r.Training,
    settings: dict[str, Any],
    where: Hardware,
    model: ModelShape,
    way: tuple[r.Precision, str],
) -> dict[str, Any]:
    """The settings with the dispatcher of a stage: what it says, or what it takes over and can
    use; None: all_to_all.

    Reports what the stage says and cannot use. With `--ranks` the hardware is another, and does not
    matter.

    Args:
        way: the stage's precision, and what it recomputes.
    """
    dispatcher = settings["dispatcher"]
    if dispatcher in (None, "all_to_all"):
        return settings
    wrong = next(_wrong(dispatcher, settings, model, way), None)
    if wrong is None and scope.ranks is None:
        wrong = next(_lacking(dispatcher, settings, where), None)
    if wrong is None:
        return settings
    if spec.dispatcher is None:
        return settings | {"dispatcher": None}
    scope.error("E568", wrong[0], spec.at("dispatcher"), wrong[1])
    return settings


def _wrong(
    dispatcher: str, settings: dict[str, Any], model: ModelShape, way: tuple[r.Precision, str]
) -> Iterator[Wrong]:
    """What the model or the stage has that a dispatcher does not go with."""
    precision, recompute = way
    if model.experts is None:
        yield (
            f"`dispatcher = {dispatcher}` sends tokens to experts, and this model has none",
            _OTHER,
        )
        return
    if dispatcher not in PADS and "experts" in converted(precision, model):
        yield (
            f"experts in {precision.kind} need rows in multiples, which `{dispatcher}` does not "
            "make",
            "write `dispatcher = hybridep`, or `all_to_all`",
        )
    # torchtitan 0.3, `maybe_update_minimal_async_ep_config` of `distributed/minimal_async_ep`.
    if dispatcher == "minimal_async_ep" and recompute != "full":
        yield (
            "`minimal_async_ep` keeps nothing for the backward pass, and `recompute` is "
            f"{recompute}",
            "write `recompute = full`",
        )


def _lacking(dispatcher: str, settings: dict[str, Any], where: Hardware) -> Iterator[Wrong]:
    """What the hardware does not have."""
    if where.device == "cpu":
        yield (
            f"`dispatcher = {dispatcher}` needs GPUs, but this stage runs on CPUs",
            "remove `dispatcher`, or give the stage a cluster with `gpus`",
        )
        return
    known = gpu(where.device)
    if known and known.capability < HOPPER:
        has = f"has {known.capability:.1f}" if known.capability else "is none of NVIDIA's"
        yield (
            f"`{dispatcher}` needs Hopper or newer (compute capability {HOPPER:.1f}), but "
            f"{known.name} {has}",
            _OTHER,
        )
    backend = told(where.torchtitan, settings["torchtitan"]).get("parallelism", {})
    if dispatcher == "minimal_async_ep" and backend.get("spmd_backend") == "full_dtensor":
        yield "`minimal_async_ep` does not work with `spmd_backend = full_dtensor`", _OTHER
