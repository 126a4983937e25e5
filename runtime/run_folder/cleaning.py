"""Finds what can be removed from a run folder: whatever no plan in it uses."""

import json
import os
import shutil
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ...compiler.plan.plan_schema import PlanError, read_plan
from ..disk import disk
from ..errors import RunError
from ..stores.views import remove as remove_stored
from .homes import home_of
from .store import MANIFEST, PROFILES, Store
from .variant_folders import runs

Kind = Literal["artifacts", "work", "checkpoints", "cache", "profiles"]
KINDS: tuple[Kind, ...] = ("artifacts", "work", "checkpoints", "cache")
CHECKPOINTS_KEPT = 2
"""The newest checkpoints of a job in progress are kept: if the last is damaged, one remains."""
_GOING = ".removed-"


@dataclass(frozen=True)
class Item:
    """A file or folder that can be removed.

    Attributes:
        job: the job it belongs to, if known.
        why: the reason, as shown to the user.
        bytes: how much its removal frees; a file with a link elsewhere frees nothing.
    """

    kind: Kind
    path: Path
    job: str
    why: str
    bytes: int = 0


def removable(folder: Path, kinds: Collection[str] = KINDS) -> list[Item]:
    """What can be removed from a run folder and from its variants' folders, which share artifacts.

    Everything is kept that a plan in the folder needs, even if only part of the plan was run, for
    the latest state of its data.

    Args:
        kinds: `profiles` is one only where it is named: nothing makes them again.

    Raises: RunError: a plan or a journal in the folder cannot be read.
    """
    home = home_of(folder)
    unused, used = _used(home)
    found: list[Item] = []
    artifacts = {path.name: path for path in _folders(home / "artifacts")}
    for key, path in artifacts.items():
        if key not in used:
            found.append(Item("artifacts", path, _job(path), unused))
    for path in _folders(home / "work"):
        if path.name in artifacts:
            found.append(Item("work", path, _job(artifacts[path.name]), "the job is finished"))
        elif path.name not in used:
            found.append(Item("work", path, "", unused))
        else:
            found += _checkpoints(path, used[path.name])
    found += (Item("cache", path, "", "it can be recomputed") for path in _all(home / "cache"))
    for run in runs(home).values():
        found += (
            Item("profiles", path, path.name, "you asked for it") for path in _all(run / PROFILES)
        )
    return _measured([item for item in found if item.kind in kinds])


def remove(folder: Path, items: Collection[Item]) -> None:
    """Removes items, and the links in `models` that then point nowhere.

    An artifact is removed completely or not at all, even if the process dies.

    Raises: Stopped: the disk does not allow it.
    """
    home = home_of(folder)
    if Store(folder).remote is not None:
        remove_stored(folder, [item.path for item in items])
        return
    for item in items:
        with disk(item.path):
            going = home / "work" / f"{_GOING}{item.path.name}"
            shutil.rmtree(going, ignore_errors=True)
            os.replace(item.path, going)
            going.unlink() if going.is_symlink() or going.is_file() else shutil.rmtree(going)
    for run in runs(home).values():
        for link in _all(run / "models"):
            if link.is_symlink() and not link.exists():
                with disk(link):
                    link.unlink()


def _used(home: Path) -> tuple[str, dict[str, str]]:
    """The reason for removing the rest, in words, and the artifact keys in use → their jobs.

    Raises: RunError.
    """
    planned: dict[str, str] = {}
    names = []
    for name, folder in runs(home).items():
        path = folder / "plan.json"
        if not path.exists():
            continue
        try:
            plan = read_plan(path)
        except PlanError as problem:
            raise RunError(
                f"{problem.message}, so what it needs is not known",
                f"run it again with this version of etude, or remove {path}",
            ) from None
        names.append(f"the last plan of the variant {name}" if name else "the recipe's last plan")
        planned |= {job.key: job.id for job in plan.jobs}
        planned |= {key: job for job, key in plan.part.left_out.items()} if plan.part else {}
    latest: dict[tuple[str, str], str] = {}
    for name, folder in runs(home).items():
        for event in Store(folder).events():
            of = (event["detail"] or {}).get("plan")
            if of in planned:
                latest[name, of] = event["key"]
    shown = " and ".join(names) if len(names) < 3 else f"the last plans of {len(names)} runs"
    unused = (
        f"{shown} {'does' if len(names) == 1 else 'do'} not use it" if names else "no plan uses it"
    )
    return unused, {key: planned[of] for (_, of), key in latest.items()}


def _checkpoints(work: Path, job: str) -> Iterator[Item]:
    """Checkpoints of a job in progress, except the newest complete ones."""
    whole = [path.parent for path in (work / "checkpoints").glob("step-*/.metadata")]
    kept = sorted(whole, key=lambda path: int(path.name[5:]))[-CHECKPOINTS_KEPT:]
    for path in sorted((work / "checkpoints").glob("step-*")):
        if path in kept:
            continue
        why = "there are newer ones" if path in whole else "it was never finished"
        yield Item("checkpoints", path, job, why)


def _job(artifact: Path) -> str:
    try:
        return str(json.loads((artifact / MANIFEST).read_bytes())["job"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return ""


def _all(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _folders(folder: Path) -> list[Path]:
    return [path for path in _all(folder) if path.is_dir()]


def _measured(items: list[Item]) -> list[Item]:
    """The items with the bytes that they free."""
    files = [list(_files(item.path)) for item in items]
    going = Counter((stat.st_dev, stat.st_ino) for each in files for stat in each)
    counted: set[tuple[int, int]] = set()
    found = []
    for item, own in zip(items, files, strict=True):
        size = 0
        for stat in own:
            file = stat.st_dev, stat.st_ino
            if going[file] >= stat.st_nlink and file not in counted:
                counted.add(file)
                size += stat.st_size
        found.append(Item(item.kind, item.path, item.job, item.why, size))
    return found


def _files(path: Path) -> Iterator[os.stat_result]:
    if path.is_dir() and not path.is_symlink():
        for each in path.rglob("*"):
            if each.is_file() and not each.is_symlink():
                yield each.stat()
    elif path.exists():
        yield path.stat()
