"""The table of the origins of a plan's values."""

from ..compiler.plan.plan import Plan, Provenance
from ..compiler.plan.sources import in_words
from .screen import say, width
from .tables import Column, Row, show


def table(plan: Plan) -> None:
    """A row for each value of each block: as wide as a terminal, plain text in a pipe."""
    stages = {name: summary.values for name, summary in plan.stages.items()}
    narrow = width() is not None
    sections = [
        [
            # Where lines may have any length, each says the whole name, for who searches them.
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
