"""`etude import`: a configuration of another program becomes a spec."""

import json
import sys
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from .common import problem, show
from .files import read_text, write_new

if TYPE_CHECKING:
    from ..authoring.imports import Imported


def run(arguments: Namespace) -> int:
    from ..authoring.draft import Options
    from ..authoring.imports import import_config
    from ..authoring.tree import MAX_BYTES, ConfigError
    from ..spec.diagnostics import Report

    sizes = _sizes(arguments.size)
    if sizes is None:
        return 2
    text = read_text(arguments.file, MAX_BYTES)
    if text is None:
        return 1
    target = Path(arguments.output) if arguments.output else None
    file = "stdin" if arguments.file == "-" else arguments.file
    report = Report()
    try:
        base = None
        if arguments.after:
            from ..authoring.base import base_of

            found = base_of(Path(arguments.after), target.parent if target else Path(), report)
            if found is None:
                show(report)
                return 1
            base = found[0]
        options = Options(arguments.gpus, arguments.gpu, sizes, base)
        imported = import_config(text, file, kind=arguments.kind, options=options)
    except ConfigError as trouble:
        place = f"{file}:{trouble.line}: " if trouble.line else ""
        problem(f"{place}{trouble.message}", trouble.help)
        return 1
    if target and not write_new(target, imported.text, force=arguments.force):
        return 1
    if arguments.json:
        fates = ("carried", "irrelevant", "assumed", "needed", "lost")
        shown = {
            "kind": imported.kind,
            "spec": imported.text,
            **{fate: [f.to_dict() for f in imported.of(fate)] for fate in fates},
        }
        print(json.dumps(shown, indent=2, ensure_ascii=False))
        return 0
    if target is None:
        sys.stdout.write(imported.text)
        sys.stdout.flush()
    _summary(imported, target)
    return 0


def _summary(found: "Imported", target: Path | None) -> None:
    """What became of the configuration, on standard error."""
    from ..authoring.imports import describe

    for fate, heading in (
        ("needed", "to be filled in"),
        ("lost", "not carried over"),
        ("assumed", "assumed"),
    ):
        for finding in found.of(fate):
            print(f"{heading}: {describe(finding)}", file=sys.stderr)
    carried, irrelevant = len(found.of("carried")), len(found.of("irrelevant"))
    print(
        f"{found.kind}: {carried} settings carried over, {irrelevant} mean nothing here "
        f"(--json says why), {len(found.of('lost'))} not carried over",
        file=sys.stderr,
    )
    if target:
        print(f"{target} is written; next: etude check {target}", file=sys.stderr)


def _sizes(given: list[str]) -> dict[str, int] | None:
    """`NAME=COUNT` as numbers; a wrong one is reported."""
    from ..authoring.questions import count
    from ..authoring.tree import ConfigError

    found = {}
    for each in given:
        name, _, text = each.partition("=")
        try:
            found[name] = count(text)
        except ConfigError:
            problem(f"--size {each}: this is no name with a whole number", "write --size web=12M")
            return None
    return found
