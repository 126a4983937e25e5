"""Placeholder."""

from .value import Value


class Verifier(Value):
    kind: str
