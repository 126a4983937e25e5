"""`etude plan`: what would run."""

from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from .common import compile_file, findings, problem, show

if TYPE_CHECKING:
    from ..compiler.plan import Plan


def run(arguments: Namespace) -> int:
    if arguments.miniature:
        from .miniature import refused

        if refused(arguments):
            return 2
    if arguments.html:
        from .plan_page import refused as misused

        if misused(arguments):
            return 2
    if arguments.why:
        from .why import run as why

        return why(arguments)
    if arguments.deep:
        from .plan_deep import run as deep

        return deep(arguments)
    if arguments.emit:
        from .plan_emit import run as emit

        return emit(arguments)
    plan, report = compile_file(
        arguments.file,
        arguments.ranks,
        variant=arguments.variant,
        sets=arguments.set,
        miniature=arguments.miniature,
    )
    if plan is None:
        if arguments.json:
            print(findings([report]))
        else:
            show(report)
        return 1
    show(report)
    if arguments.output:
        try:
            Path(arguments.output).write_text(plan.to_json() + "\n")
        except OSError as reason:
            problem(f"{arguments.output} cannot be written: {(reason.strerror or '').lower()}")
            return 1
    if arguments.html:
        from .plan_page import write

        if code := write(plan, arguments):
            return code
    if arguments.against:
        from .diff import compare, opened

        old = opened(arguments.against)
        return 1 if old is None else compare(old, (plan, None), arguments)
    if arguments.json:
        print(plan.to_json())
    elif arguments.provenance:
        from .provenance import table as origins

        origins(plan)
    elif not (arguments.output or arguments.html):
        if arguments.miniature:
            from .miniature import table as mapping

            mapping(plan)
        from .plan_table import table

        table(plan)
        _readings(plan)
    return 0


def _readings(plan: "Plan") -> None:
    """How often stages read their data, where a run here has made them already."""
    from ..runtime.store import Store

    home = Path("runs") / (f"{plan.recipe}_miniature" if plan.miniature else plan.recipe)
    store = Store(home / "variants" / plan.variant if plan.variant else home)
    if not store.exists():
        return
    from ..runtime.errors import RunError
    from ..runtime.repetition import readings_in

    try:
        found = readings_in(plan, store)
    except RunError:
        return
    for each in found:
        print(f"{'warning: ' if each.much else ''}{each}")
