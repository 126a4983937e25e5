"""The beginning of emitted files. There, the recipe's run folder replaces "RUN FOLDER"."""

import os
from pathlib import Path
from typing import NoReturn

OUTPUTS = Path("outputs").resolve()
"""Checkpoints; torchtitan needs the absolute path."""

RUN = Path(os.environ.get("ETUDE_RUN", "RUN FOLDER")).resolve()
"""The run folder whose data are read."""


def fill_in(what: str) -> NoReturn:
    """Stops a job with an open value; replace the call with the value."""
    raise SystemExit(f"{__file__}: fill in {what}")
