"""The published JSON Schema of specs in their JSON form."""

from typing import Any

from .build import Recipe
from .spec.json import json_form as form
from .spec.schema import recipe as r
from .spec.schema.documentation import NOTHING, documentation
from .spec.text.keywords import NAME, RESERVED


def spec_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of a spec with a recipe, described as in the reference."""
    made = Recipe.model_json_schema(mode="validation")
    definitions = made.pop("$defs")
    for name, of in definitions.items():
        _describe(of, getattr(r, name, None))
    _describe(made, r.Header)
    made["required"] = [form.MARK, *made["required"]]
    names = {"pattern": f"^{NAME}$", "not": {"enum": sorted(RESERVED)}}
    for key in ("let", *form.BLOCKS, "stages", "variants"):
        made["properties"][key]["propertyNames"] = names
    definitions["Rounds"]["properties"]["stages"]["propertyNames"] = names
    made["properties"]["name"] |= names
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"etude-spec-{form.VERSION}.schema.json",
        "title": "A spec of etude",
        **made,
        "$defs": definitions,
    }


def _describe(schema: dict[str, Any], model: Any) -> None:
    """Gives attributes the descriptions of the reference instead of pydantic's titles."""
    schema.pop("title", None)
    for name, of in schema.get("properties", {}).items():
        of.pop("title", None)
        if of.get("default", 0) is None:
            del of["default"]
        if name == "kind" and "default" in of:  # it tells alternative models apart
            schema["required"] = [name, *schema.get("required", ())]
        entry = documentation(model, name) if _is_declaration(model) else None
        if entry:
            left_out = entry.default in (NOTHING, "required")
            default = "" if left_out else f"; default: {entry.default}"
            of["description"] = f"{entry.meaning} (takes {entry.value}{default})"


def _is_declaration(model: Any) -> bool:
    return isinstance(model, type) and issubclass(model, r.Declaration)
