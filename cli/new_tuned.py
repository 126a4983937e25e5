"""`etude new --weights FOLDER`: looks at weights and data, and writes a spec that tunes them."""

import os
import sys
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .common import problem
from .files import write_new

if TYPE_CHECKING:
    from ..authoring.tuning import Looked

OTHERS = (*("size", "tokens", "gpus", "gpu", "prompts", "tokenizer", "length", "rounds", "after"),)
"""Options of other templates."""


class Unfit(Exception):
    """Something that was named cannot be used."""

    def __init__(self, message: str, help: str, code: int = 1) -> None:
        super().__init__(message)
        self.message = message
        self.help = help
        self.code = code


def run(args: Namespace, template: str, name: str, target: Path) -> int:
    """Writes the spec; returns the exit code."""
    try:
        text = _text(args, template, name, Path() if args.output == "-" else target.parent)
    except Unfit as reason:
        problem(reason.message, reason.help)
        return reason.code
    if args.output == "-":
        sys.stdout.write(text)
        return 0
    if not write_new(target, text, force=args.force):
        return 1
    print(f"wrote {target}; next: etude check {target}")
    return 0


def _text(args: Namespace, template: str, name: str, home: Path) -> str:
    """Raises: Unfit."""
    from ..authoring.tuning import NEEDS, tuned
    from ..compiler.files.weights_folder import Unusable, read_folder

    for each in OTHERS:
        if getattr(args, each) is not None:
            raise Unfit(
                f"--{each} is not an option here",
                f"{template} of published weights takes --weights and --data",
                2,
            )
    if not args.weights:
        raise Unfit(
            f"{template} starts from published weights", "name their folder: --weights FOLDER", 2
        )
    folder = Path(args.weights)
    if not folder.is_dir():
        what = "is not a folder" if folder.exists() else "does not exist"
        raise Unfit(
            f"{folder} {what}",
            f"download the weights: `hf download OWNER/NAME --local-dir {folder}`",
        )
    try:
        weights = read_folder(folder, str(folder))
    except Unusable as reason:
        raise Unfit(reason.message, reason.help) from None
    data = {}
    for kind in NEEDS[template]:
        only = args.data if len(NEEDS[template]) == 1 else None
        path = getattr(args, kind) or only
        if not path:
            options = f"--{kind} FILE" if only is None and args.data else "--data FILE"
            options = options if len(NEEDS[template]) == 1 else f"--{kind} FILE"
            raise Unfit(f"{template} needs a file of {kind}", f"name it: {options}", 2)
        data[kind] = _look(Path(path), kind, _seen_from(home, Path(path)))
    return tuned(template, name, _seen_from(home, folder), weights, data)


def _seen_from(home: Path, path: Path) -> str:
    """A path as the spec writes it: relative to the spec's folder if it is below it."""
    inside = Path(os.path.relpath(path, home))
    return path.absolute().as_posix() if ".." in inside.parts else inside.as_posix()


def _look(path: Path, kind: str, written: str) -> "Looked":
    """Reads the first records of a file.

    Raises: Unfit: it cannot be read, or its records are not of this kind.
    """
    from itertools import islice

    from ..authoring.tuning import MOST, Looked
    from ..runtime.data.reading import readers
    from ..runtime.data.reading.bad_lines import BadLines
    from ..runtime.data.records import layouts, records
    from ..runtime.data.records.fields import Fields
    from ..runtime.errors import DataError, RunError

    parse: Any = records.dialog if kind == "dialogs" else records.preference
    source = {"kind": "files", "files": [path.absolute().as_posix()]}
    names: dict[str, str] | None = None
    count = longest = bad = 0
    first: DataError | None = None
    try:
        rows = readers.read_rows(
            source, kind, BadLines(None, lambda message: None), root=path.parent
        )
        for row in islice(rows, MOST):
            if names is None:
                names = _names(row.fields, kind)
            count += 1
            try:
                found = None if names else layouts.converted(row.fields, kind)
                parse(found.record if found else row.fields, Fields(names))
            except DataError as reason:
                bad, first = bad + 1, first or reason
            else:
                longest = max(longest, sum(map(_characters, row.fields.values())))
    except RunError as reason:
        raise Unfit(reason.message, reason.help) from None
    if first and 2 * bad > count:
        raise Unfit(
            f"{path}: {bad:,} of {count:,} records are no {kind}: {first.message}",
            first.help or "docs/data.md says which records can be read",
        )
    if not count:
        raise Unfit(f"{path} has no records", "name a file with one record a line")
    return Looked(written, names or {}, count, longest, bad)


def _names(record: dict[str, Any], kind: str) -> dict[str, str]:
    """What `fields` has to say for such records; {} for those of a known layout."""
    from ..runtime.data.records import layouts
    from ..runtime.data.records.fields import suggested
    from ..runtime.errors import DataError

    try:
        return {} if layouts.converted(record, kind) else suggested(record, kind)
    except DataError:
        return {}


def _characters(value: Any) -> int:
    """Characters of all texts in a value."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, dict):
        return sum(map(_characters, value.values()))
    return sum(map(_characters, value)) if isinstance(value, list) else 0
