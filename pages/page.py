"""The page of a plan: a pure function of the plan and its source texts."""

import json
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..compiler.as_written import at_most
from ..compiler.plan.describe import described
from ..compiler.plan.plan import Plan, Provenance
from ..spec.quantity import measured, short
from .graph import gates, graph
from .memory import memory
from .series import schedules
from .text import highlighted
from .variants import compared

_HERE = Path(__file__).parent
KINDS = ("cited", "assumed", "without a source", "default of etude")
"""Kinds of sources that a spec can give for a value."""


def page(
    plan: Plan,
    texts: dict[str, str],
    variants: Mapping[str, Plan] | None = None,
    home: str | None = None,
) -> str:
    """The complete HTML page, including styles, scripts and data; it loads nothing.

    Args:
        texts: the spec and the files that it uses, by their names in the plan's places, the spec
            first.
        variants: plans of the recipe's variants, which the page shows beside it.
        home: address of the page above this one, for a link back.
    """
    plans = {"recipe": plan, **(variants or {})}
    drawn = graph(plan)
    order = list(dict.fromkeys(job.stage for of in plans.values() for job in of.trained()))
    data = {
        "plans": [{"name": name, **schedules(of)} for name, of in plans.items()],
        "order": order,
        "graph": drawn,
        "memory": memory(plan),
        "rounds": any(node["group"] for node in drawn["nodes"]),
    }
    blocks = {**plan.values, **{name: s.values for name, s in plan.stages.items()}}
    counts = Counter(kind(value) for values in blocks.values() for value in values.values())
    files, others = list(texts), list(described(plan))

    def anchor(value: Provenance) -> str | None:
        """Where the page shows the place of a value."""
        name, _, rest = (value.place or "").partition(":")
        return f"L{files.index(name)}-{rest.split(':')[0]}" if name in files else None

    return render(
        "page.jinja",
        data,
        plan=plan,
        jobs=plan.trained(),
        anchor=anchor,
        at_most=at_most,
        all_rows=[job.rows for job in plan.trained()],
        gates=gates,
        home=home,
        series=data,
        data_memory=data["memory"],
        variants=variants or {},
        blocks=blocks,
        compared=compared(plan, variants or {}),
        kinds=[(each, counts[each]) for each in KINDS],
        specs={name: highlighted(text) for name, text in texts.items()},
        told=defaultdict(str, {each.name: each.what for each in others}),
        pauses=[each for each in others if each.kind == "pause"],
    )


def render(template: str, data: Any, **values: Any) -> str:
    """Renders a template, with data for its scripts."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    def raw(name: str) -> Markup:
        return Markup((_HERE / name).read_text(encoding="utf-8"))

    environment = Environment(
        loader=FileSystemLoader(_HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        short=short,
        big=_big,
        exact=_exact,
        hours=_hours,
        kind=kind,
        share=lambda x: f"{100 * x:.4g}%",
    )
    made = environment.get_template(template)
    return made.render(data=Markup(_script(data)), raw=raw, **values)


def kind(value: Provenance) -> str:
    """The member of `KINDS` that describes a value."""
    if value.cite or value.assumed:
        return "cited" if value.cite else "assumed"
    return "default of etude" if value.origin == "etude" else "without a source"


def _script(data: Any) -> str:
    """JSON that is safe inside a script element: nothing in it closes the element."""
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=True)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _hours(seconds: float | None) -> str:
    return "not known" if seconds is None else measured(seconds / 3600, 4)


def _big(number: float | None) -> str:
    """An estimate, rounded to four digits."""
    if number is None:
        return "not known"
    return f"{number:.4g}" if number < 1000 else short(round(number))


def _exact(number: float) -> str:
    """A figure, rounded to six digits, so that two can be compared."""
    for suffix, size in (("T", 1e12), ("B", 1e9), ("M", 1e6)):
        if size <= number < 1000 * size:
            return f"{number / size:.6g}{suffix}"
    return f"{number:,.6g}"
