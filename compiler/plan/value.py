"""The base of all values in a plan."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


def later(default: Any, **keywords: Any) -> Any:
    """A field that came later: at its default it is not written, so that plans, and with them keys
    of jobs, are what they were without it."""
    return Field(default=default, exclude_if=lambda value: value == default, **keywords)
