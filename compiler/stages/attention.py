"""The attention backend of a stage: what it needs of hardware, model and stage."""

from collections.abc import Iterator
from typing import Any

from ...spec.schema import recipe as r
from ..costs.hardware import HOPPER, gpu
from ..program import Hardware
from ..resolve.scope import Scope
from ..torchtitan.told import told
from ..values import ModelShape

WIDTHS = 8
"""Of what the widths of heads are multiples for FlashAttention (torch 2.14,
`nn/attention/varlen.py`)."""
Wrong = tuple[str, str]
"""Why a stage cannot use a backend, and the way out."""


def in_force(
    scope: Scope, spec: r.Training, settings: dict[str, Any], where: Hardware, model: ModelShape
) -> dict[str, Any]:
    """The settings with the backend of a stage: what it says, or what it takes over and can use;
    None: flex.

    Reports what the stage says and cannot use. With `--ranks` the hardware is another, and does not
    matter.
    """
    backend = settings["attention"]
    if backend is None:
        return settings
    wrong = next(_wrong(backend, spec, settings, model), None)
    if wrong is None and scope.ranks is None:
        wrong = next(_lacking(backend, settings, where), None)
    if wrong is None:
        return settings
    if spec.attention is None:
        return settings | {"attention": None}
    scope.error("E567", wrong[0], spec.at("attention"), wrong[1])
    return settings


def _wrong(
    backend: str, spec: r.Training, settings: dict[str, Any], model: ModelShape
) -> Iterator[Wrong]:
    """What the stage or its model has that a backend does not."""
    other = "remove `attention`: `flex` is the default"
    if backend == "varlen" and not spec.uniform:
        rows = "a batch that counts dialogs" if spec.kind == "sft" else f"a {spec.kind} stage"
        yield f"`varlen` needs rows that are full of tokens, which {rows} does not have", other
    changed = {
        "ALiBi": model.parts and model.parts.alibi,
        "caps of attention scores": model.parts and model.parts.attention_cap,
    }
    for what in (name for name, has in changed.items() if has and backend == "varlen"):
        yield f"`varlen` cannot change scores, and this model has {what}", other
    if backend != "flex" and isinstance(spec.optimizer, r.Optimizer) and spec.optimizer.qk_clip:
        yield f"`{backend}` does not tell the largest scores, which `qk_clip` clips", other
    latent = model.latent
    widths = (latent.plain + latent.rotary, latent.values) if latent else (model.head_dim,)
    if backend != "flex" and (odd := [width for width in widths if width % WIDTHS]):
        yield f"`{backend}` needs heads of a multiple of {WIDTHS}, but these have {odd[0]}", other


def _lacking(backend: str, settings: dict[str, Any], where: Hardware) -> Iterator[Wrong]:
    """What the hardware, or how it computes, does not allow."""
    if where.device == "cpu":
        yield (
            f"`attention = {backend}` needs GPUs, but this stage runs on CPUs",
            "remove `attention`, or give the stage a cluster with `gpus`",
        )
        return
    known = gpu(where.device)
    # torchtitan 0.3, `get_attention_config` of `models/common/config_utils.py`.
    if backend == "flex_flash" and known and known.capability < HOPPER:
        has = f"has {known.capability:.1f}" if known.capability else "is none"
        yield (
            f"`flex_flash` needs Hopper or newer (compute capability {HOPPER:.1f}), but "
            f"{known.name} {has}",
            "write `attention = flex`",
        )
    debug = told(where.torchtitan, settings["torchtitan"]).get("debug", {})
    strict = debug.get("deterministic", True) and not debug.get("deterministic_warn_only", False)
    if backend == "flex_flash" and strict:
        yield (
            "the backward pass of `flex_flash` is not deterministic",
            "write `torchtitan = { debug = { deterministic = false } }`: two runs then differ by "
            "rounding; or `attention = flex`",
        )
