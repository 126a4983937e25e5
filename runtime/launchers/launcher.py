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
    """A leg of a run: the jobs that one gang does, from the first that is left to the first that
    needs another number of ranks. Where it ends is found out on the way, in contrast to a plan's
    phases, which are known beforehand.

    Attributes:
        root: the folder of the spec, where relative paths of data start.
        ranks: processes of the gang.
        device: "cpu", or the GPU that each rank has; None: the leg begins with work that needs
            no device, and a job on one rank takes what is there.
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
    """How a leg ended that no error stopped.

    Attributes:
        needs: what the next job needs; None: the plan is done.
    """

    needs: Resources | None


class Launcher(Protocol):
    """Starts legs on one kind of engine. The run folder is the only state that they share."""

    def ready(self, plan: Plan) -> None:
        """Readies this process before anything is begun.

        Raises: RunError: a job needs more than the engine can give.
        """
        ...

    def start(self, leg: Leg, store: Store, on_event: OnEvent) -> Outcome:
        """Starts a leg, hands its events on as they come, and waits for its end.

        Raises: RunError, Stopped: the leg did not come to its end.
        """
        ...
