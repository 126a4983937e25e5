"""The decision of a gate."""

import operator
from collections.abc import Mapping
from typing import Any

from ...compiler.plan.plan import GateJob
from ..errors import RunError

_OPERATORS = {">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt}


def verdict(job: GateJob, scores: Mapping[str, Any], start: Mapping[str, Any]) -> dict[str, Any]:
    """Whether a gate passes: each requirement with its expected and its measured value.

    Args:
        start: scores at the beginning of the stage, for requirements `of start`.
    """
    results = []
    for requirement in job.requirements:
        wanted = requirement.value
        if requirement.of_start:
            if requirement.measure not in start:
                raise RunError(
                    f"{requirement.measure} was not measured at the beginning of the stage"
                )
            wanted *= start[requirement.measure]["score"]
        score = scores[requirement.measure]["score"]
        results.append(
            {
                "measure": requirement.measure,
                "op": requirement.op,
                "wanted": wanted,
                "score": score,
                "passed": bool(_OPERATORS[requirement.op](score, wanted)),
            }
        )
    return {"passed": all(r["passed"] for r in results), "requirements": results}
