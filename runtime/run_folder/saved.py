"""The checkpoints in a job's work folder, as far as torch is not needed."""

from pathlib import Path

CHECKPOINTS = "checkpoints"
SUMS = "checksums.json"
"""The last file that is written of a checkpoint; without it the checkpoint is incomplete."""


def step_of(path: Path) -> int:
    """The step after which a checkpoint was written; -1 if it is not a checkpoint."""
    number = path.name.removeprefix("step-")
    return int(number) if number.isdecimal() else -1


def steps_saved(folder: Path) -> list[int]:
    """The steps of the complete checkpoints in a folder, oldest first."""
    found = (step_of(path.parent) for path in folder.glob(f"step-*/{SUMS}"))
    return sorted(step for step in found if step >= 0)
