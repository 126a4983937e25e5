"""`etude fmt`: specs in their canonical layout."""

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator
from difflib import unified_diff
from pathlib import Path

from ..spec.findings.diagnostics import Report
from ..spec.load import in_json, is_misnamed, read_text
from ..spec.quantity import counted
from ..spec.source import Source
from ..spec.text.format import FormatError, format_text
from .common import problem, remark, show
from .files import write_over
from .screen import colors

STANDARD_INPUT = "-"


def arguments(parser: ArgumentParser) -> None:
    """Adds the arguments of `etude fmt` to its parser."""
    parser.add_argument("files", nargs="+", metavar="SPEC", help="files; - is standard input")
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit with 1 if a file would change"
    )
    parser.add_argument("--diff", action="store_true", help="write nothing; show what would change")
    parser.add_argument(
        "--to",
        choices=["json", "etude"],
        help="convert one spec to text or JSON, on standard output; JSON has no comments",
    )


def run(args: Namespace) -> int:
    if args.to:
        if len(args.files) > 1 or args.check or args.diff:
            problem("--to writes one spec to standard output", "give one file, and no --check")
            return 2
        return _shown(args.files[0], args.to)
    codes = [_one(file, args) for file in args.files]
    sys.stdout.flush()
    if args.check and not any(codes):
        remark(f"in the canonical layout: {counted(len(codes), 'specs')}")
    return max(codes)


def _one(file: str, args: Namespace) -> int:
    made = _made(file, _laid_out)
    if made is None:
        return 1
    text, made = made
    if args.diff:
        sys.stdout.writelines(_diff(file, text, made))
    if args.check:
        if made != text and not args.diff:
            print(f"{file}: not in the canonical layout")
        return int(made != text)
    if args.diff:
        return 0
    if file == STANDARD_INPUT:
        sys.stdout.write(made)
    elif made != text:
        try:
            write_over(Path(file), made)
        except OSError as reason:
            problem(f"{file} cannot be written and stays unchanged: {_why(reason)}")
            return 1
        print(f"{file}: reformatted")
    else:
        remark(f"{file}: in the canonical layout already")
    return 0


def _shown(file: str, form: str) -> int:
    """Prints a spec in another form."""
    from ..spec.convert_form import to_json, to_text

    made = _made(file, to_json if form == "json" else to_text)
    if made is None:
        return 1
    sys.stdout.write(made[1])
    sys.stdout.flush()
    return 0


def _made(file: str, make: Callable[[Source, Report], str | None]) -> tuple[str, str] | None:
    """The text of a file and the result of `make`; None after reporting."""
    report = Report()
    try:
        text = _text(file, report)
        source = Source(file, text or "")
        unread = text is None or is_misnamed(source, report)
        made = None if unread else make(source, report)
    except FormatError:
        problem(
            f"formatting would change the meaning of {file}, so it stays unchanged",
            "this is a bug in etude: please report it with the file",
        )
        return None
    except OSError as reason:
        problem(f"{file} cannot be read: {_why(reason)}")
        return None
    show(report)
    return None if text is None or made is None else (text, made)


def _laid_out(source: Source, report: Report) -> str | None:
    if not in_json(source):
        return format_text(source, report)
    from ..spec.json.from_json import spec
    from ..spec.json.json_text import laid_out

    node = spec(source, report)
    return None if node is None or report.errors else laid_out(node)


def _text(file: str, report: Report) -> str | None:
    """The text exactly as on disk, with its line ends, which are formatted too."""
    if file != STANDARD_INPUT:
        return read_text(Path(file), report)
    try:
        return sys.stdin.buffer.read().decode("utf-8-sig")
    except UnicodeDecodeError:
        report.add("E126", "standard input is not UTF-8 text", None, help="use UTF-8")
        return None


def _diff(file: str, text: str, made: str) -> Iterator[str]:
    lines = unified_diff(text.splitlines(True), made.splitlines(True), file, f"{file} (formatted)")
    signs = {"+": "\033[32m", "-": "\033[31m", "@": "\033[36m"} if colors(sys.stdout) else {}
    for line in lines:
        body = line.rstrip("\r\n")
        color = signs.get(line[:1], "")
        yield f"{color}{body}\033[0m\n" if color else f"{body}\n"


def _why(reason: OSError) -> str:
    return (reason.strerror or str(reason)).lower()
