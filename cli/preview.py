"""`etude preview`: what stages will see of their data, and what they learn of it."""

import json
import sys
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from .common import colors, compile_file, findings, problem, show

if TYPE_CHECKING:
    from .preview_screen import Screen


def run(arguments: Namespace) -> int:
    from ..runtime.errors import RunError
    from ..runtime.preview import NoTarget, as_json, preview

    plan, report = compile_file(
        arguments.file,
        None,
        variant=arguments.variant,
        sets=arguments.set,
        miniature=arguments.miniature,
    )
    if plan is None:
        print(findings([report])) if arguments.json else show(report)
        return 1
    folder = Path(arguments.folder) if arguments.folder else Path("runs") / plan.recipe
    if plan.variant:
        folder = folder / "variants" / plan.variant
    code, listed, said = 0, [], set()
    screen = None if arguments.json else _screen(arguments.full)
    try:
        for found in preview(
            plan, folder, Path(arguments.file).parent, arguments.target, records=arguments.records
        ):
            listed += as_json(found)
            if screen:
                screen.show(found)
            else:
                _aside(found.notes)
            if found.problem and found.problem.message not in said:
                sys.stdout.flush()
                problem(found.problem.message, found.problem.help)
                said.add(found.problem.message)
            code = max(code, int(found.stops))
    except NoTarget as reason:
        problem(reason.message, reason.help)
        return reason.exit_code
    except RunError as reason:
        problem(reason.message, reason.help)
        return 1
    if arguments.json:
        print(json.dumps(listed, indent=1, ensure_ascii=False))
    return code


def _screen(full: bool) -> "Screen":
    import shutil

    from .preview_screen import Screen
    from .preview_text import Style

    columns = shutil.get_terminal_size((80, 24)).columns if sys.stdout.isatty() else 80
    style = Style.of(colors(sys.stdout), sys.stdout.encoding, max(min(columns, 120), 40))
    return Screen(style, full=full)


def _aside(notes: list[str]) -> None:
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
