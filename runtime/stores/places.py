"""Local folders for run folders in stores: where they are, and how they are created."""

import hashlib
import os
import re
from pathlib import Path

from platformdirs import user_cache_path

from ...compiler.files.urls import shown
from ..errors import RunError, reason
from .objects import Bucket
from .remote import Remote, begin

CACHE = "ETUDE_STORE_CACHE"
"""The variable with the folder that contains the local folders of stores."""


def cache() -> Path:
    """The folder that contains the local folders of stores."""
    said = os.environ.get(CACHE)
    return Path(said).absolute() if said else user_cache_path("etude") / "stores"


def local_folder(url: str, kind: str = "runs") -> Path:
    """The local folder for a URL.

    Args:
        kind: "runs" for folders that jobs work in, "views" for read-only ones, "weights".
    """
    address = url.rstrip("/")
    name = re.sub(r"[^\w.-]+", "-", address.rpartition("/")[2])[:40]
    return cache() / kind / f"{name}-{hashlib.sha256(address.encode()).hexdigest()[:12]}"


def working(url: str) -> Remote:
    """The local folder of a run folder in a store; created if needed.

    Raises: RunError: the URL is not of a store, or the folder cannot be written.
    """
    return _made(url, "runs")


def split(url: str) -> tuple[str, str]:
    """The run folder in a URL, and the variant in it; "" for the recipe's own run."""
    found = re.fullmatch(r"(.+)/variants/([^/]+)", url.rstrip("/"))
    return (found[1], found[2]) if found else (url.rstrip("/"), "")


def viewing(url: str) -> Remote:
    """The local folder for viewing a run folder in a store; nothing is downloaded yet.

    Raises: as `working`.
    """
    return _made(url, "views")


def _made(url: str, kind: str) -> Remote:
    Bucket(url)
    home = local_folder(url, kind)
    try:
        return begin(home, url)
    except OSError as problem:
        raise RunError(
            f"the local folder of {shown(url)}, {home}, cannot be used: {reason(problem)}",
            f"say another place: {CACHE}=/scratch/stores",
        ) from None
