"""Gangs: a run is a row of phases, each done by processes that stay up from job to job."""

import gc
import os
from pathlib import Path

from ..compiler.as_written import amount
from ..compiler.plan.plan import Plan
from ..compiler.plan.plan_schema import read_plan
from .errors import RunError
from .launchers import LAUNCHERS
from .launchers.launcher import Launcher, Phase
from .preflight.preflight import require_all
from .run_folder.recorder import OnEvent
from .run_folder.store import Store, disk
from .scheduler import Scheduler


def execute(
    plan: Plan,
    folder: Path,
    root: Path,
    on_event: OnEvent,
    *,
    prepare: bool = False,
    launcher: str = "local",
) -> None:
    """Runs a plan, or what is left of it, in a run folder.

    Args:
        root: the folder of the spec, where relative paths of data start.
        prepare: make the data that need no model, and train nothing.
        launcher: the engine that phases are started on, a name of `LAUNCHERS`.

    Raises: RunError, Stopped.
    """
    _require_claims(plan)
    engine = LAUNCHERS[launcher]()
    if not prepare:
        engine.ready(plan)
    gc.enable()
    # OpenMP's threads spin while they wait: beside other work on the machine that makes training
    # several times slower. It has to be said before torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    store = Store(folder)
    require_all(plan, store, root, on_event, prepare=prepare)
    if words := store.create():
        on_event({"event": "note", "message": words})
    with store.lease(lambda words: on_event({"event": "note", "message": words})):
        path = folder / "plan.json"
        with disk(path):
            path.write_text(plan.to_json() + "\n")
        if prepare:
            Scheduler(read_plan(path), store, root, prepare=True, on_event=on_event).run()
        else:
            _walk(read_plan(path), engine, store, root, on_event)


def require_runnable(plan: Plan, store: Store, root: Path, on_event: OnEvent) -> None:
    """Looks at everything that can be known before a run is handed to somebody else.

    Raises: RunError, Unready: the plan is not what it claims, or something that it needs lacks.
    """
    _require_claims(plan)
    require_all(plan, store, root, on_event)


def _require_claims(plan: Plan) -> None:
    """Raises: RunError: the plan is not what its recipe claims to be."""
    failed = [claim for claim in plan.claims if not claim.holds and claim.contradicted is None]
    if failed:
        first = failed[0]
        more = f", and {len(failed) - 1} more" if len(failed) > 1 else ""
        raise RunError(
            f"the recipe claims {amount(first.claimed)} for `{first.what}`, and this plan has "
            f"{amount(first.computed)}{more}; nothing was run",
            "`etude verify` lists the claims: correct the recipe, or the claim in `expect`, and "
            "run again",
        )


def _walk(plan: Plan, launcher: Launcher, store: Store, root: Path, on_event: OnEvent) -> None:
    """Runs a plan to its end, phase after phase.

    Raises: RunError, Stopped.
    """
    phase: Phase | None = Phase(plan, root)
    while phase is not None:
        needs = launcher.start(phase, store, on_event).needs
        phase = needs and Phase(plan, root, needs.world_size, needs.device)
