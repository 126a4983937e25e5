"""Checks of declared verifiers."""

import re

from ...spec.schema import recipe as r
from .scope import Scope

NEEDED = {
    "options": 'options = ["A", "B", "C", "D"]',
    "most": "most = 100 words",
    "schema": 'schema = "answer.schema.json"',
    "pattern": 'pattern = "<think>.*</think>.*"',
}
"""An attribute that a kind of verifier needs → how it may be written."""


def check_verifier(scope: Scope, verifier: r.Verifier) -> None:
    """Reports attributes that a verifier lacks, or that its kind does not have, and regular
    expressions that cannot be read."""
    kind = r.VERIFIERS[verifier.kind]
    every = r.attributes(r.Verifier).items()
    given = [name for name, of in every if getattr(verifier, of.field) != of.default]
    given.remove("kind")
    others = [name for name in given if name not in ("data", *kind.required, *kind.optional)]
    for name in verifier.data or ():
        scope.known(name, "dataset", scope.recipe.datasets, verifier.at("data"))
    for name in others:
        its = [of for of, each in r.VERIFIERS.items() if name in (*each.required, *each.optional)]
        scope.error(
            "E524",
            f"a verifier of kind `{verifier.kind}` has no `{name}`",
            verifier.at(name),
            f"remove it; {_listed(its)} {'has' if len(its) == 1 else 'have'} it",
        )
    if kind.required and not any(name in given for name in kind.required):
        scope.error(
            "E524",
            f"the verifier `{verifier.name}` of kind `{verifier.kind}` needs "
            + " or ".join(f"`{name}`" for name in kind.required),
            verifier.at(),
            f"write `{NEEDED[kind.required[0]]}`",
        )
    if verifier.options is not None and len(set(verifier.options)) < 2:
        scope.error(
            "E524",
            f"the verifier `{verifier.name}` leaves no choice: it has fewer than two options",
            verifier.at("options"),
            f"write at least two: `{NEEDED['options']}`",
        )
    least, most = verifier.least, verifier.most
    if least is not None and most is not None and least > most:
        scope.error(
            "E524",
            f"no answer has {least} words or more and {most} or fewer",
            verifier.at("least"),
            f"write `least = {most}` or less, or raise `most`",
        )
    if verifier.soft is not None and most is None and "soft" not in others:
        scope.error(
            "E524",
            "`soft` words before `most` the score begins to fall, and there is no `most`",
            verifier.at("soft"),
            f"write `{NEEDED['most']}` too",
        )
    if verifier.soft is not None and most is not None and verifier.soft > most:
        scope.error(
            "E524",
            f"the score cannot fall over {verifier.soft} words: the most are {most}",
            verifier.at("soft"),
            f"write `soft = {most}` or less, or raise `most`",
        )
    for name in ("pattern", "extract"):
        if (text := getattr(verifier, name)) is not None and name not in others:
            _expression(scope, verifier, name, text)


def _expression(scope: Scope, verifier: r.Verifier, name: str, text: str) -> None:
    try:
        found = re.compile(text)
    except (re.error, OverflowError, RecursionError) as problem:
        where = getattr(problem, "pos", None)
        at = "" if where is None else f" (character {where + 1})"
        said = getattr(problem, "msg", "") or type(problem).__name__
        scope.error(
            "E526",
            f"`{name}` is no regular expression: {said}{at}",
            verifier.at(name),
            "put a backslash, written `\\\\`, before a character that stands for itself",
        )
        return
    if name == "extract" and not found.groups:
        scope.error(
            "E526",
            "`extract` has no group, so it does not say which part is the answer",
            verifier.at(name),
            'put the answer in parentheses: `extract = "#### (.*)"`',
        )


def _listed(kinds: list[str]) -> str:
    *others, last = (f"`{kind}`" for kind in kinds)
    return f"{', '.join(others)} and {last}" if others else last
