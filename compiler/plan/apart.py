"""Plans that share jobs, cut into parts that machines may do at the same time.

The jobs that the same plans need are one part, which is made once. A job's inputs are needed by all
plans that need the job, and perhaps by more, so parts of more plans come first. No two parts make
the same job.
"""

from collections.abc import Mapping
from typing import NamedTuple

from .part import cut
from .plan import Part, Plan


class Strand(NamedTuple):
    """A part of one of several plans.

    Attributes:
        name: of the plan, or one of its own, under which it runs, as a variant.
        after: the strands whose results it begins with.
    """

    name: str
    plan: Plan
    after: tuple[str, ...]


def strands(plans: Mapping[str, Plan], shared: str) -> list[Strand]:
    """The parts of plans of one recipe, in an order in which they can run; those without a job are
    left out.

    Args:
        plans: variant → plan, with the same tokenizers, data and seeds where they share keys; "" is
            the recipe itself, whose part has the recipe's name.
        shared: the name of the first part that several plans need; further ones have a number. It
            and the recipe's name are made longer where a variant has them.
    """
    needed: dict[str, list[str]] = {}
    for name, plan in plans.items():
        for key in {job.key: None for job in plan.jobs}:
            needed.setdefault(key, []).append(name)
    taken = set(plans)

    def free(name: str) -> str:
        while name in taken:
            name += "_"
        taken.add(name)
        return name

    maker: dict[str, str] = {}
    found: list[Strand] = []
    # The sort is stable: parts of as many plans stay in the order of the plans.
    groups = dict.fromkeys(tuple(names) for names in needed.values())
    for names in sorted(groups, key=len, reverse=True):
        first, *others = names
        plan = plans[first]
        chosen = {job.id for job in plan.jobs if tuple(needed[job.key]) == names}
        if others:
            variant = name = free(f"{shared}_{len(found) + 1}" if found else shared)
        else:
            variant, name = first, first or free(plan.recipe)
        strand = _strand(name, plan, variant, chosen, maker)
        if strand.plan.phases:
            found.append(strand)
    return found


def _strand(name: str, plan: Plan, variant: str, chosen: set[str], maker: dict[str, str]) -> Strand:
    """A strand that makes the chosen jobs, which is noted in `maker`: key → strand."""
    asked = Part(until=None, only=None, since=None, aside=[], left_out={}, beside=True)
    part = cut(plan, chosen, asked).model_copy(update={"variant": variant or None})
    keys = {job.id: job.key for job in part.jobs}
    assert part.part
    after = dict.fromkeys(maker[keys[job]] for job in part.part.aside)
    maker |= dict.fromkeys((keys[job] for job in chosen), name)
    return Strand(name, part, tuple(after))
