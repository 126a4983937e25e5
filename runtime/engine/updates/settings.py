"""Sets before each step what the plan changes beside the learning rate."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from torch import nn
from torch.optim import Optimizer

from ....compiler.schedule.timeline import Timeline
from ..further import FurtherLoss


class Settings:
    """The settings of a job that change: the norm to clip at, weight decay, how far the routing
    bias moves in a step, and the weight of further tokens. They follow from the step alone, so a
    checkpoint holds none of them."""

    def __init__(
        self,
        timeline: Timeline,
        optimizers: Iterable[Optimizer],
        parts: Iterable[nn.Module],
        loss: object = None,
    ) -> None:
        """
        Args:
            optimizers: made with the largest weight decay, or 0 for what does not decay.
            parts: of the model.
            loss: that the job learns by.
        """
        self._further = loss if isinstance(loss, FurtherLoss) else None
        self._timeline = timeline
        # By place: loading a checkpoint makes new groups.
        self._decaying = [
            (each, place)
            for each in optimizers
            for place, group in enumerate(each.param_groups)
            if group["weight_decay"]
        ]
        # torchtitan's MoE layers, and etude's, have it where the bias moves.
        self._balanced: list[Any] = [
            module
            for part in parts
            for module in part.modules()
            if getattr(module, "load_balance_coeff", None) is not None
        ]

    def at(self, step: int, training: Any) -> Any:
        """Sets all for a step of the stage.

        Args:
            training: torchtitan's section of the configuration.

        Returns: the section with the norm to clip at.
        """
        return self._set(self._timeline.settings(step), training)

    def _set(self, values: Mapping[str, float], training: Any) -> Any:
        if "weight_decay" in values:
            for optimizer, place in self._decaying:
                optimizer.param_groups[place]["weight_decay"] = values["weight_decay"]
        if "balance" in values:
            for module in self._balanced:
                module.load_balance_coeff = values["balance"]
        if self._further and "mtp_loss" in values:
            self._further.weight = values["mtp_loss"]
        if "clip" in values:
            return dataclasses.replace(training, max_norm=values["clip"])
        return training
