"""Sets the plan's learning rate at every step."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torchtitan.components.optimizer import LRSchedulersContainer, OptimizersContainer

from ....compiler.schedule.timeline import Timeline


class PlannedLR(LRScheduler):
    """`lr(steps taken)` for all parameter groups, whatever rate they were created with."""

    def __init__(self, optimizer: Optimizer, lr: Callable[[int], float]) -> None:
        self._lr = lr
        super().__init__(optimizer)

    def get_lr(self) -> list[float | Tensor]:
        return [self._lr(self.last_epoch)] * len(self.optimizer.param_groups)


class PlannedSchedulers(LRSchedulersContainer):
    """Schedulers with a plan's rates, even after loading a checkpoint with others."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        for scheduler in self.schedulers:
            for group, lr in zip(
                scheduler.optimizer.param_groups, scheduler.get_last_lr(), strict=True
            ):
                group["lr"] = lr


class Schedulers(PlannedSchedulers):
    """The timeline's learning rate; its state is the number of steps that the job has taken."""

    @dataclass(kw_only=True, slots=True)
    class Config(LRSchedulersContainer.Config):
        timeline: Timeline

        def build(self, *, optimizers: OptimizersContainer, training_steps: int) -> "Schedulers":
            return Schedulers(self, optimizers)

    def __init__(self, config: Config, optimizers: OptimizersContainer) -> None:
        timeline = config.timeline

        def lr(steps: int) -> float:
            return timeline.lr(timeline.first_step + steps)

        self.schedulers = [PlannedLR(optimizer, lr) for optimizer in optimizers]
