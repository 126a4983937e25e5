"""The published JSON Schema of plans, and reading plans against it."""

import json
from pathlib import Path
from typing import Any

from .plan import VERSION, Plan


class PlanError(Exception):
    """A file that is not a plan which this version can run."""

    def __init__(self, message: str, help: str) -> None:
        super().__init__(message)
        self.message, self.help = message, help


def plan_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of the plan format."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"etude-plan-{VERSION}.schema.json",
        **Plan.model_json_schema(mode="serialization"),
    }


def read_plan(path: Path) -> Plan:
    """The plan in a file, checked against the schema.

    Raises: PlanError: with the place in the file and the reason.
    """
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import best_match

    rewrite = "write it anew: etude plan SPEC -o PLAN"
    try:
        data = json.loads(path.read_bytes())
    except OSError as problem:
        reason = (problem.strerror or str(problem)).lower()
        raise PlanError(f"{path} cannot be read: {reason}", "") from None
    except (ValueError, RecursionError) as problem:  # not UTF-8, not JSON, or absurdly large
        raise PlanError(f"{path} is not JSON: {problem}", rewrite) from None
    version = data.get("etude_plan") if isinstance(data, dict) else None
    if type(version) is not int or version != VERSION:
        what = "it has no `etude_plan`" if version is None else f"its format is {version!r}"
        raise PlanError(f"{path} is not a plan of format {VERSION}: {what}", rewrite)
    validator = Draft202012Validator(plan_schema())
    problem = best_match(validator.iter_errors(data))
    if problem is not None:
        place = "".join(
            f"[{part}]" if isinstance(part, int) else f".{part}" for part in problem.absolute_path
        ).lstrip(".")
        reason = problem.message if len(problem.message) < 200 else problem.message[:200] + "…"
        raise PlanError(f"{path} is not a valid plan: {place or 'the top'}: {reason}", rewrite)
    plan = Plan.model_validate(data)
    keys: set[str] = set()
    for job in plan.jobs:
        missing = [key for key in job.inputs.values() if key not in keys]
        if missing:
            raise PlanError(
                f"{path}: the job {job.id} needs {missing[0][:12]}, which no job before it makes",
                rewrite,
            )
        keys.add(job.key)
    return plan
