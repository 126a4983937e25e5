"""The page of a report: a pure function of what runs have done, gathered beforehand."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ..compiler.plan.plan import Plan
from ..spec.quantity import measured, short
from .graph import graph
from .page import render

FOLDED = 14
"""A graph with more stages shows rounds as one box each."""


class Told(NamedTuple):
    """A run, as the page shows it.

    Attributes:
        name: which no other run has.
        state: in words.
        story: what `runtime.reporting.story` returns.
        tables: `title`, `columns` ((name, whether of numbers) each) and `rows` of cells
            ((text, whether it is the best) each).
    """

    name: str
    plan: Plan
    state: str
    story: Mapping[str, Any]
    tables: Sequence[Mapping[str, Any]]


def report(
    runs: Sequence[Told], compared: Sequence[Mapping[str, Any]], differences: Mapping[str, str]
) -> str:
    """The complete HTML page, including styles, scripts and data; it loads nothing.

    Args:
        compared: tables with a column for each run, in the form of `Told.tables`; [] for one run.
        differences: name of a further run → how its plan differs from the first's, as lines.
    """
    titles = {name: title for run in runs for name, title in run.story["titles"].items()}
    data = {
        "titles": titles,
        "runs": [{"name": run.name, **run.story["curves"], "graph": _graph(run)} for run in runs],
    }
    return render(
        "report.jinja",
        data,
        runs=runs,
        compared=compared,
        differences=differences,
        totals=_totals,
        lasting=lasting,
        size=_size,
        versions=_versions,
        several=len(runs) > 1,
    )


def lasting(seconds: float | None) -> str:
    """A time span with its unit: `12 s`, `3.4 min`, `2.5 h`; "" if it is unknown."""
    if seconds is None:
        return ""
    for unit, size in (("h", 3600.0), ("min", 60.0)):
        if seconds >= size:
            return f"{measured(seconds / size, 3)} {unit}"
    return f"{measured(seconds, 3)} s"


def _graph(run: Told) -> dict[str, Any]:
    """The graph of the plan's stages, with what has become of each."""
    found = graph(run.plan)
    jobs: dict[str, list[Mapping[str, Any]]] = {}
    for job in run.story["jobs"]:
        jobs.setdefault(str(job["stage"]), []).append(job)
    prices = {row["stage"]: row for row in run.story["costs"]}
    for node in found["nodes"]:
        own = jobs.get(node["id"], [])
        if node["kind"] == "pause" or not own:
            continue
        node["state"] = _state(own)
        took = [job["seconds"] for job in own if job["seconds"] is not None]
        told = [node["state"], lasting(sum(took)) if took else ""]
        price = prices.get(node["id"], {}).get("price")
        told += ["" if price is None else f"price {price:,.0f}"]
        node["lines"] = [*node["lines"], " · ".join(filter(None, told))]
    return {**found, "folded": len(found["nodes"]) > FOLDED}


def _state(jobs: Sequence[Mapping[str, Any]]) -> str:
    states = {job["state"] for job in jobs}
    if states <= {"finished"}:
        return "finished"
    return "waiting" if states <= {"waiting"} else "started"


def _totals(run: Told) -> list[tuple[str, str, str]]:
    """The run in figures: name, what was done, and what was planned; without unknown ones."""
    costs = run.story["costs"]

    def whole(name: str) -> float | None:
        values = [row[name] for row in costs]
        return sum(values) if values and None not in values else None

    shows = {
        "tokens": ("Tokens", lambda value: short(int(value))),
        "steps": ("Steps", lambda value: f"{value:,}"),
        "hours": ("Training", lambda value: lasting(3600 * value)),
        "gpu_hours": ("GPU-hours", lambda value: measured(value, 4)),
        "price": ("Price", lambda value: f"{value:,.0f}"),
    }
    found = []
    for name, (title, show) in shows.items():
        done, planned = whole(name), whole(f"planned_{name}")
        if done is not None:
            found.append((title, show(done), "" if planned is None else show(planned)))
    jobs = run.story["jobs"]
    finished = sum(job["state"] == "finished" for job in jobs)
    return [("Jobs", f"{finished:,}", f"{len(jobs):,}"), *found]


def _versions(run: Told) -> list[str]:
    """The versions that results were made with, each set of them once."""
    found = (each["versions"] for each in run.story["lineage"])
    said = (", ".join(f"{name} {version}" for name, version in each.items()) for each in found)
    return [f"Versions: {each}" for each in dict.fromkeys(said) if each]


def _size(count: int) -> str:
    """Bytes, rounded."""
    for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} B"
