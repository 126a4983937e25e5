"""The interface of launchers: start a leg of a run, and report how it ended."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ...compiler.plan.plan import Plan
from ...compiler.values import Resources
from ..run_folder.recorder import OnEvent
from ..run_folder.store import Store

WORKER = "etude.runtime.worker"
"""The module that a launcher starts on every rank of a gang."""


@dataclass(frozen=True)
class Leg:
    """A leg of a run: the jobs that one gang does, from the first remaining job to the first that
    needs another number of ranks. A leg's end is only found while running; a plan's phases, in
    contrast, are known beforehand.

    Attributes:
        root: the spec's folder, which relative data paths start from.
        ranks: number of processes in the gang.
        device: "cpu", or each rank's GPU; None: the leg begins with work that needs no device, and
            a job on one rank uses whatever the machine has.
    """

    plan: Plan
    root: Path
    ranks: int = 1
    device: str | None = None

    def worker(self, store: Store) -> list[str]:
        """The command line of one rank, after Python's `-m`."""
        folders = [str(path.resolve()) for path in (store.folder, self.root)]
        return [WORKER, *folders, self.device or "cpu"]


@dataclass(frozen=True)
class Outcome:
    """How a leg without errors ended.

    Attributes:
        needs: what the next job needs; None: the plan is done.
    """

    needs: Resources | None


class Launcher(Protocol):
    """Starts legs on one kind of engine; they share only the run folder."""

    def ready(self, plan: Plan) -> None:
        """Prepares this process before anything starts.

        Raises: RunError: a job needs more than the engine has.
        """
        ...

    def start(self, leg: Leg, store: Store, on_event: OnEvent) -> Outcome:
        """Starts a leg, passes on its events as they come, and waits for its end.

        Raises: RunError, Stopped: the leg ended early.
        """
        ...
