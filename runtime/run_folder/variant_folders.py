"""Run folders of variants.

    runs/RECIPE/                 the recipe's own run
    runs/RECIPE/variants/NAME/   a variant's run, with its own plan, journal, metrics and models

Artifacts, work in progress and cache of a variant are links to those of the recipe's folder. Keys
are derived from content, so whatever a variant shares with the recipe and other variants is made
once, whichever runs first. Only one run at a time works on it, or several parts of a sweep, which
make different jobs (`lease`).
"""

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..errors import RunError, reason
from ..stores import places
from .homes import VARIANTS, home_of
from .store import Store

_FOLDERS = ("artifacts", "work", "cache")


def variant_folder(folder: Path, variant: str) -> Path:
    """The run folder of a variant inside the recipe's; created if needed.

    Raises: RunError: it cannot be created.
    """
    own = folder / VARIANTS / variant
    try:
        own.mkdir(parents=True, exist_ok=True)
        for name in _FOLDERS:
            (folder / name).mkdir(exist_ok=True)
            if not os.path.lexists(own / name):
                with suppress(FileExistsError):  # another node of a gang was faster
                    (own / name).symlink_to(Path("..") / ".." / name)
    except OSError as problem:
        raise RunError(
            f"the run folder {own} cannot be used: {reason(problem)}",
            "choose another with --folder",
        ) from None
    return own


def folder_at(address: str) -> Path:
    """The run folder of a recipe or variant in which this node's jobs work; created if needed.

    Args:
        address: a path, or a URL of a store (`Store.address`), of which it is the local folder.

    Raises: RunError: the URL is not of a store, or the folder cannot be created.
    """
    if "://" not in address:
        return Path(address)
    home, variant = places.split(address)
    folder = places.working(home).home
    return variant_folder(folder, variant) if variant else folder


def runs(folder: Path) -> dict[str, Path]:
    """The run folders that share a run's artifacts, including its own, by the names of their
    variants; "" is the recipe's own. Folders in which nothing has run yet are left out.

    Args:
        folder: the run folder of the recipe or of a variant.
    """
    home = home_of(folder)
    found = {"": home}
    if (home / VARIANTS).is_dir():
        found |= {each.name: each for each in sorted((home / VARIANTS).iterdir())}
    return {name: each for name, each in found.items() if Store(each).exists()}


def rolled_back(folder: Path, key: str) -> list[dict[str, Any]]:
    """The rollbacks of a key's job so far, in order, in runs that share artifacts: what the journal
    says of each. One run at a time works on the job, and continues what another has done."""
    found = [
        event["detail"]
        for run in runs(folder).values()
        for event in Store(run).events()
        if event["event"] == "rollback" and event["key"] == key
    ]
    return sorted(found, key=lambda detail: detail["number"])


def begun(folder: Path, key: str) -> Path | None:
    """The steps file of the run that last started a key's job, among runs that share artifacts.

    One run continues what another has started, from its checkpoint.
    """
    started = [
        (event["time"], str(run / "metrics" / f"{event['job']}.jsonl"))
        for run in runs(folder).values()
        for event in Store(run).events()
        if event["event"] == "started" and event["key"] == key
    ]
    return Path(max(started)[1]) if started else None
