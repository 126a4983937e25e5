"""Verifiers in plans: programs that score answers."""

from typing import Literal

from ...spec.schema.verifier_blocks import VERIFIERS
from .value import Value, later


class Verifier(Value):
    """Scores an answer: 1 if it is right, 0 if it is not."""

    kind: Literal[
        "math",
        "exact",
        "choice",
        "regex",
        "format",
        "length",
        "json_schema",
        "python_tests",
        "ifeval",
    ]
    data: list[str] | None = later(
        None, description="the data sets whose prompts it scores for a policy; null: all"
    )
    extract: str | None = later(
        None, description="a regular expression whose first group, in its last match, is the answer"
    )
    ignore_case: bool = later(False)
    pattern: str | None = later(None, description="a regular expression")
    options: list[str] | None = later(None)
    schema_file: str | None = later(None, description="relative to the spec's folder")
    most: int | None = later(None, description="words")
    least: int | None = later(None, description="words")
    soft: int | None = later(None, description="words before `most` over which the score falls")

    def scores(self, dataset: str) -> bool:
        """Whether it scores a policy's answers to the prompts of a data set."""
        return self.data is None or dataset in self.data

    @property
    def compares(self) -> bool:
        """Whether it compares with the answer that a record of prompts has."""
        return VERIFIERS[self.kind].compares
