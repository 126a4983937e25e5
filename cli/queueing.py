"""What is asked of an engine that queues runs, and what is checked before."""

import sys
from argparse import Namespace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from .screen import say

if TYPE_CHECKING:
    from ..compiler.plan.plan import Plan
    from ..runtime.launchers.engine import Engine, Request

ENGINES = {
    "slurm": ("slurm", "Slurm"),
    "kubernetes": ("remote", "Kubernetes"),
    "skypilot": ("remote", "Skypilot"),
}
"""The module and the class of each engine, in `runtime/launchers`."""


def engine_of(name: str) -> "Engine":
    """The engine of a name in `ENGINES`."""
    module, of = ENGINES[name]
    return getattr(import_module(f"..runtime.launchers.{module}", __package__), of)()


def requested(engine: "Engine", plan: "Plan", args: Namespace, site: Path | None) -> "Request":
    """What an engine is asked to run, in the folder that was named or the engine's own.

    Raises: RunError: the folder cannot be used, or the site file is wrong.
    """
    from ..runtime.launchers.engine import folder_name

    if args.folder and "://" in args.folder:
        return _in_store(engine, plan, args, site)
    folder = Path(args.folder) if args.folder else engine.folder(folder_name(plan), site)
    return _request(plan, _own_folder(plan, folder, args), args, site)


def _own_folder(plan: "Plan", folder: Path, args: Namespace) -> Path:
    """The run folder of a plan's variant; created if the run is submitted."""
    from ..runtime.run_folder.homes import VARIANTS
    from ..runtime.run_folder.variant_folders import variant_folder

    if not plan.variant:
        return folder
    return variant_folder(folder, plan.variant) if args.submit else folder / VARIANTS / plan.variant


def _request(
    plan: "Plan", folder: Path, args: Namespace, site: Path | None, url: str = ""
) -> "Request":
    from ..runtime.launchers.engine import Request

    return Request(plan, folder.resolve(), Path(args.file).parent.resolve(), site, url)


def _in_store(engine: "Engine", plan: "Plan", args: Namespace, site: Path | None) -> "Request":
    """The request of a run whose folder is in a store, with a local folder that shows it. To show
    manifests, which do not depend on what is done, the store is not asked.

    Raises: RunError: the URL is not of a store, or the store cannot be reached.
    """
    from ..runtime.run_folder.variant_folders import variant_folder
    from ..runtime.stores import places, views

    url = args.folder.rstrip("/")
    if args.submit or engine.shares_folder:
        views.seen(url)
    folder = places.viewing(url).home
    own = variant_folder(folder, plan.variant) if plan.variant else folder
    return _request(plan, own, args, site, url)


def require_ready(engine: "Engine", request: "Request", told: set[str] | None = None) -> None:
    """Checks everything that can be known before a run is queued; shows warnings.

    Args:
        told: the warnings that were shown, of which none is shown again.

    Raises: RunError
    """
    from ..runtime.gang import require_runnable
    from ..runtime.run_folder.store import Store

    shown = set() if told is None else told

    def tell(event: dict) -> None:
        if event["event"] == "warning" and event["message"] not in shown:
            shown.add(event["message"])
            say(f"warning: {event['message']}", rest="  ", to=sys.stderr)

    engine.ready(request)
    store = Store(request.folder)
    elsewhere = not (engine.shares_folder or request.url)
    require_runnable(request.plan, store, request.root, tell, elsewhere=elsewhere)
