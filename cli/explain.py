"""`etude explain`: what a code means, with an example that is wrong and the example fixed."""

import json
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from textwrap import fill, indent
from typing import Any

from ..compiler.examples import beside, findings, frame, wrong
from ..spec.codes import Example, Rule, known, rule, severity
from ..spec.diagnostics import did_you_mean
from ..spec.render import render
from .common import colors, problem


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
        print("\n".join(_lines(rule(code), colors(sys.stdout))))
    return 0


def _lines(of: Rule, color: bool) -> Iterator[str]:
    def head(text: str) -> str:
        return f"\033[1m{text}\033[0m" if color else text

    yield head(f"{of.code}: {of.title}")
    for paragraph in of.text.split("\n\n"):
        yield ""
        yield fill(paragraph, 100, break_long_words=False, break_on_hyphens=False)
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
            yield indent("\n\n".join(render(d, color=color) for d in wrong(of)), "    ")
    if of.wrong.frame:
        yield ""
        yield f"(The example stands beside {beside(of.wrong.frame)}.)"


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
