"""Prints the origins of a plan's values as a table."""

from ..compiler.plan.plan import Plan, Provenance
from ..compiler.plan.sources import in_words
from .screen import say, width
from .tables import Column, Row, show


def table(plan: Plan) -> None:
    """Prints a row per value of each block: as wide as the terminal, or plain text in a pipe."""
    stages = {name: summary.values for name, summary in plan.stages.items()}
    narrow = width() is not None
    sections = [
        [
            # If lines may have any length, each has the full name, so that it can be searched for.
            Row(
                (
                    block,
                    attribute if narrow else f"{block}.{attribute}",
                    value.value,
                    _origin(value),
                    _source(value),
                )[0 if narrow else 1 :]
            )
            for attribute, value in values.items()
        ]
        for block, values in {**plan.values, **stages}.items()
    ]
    columns = [
        Column("block", head=True),
        Column("value"),
        Column("is"),
        Column("comes from"),
        Column("source", below=True),
    ]
    show(columns if narrow else columns[1:], sections)
    if plan.sources:
        say(f"sources: {in_words(plan.sources)}")


def _source(value: Provenance) -> str:
    if value.assumed:
        return f"assumed: {value.assumed}"
    return value.cite or ""


def _origin(value: Provenance) -> str:
    if value.place is None:
        return value.origin
    if value.origin in ("spec", "use", "--set"):
        return value.place if value.origin != "--set" else "--set"
    return f"{value.origin}, {value.place}"
