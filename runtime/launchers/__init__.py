"""Launchers: each starts the phases of a run on one kind of engine, such as this machine."""

from .launcher import Launcher
from .local import Local

LAUNCHERS: dict[str, type[Launcher]] = {"local": Local}
"""Engine → its launcher, which is created anew for each run."""
