"""The scaling law of a sweep over sizes or tokens, as tables."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..spec.quantity import measured, short
from .report_tables import Table
from .screen import say

if TYPE_CHECKING:
    from ..compiler.plan.plan import Plan
    from ..runtime.reporting.scaling import Law, Observed, Optimum

SIGNS = {"E": "E", "A": "A", "alpha": "α", "B": "B", "beta": "β"}
BAND = "95% band"
BUDGETS = (1, 10, 100)
"""Multiples of the largest budget of the sweep, in FLOPs, for which the optimum is shown."""


def scaling_law(
    plans: "Sequence[Plan]", found: Sequence[Mapping[str, Any]], budgets: Sequence[float] = ()
) -> Iterator[Table]:
    """Tables of the law that the points of a sweep follow, and of what it says of larger budgets;
    none if neither parameters nor tokens vary enough.

    Args:
        plans: of the points.
        found: what `gather` has found of each.
        budgets: FLOPs for which the optimum is shown besides.
    """
    from ..runtime.reporting.scaling import fitted, varied

    points = [each for plan, of in zip(plans, found, strict=True) for each in _observed(plan, of)]
    if not any(varied(points)):
        return
    try:
        law = fitted(points)
    except ImportError:
        say("a scaling law is fitted with scipy: pip install 'etude[eval]', and run it again")
        return
    if law is None:
        say("too few points for a scaling law: one more than its three or five numbers")
        return
    yield _numbers(law, len(points))
    largest = max(6 * point.parameters * point.tokens for point in points)
    asked = [(f"{times} × the largest", times * largest) for times in BUDGETS]
    asked += [("as asked", flops) for flops in budgets]
    found_best = [(budget, flops, law.best(flops)) for budget, flops in asked]
    rows = [_optimum(budget, flops, best) for budget, flops, best in found_best if best]
    if budgets and not rows:
        say("no optimum: the loss has to fall with both parameters and tokens, which both vary")
    if rows:
        yield Table("Optimum by the law, C = 6 N D", list(rows[0]), rows)


def _observed(plan: "Plan", found: Mapping[str, Any]) -> "Iterator[Observed]":
    """The model of the last stage that pre-trains, which has read the tokens of all of them."""
    from ..compiler.plan.plan import NextToken
    from ..runtime.reporting.scaling import Observed

    jobs = [job for job in plan.trained() if isinstance(job.objective, NextToken)]
    losses = {stage["stage"]: stage.get("loss") for stage in found["stages"]}
    if jobs and (loss := losses.get(str(jobs[-1].stage))) is not None:
        tokens = sum(job.tokens for job in jobs)
        yield Observed(jobs[-1].cost.active_parameters, tokens, loss)


def _numbers(law: "Law", count: int) -> Table:
    terms = [f"{scale} / {of}^{power}" for scale, of, power in (("A", "N", "α"), ("B", "D", "β"))]
    shown = [
        term for term, name in zip(terms, ("alpha", "beta"), strict=True) if name in law.values
    ]
    rows = [
        {
            "number": SIGNS[name],
            "value": value,
            BAND: _to(*(measured(end, 4) for end in law.band(name))),
        }
        for name, value in law.values.items()
    ]
    form = " + ".join(["L = E", *shown])
    title = f"Scaling law {form}, {count} points, off by at most {measured(100 * law.error, 3)}%"
    return Table(title, ["number", "value", BAND], rows)


def _optimum(budget: str, flops: float, best: "Optimum") -> dict[str, Any]:
    return {
        "budget": budget,
        "FLOPs": f"{flops:.3g}",
        "parameters": short(round(best.parameters)),
        f"parameters, {BAND}": _to(*(short(round(end)) for end in best.of_parameters)),
        "tokens": short(round(best.tokens)),
        f"tokens, {BAND}": _to(*(short(round(end)) for end in best.of_tokens)),
        "loss": best.loss,
        f"loss, {BAND}": _to(*(measured(end, 4) for end in best.of_loss)),
    }


def _to(low: str, high: str) -> str:
    return f"{low} to {high}"
