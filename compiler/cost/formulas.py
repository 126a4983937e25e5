"""Formulas as text, which is both what is computed and what is shown.

A formula gives a name to an expression over symbols and over the names before it. All formulas of
a kind are compiled once, into one piece of code, so that evaluating them is as fast as functions.
"""

import math
from collections.abc import Iterable, Mapping
from types import CodeType
from typing import Any

from ...spec.record import Record

FUNCTIONS = {"min": min, "max": max, "ceil": math.ceil, "floor": math.floor, "__builtins__": {}}


class Formula(Record, kw_only=False):
    """`name = text`, in `unit`; what it means and where it comes from."""

    name: str
    text: str
    unit: str
    meaning: str
    source: str = ""


class Formulas:
    """An ordered set of formulas.

    Attributes:
        by_name: the formulas.
    """

    def __init__(self, formulas: Iterable[Formula]) -> None:
        self.by_name = {each.name: each for each in formulas}
        lines = "\n".join(f"{each.name} = {each.text}" for each in self.by_name.values())
        self._code: CodeType = compile(lines, "<formulas>", "exec")
        self.reads = {
            each.name: tuple(
                name
                for name in compile(each.text, "<formula>", "eval").co_names
                if name not in FUNCTIONS
            )
            for each in self.by_name.values()
        }

    def evaluate(self, symbols: Mapping[str, Any]) -> dict[str, Any]:
        """The symbols and all that the formulas make of them, by name."""
        values = {**FUNCTIONS, **symbols}
        exec(self._code, values)
        return values
