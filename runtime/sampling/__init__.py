"""Rejection sampling: answers to prompts, scored by a judge."""

from .job import sample

__all__ = ["sample"]
