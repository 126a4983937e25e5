"""`etude plan --html`: the plan as one HTML page."""

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from ..compiler.plan.plan import Plan
from .common import compile_file, problem, remark, show
from .files import write_over

ALONE = ("json", "provenance", "why", "deep", "emit", "against")
"""Options that show something other than the plan's table, which the page replaces."""


def refused(args: Namespace) -> bool:
    """Whether an option was given that excludes a page; reports it."""
    for option in ALONE:
        if getattr(args, option):
            problem(
                f"--{option} cannot be combined with --html",
                f"run it twice: once with --html for the page, once with --{option}",
            )
            return True
    page = Path(args.html)
    if page.is_dir():
        problem(f"{page} is a folder", f"name a file, such as {page / 'plan.html'}")
        return True
    others = [Path(args.file), *([Path(args.output)] if args.output else [])]
    if any(page.resolve() == other.resolve() for other in others):
        problem(f"{page} would be overwritten by its own page", "name another file after --html")
        return True
    return False


def write(plan: Plan, args: Namespace) -> int:
    """Writes the page of a plan and of its variants; returns the exit code."""
    from ..pages.page import page

    found = variants(
        plan,
        args.file,
        ranks=args.ranks,
        sets=args.set,
        miniature=args.miniature,
    )
    if found is None:
        return 1
    text = page(plan, texts(Path(args.file), plan, *found.values()), found)
    try:
        write_over(args.html, text)
    except OSError as reason:
        problem(f"{args.html} cannot be written: {(reason.strerror or '').lower()}")
        return 1
    remark(f"wrote {args.html}")
    return 0


def variants(
    plan: Plan,
    spec: str,
    *,
    ranks: int | None = None,
    sets: Sequence[str] = (),
    miniature: bool = False,
) -> dict[str, Plan] | None:
    """The plans of a recipe's variants, under the same options; None after reporting an error in
    one. A variant itself has none."""
    found: dict[str, Plan] = {}
    for name in plan.variants if plan.variant is None else ():
        made, report = compile_file(spec, ranks, variant=name, sets=sets, miniature=miniature)
        if made is None:
            show(report)
            problem(
                f"the variant `{name}` cannot be planned, so the page is not written",
                f"fix it: `etude check {spec} --variant {name}` shows this, too",
            )
            return None
        found[name] = made
    return found


def texts(spec: Path, *plans: Plan) -> dict[str, str]:
    """The spec and the files that values of plans come from, by the names that their places use."""
    named = [
        values
        for plan in plans
        for values in (*plan.values.values(), *(stage.values for stage in plan.stages.values()))
    ]
    places = {value.place for values in named for value in values.values() if value.place}
    names = {spec.name, *(place.split(":")[0] for place in places)}
    found = {}
    for name in sorted(names, key=lambda name: (name != spec.name, name)):
        file = spec.parent / name
        if file.is_file():
            found[name] = file.read_text(encoding="utf-8")
    return found
