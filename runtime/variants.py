"""Run folders of variants.

    runs/RECIPE/                 the recipe's own run
    runs/RECIPE/variants/NAME/   that of a variant: plan, journal, metrics and models of its own

Artifacts, work in progress, cache and lock of a variant are links to those of the recipe's folder.
Keys are made of content, so that what a variant has in common with the recipe and with other
variants is made once, whichever is run first; and one run at a time is at work on it.
"""

import os
from pathlib import Path

from .errors import RunError

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
