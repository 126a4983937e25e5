"""`etude plan --html`: the plan as one file for people."""

from argparse import Namespace
from pathlib import Path

from ..compiler.plan import Plan
from .common import problem

ALONE = ("json", "provenance", "why", "deep", "emit", "against")
"""Options that show something else than the plan's table, which the page stands for."""


def refused(arguments: Namespace) -> bool:
    """Whether an option was given that a page does not go with; that is said."""
    for option in ALONE:
        if getattr(arguments, option):
            problem(
                f"--{option} does not go with --html",
                f"ask twice: once with --html for the page, once with --{option}",
            )
            return True
    page = Path(arguments.html)
    if page.is_dir():
        problem(f"{page} is a folder", f"name a file, such as {page / 'plan.html'}")
        return True
    others = [Path(arguments.file), *([Path(arguments.output)] if arguments.output else [])]
    if any(page.resolve() == other.resolve() for other in others):
        problem(f"{page} would be overwritten by its own page", "name another file after --html")
        return True
    return False


def write(plan: Plan, spec: str, to: str) -> int:
    """Writes the page of a plan; the exit code."""
    from ..pages.page import page

    text = page(plan, texts(plan, Path(spec)))
    try:
        Path(to).write_text(text, encoding="utf-8")
    except OSError as reason:
        problem(f"{to} cannot be written: {(reason.strerror or '').lower()}")
        return 1
    return 0


def texts(plan: Plan, spec: Path) -> dict[str, str]:
    """The spec and the files that the plan's values come from, by their names in its places."""
    named = [*plan.values.values(), *(stage.values for stage in plan.stages.values())]
    places = {value.place for values in named for value in values.values() if value.place}
    names = {spec.name, *(place.split(":")[0] for place in places)}
    found = {}
    for name in sorted(names, key=lambda name: (name != spec.name, name)):
        file = spec.parent / name
        if file.is_file():
            found[name] = file.read_text(encoding="utf-8")
    return found
