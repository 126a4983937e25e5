"""The checkpoints of a job in its work folder, as far as it takes no torch to see them."""

from pathlib import Path

CHECKPOINTS = "checkpoints"
SUMS = "checksums.json"
"""The file of a checkpoint that is written last: one without it was never finished."""


def step_of(path: Path) -> int:
    """The step of the job after which a checkpoint was written; -1: it is none."""
    number = path.name.removeprefix("step-")
    return int(number) if number.isdecimal() else -1


def steps_saved(folder: Path) -> list[int]:
    """The steps of the checkpoints in a folder that were finished, oldest first."""
    found = (step_of(path.parent) for path in folder.glob(f"step-*/{SUMS}"))
    return sorted(step for step in found if step >= 0)
