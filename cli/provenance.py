"""Where every value of a plan came from, as a table."""

import sys

from ..compiler.plan import Plan, Provenance
from ..compiler.sources import in_words
from .common import colors


def table(plan: Plan) -> None:
    """A row for each value of each block: a table on a terminal, plain text in a pipe."""
    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    terminal = sys.stdout.isatty()
    console = Console(
        width=None if terminal else 200,
        color_system="auto" if colors(sys.stdout) else None,
        highlight=False,
        emoji=False,
    )
    shown = Table(box=box.SIMPLE_HEAD if terminal else box.ASCII2, pad_edge=False)
    for name in ("value", "is", "comes from", "source"):
        shown.add_column(name, overflow="fold")
    stages = {name: summary.values for name, summary in plan.stages.items()}
    for block, values in {**plan.values, **stages}.items():
        for attribute, value in values.items():
            row = (f"{block}.{attribute}", value.value, _origin(value), _source(value))
            shown.add_row(*map(escape, row))
        shown.add_section()
    console.print(shown)
    if plan.sources:
        console.print(f"sources: {in_words(plan.sources)}")


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
