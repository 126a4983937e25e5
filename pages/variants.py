"""The variants of a recipe: what they share with it, retrain and change."""

from collections.abc import Iterator, Mapping
from math import fsum
from typing import Any

from ..compiler.as_written import at_most
from ..compiler.ids import StageId, rounds
from ..compiler.plan.difference import Difference, difference
from ..compiler.plan.plan import Plan, Provenance


def compared(plan: Plan, variants: Mapping[str, Plan]) -> dict[str, Any]:
    """Compares the plans of variants with that of their recipe.

    Returns:
        stages: name, kind, tokens in the recipe with a prefix `at_most` (None: it has no such
            stage), whether it stands for several rounds, and a cell for each variant: `what`
            happens to it (shared, again, new or gone) and the tokens to train.
        variants: name, changes, and the training needed if the recipe has already run: tokens with
            a prefix `at_most`, steps, gpu_hours and price, the last two None if unknown.
        at_most, tokens, gpu_hours: of the recipe and all variants together, with shared work
            counted once.
        apart: tokens, if each were trained by itself.
    """
    found = {name: difference(plan, of) for name, of in variants.items()}
    stages = {name: stage for of in (plan, *variants.values()) for name, stage in of.stages.items()}
    own = {name: of.tokens for name, of in plan.stages.items()}
    jobs = {job.key: job for of in (plan, *variants.values()) for job in of.trained()}
    hours = [job.cost.gpu_hours for job in jobs.values()]
    return {
        "stages": _folded(
            [
                {
                    "name": name,
                    "kind": stage.kind,
                    "at_most": at_most(stage.rows),
                    "tokens": own.get(name),
                    "cells": [_cell(found[v], name, variants[v]) for v in variants],
                }
                for name, stage in stages.items()
            ]
        ),
        "variants": [
            {
                "name": name,
                "changes": list(_changes(plan, variants[name], of)),
                "at_most": at_most(*_trained_rows(of, variants[name])),
                "tokens": of.tokens,
                "steps": of.steps,
                "gpu_hours": of.gpu_hours,
                "price": of.price,
            }
            for name, of in found.items()
        ],
        "at_most": at_most(*(job.rows for job in jobs.values())),
        "tokens": sum(job.tokens for job in jobs.values()),
        "gpu_hours": None if None in hours else fsum(h for h in hours if h is not None),
        "apart": sum(job.tokens for of in (plan, *variants.values()) for job in of.trained()),
    }


def _trained_rows(of: Difference, variant: Plan) -> list[str]:
    """What the batches count that are trained for a variant."""
    made = {job.job for job in of.jobs if job.what in ("again", "new")}
    return [job.rows for job in variant.trained() if job.id in made]


def _folded(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows, with consecutive rounds whose rows are equal merged: `align.1–4.dpo`."""
    of_round: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for row in rows:
        stage = StageId.parse(row["name"])
        of_round.setdefault((stage.rounds or row["name"], stage.round), []).append(row)
    found: list[tuple[str, list[int], list[dict[str, Any]]]] = []
    for (block, number), own in of_round.items():
        said = [{**row, "name": StageId.parse(row["name"]).own} for row in own]
        if number and found and found[-1][0] == block and found[-1][2] == said:
            found[-1][1].append(number)
        else:
            found.append((block, [number], said))
    return [
        {
            **row,
            "several": len(numbers) > 1,
            "name": f"{block}.{_span(numbers)}.{row['name']}" if numbers[0] else row["name"],
        }
        for block, numbers, said in found
        for row in said
    ]


def _span(numbers: list[int]) -> str:
    return f"{numbers[0]}" if len(numbers) == 1 else f"{numbers[0]}–{numbers[-1]}"


def _cell(of: Difference, stage: str, variant: Plan) -> dict[str, Any]:
    jobs = [job for job in of.jobs if job.stage == stage and not job.conditional]
    made = [job for job in jobs if job.what in ("again", "new")]
    what = "gone" if stage not in variant.stages else made[0].what if made else "shared"
    return {"what": what, "tokens": sum(job.tokens for job in made)}


def _changes(plan: Plan, variant: Plan, of: Difference) -> Iterator[dict[str, Any]]:
    """The values that a variant changes, each once, without those that merely follow in stages that
    inherit them, in models of a published size, or in every round."""
    seen = set()
    before, after = (rounds(each.stages) for each in (plan, variant))
    for block in before:
        if before[block] != after.get(block, 0):
            seen.add(block)
            yield {
                "name": f"{block}.rounds",
                "old": str(before[block]),
                "new": str(after.get(block, 0)),
                "at": None,
            }
    blocks = _blocks(plan)
    for block, now in _blocks(variant).items():
        was = blocks.get(block, now)  # a new block belongs to a new round
        for name in dict.fromkeys([*now, *was]):
            old, new = was.get(name), now.get(name)
            if (old and old.value) == (new and new.value) or _follows(old, new):
                continue
            row = {
                "name": f"{StageId.parse(block).reference}.{name}",
                "old": old and old.value,
                "new": new and new.value,
            }
            if (key := tuple(row.values())) not in seen:
                seen.add(key)
                yield {**row, "at": new}
    if not seen:
        for job in of.jobs:
            for each in job.changed:
                yield {
                    "name": f"{job.job}.{each.name}",
                    "old": each.old,
                    "new": each.new,
                    "at": None,
                }


def _follows(old: Provenance | None, new: Provenance | None) -> bool:
    """Whether a value differs only because the one from which it is derived does."""
    known = [value for value in (old, new) if value]
    return all(value.origin.startswith(("from ", "size ")) for value in known)


def _blocks(plan: Plan) -> dict[str, dict[str, Provenance]]:
    return {**plan.values, **{name: stage.values for name, stage in plan.stages.items()}}
