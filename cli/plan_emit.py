"""`etude plan --emit torchtitan`: configurations with which one goes on without etude."""

from argparse import Namespace
from pathlib import Path

from .common import compile_file, findings, problem, show


def run(arguments: Namespace) -> int:
    from ..compiler.emit import emit, emit_each

    plan, report = compile_file(
        arguments.file, arguments.ranks, variant=arguments.variant, sets=arguments.set,
        miniature=arguments.miniature,
    )  # fmt: skip
    if plan is None:
        print(findings([report])) if arguments.json else show(report)
        return 1
    show(report)
    if not arguments.output:
        print(emit(plan), end="")
        return 0
    folder = Path(arguments.output)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in emit_each(plan).items():
            (folder / name).write_text(text, encoding="utf-8")
    except OSError as reason:
        where, why = reason.filename or folder, (reason.strerror or str(reason)).lower()
        problem(f"{where} cannot be written: {why}", "name a folder with -o")
        return 1
    return 0
