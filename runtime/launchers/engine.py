"""What a batch engine is: it is given a whole run, queues it, and needs nobody to wait for it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ...compiler.plan.plan import Plan


@dataclass(frozen=True)
class Request:
    """A run that somebody wants to be done elsewhere.

    Attributes:
        folder: the run folder; absolute.
        root: the folder of the spec, where relative paths of data start; absolute.
        site: the site file, if there is one.
    """

    plan: Plan
    folder: Path
    root: Path
    site: Path | None


@dataclass(frozen=True)
class Piece:
    """A file that the engine takes: a script, a manifest.

    Attributes:
        name: of the file.
    """

    name: str
    text: str


class Engine(Protocol):
    """Queues runs.

    Attributes:
        shares_folder: whether the run folder of a request is the run's own, with its results.
    """

    shares_folder: bool

    def folder(self, name: str, site: Path | None) -> Path:
        """Where the run folder of a recipe lies if nobody says it.

        Raises: RunError: the site file is wrong.
        """
        ...

    def pieces(self, request: Request) -> Sequence[Piece]:
        """The files, in the order in which they are queued.

        Raises: RunError: the run cannot be done there; nothing has been queued.
        """
        ...

    def ready(self, request: Request) -> None:
        """Looks whether the engine can be given the run at all, before anything else is looked at.

        Raises: RunError: it cannot be asked from here, or has the run already.
        """
        ...

    def submit(self, request: Request) -> Sequence[str]:
        """Queues the run; returns what to tell people, a line each.

        Raises: RunError: it was not queued, no part of it.
        """
        ...


def folder_name(plan: Plan) -> str:
    """What the run folder of a plan's recipe is called, below `runs`."""
    return f"{plan.recipe}_miniature" if plan.miniature else plan.recipe
