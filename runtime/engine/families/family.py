"""A family of models in torchtitan: its builder, and etude's changes to the result."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from functools import wraps
from inspect import signature
from typing import Any, Literal, NamedTuple

from torch import nn
from torch.distributed.fsdp import FSDPModule
from torchtitan.components.optimizer import register_moe_load_balancing_hook
from torchtitan.config import Configurable
from torchtitan.distributed.pipeline_parallel import pipeline_llm
from torchtitan.models.common import Linear
from torchtitan.models.common.decoder import Decoder
from torchtitan.protocols.model_spec import ModelSpec
from torchtitan.protocols.module import Module

from ....compiler.torchtitan.configuration import arguments
from ....compiler.values import Architecture
from ..heads import TokenHead, record_model
from .further import balance_modules, main_without_gradients, with_modules
from .on_cpu import STAND_INS

Head = Literal["logits", "tokens", "score"]
"""A model's output: logits everywhere, or at some positions the cross-entropy of a token or a
score."""


class Family(NamedTuple):
    """A family. Its builder uses only torchtitan's parts, and `--emit` copies it.

    Attributes:
        build: takes fields of `Architecture` by their names, groups as dicts, and `rope`.
        parallelize, adapter: torchtitan's function and class.
        fixed: defective torchtitan modules → their replacements.
        fixed_adapter: a replacement of the adapter.
        on_cpu: torchtitan modules → their replacements on CPUs, besides those of all families.
    """

    build: Callable[..., Decoder.Config]
    parallelize: Callable[..., nn.Module]
    adapter: type
    fixed: Mapping[type, type] = {}
    fixed_adapter: type | None = None
    on_cpu: Mapping[type, type] = {}

    def model_spec(
        self, architecture: Architecture, device: str, seq_len: int, head: Head
    ) -> ModelSpec:
        """The architecture as torchtitan's `ModelSpec`; arguments as in this package's
        `model_spec`."""
        values = arguments(architecture, signature(self.build).parameters, seq_len)
        # A score head has no table to share.
        values["tied"] = architecture.tied and head != "score"
        model = self.build(**values)
        on_cpu = device == "cpu"
        replace_modules(model, {**self.fixed, **({**STAND_INS, **self.on_cpu} if on_cpu else {})})
        if head != "logits":
            model = _headed(model, head)
        balanced = architecture.experts and architecture.experts.balance
        parallelize, balance = self.parallelize, register_moe_load_balancing_hook
        if architecture.mtp:
            model = main_without_gradients(model)
            parallelize, balance = with_modules(parallelize), balance_modules
        return ModelSpec(
            name=architecture.family,
            flavor=architecture.size or "custom",
            model=model,
            parallelize_fn=_summing(parallelize) if on_cpu else parallelize,
            pipelining_fn=pipeline_llm,
            post_optimizer_build_fn=balance if balanced else None,
            state_dict_adapter=self.fixed_adapter or self.adapter,
        )


def configurations(config: Any) -> Iterator[Any]:
    """The configurations of a module and of all modules in it."""
    if isinstance(config, Module.Config):
        yield config
        for _, inner in _inner(config):
            yield from configurations(inner)
    elif isinstance(config, list):
        for inner in config:
            yield from configurations(inner)


def _inner(config: Any) -> list[tuple[str, Any]]:
    return [(field.name, getattr(config, field.name)) for field in fields(config)]


def replace_modules(model: Module.Config, modules: Mapping[type, Any]) -> None:
    """Replaces modules of a model by others, keeping the settings that both have."""
    for config in configurations(model):
        for name, inner in _inner(config):
            owner = inner._owner if isinstance(inner, Configurable.Config) else None
            if owner and (module := modules.get(owner)):
                known = {field.name for field in fields(module.Config)}
                given = {n: value for n, value in _inner(inner) if n in known}
                setattr(config, name, module.Config(**given))


def _headed(model: Decoder.Config, head: Head) -> Decoder.Config:
    """The decoder with a head that is applied only at some positions."""
    kind: Any = record_model(type(model)._owner)
    output: dict[str, Any] = dict(_inner(model.lm_head))
    changes = {name: output.pop(name) for name in ("scale", "cap") if name in output}
    last = (
        TokenHead.Config(**output, **changes)
        if head == "tokens"
        else Linear.Config(**{**output, **_of_score(output)})
    )
    return kind.Config(**dict(_inner(model)) | {"lm_head": last})


def _of_score(output: dict[str, Any]) -> dict[str, Any]:
    """How the head of a score differs from an output layer: one row, without a bias."""
    drawn = {name: each for name, each in (output["param_init"] or {}).items() if name != "bias"}
    return {"out_features": 1, "bias": False, "param_init": drawn}


def _summing(parallelize: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    """Makes FSDP sum gradients. By default it scales them while reducing, which gloo cannot do."""

    @wraps(parallelize)
    def wrapped(model: nn.Module, **kwargs: Any) -> nn.Module:
        model = parallelize(model, **kwargs)
        for module in model.modules():
            if isinstance(module, FSDPModule):
                module.set_force_sum_reduction_for_comms(True)
        return model

    return wrapped
