"""`etude clean`: lists and removes what a run folder no longer needs."""

import json
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from .common import open_run, problem
from .screen import clean, say
from .tables import Column, Row, show

if TYPE_CHECKING:
    from ..runtime.run_folder.cleaning import Item

KINDS = ("artifacts", "work", "checkpoints", "cache")
SHOWN = 40
"""How many items are listed; the largest ones if there are more."""


def arguments(parser: ArgumentParser) -> None:
    """Adds the arguments of `etude clean` to its parser."""
    parser.add_argument("folder", metavar="RUN", help="the run folder")
    parser.add_argument(
        "--keep",
        action="append",
        choices=KINDS,
        default=[],
        help="a kind to keep; may be repeated",
    )
    parser.add_argument(
        "--profiles", action="store_true", help="also what torchtitan's profiler has recorded"
    )
    parser.add_argument("--yes", action="store_true", help="remove without asking")
    parser.add_argument("--json", action="store_true", help="as JSON")


def run(args: Namespace) -> int:
    from ..runtime.errors import RunError

    if open_run(args.folder) is None:
        return 1
    from ..runtime.stores.views import skeleton

    stored = "://" in args.folder
    try:
        with skeleton(args.folder) if stored else nullcontext(Path(args.folder)) as folder:
            return _clean(folder, args)
    except RunError as reason:
        problem(reason.message, reason.help)
        return reason.exit_code


def _clean(folder: Path, args: Namespace) -> int:
    """Shows what can be removed from a run folder, and removes it if the user confirms.

    Raises: RunError.
    """
    from ..runtime.run_folder.cleaning import removable, remove
    from ..runtime.run_folder.store import Store

    kinds = [kind for kind in KINDS if kind not in args.keep] + ["profiles"] * args.profiles
    _require_idle(folder, args.folder)
    items = removable(folder, kinds)
    if not args.json:
        _show(items, args.folder)
    sure = args.yes or (bool(items) and not args.json and _confirmed(items))
    if sure and items:
        with Store(folder).lease():
            # Another run may have started and ended since, so what it needs is kept.
            seen = {item.path for item in items}
            items = [item for item in removable(folder, kinds) if item.path in seen]
            remove(folder, items)
    if args.json:
        print(json.dumps(_as_json(items, removed=sure), indent=2))
    elif sure and items:
        print(f"removed: {_size(sum(item.bytes for item in items))} freed")
    return 0


def _require_idle(folder: Path, name: str) -> None:
    """Raises: RunError: a run is using the folder, or will."""
    from ..runtime.errors import RunError
    from ..runtime.launchers.launched import at_work
    from ..runtime.launchers.record import load
    from ..runtime.run_folder.homes import owner_of
    from ..runtime.run_folder.progress import is_dead
    from ..runtime.run_folder.variant_folders import runs

    mine = {folder, *runs(folder).values()}
    for holder in filter(None, map(owner_of, mine)):
        if not is_dead(holder):
            raise RunError(
                f"a run is using {name}: process {holder.process} on {holder.host}, since "
                f"{holder.since}",
                f"wait for it, or stop it: etude cancel {name}",
            )
    for each in mine:
        launch = load(each)
        if launch is not None and at_work(launch):
            raise RunError(
                f"the run in {each} is queued on {launch.engine}",
                f"wait for it, or cancel it: etude cancel {each}",
            )


def _confirmed(items: "Sequence[Item]") -> bool:
    """Whether the user confirms; without a terminal nobody can, which is reported."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        print("nothing was removed: --yes removes it")
        return False
    from rich.prompt import Confirm

    return Confirm.ask(f"remove all {len(items)}?", default=False)


def _show(items: "Sequence[Item]", folder: str) -> None:
    if not items:
        print(f"{folder} has nothing to remove")
        return
    largest = sorted(items, key=lambda item: -item.bytes)[:SHOWN]
    rows = [
        Row((item.kind, clean(item.job or item.path.name[:12]), _size(item.bytes), clean(item.why)))
        for item in largest
    ]
    show([Column("what"), Column("of"), Column("size", right=True), Column("why")], [rows])
    if len(items) > SHOWN:
        say(f"and {len(items) - SHOWN} smaller ones: --json lists all", rest="  ")
    parts = []
    for kind in (*KINDS, "profiles"):
        own = [item.bytes for item in items if item.kind == kind]
        if own:
            parts.append(f"{kind} {_size(sum(own))}")
    say(
        f"{_size(sum(item.bytes for item in items))} can be removed: {', '.join(parts)}",
        rest="  ",
    )


def _as_json(items: "Sequence[Item]", *, removed: bool) -> dict[str, object]:
    return {
        "removed": removed and bool(items),
        "bytes": sum(item.bytes for item in items),
        "items": [
            {
                "kind": item.kind,
                "path": str(item.path),
                "job": item.job or None,
                "why": item.why,
                "bytes": item.bytes,
            }
            for item in items
        ],
    }


def _size(count: float) -> str:
    """A readable size."""
    if count < 1024:
        return f"{count:.0f} B"
    for unit in ("KiB", "MiB", "GiB"):
        count /= 1024
        if count < 1024:
            return f"{count:.1f} {unit}"
    return f"{count / 1024:.1f} TiB"
