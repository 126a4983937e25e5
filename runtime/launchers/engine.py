"""The interface of batch engines: one gets a whole run and queues it; nobody has to wait."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ...compiler.plan.plan import Plan
from ..run_folder.homes import VARIANTS


@dataclass(frozen=True)
class Request:
    """A run to be done on an engine.

    Attributes:
        folder: the run folder; absolute. Of one in a store, a local folder that shows it.
        root: the spec's folder, which relative data paths start from; absolute.
        site: the site file, if any.
        url: the recipe's run folder in a store; "" if it is not in one.
    """

    plan: Plan
    folder: Path
    root: Path
    site: Path | None
    url: str = ""

    @property
    def address(self) -> str:
        """The run folder of the recipe or variant, as ranks find it: a path or a URL."""
        if not self.url:
            return str(self.folder)
        return f"{self.url}/{VARIANTS}/{self.plan.variant}" if self.plan.variant else self.url


@dataclass(frozen=True)
class Strand:
    """One of several runs that are queued together.

    Attributes:
        name: of the run, among them.
        after: the names of those that it waits for, which come before it.
    """

    name: str
    request: Request
    after: Sequence[str] = ()


@dataclass(frozen=True)
class Piece:
    """A file for the engine: a script or a manifest.

    Attributes:
        name: the file's name.
    """

    name: str
    text: str


class Engine(Protocol):
    """Queues runs.

    Attributes:
        shares_folder: whether the request's run folder is that of the run itself, with its results.
    """

    shares_folder: bool

    def folder(self, name: str, site: Path | None) -> Path:
        """The default run folder of a recipe.

        Raises: RunError: the site file is wrong.
        """
        ...

    def pieces(self, request: Request) -> Sequence[Piece]:
        """The files, in the order in which they are queued.

        Raises: RunError: the run cannot be done on the engine; nothing has been queued.
        """
        ...

    def ready(self, request: Request) -> None:
        """Checks, before anything else, whether the engine can take the run.

        Raises: RunError: the engine cannot be reached from here, or already has the run.
        """
        ...

    def submit(self, request: Request) -> Sequence[str]:
        """Queues the run; returns lines to show the user.

        Raises: RunError: it was not queued, not even in part.
        """
        ...

    def submit_all(self, strands: Sequence[Strand]) -> Sequence[str]:
        """Queues several runs, each after those that it waits for; returns lines to show the user.

        Raises: RunError: none was queued.
        """
        ...


def folder_name(plan: Plan) -> str:
    """The name of the run folder of a plan's recipe, below `runs`."""
    return f"{plan.recipe}_miniature" if plan.miniature else plan.recipe
