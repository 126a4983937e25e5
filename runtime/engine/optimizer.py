"""Optimizers whose checkpoints hold what training has made, and not what the plan says."""

from dataclasses import dataclass
from typing import Any

from torchtitan.components.optimizer import OptimizersContainer


class Optimizers(OptimizersContainer):
    """torchtitan's optimizers; betas, weight decay and the like stay the job's own on loading.

    So a job takes over the moments of the job before, with the settings of its own plan.
    """

    @dataclass(kw_only=True, slots=True)
    class Config(OptimizersContainer.Config):
        pass

    def state_dict(self) -> dict[str, Any]:
        return {
            name: value for name, value in super().state_dict().items() if name.startswith("state.")
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict({**super().state_dict(), **state_dict})
