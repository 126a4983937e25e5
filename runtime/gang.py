"""Gangs: a run is a sequence of legs, each done by processes that stay up from job to job."""

import gc
import json
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ..compiler.as_written import amount, counted
from ..compiler.plan.part import beside
from ..compiler.plan.phases import ranks_of
from ..compiler.plan.plan import Plan
from ..compiler.plan.plan_schema import is_newer, read_plan
from ..compiler.values import Resources
from .disk import disk, write
from .errors import RunError
from .gathering import bring_log, leading, send_unsent, sending_log
from .launchers import LAUNCHERS
from .launchers.launcher import Launcher, Leg
from .preflight.nodes import require_nodes
from .preflight.preflight import require_all
from .preparation.counting import require_counted, require_exact
from .ranks import Ranks
from .run_folder.recorder import OnEvent
from .run_folder.store import Store
from .run_folder.variant_folders import folder_at
from .scheduler import Scheduler
from .worker import PLAN, keep_log, walk


def execute(
    plan: Plan,
    folder: Path,
    root: Path,
    on_event: OnEvent,
    *,
    prepare: bool = False,
    launcher: str = "local",
) -> None:
    """Runs a plan, or the rest of it, in a run folder.

    Args:
        root: the spec's folder, which relative data paths start from.
        prepare: make only the data that need no model.
        launcher: the engine to start legs on, a name in `LAUNCHERS`.

    Raises: RunError, Stopped.
    """
    _require_claims(plan)
    engine = LAUNCHERS[launcher]()
    if not prepare:
        require_exact(plan)
        engine.ready(plan)
    if plan.counts and not prepare:
        # What a plan counts on has to be there before anything is trained.
        execute(plan, folder, root, _told_once(on_event), prepare=True, launcher=launcher)
        require_counted(plan, Store(folder))
    with _begun(plan, folder, root, on_event, prepare=prepare) as store:
        own = read_plan(folder / PLAN)
        if prepare:
            Scheduler(own, store, root, prepare=True, on_event=on_event).run()
        else:
            _walk(own, engine, store, root, on_event)


def _told_once(on_event: OnEvent) -> OnEvent:
    """Tells what preparing does, and not what is there already: the run says so again."""
    return lambda event: None if event["event"] == "kept" else on_event(event)


def lead(
    plan: Plan, folder: Path, root: Path, on_event: OnEvent, *, ranks: Ranks
) -> Resources | None:
    """Runs a plan, or the rest of it, as rank 0 of an allocation's gang.

    Args: as for `execute`.
        ranks: the gang; its other ranks call `join_in`.

    Returns: what the next job needs and this gang does not have; None at the end of the plan.
    Raises: RunError, Stopped.
    """
    _require_claims(plan)
    require_exact(plan)
    _require_ranks(plan, ranks.world_size)
    with (
        _begun(plan, folder, root, on_event, prepare=False, nodes=True) as store,
        leading(store, ranks),
    ):
        require_counted(plan, store)
        own = read_plan(folder / PLAN)
        start = {
            "folder": store.address,
            "root": str(root.resolve()),
            "device": _device(own),
            "plan": own.to_json(),
        }
        ranks.share("start", zlib.compress(json.dumps(start).encode()))
        # Installed packages were checked earlier: only rank 0 does jobs that need extra ones.
        require_nodes(folder, 0, {}, ranks.share, ranks.collect)
        send_unsent(store, ranks)

        def tell(event: dict[str, Any]) -> None:
            store.tell(event)
            on_event(event)

        return walk(own, store, root, start["device"], ranks, tell)


def join_in(ranks: Ranks) -> None:
    """Does what rank 0 decides, as another rank of an allocation's gang.

    Raises: RunError, Stopped.
    """
    start = json.loads(zlib.decompress(ranks.share("start", None)))
    _ready_process()
    store = Store(folder_at(start["folder"]))
    bring_log(store, ranks.rank)
    keep_log(store, ranks.rank)
    require_nodes(store.folder, ranks.rank, None, ranks.share, ranks.collect)
    plan = Plan.model_validate_json(start["plan"])
    with sending_log(store, ranks):
        send_unsent(store, ranks)
        walk(plan, store, Path(start["root"]), start["device"], ranks, None)


def _ready_process() -> None:
    gc.enable()
    # OpenMP's threads spin while they wait, which makes training several times slower if the
    # machine has other work. This must be set before torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


@contextmanager
def _begun(
    plan: Plan, folder: Path, root: Path, on_event: OnEvent, *, prepare: bool, nodes: bool = False
) -> Iterator[Store]:
    """The run folder with the plan in it, held exclusively.

    Args:
        nodes: as for `Store.lease`.

    Raises: RunError, Stopped.
    """
    _ready_process()
    store = Store(folder)
    store.pull()
    if is_newer(folder / PLAN):
        raise RunError(
            f"the run folder {store.name} was last used by a later version of etude",
            "run it with that version, or choose another folder with --folder",
        )
    require_all(plan, store, root, on_event, prepare=prepare)
    if words := store.create():
        on_event({"event": "note", "message": words})

    def note(words: str) -> None:
        on_event({"event": "note", "message": words})

    with store.lease(note, nodes=nodes, beside=beside(plan)):
        path = folder / PLAN
        with disk(path):
            write(path, plan.to_json() + "\n")
        if store.remote is not None:
            store.remote.record(path)
        with _noting_the_end(store):
            yield store


@contextmanager
def _noting_the_end(store: Store) -> Iterator[None]:
    """Records in the run's events why it stopped, so that `status` can tell from anywhere."""
    try:
        yield
    except RunError as problem:
        end = {"message": problem.message, "help": problem.help, "exit_code": problem.exit_code}
        with suppress(RunError):  # a full disk may be the reason
            store.tell({"event": "error", **end})
        raise


def _device(plan: Plan) -> str:
    """The device that the plan's models train on."""
    return next((mesh.device for mesh in _meshes(plan)), "cpu")


def _meshes(plan: Plan) -> list[Resources]:
    """The meshes of the jobs that all ranks do."""
    return [mesh for mesh in map(ranks_of, plan.jobs) if mesh is not None]


def _require_ranks(plan: Plan, ranks: int) -> None:
    """Raises: RunError: no job of the plan uses this number of ranks."""
    wanted = {mesh.world_size for mesh in _meshes(plan)}
    if wanted and ranks not in wanted:
        needed = " or ".join(counted(each, "ranks") for each in sorted(wanted))
        raise RunError(
            f"the plan is for {needed}, but this allocation has {ranks}",
            f"start it on that many, or plan for these with --ranks {ranks}",
        )


def require_runnable(
    plan: Plan, store: Store, root: Path, on_event: OnEvent, *, elsewhere: bool
) -> None:
    """Checks everything that can be known before a run is handed to another engine.

    Args:
        elsewhere: the run's results are in a place that cannot be read from here.

    Raises: RunError, Unready: the plan contradicts its claims, or something it needs is missing.
    """
    _require_claims(plan)
    # In a store, each node has its own disk.
    require_all(plan, store, root, on_event, elsewhere=elsewhere, disk=store.remote is None)


def _require_claims(plan: Plan) -> None:
    """Raises: RunError: the plan contradicts its recipe's claims."""
    failed = [claim for claim in plan.claims if not claim.holds and claim.contradicted is None]
    if failed:
        first = failed[0]
        more = f", and {len(failed) - 1} more" if len(failed) > 1 else ""
        raise RunError(
            f"the recipe claims {amount(first.claimed)} for `{first.what}`, but this plan has "
            f"{amount(first.computed)}{more}; nothing was run",
            "`etude verify` lists the claims: correct the recipe, or the claim in `expect`, and "
            "run again",
        )


def _walk(plan: Plan, launcher: Launcher, store: Store, root: Path, on_event: OnEvent) -> None:
    """Runs a plan to its end, one leg after another.

    Raises: RunError, Stopped.
    """
    leg: Leg | None = Leg(plan, root)
    while leg is not None:
        needs = launcher.start(leg, store, on_event).needs
        leg = needs and Leg(plan, root, needs.world_size, needs.device)
