"""All that a report tells of a run: its results, what it cost, its answers, what it is made of."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from math import fsum
from pathlib import Path
from typing import Any

from ...compiler.plan.plan import Plan
from ..run_folder.outcomes import Outcome, outcomes, results
from ..run_folder.ran import in_words
from ..run_folder.store import MANIFEST, Store
from .answers import MOST, answers
from .costs import at_work, costs
from .curves import ROWS, SHOWN, curves
from .results import gather
from .stretches import Stretch

SUMS = 12
"""The files of a result are listed if there are at most so many; shards of large ones are not."""


def story(plan: Plan, store: Store, of: int = 1) -> dict[str, Any]:
    """What a run has done so far.

    Args:
        of: how many runs are told of together, which share the room for curves and answers.

    Returns: what `gather` returns, and
        jobs: `job`, `kind`, `stage`, `state` (finished, started, waiting), `made` (by which other
            run), `starts`, `began` (seconds since 1970) and `seconds` (at work); the last two None
            if this run has not done it.
        costs: see `costs`.
        curves, titles: see `curves`, and the title of each figure in them.
        answers: see `answers`.
        lineage: see `_lineage`.

    Raises: RunError: a result is damaged.
    """
    begun, made = outcomes(plan, store), results(plan, store)
    starts = at_work(plan, store)
    return {
        **gather(plan, store, begun, made),
        "folder": store.name,
        "jobs": _jobs(plan, begun, starts),
        "costs": costs(plan, store, begun, starts),
        "curves": curves(plan, store, begun, starts, 2 * ROWS // (of + 1)),
        "titles": SHOWN,
        "answers": answers(plan, made, MOST // of),
        "lineage": _lineage(plan, store, begun, listed=of == 1),
    }


def _jobs(
    plan: Plan, begun: Mapping[str, Outcome], starts: Sequence[Stretch]
) -> list[dict[str, Any]]:
    found = []
    for job in plan.jobs:
        outcome = begun.get(job.id)
        if outcome is None and (job.extends or plan.aside(job)):
            continue
        own = [each for each in starts if each.job == job.id]
        found.append(
            {
                "job": job.id,
                "kind": job.kind,
                "stage": job.stage,
                "state": outcome.state if outcome else "waiting",
                "made": (outcome and outcome.elsewhere(plan, job.id)) or None,
                "starts": len(own),
                "began": own[0].began if own else None,
                "seconds": fsum(each.ended - each.began for each in own) if own else None,
            }
        )
    return found


def _lineage(
    plan: Plan, store: Store, begun: Mapping[str, Outcome], *, listed: bool
) -> list[dict[str, Any]]:
    """What each finished result is made of and by: `job`, `stage`, `key`, `inputs` (role → job),
    `ran` (hardware, in words), `versions` (of the last start), `bytes`, `files` (name → SHA-256),
    `count` (of files), and `sha256` over the names and checksums of all files.

    Args:
        listed: list the `files` of results that have at most `SUMS`; otherwise of none.
    """
    names = {job.key: job.id for job in plan.jobs}
    found = []
    for job in plan.jobs:
        outcome = begun.get(job.id)
        if outcome is None or outcome.state != "finished":
            continue
        manifest = _manifest(store.folder / "artifacts" / outcome.key / MANIFEST)
        files = manifest.get("files", {})
        starts = manifest.get("ran", [])
        sums = "".join(f"{files[name]['sha256']}  {name}\n" for name in sorted(files))
        found.append(
            {
                "job": job.id,
                "stage": job.stage,
                "key": outcome.key,
                "inputs": {role: names[key] for role, key in job.inputs.items()},
                "ran": [in_words(each) for each in starts],
                "versions": starts[-1]["versions"] if starts else {},
                "bytes": sum(entry["bytes"] for entry in files.values()),
                "count": len(files),
                "files": {name: entry["sha256"] for name, entry in files.items()}
                if listed and len(files) <= SUMS
                else {},
                "sha256": hashlib.sha256(sums.encode()).hexdigest() if files else None,
            }
        )
    return found


def _manifest(path: Path) -> dict[str, Any]:
    """The manifest of an artifact; {} if it cannot be read, as that of a version without one."""
    try:
        found = json.loads(path.read_bytes())
        for name, entry in found["files"].items():
            _ = entry["bytes"] + 0, entry["sha256"] + "", name.encode(), entry["sha256"].encode()
        for start in found.get("ran", []):
            _ = in_words(start), dict(start["versions"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}
    return found
