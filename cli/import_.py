"""`etude import`: converts another program's configuration to a spec."""

import json
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from . import options
from .common import problem, show
from .files import read_text, write_new
from .screen import clean, say

if TYPE_CHECKING:
    from ..authoring.imports import Imported


def arguments(parser: ArgumentParser) -> None:
    """Adds the arguments of `etude import` to its parser."""
    from ..authoring.imports import KINDS

    parser.add_argument("file", metavar="CONFIG")
    parser.add_argument("-o", "--output", metavar="SPEC", help="the file to write")
    options.replacing(parser)
    parser.add_argument(
        "--from",
        dest="kind",
        choices=tuple(KINDS),
        help="the program that it belongs to (default: detected from the content)",
    )
    parser.add_argument("--gpus", type=options.positive, metavar="N", help="total number of GPUs")
    parser.add_argument("--gpu", metavar="NAME", help='GPU model (default: "H100 80GB")')
    options.after(parser)
    parser.add_argument(
        "--size",
        action="append",
        default=[],
        metavar="NAME=COUNT",
        help="tokens or pairs of a data set, as in --size web=12M; may be repeated",
    )
    parser.add_argument("--json", action="store_true", help="as JSON")


def run(args: Namespace) -> int:
    from ..authoring.draft import Options
    from ..authoring.imports import import_config
    from ..authoring.tree import MAX_BYTES, ConfigError
    from ..spec.findings.diagnostics import Report

    sizes = _sizes(args.size)
    if sizes is None:
        return 2
    if Path(args.file).is_file() and (wrong := _no_configuration(Path(args.file))):
        problem(*wrong)
        return 1
    text = read_text(args.file, MAX_BYTES)
    if text is None:
        return 1
    target = Path(args.output) if args.output else None
    file = "stdin" if args.file == "-" else args.file
    report = Report()
    try:
        base = None
        if args.after:
            from ..authoring.base import base_of

            found = base_of(Path(args.after), target.parent if target else Path(), report)
            if found is None:
                show(report)
                return 1
            base = found[0]
        options = Options(args.gpus, args.gpu, sizes, base)
        imported = import_config(text, file, kind=args.kind, options=options)
    except ConfigError as trouble:
        place = f"{file}:{trouble.line}: " if trouble.line else ""
        problem(f"{place}{trouble.message}", trouble.help)
        return 1
    if target and not write_new(target, imported.text, force=args.force):
        return 1
    if args.json:
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


def _no_configuration(path: Path) -> tuple[str, str] | None:
    """What a file is in place of a configuration, as far as its name tells, and what to do."""
    from ..spec.load import DATA, OTHERS

    if path.suffix == ".etude":
        return f"{path} is a spec already", f"`etude check {path}` checks it"
    what, help = OTHERS.get(path.suffix, ("", ""))
    return (f"{path} is data, not a configuration", help.format(path)) if what == DATA else None


def _summary(found: "Imported", target: Path | None) -> None:
    """Prints a summary of the conversion to standard error."""
    from ..authoring.imports import describe

    for fate, heading in (
        ("needed", "to be filled in"),
        ("lost", "not converted"),
        ("assumed", "assumed"),
    ):
        for finding in found.of(fate):
            say(f"{heading}: {clean(describe(finding))}", rest="  ", to=sys.stderr)
    carried, irrelevant = len(found.of("carried")), len(found.of("irrelevant"))
    say(
        f"{found.kind}: {carried} settings converted, {irrelevant} not relevant (--json says "
        f"why), {len(found.of('lost'))} not converted",
        rest="  ",
        to=sys.stderr,
    )
    if target:
        print(f"wrote {target}; next: etude check {target}", file=sys.stderr)


def _sizes(given: list[str]) -> dict[str, int] | None:
    """`NAME=COUNT` as numbers; reports an invalid one."""
    from ..authoring.questions import count
    from ..authoring.tree import ConfigError

    found = {}
    for each in given:
        name, _, text = each.partition("=")
        try:
            found[name] = count(text)
        except ConfigError:
            problem(f"--size {each}: this is not NAME=COUNT", "write --size web=12M")
            return None
    return found
