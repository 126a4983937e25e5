"""The page of a plan: a pure function of the plan and of the texts that it was made of."""

import json
from pathlib import Path
from typing import Any

from ..compiler.plan import DatasetJob, Plan, Provenance
from ..spec.quantity import short
from .graph import gates, graph
from .series import schedules, trained
from .text import highlighted

_HERE = Path(__file__).parent


def page(plan: Plan, texts: dict[str, str]) -> str:
    """The page as HTML, complete: styles, scripts and data are in it; it loads nothing.

    Args:
        texts: the spec and the files that it uses, by their names in the plan's places, the spec
            first.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters.update(short=short, hours=_hours, share=lambda x: f"{100 * x:.4g}%")
    jobs = trained(plan)
    data = {**schedules(plan), "graph": graph(plan), "memory": _memory(plan)}
    files = list(texts)

    def anchor(value: Provenance) -> str | None:
        """Where the page shows a place."""
        name, _, rest = (value.place or "").partition(":")
        return f"L{files.index(name)}-{rest.split(':')[0]}" if name in files else None

    def raw(name: str) -> Markup:
        return Markup((_HERE / name).read_text(encoding="utf-8"))

    return environment.get_template("page.jinja").render(
        plan=plan, jobs=jobs, data=Markup(_script(data)), anchor=anchor, raw=raw, gates=gates,
        series=data, data_memory=data["memory"],
        specs={name: highlighted(text) for name, text in texts.items()},
        blocks={**plan.values, **{name: s.values for name, s in plan.stages.items()}},
        pauses=[j for j in plan.jobs if isinstance(j, DatasetJob) and j.awaited],
    )  # fmt: skip


def _script(data: Any) -> str:
    """JSON that can stand in a script element: nothing in it ends the element."""
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=True)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _memory(plan: Plan) -> list[dict[str, Any]]:
    """Bytes of the fullest GPU, a row for each segment whose device is known."""
    return [
        {"name": job.id, "parts": job.cost.memory, "has": job.cost.gpu_memory}
        for job in trained(plan)
        if job.cost.memory is not None
    ]


def _hours(seconds: float | None) -> str:
    return "not known" if seconds is None else f"{seconds / 3600:,.4g}"
