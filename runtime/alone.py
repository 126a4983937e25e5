"""A process without a launcher, and how torch is told so."""

import os
from collections.abc import Mapping

_MARK = "ETUDE_ALONE"


def be_alone(port: int) -> None:
    """Tells torch, in the environment, that this process is rank 0 of 1.

    Args:
        port: of this machine, at which nobody listens.
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
    """Whether what an environment says of ranks is of `be_alone`, and of nobody after it."""
    return _MARK in environ and environ[_MARK] == environ.get("MASTER_PORT")
