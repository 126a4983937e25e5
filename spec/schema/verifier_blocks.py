"""The attributes of verifiers: programs that tell whether an answer is right."""

from collections.abc import Mapping
from typing import NamedTuple

from . import kinds as k
from . import number_kinds as nk
from .declaration import Declaration, attribute


class Kind(NamedTuple):
    """What a kind of verifier has.

    Attributes:
        required, optional: its attributes beside `kind`. One of those in `required` is enough.
        compares: whether it compares with the answer of a record.
    """

    required: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    compares: bool = False


VERIFIERS: Mapping[str, Kind] = {
    "math": Kind(optional=("extract",), compares=True),
    "exact": Kind(optional=("extract", "ignore_case"), compares=True),
    "choice": Kind(("options",), ("extract", "ignore_case"), compares=True),
    "regex": Kind(("pattern",), ("ignore_case",)),
    "format": Kind(("pattern",), ("ignore_case",)),
    "length": Kind(("most", "least"), ("soft",)),
    "json_schema": Kind(("schema",)),
    "python_tests": Kind(compares=True),
    "ifeval": Kind(compares=True),
}
"""The kinds of verifiers."""


class Verifier(Declaration):
    """A program that scores an answer: 1 if it is right, 0 if it is not."""

    kind: str = attribute(
        k.OneOf(*VERIFIERS, foreign="verifier"), doc="how it verifies, see [above](#verifier)"
    )
    data: list[str] | None = attribute(
        k.Name("dataset", many=True),
        None,
        otherwise="all",
        doc="in a grpo stage, the data sets whose prompts it scores; answers to others get 0 from "
        "it, and their records need no answer",
    )
    extract: str | None = attribute(
        k.Text(),
        None,
        doc="a regular expression; the first group of its last match is the answer. Without a "
        "match an answer is wrong; a record's own answer then counts whole",
    )
    ignore_case: bool = attribute(k.Flag(), False, doc="capital and small letters are equal")
    pattern: str | None = attribute(
        k.Text(),
        None,
        doc="a regular expression: `regex` searches the answer for it, `format` needs the whole "
        "answer to match",
    )
    options: list[str] | None = attribute(
        k.Text(many=True), None, doc="the options, of which an answer has to be one"
    )
    schema: str | None = attribute(
        k.Text(), None, doc="a file with a JSON Schema, relative to the spec's folder"
    )
    most: int | None = attribute(nk.Whole("words", least=0), None, doc="the most words")
    least: int | None = attribute(nk.Whole("words", least=0), None, doc="the fewest words")
    soft: int | None = attribute(
        nk.Whole("words"),
        None,
        needs=("most",),
        doc="the score falls from 1 to 0 over so many words before `most`",
    )
