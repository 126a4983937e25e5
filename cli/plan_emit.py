"""`etude plan --emit torchtitan`: configurations for plain torchtitan."""

from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from ..spec.quantity import counted
from .common import compile_file, findings, problem, remark, show
from .files import write_over

if TYPE_CHECKING:
    from ..compiler.plan.plan import Plan


def run(args: Namespace) -> int:
    from ..runtime.emission.emit import emit, emit_each

    plan, report = compile_file(
        args.file,
        args.ranks,
        variant=args.variant,
        sets=args.set,
        miniature=args.miniature,
    )
    if plan is None:
        print(findings([report])) if args.json else show(report)
        return 1
    show(report)
    if not args.output:
        print(emit(plan, _run(plan)), end="")
        return 0
    folder = Path(args.output)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        made = emit_each(plan, _run(plan))
        for name, text in made.items():
            write_over(folder / name, text)
    except OSError as reason:
        where, why = reason.filename or folder, (reason.strerror or str(reason)).lower()
        problem(f"{where} cannot be written: {why}", "name a folder with -o")
        return 1
    remark(f"wrote {counted(len(made), 'files')} to {folder}")
    return 0


def _run(plan: "Plan") -> str:
    """The run folder of `etude run` here; a variant has its own."""
    home = Path("runs") / (f"{plan.recipe}_miniature" if plan.miniature else plan.recipe)
    return str((home / "variants" / plan.variant if plan.variant else home).resolve())
