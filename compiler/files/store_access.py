"""Access to object stores through fsspec: opening a URL, and listing what a pattern matches."""

import glob
from typing import Any

from .urls import scheme

MOST_TRIES = 5


def opened(url: str, *, patient: bool = True) -> tuple[Any, str]:
    """The file system of a URL, and the path of the URL in it.

    Args:
        patient: whether to retry for a while if the store does not respond.

    Raises: Exception: whatever the library raises; `store_errors.why` explains it.
    """
    import fsspec

    settings: dict[str, Any] = {"use_listings_cache": False}
    if scheme(url) == "s3":
        settings["config_kwargs"] = {
            "connect_timeout": 20 if patient else 5,
            "read_timeout": 120 if patient else 10,
            "retries": {"max_attempts": MOST_TRIES if patient else 1, "mode": "standard"},
        }
    if scheme(url) not in ("s3", "gs", "gcs", "az", "abfs", "abfss"):
        settings = {}
    return fsspec.url_to_fs(url, **settings)


def matching(url: str, *, patient: bool = True) -> dict[str, int | None]:
    """The URLs, in order, of the objects that a pattern matches, or of the one that it names, with
    their sizes in bytes if the store reports them.

    Raises: Exception: as `opened`.
    """
    system, path = opened(url, patient=patient)
    if glob.has_magic(path):
        # fsspec treats a missing bucket as empty.
        system.ls(path.partition("/")[0]) if scheme(url) == "s3" else None
        names = system.glob(path, detail=True)
    else:
        names = {path: system.info(path)}
    return {
        str(system.unstrip_protocol(name)): about.get("size")
        for name, about in sorted(names.items())
        if about.get("type") != "directory"
    }
