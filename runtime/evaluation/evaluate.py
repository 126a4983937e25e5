"""Measures what exported models write: passes each measure to its module in `evaluation`.

Losses and accuracies are measured by the ranks that train (`engine/measures/held_out.py`), and
rewards by the judge's ranks (`engine/measures/forward.py`).
"""

import json
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer
from transformers.utils import logging

from ...compiler.plan.measures import Measure, NeedleMeasure, SuiteMeasure
from ...compiler.values import Resources
from ..errors import RunError
from ..peers import SINGLE, Peers
from ..sampling.drawing import Generator
from ..sampling.generators import generator
from .verdict import verdict

__all__ = ["measure", "verdict"]


def measure(
    measures: list[Measure],
    model: Path,
    *,
    root: Path = Path(),
    mesh: Resources | None = None,
    context: int | None = None,
    peers: Peers = SINGLE,
    done: Mapping[str, Any] | None = None,
    keep: Callable[[dict[str, Any]], None] = lambda scores: None,
) -> dict[str, Any]:
    """Scores of an exported model, by the measures' names.

    Every score is an object with "score" and what the measure's module in `evaluation` adds.

    Args:
        model: folder of a Hugging Face model and its tokenizer.
        root: the folder of the spec, which paths of task files and templates are relative to.
        mesh: of the job, whose ranks all call this together; None: one process measures.
        context: tokens of the longest sequence that the job needs; None: the model's.
        peers: the ranks of the mesh.
        done: scores of finished measures.
        keep: called with all finished scores after each further measure.

    Raises: RunError, DataError, Interrupted.
    """
    logging.disable_progress_bar()
    exported = _Exported(model, mesh, context, peers)
    scores = dict(done or {})
    for each in measures:
        if each.name not in scores:
            scores[each.name] = _measure(each, exported, root)
            keep(scores)
    return {each.name: scores[each.name] for each in measures}


def read_whole(path: Path) -> dict[str, Any]:
    """The scores kept in a file; {} if it is missing or damaged."""
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}


class _Exported:
    """An exported model, loaded once for all measures that need its output."""

    def __init__(
        self, folder: Path, mesh: Resources | None, context: int | None, peers: Peers
    ) -> None:
        self.folder = folder
        self.mesh = mesh
        self.context = context
        self.peers = peers

    @cached_property
    def generator(self) -> Generator:
        return generator(self.folder, self.mesh, self.context, self.peers)

    @property
    def tokenizer(self) -> Any:
        return AutoTokenizer.from_pretrained(self.folder)


def _measure(measure: Measure, model: _Exported, root: Path) -> dict[str, Any]:
    if isinstance(measure, NeedleMeasure):
        from .needle import needle

        return needle(measure, model.generator, model.tokenizer)
    if not isinstance(measure, SuiteMeasure):
        raise RunError(f"{measure.name} is measured by a job of its own", "plan again")
    from .suites import suite

    return suite(measure, model.generator, model.tokenizer, root)
