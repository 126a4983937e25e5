"""The published JSON Schema of plans, and reading plans against it."""

import json
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ..families import FAMILIES
from .plan import VERSION, Plan


class PlanError(Exception):
    """A file is not a plan that this version can run."""

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
    rewrite = "write it again: etude plan SPEC -o PLAN"
    try:
        data = json.loads(path.read_bytes())
    except OSError as problem:
        reason = (problem.strerror or str(problem)).lower()
        raise PlanError(f"{path} cannot be read: {reason}", "") from None
    except (ValueError, RecursionError) as problem:  # not UTF-8, not JSON, or absurdly large
        raise PlanError(f"{path} is not JSON: {problem}", rewrite) from None
    version = data.get("etude_plan") if isinstance(data, dict) else None
    if type(version) is int and version > VERSION:
        raise PlanError(
            f"{path} is a plan of a later version of etude, in format {version}; this version "
            f"reads format {VERSION}",
            "update etude, or write the plan again with this version: etude plan SPEC -o PLAN",
        )
    if type(version) is not int or version != VERSION:
        what = "it has no `etude_plan`" if version is None else f"its format is {version!r}"
        raise PlanError(f"{path} is not a plan in format {VERSION}: {what}", rewrite)
    problem = _problem(data)
    if problem is not None:
        raise PlanError(f"{path} is not a valid plan: {problem}", rewrite)
    try:
        plan = Plan.model_validate(data)
    except ValidationError as problem:  # a number that the schema allows and Python's int does not
        first = problem.errors()[0]
        reason = f"{_path(list(first['loc']))}: {first['msg']}"
        raise PlanError(f"{path} is not a valid plan: {reason}", rewrite) from None
    keys: set[str] = set()
    for job in plan.jobs:
        family = getattr(getattr(job, "model", None), "family", None)
        if family is not None and family not in FAMILIES:
            raise PlanError(
                f"{path}: the job {job.id} has a model of the family `{family}`, but this "
                f"version of etude has {', '.join(FAMILIES)}",
                rewrite,
            )
        missing = [key for key in job.inputs.values() if key not in keys]
        if missing:
            raise PlanError(
                f"{path}: the job {job.id} needs {missing[0][:12]}, which no job before it makes",
                rewrite,
            )
        keys.add(job.key)
    return plan


def is_newer(path: Path) -> bool:
    """Whether a file is a plan in the format of a later version of etude."""
    try:
        version = json.loads(path.read_bytes())["etude_plan"]
    except (OSError, ValueError, RecursionError, KeyError, TypeError):
        return False
    return type(version) is int and version > VERSION


def _problem(data: Any) -> str | None:
    """Where and why the data violates the schema most clearly."""
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import best_match

    schema = plan_schema()
    found = best_match(Draft202012Validator(schema).iter_errors(data))
    place: list[str | int] = []
    while found is not None:
        place += found.absolute_path
        choice = found.schema.get("discriminator") if isinstance(found.schema, dict) else None
        if not choice or not isinstance(found.instance, dict):
            break
        # Only the alternative that the value claims to be can tell what is wrong.
        name = choice["propertyName"]
        definition = choice["mapping"].get(str(found.instance.get(name)))
        if definition is None:
            place.append(name)
            return f"{_path(place)}: this is none of {', '.join(choice['mapping'])}"
        own = {"$ref": definition, "$defs": schema["$defs"]}
        found = best_match(Draft202012Validator(own).iter_errors(found.instance))
    if found is None:
        return None
    reason = found.message if len(found.message) < 200 else found.message[:200] + "…"
    return f"{_path(place)}: {reason}"


def _path(place: list[str | int]) -> str:
    return (
        "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in place).lstrip(".") or "the top"
    )
