"""`etude explain`: explains a code, with a wrong and a fixed example."""

import json
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from textwrap import indent
from typing import Any

from ..compiler.examples import beside, findings, frame, wrong
from ..spec.findings.codes import Example, Rule, known, rule, severity
from ..spec.findings.diagnostics import did_you_mean
from ..spec.findings.paragraphs import wrapped
from ..spec.findings.render import render
from .common import problem
from .screen import colors, width


def arguments(parser: ArgumentParser) -> None:
    """Adds the arguments of `etude explain` to its parser."""
    parser.add_argument("code", metavar="CODE")
    parser.add_argument("--json", action="store_true", help="as JSON")


def run(args: Namespace) -> int:
    code = args.code.upper()
    if code not in known():
        problem(f"there is no code `{args.code}`", did_you_mean(code, known()))
        return 1
    if args.json:
        print(json.dumps(_json(rule(code)), indent=2, ensure_ascii=False))
    else:
        print("\n".join(_lines(rule(code), colors(sys.stdout), width())))
    return 0


PROSE = 100
"""Lines of prose are no longer than this, however wide the terminal."""


def _lines(of: Rule, color: bool, columns: int | None) -> Iterator[str]:
    def head(text: str) -> str:
        return f"\033[1m{text}\033[0m" if color else text

    yield head(f"{of.code}: {of.title}")
    for paragraph in of.text.split("\n\n"):
        yield ""
        yield from wrapped(" ".join(paragraph.split()), min(columns or PROSE, PROSE))
    for name, example in (("Wrong", of.wrong), ("Right", of.right)):
        if not (example.texts or example.shell):
            continue
        yield ""
        yield head(f"{name}:")
        for file, text in _texts(example):
            yield ""
            if file:
                yield f"    {file}:"
            yield indent(text.rstrip(), "    ")
        if name == "Wrong" and not example.shell:
            yield ""
            yield indent(_found(of, color, columns), "    ")
    if of.wrong.frame:
        yield ""
        yield from wrapped(f"(The example comes after {beside(of.wrong.frame)}.)", columns)


def _found(of: Rule, color: bool, columns: int | None) -> str:
    """The findings in the wrong example."""
    room = columns and columns - 4
    return "\n\n".join(render(each, color=color, columns=room) for each in wrong(of))


def _texts(example: Example) -> Iterator[tuple[str, str]]:
    if example.shell:
        yield "", example.shell
    yield from example.texts.items()


def _json(of: Rule) -> dict[str, Any]:
    def shown(example: Example) -> dict[str, Any]:
        if example is of.wrong:
            found = wrong(of)
        else:
            found = [] if example.shell or not example.texts else findings(example)
        return {
            "frame": frame(example.frame) if example.frame else "",
            "files": {name or "spec.etude": text for name, text in example.texts.items()},
            "commands": example.shell,
            "diagnostics": [d.to_dict() for d in found],
        }

    return {
        "code": of.code,
        "severity": severity(of.code),
        "title": of.title,
        "text": of.text,
        "wrong": shown(of.wrong),
        "right": shown(of.right),
    }
