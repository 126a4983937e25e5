"""Counts what tokenizing has made of the data that a stage reads for some epochs."""

import json
from pathlib import Path

from ...compiler.plan.plan import Plan
from ...compiler.plan.summary import Count
from ..data.order.packing import Packing
from ..data.records import shards as record_shards
from ..data.records.shards import Records
from ..data.tokens import shards
from ..errors import RunError
from ..run_folder.outcomes import outcomes
from ..run_folder.store import Store

Counted = list[tuple[Count, list[int]]]
"""A count of a plan, and its numbers as the data have them."""


def count(plan: Plan, store: Store) -> Counted:
    """The counts of a plan whose data are there, with their numbers.

    Raises: DataError, RunError: an artifact cannot be read.
    """
    names = {job.key: job.id for job in plan.jobs}
    done = outcomes(plan, store)
    found = []
    for each in plan.counts:
        made = done.get(names[each.job])
        if made is None or made.state != "finished":
            continue
        # Rows are packed from the lengths of all records; of the rest the summary is enough.
        files = None if each.unit == "rows" else (shards.SUMMARY, record_shards.SUMMARY)
        folder = store.fetch(made.key, only=files) if files else store.fetch(made.key)
        if folder:
            found.append((each, _numbers(each, folder)))
    return found


def _numbers(of: Count, folder: Path) -> list[int]:
    if of.unit == "rows":
        packed = Packing(
            Records(folder, "train"), seed=of.seed, name=of.dataset, seq_len=of.seq_len
        )
        return [packed.rows(epoch) for epoch in range(len(of.numbers))]
    name = shards.SUMMARY if of.unit == "tokens" else record_shards.SUMMARY
    part = json.loads((folder / name).read_text(encoding="utf-8"))["splits"]["train"]
    return [part["tokens" if of.unit == "tokens" else "documents"]]


def require_exact(plan: Plan) -> None:
    """Raises: RunError: a length of the plan is an estimate."""
    for each in plan.counts:
        if not each.exact:
            raise RunError(
                f"the length of `{each.stage}` is an estimate: nobody has counted the {each.unit} "
                f"of `{each.dataset}`",
                "`etude prepare SPEC` tokenizes and counts; then plan again. `etude run SPEC` on "
                "one machine does both by itself",
            )


def require_counted(plan: Plan, store: Store) -> None:
    """Compares the counts of a plan with the data that are there.

    Raises: RunError: they differ.
    """
    for each, numbers in count(plan, store):
        if numbers != each.numbers:
            said, here = (", ".join(f"{n:,}" for n in own) for own in (each.numbers, numbers))
            raise RunError(
                f"the plan is for data that are others now: `{each.dataset}` has {here} "
                f"{each.unit} for `{each.stage}`, and the plan says {said}",
                "run the spec, which counts and plans again; or `etude prepare SPEC`, and plan it "
                "again",
            )
