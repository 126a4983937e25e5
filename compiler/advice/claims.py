"""Advice on claims that are weaker than they look."""

from collections.abc import Iterator
from fractions import Fraction

from ..claims.claims import shown
from ..program import Claimed, Scheduled
from . import Found, rule

WIDE = Fraction(15, 100)
"""A tolerance above this needs a reason."""


@rule("W671", stages=None)
def wide_tolerance(program: Scheduled) -> Iterator[Found]:
    for claimed in program.recipe.expectations:
        if claimed.tolerance > WIDE and not (claimed.because or claimed.contradicted):
            yield Found(
                f"`{shown(claimed)}` has a tolerance of {float(claimed.tolerance):.3g} without a "
                "reason",
                claimed.at("within"),
                'say what the estimate leaves out: within 30% because "…"',
            )


@rule("W672", stages=None)
def contradiction_that_is_none(program: Claimed) -> Iterator[Found]:
    held = {claim.what for claim in program.claims if claim.holds}
    for claimed in program.recipe.expectations:
        if claimed.contradicted and shown(claimed) in held:
            yield Found(
                f"`{shown(claimed)}` holds in this plan, although it is marked as contradicted",
                claimed.at("reason"),
                "remove `contradicted`",
            )
