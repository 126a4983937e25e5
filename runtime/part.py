"""The part of a plan that a gang is started for: everything up to the end of one phase."""

from collections.abc import Mapping

from ..compiler.plan.phases import phases
from ..compiler.plan.plan import Plan
from ..compiler.values import Phase
from .errors import RunError

PHASE = "ETUDE_PHASE"
"""The variable with the number of the phase that ranks are started for; if unset, they do as much
as they can."""


def phase_of(plan: Plan, environ: Mapping[str, str]) -> Phase | None:
    """The phase that the environment names, if any.

    Raises: RunError: the plan has no such phase.
    """
    said = environ.get(PHASE)
    if not said:
        return None
    found = phases(plan)
    if not said.isdecimal() or not 0 < int(said) <= len(found):
        raise RunError(
            f"the environment has {PHASE}={said}, but the plan has {len(found)} phases",
            "launch the run again, or unset the variable",
        )
    return found[int(said) - 1]


def up_to(plan: Plan, phase: Phase) -> Plan:
    """The plan without the jobs after a phase."""
    last = next(n for n, job in enumerate(plan.jobs) if job.id == phase.jobs[-1])
    return plan.model_copy(update={"jobs": plan.jobs[: last + 1]})
