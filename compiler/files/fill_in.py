"""Whether tokenizers have the tokens that stand between the parts of documents (`fim`), as far as
their files are there."""

import json
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from ...spec.findings.diagnostics import Report
from ...spec.schema import recipe as r
from ..program import Scheduled, ScheduledStage
from .data_files import URL


def check_fill_in(program: Scheduled, root: Path, report: Report) -> None:
    """Reports tokens that a tokenizer lacks, once for each data set."""
    told: set[str] = set()
    for dataset, tokenizer in _read_with(program):
        known = _tokens(root / tokenizer)
        if not dataset.fim or not known or (place := repr(dataset.at("fim"))) in told:
            continue
        missing = [token for token in dataset.fim.tokens if token and token not in known]
        if not missing:
            continue
        told.add(place)
        own = sorted(token for token in known if "fim" in token.lower() and len(token) > len("fim"))
        have = f"; it has {', '.join(f'`{token}`' for token in own[:6])}" if own else ""
        report.add(
            "E550",
            f"the tokenizer in `{tokenizer}` lacks {', '.join(f'`{token}`' for token in missing)}"
            f"{have}",
            dataset.at("fim"),
            help="name its own in `fim { prefix, suffix, middle }`, or use a tokenizer that has "
            "them",
        )


def _read_with(program: Scheduled) -> Iterator[tuple[r.Dataset, str]]:
    """Data sets with a middle to fill in, and the files of the tokenizers that they are read
    with."""
    datasets, tokenizers = program.recipe.datasets, program.recipe.tokenizers
    for stage in program.stages.values():
        if not isinstance(stage, ScheduledStage):
            continue
        tokenizer = tokenizers.get(stage.tokenizer or "")
        if tokenizer is None or not tokenizer.file or URL in tokenizer.file:
            continue
        for name in dict.fromkeys(name for part in stage.mixture for name in part.weights):
            if (dataset := datasets.get(name)) and dataset.fim:
                yield dataset, tokenizer.file


def _tokens(path: Path) -> frozenset[str]:
    """The tokens of a tokenizer.json; none if it cannot be read, which a run says better."""
    try:
        state = path.stat()
        return _cached(path, state.st_mtime_ns, state.st_size)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return frozenset()


@lru_cache(maxsize=4)
def _cached(path: Path, changed: int, size: int) -> frozenset[str]:
    """The tokens of a file in this state: an editor asks after every keystroke."""
    content: dict[str, Any] = json.loads(path.read_bytes())
    added = [each["content"] for each in content.get("added_tokens") or ()]
    vocabulary = content["model"]["vocab"]
    # That of Unigram is a list of pairs.
    known = vocabulary if isinstance(vocabulary, dict) else [each[0] for each in vocabulary]
    return frozenset(token for token in (*added, *known) if isinstance(token, str))
