"""Whose a run folder is: the recipe's, whose artifacts those of its variants share, and its owners.

A lease lies in the recipe's folder and keeps all other runs out. Those of parts that may work
beside each other lie in the folders of their variants, and the recipe's own part has it in the
folder above these.
"""

from collections.abc import Iterator
from pathlib import Path

from .lease import LEASE, Owner, owner

VARIANTS = "variants"
"""The folder with the runs of a recipe's variants."""


def home_of(folder: Path) -> Path:
    """The recipe's run folder, whose artifacts a variant's run folder shares."""
    of_variant = folder.parent.name == VARIANTS and (folder / "artifacts").is_symlink()
    return folder.parents[1] if of_variant else folder


def beside(folder: Path) -> Path:
    """Where the lease of a run is that works beside others of its recipe."""
    home = home_of(folder)
    return home / VARIANTS if folder == home else folder


def apart(home: Path, own: Path) -> Iterator[Path]:
    """The folders that nobody may be using while `own` is used: those of all that may work beside
    each other, and the recipe's."""
    if own == home:
        places = ((home / VARIANTS).glob(pattern) for pattern in (LEASE, f"*/{LEASE}"))
        yield from (path.parent for found in places for path in sorted(found))
    else:
        yield home


def owner_of(folder: Path) -> Owner | None:
    """The owner of a run's folder, dead or alive, if any. If the recipe's folder has one, and the
    run's own place beside others, it is the one whose sign of life is newer."""
    found = [each for each in map(owner, {home_of(folder), beside(folder)}) if each]
    return max(found, key=lambda each: each.beat, default=None)
