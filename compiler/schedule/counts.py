"""How much data stages have whose length is in epochs: declared, counted, or about.

Of documents, tokens are counted; of dialogs, the rows of tokens into which an epoch packs them,
which depend on the epoch; of dialogs if batches count them, and of
preferences, ratings and solutions, the records. A count belongs to an identity:
a digest of all in the spec that decides it. What is not in the spec, such as the content of files,
is compared when a run has tokenized them.
"""

import hashlib
import json
from collections.abc import Sequence
from fractions import Fraction
from math import ceil
from typing import Any

from ...spec.schema import recipe as r
from ...spec.schema.convert_schedule import DIALOGS
from ..files.estimates import estimate
from ..program import Program, SourceCount, TrainStage, Unit
from ..record_fields import COUNTED, fields_of

_UNITS: dict[str, Unit] = {
    "documents": "tokens",
    "dialogs": "rows",
    "preferences": "pairs",
    "ratings": "ratings",
    "solutions": "solutions",
}
"""Kind of data → what of it is counted."""
_DATASET = (
    *("name", "files", "hub", "config", "split", "sample", "tokenized", "layout", "documents"),
    *("skip", "holdout", "bad_lines", "long", "kind", "deal"),
)
_FILLED = 0.95
"""Share of a packed row that dialogs fill, for estimates."""


def unit(spec: r.Training) -> Unit:
    """What is counted of the data of a stage."""
    return "dialogs" if spec.counts == DIALOGS else _UNITS[spec.data_kind]


def single(spec: r.Training) -> bool:
    """Whether a stage's batches count the same as its data."""
    return _UNITS.get(spec.data_kind) == spec.counts or spec.counts == DIALOGS


def uncountable(dataset: r.Dataset) -> str:
    """Why tokenizing does not tell how much a source has before the run; "" if it does."""
    if dataset.stages:
        return "a stage draws it during the run"
    if dataset.awaited:
        return "its files are awaited"
    if any(not each.file for each in dataset.filters):
        return "a model's scores decide which documents stay"
    return ""


def count(
    stage: TrainStage,
    dataset: r.Dataset,
    program: Program,
    *,
    seq_len: int,
    epochs: Fraction,
) -> SourceCount:
    """How much of a source a stage has.

    Args:
        seq_len: tokens of a row.
        epochs: passes over it.
    """
    recipe = program.recipe
    of = unit(stage.spec)
    needed = ceil(epochs) if of == "rows" else 1
    identity = _identity(stage, dataset, recipe, seq_len)
    numbers = program.counted.get(identity, ())
    if len(numbers) >= needed:
        found, exact, said = numbers[:needed], True, "counted"
    else:
        tokenizer = recipe.tokenizers.get(stage.tokenizer or "")
        about = estimate(dataset, program.folder, by_bytes=bool(tokenizer and tokenizer.bytes))
        amount = {
            "tokens": about.tokens,
            "rows": about.tokens / seq_len / Fraction(_FILLED),
        }.get(of, about.records)
        found, exact, said = (max(round(amount), 1),) * needed, False, about.said
    return SourceCount(
        dataset=dataset.name,
        identity=identity,
        unit=of,
        numbers=found,
        exact=exact,
        said=said,
    )


def passes(numbers: Sequence[int | Fraction], epochs: Fraction) -> Fraction:
    """What is read in so many epochs, the last of which may be a part of one."""
    total, left = Fraction(0), epochs
    for place in range(ceil(epochs)):
        part = min(left, Fraction(1))
        total += part * numbers[min(place, len(numbers) - 1)]
        left -= part
    return total


def _identity(stage: TrainStage, dataset: r.Dataset, recipe: r.Recipe, seq_len: int) -> str:
    spec: Any = stage.spec
    records = stage.spec.data_kind != "documents"
    tokenizer = recipe.tokenizers.get(stage.tokenizer or "")
    content: list[Any] = [
        [getattr(dataset, name) for name in _DATASET],
        fields_of(dataset.fields, COUNTED),
        [[each.keep, each.what, each.file] for each in dataset.filters],
        recipe.header.seed,
        tokenizer and [tokenizer.file, tokenizer.hub, tokenizer.bytes],
        tokenizer and tokenizer.train and [tokenizer.train.on, tokenizer.train.vocab],
    ]
    if records:
        # Rows are shuffled by the stage's own seed.
        similar, loss = getattr(spec, "similar", None), getattr(spec, "loss_on", None)
        content += [stage.dialog, seq_len, stage.name, similar, loss]
    if spec.counts == DIALOGS:
        content.append(DIALOGS)
    if spec.separator:
        content.append(spec.separator)
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]
