"""Rejection sampling: answers to prompts, scored by a judge."""

from .draws import draw
from .job import sample
from .rollouts import rollout

__all__ = ["draw", "rollout", "sample"]
