"""The variants of a recipe beside it: what they share, what they train anew, what they change."""

import re
from collections.abc import Iterator, Mapping
from math import fsum
from typing import Any

from ..compiler.difference import Difference, difference
from ..compiler.plan import Plan, Provenance
from .series import trained

ROUND = re.compile(r"\.\d+(?=\.)")
"""The number of a round, in the name of one of its stages."""


def compared(plan: Plan, variants: Mapping[str, Plan]) -> dict[str, Any]:
    """The plans of variants against that of their recipe.

    Returns:
        stages: name, kind, tokens in the recipe (None: it has no such stage), and a cell for each
            variant: `what` becomes of it (shared, again, new or gone) and the tokens to train.
        variants: name, changes, and what is trained for it when the recipe is there already:
            tokens, steps, gpu_hours and price, the last two None where they are not known.
        tokens, gpu_hours: of the recipe and all variants together, what they share counted once.
        apart: tokens, if each were trained by itself.
    """
    found = {name: difference(plan, of) for name, of in variants.items()}
    kinds = {
        name: stage.kind for of in (plan, *variants.values()) for name, stage in of.stages.items()
    }
    own = {name: of.tokens for name, of in plan.stages.items()}
    jobs = {job.key: job for of in (plan, *variants.values()) for job in trained(of)}
    hours = [job.cost.gpu_hours for job in jobs.values()]
    return {
        "stages": [
            {"name": name, "kind": kind, "tokens": own.get(name),
             "cells": [_cell(found[v], name, variants[v]) for v in variants]}
            for name, kind in kinds.items()
        ],
        "variants": [
            {"name": name, "changes": list(_changes(plan, variants[name], of)),
             "tokens": of.tokens, "steps": of.steps, "gpu_hours": of.gpu_hours, "price": of.price}
            for name, of in found.items()
        ],
        "tokens": sum(job.tokens for job in jobs.values()),
        "gpu_hours": None if None in hours else fsum(h for h in hours if h is not None),
        "apart": sum(job.tokens for of in (plan, *variants.values()) for job in trained(of)),
    }  # fmt: skip


def _cell(of: Difference, stage: str, variant: Plan) -> dict[str, Any]:
    jobs = [job for job in of.jobs if job.stage == stage and not job.conditional]
    made = [job for job in jobs if job.what in ("again", "new")]
    what = "gone" if stage not in variant.stages else made[0].what if made else "shared"
    return {"what": what, "tokens": sum(job.tokens for job in made)}


def _changes(plan: Plan, variant: Plan, of: Difference) -> Iterator[dict[str, Any]]:
    """The values that a variant changes, each once: not what follows from them in stages that
    inherit, in models of a published size, and in every round."""
    seen = set()
    before, after = (_values(each) for each in (plan, variant))
    for name in dict.fromkeys([*after, *before]):
        old, new = before.get(name), after.get(name)
        if (old and old.value) == (new and new.value) or _follows(old, new):
            continue
        row = {"name": ROUND.sub("", name), "old": old and old.value, "new": new and new.value}
        if (key := tuple(row.values())) not in seen:
            seen.add(key)
            yield {**row, "at": new}
    if not seen:
        for job in of.jobs:
            for each in job.changed:
                yield {"name": f"{job.job}.{each.name}", "old": each.old, "new": each.new,
                       "at": None}  # fmt: skip


def _follows(old: Provenance | None, new: Provenance | None) -> bool:
    """Whether a value is another one only because what it is taken from is."""
    known = [value for value in (old, new) if value]
    return all(value.origin.startswith(("from ", "size ")) for value in known)


def _values(plan: Plan) -> dict[str, Provenance]:
    blocks = {**plan.values, **{name: of.values for name, of in plan.stages.items()}}
    return {
        f"{block}.{name}": value
        for block, values in blocks.items()
        for name, value in values.items()
    }
