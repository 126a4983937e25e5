"""Rejection sampling: answers to prompts, scored by a judge."""

from .draws import draw
from .job import sample

__all__ = ["draw", "sample"]
