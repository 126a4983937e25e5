"""Optimizers whose checkpoints hold the state of training, but not the plan's settings."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.optim import Optimizer
from torchtitan.components.optimizer import OptimizersContainer, ParamGroupConfig

from ....compiler.torchtitan.configuration import MUON
from ....compiler.values import ADAFACTOR, LION
from .adafactor import Adafactor
from .muon import muon


def lion(groups: list[dict[str, Any]]) -> Optimizer:
    """Lion of the package pytorch-optimizer (arXiv:2302.06675), parameter by parameter: those that
    lie on several meshes, as experts do, cannot be updated together."""
    from pytorch_optimizer import Lion

    return Lion([{**group, "foreach": False} for group in groups])


class Optimizers(OptimizersContainer):
    """torchtitan's optimizers; loading keeps the job's own betas, weight decay and the like.

    So a job takes over the moments of the previous job, with the settings of its own plan.
    """

    @dataclass(kw_only=True, slots=True)
    class Config(OptimizersContainer.Config):
        pass

    @staticmethod
    def _build_param_groups(
        model: nn.Module, param_group_configs: list[ParamGroupConfig], impl_kwargs: dict[str, Any]
    ) -> Any:
        """Drops groups for which a part of a pipeline has no parameters, which torchtitan rejects:
        the first part may hold only the embedding."""
        left, groups = {name for name, each in model.named_parameters() if each.requires_grad}, []
        for group in param_group_configs:
            named = {name for name in left if re.search(group.pattern, name)}
            left -= named
            groups += [group] if named else []
        return OptimizersContainer._build_param_groups(model, groups, impl_kwargs)

    @staticmethod
    def _resolve_optimizer_factory(name: str) -> Callable[..., Optimizer]:
        own: dict[str, Callable[..., Optimizer]] = {MUON: muon, ADAFACTOR: Adafactor, LION: lion}
        return own.get(name) or OptimizersContainer._resolve_optimizer_factory(name)

    def state_dict(self) -> dict[str, Any]:
        return {
            name: value for name, value in super().state_dict().items() if name.startswith("state.")
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict({**super().state_dict(), **state_dict})
