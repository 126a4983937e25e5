"""Run folders of variants.

    runs/RECIPE/                 the recipe's own run
    runs/RECIPE/variants/NAME/   that of a variant: plan, journal, metrics and models of its own

Artifacts, work in progress, cache and lock of a variant are links to those of the recipe's folder.
Keys are made of content, so that what a variant has in common with the recipe and with other
variants is made once, whichever is run first; and one run at a time is at work on it.
"""

import os
import shutil
from pathlib import Path

from .errors import RunError
from .store import Store, disk

_FOLDERS = ("artifacts", "work", "cache")
_LOCK = "lock"


def variant_folder(folder: Path, variant: str) -> Path:
    """The run folder of a variant inside the recipe's; made where it is not there.

    Raises: RunError: it cannot be made.
    """
    own = folder / "variants" / variant
    try:
        own.mkdir(parents=True, exist_ok=True)
        for name in (*_FOLDERS, _LOCK):
            if name != _LOCK:
                (folder / name).mkdir(exist_ok=True)
            if not os.path.lexists(own / name):
                (own / name).symlink_to(Path("..") / ".." / name)
    except OSError as problem:
        raise RunError(
            f"the run folder {own} cannot be used: {problem}", "choose another with --folder"
        ) from None
    return own


def take_metrics(folder: Path, job: str) -> None:
    """Copies the metrics of a train job that another variant has run, where this run has none.

    Args:
        folder: the run folder of the recipe or of a variant, in whose journal the job is kept.

    Raises: Stopped: the disk does not take them.
    """
    own = folder / "metrics" / f"{job}.jsonl"
    home = folder.parents[1] if (folder / _LOCK).is_symlink() else folder
    if own.exists() or not (home / "variants").is_dir():
        return
    key = _made(folder, job, "kept")
    for other in (home, *sorted((home / "variants").iterdir())):
        metrics = other / "metrics" / f"{job}.jsonl"
        # What was begun last in the other folder is what its metrics are of.
        if other != folder and metrics.exists() and key == _made(other, job, "started"):
            with disk(own):
                shutil.copyfile(metrics, own)
            return


def _made(folder: Path, job: str, event: str) -> str | None:
    """The key that a job had in the last event of a kind."""
    keys = [
        e["key"] for e in Store(folder).events() if (e["job"], e["event"]) == (job, event)
    ]  # fmt: skip
    return keys[-1] if keys else None
