"""Runs torch in a single process without a launcher."""

import os
from collections.abc import Mapping

_MARK = "ETUDE_ALONE"


def be_alone(port: int) -> None:
    """Tells torch, in the environment, that this process is rank 0 of 1.

    Args:
        port: a free port of this machine.
    """
    os.environ |= {
        "RANK": "0",
        "WORLD_SIZE": "1",
        "LOCAL_RANK": "0",
        "LOCAL_WORLD_SIZE": "1",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        _MARK: str(port),
    }


def is_alone(environ: Mapping[str, str]) -> bool:
    """Whether the ranks in an environment were set by `be_alone` and not changed since."""
    return _MARK in environ and environ[_MARK] == environ.get("MASTER_PORT")
