"""The base of all values in a plan."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


def later(default: Any, **keywords: Any) -> Any:
    """A field that was added later: at its default it is not written, so existing plans, and with
    them the keys of jobs, do not change."""
    return Field(default=default, exclude_if=lambda value: value == default, **keywords)
