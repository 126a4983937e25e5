"""The part of an emitted configuration that says where torchtitan logs to."""

import shlex
from collections.abc import Iterator, Sequence

from ...compiler.plan.summary import Tracker

TRACKERS = ("wandb", "tensorboard")
"""Those that torchtitan logs to."""


def metrics(tracking: Sequence[Tracker]) -> Iterator[str]:
    """The trackers; W&B's settings are in variables of the environment (torchtitan 0.3,
    components/metrics.py)."""
    for each in tracking:
        if each.kind not in TRACKERS:
            yield f"# torchtitan does not log to {each.kind}."
        named = {"PROJECT": each.project, "TEAM": each.entity, "RUN_GROUP": each.group}
        given = [f"WANDB_{name}={shlex.quote(value)}" for name, value in named.items() if value]
        if given and each.kind == "wandb":
            yield f"# Set for W&B: {' '.join(given)}"
    enabled = [f"enable_{each.kind}=True" for each in tracking if each.kind in TRACKERS]
    if enabled:
        yield f"metrics=MetricsProcessor.Config({', '.join(enabled)}),"
