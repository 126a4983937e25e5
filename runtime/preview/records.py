"""Dialogs, preferences, ratings, solutions and prompts as their stages see them."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from ...compiler.plan.plan import DatasetJob, Distill, Dpo, Kto, Prm, Reward, Sft
from ..data.dialogs.encode import Encoder
from ..data.order.packing import compared, counted, learned, step_ends
from ..data.reading.formats import Row
from ..data.records import records
from ..data.records.shards import Record
from ..data.records.similar import unlike
from ..data.tokens.shards import held_out
from ..preparation.prepare_records import RecordMaker
from .kinds import labels_of
from .parts import Label, cut
from .rows import Lines
from .shop import Made, Shop
from .shown import Part, Preview, Shown
from .uses import Use

LOOKED_AT = 200
"""How many records are checked for refusals; fewer if they have TOKENS in all."""
TOKENS = 500_000


def show_records(use: Use, made: Made | None, shop: Shop, count: int) -> Preview:
    """The first dialogs, preferences, ratings or prompts that a stage reads, and the refused ones.

    Args:
        made: the tokenizer; None for prompts that need none.

    Raises: DataError: the records cannot be read, or the protocol does not fit the tokenizer.
    """
    preview = Preview(use, counted=made is not None and made.exact)
    inputs: dict[str, Path] = {}
    for role, key in use.data.inputs.items():
        if role.startswith("from."):
            result = shop.result(key)
            if result is None:
                preview.notes.append(_not_drawn(key, shop))
                return preview
            inputs[role] = result
    lines = Lines()
    job = use.data
    if not preview.counted:
        # The length of a record is unknown.
        job = job.model_copy(update={"longest": None})
    maker = RecordMaker(
        job, inputs, made.tokenizer if made else None, shop.root, lambda event: None, lines
    )
    looked, shown = preview.looked, 0
    for row, found in _found(maker, job, lines):
        preview.items += lines.found[len(preview.refused) :]
        lines.number += 1
        if found is None:
            continue
        if _held_out(job, looked.kept + looked.held_out):
            looked.held_out += 1
        else:
            record = _shown(use, made, maker, row, found, lines.number)
            looked.keep(record.tokens, record.learned)
            if shown < count:
                preview.items.append(record)
                preview.notes += _alike(record, made)
                shown += 1
        if shown >= count and (lines.number >= LOOKED_AT or looked.tokens >= TOKENS):
            break
    else:
        looked.whole = True
    preview.items += lines.found[len(preview.refused) :]
    looked.records = lines.number
    looked.left_out = _left_out(maker)
    preview.notes += maker.notes()
    preview.notes += [f"warning: {each}" for each in maker.warnings()]
    return preview


def _not_drawn(key: str, shop: Shop) -> str:
    stage = next(job.stage or job.id for job in shop.plan.jobs if job.key == key)
    return f"the stage `{stage}` makes these records, but has not run yet in {shop.folder}"


def _found(
    maker: RecordMaker, job: DatasetJob, lines: Lines
) -> Iterator[tuple[Row, Record | records.Prompt | None]]:
    return maker.prompts() if job.form == "prompts" else maker.made()


def _held_out(job: DatasetJob, number: int) -> bool:
    """Whether a kept record is only measured; prompts never are."""
    share = Fraction(job.holdout) if job.form != "prompts" else Fraction(0)
    return held_out(number, share, seed=job.seed, name=job.name)


def _alike(record: Shown, made: Made | None) -> Iterator[str]:
    """Notes on texts in the data that read like special tokens but are not."""
    if made is None:
        return
    encoder = Encoder(made.tokenizer)
    texts = [part.text for part in record.parts if not part.special]
    found = {text[slice(*span)] for text in texts for span in encoder.find(text)}
    for name in sorted(found):
        yield (
            f"record {record.record}: the data's own `{name}` is text to the model, and not the "
            "special token of that name"
        )


def _left_out(maker: RecordMaker) -> dict[str, int]:
    """How many records the recipe itself leaves out, by reason."""
    counts = maker.counted()
    long, similar = counts.get("long") or {}, counts.get("similar") or {}
    found = {
        "dropped as too long": long.get("dropped", 0),
        "truncated as too long": long.get("truncated", 0),
        "dropped as too similar": similar.get("records", 0),
    }
    return {what: count for what, count in found.items() if count}


def _shown(
    use: Use,
    made: Made | None,
    maker: RecordMaker,
    row: Row,
    found: Record | records.Prompt,
    number: int,
) -> Shown:
    if isinstance(found, Record):
        assert made
        labels = _labels(use, made, maker, row, found)
        return Shown(number, row.place, cut(made.tokenizer, found.tokens.tolist(), labels))
    asked = maker.asked(found)
    if asked is None or made is None:
        text = found.text if isinstance(found.text, str) else str(found.normalized())
        return Shown(number, row.place, (Part(text, "prompt", False),))
    messages = found.text if isinstance(found.text, list) else []
    labels = labels_of(made.tokenizer, asked, np.zeros(len(asked), bool), messages)
    return Shown(number, row.place, cut(made.tokenizer, asked.ids, labels))


def _labels(use: Use, made: Made, maker: RecordMaker, row: Row, record: Record) -> list[Label]:
    taught = taught_of(use, record)
    if not record.branches:
        (rendered,) = record.rendered
        text = records.dialog(maker.known(row.fields), maker.fields).text
        messages = text if isinstance(text, list) else []
        return labels_of(made.tokenizer, rendered.cut(0, len(taught)), taught, messages)
    if record.labels:
        return _of_steps(use, made, maker, row, record, taught)
    if record.good is None:
        preference = records.preference(maker.known(row.fields), maker.fields)
    else:
        rating = records.rating(maker.known(row.fields), maker.fields)
        preference = replace(rating.alone, names=("good" if rating.good else "bad",))
    if use.data.drop_similar is not None:
        preference = preference.only(unlike(preference.texts(), use.data.drop_similar))
    names = ["prompt", *preference.names]
    labels: list[Label] = []
    begin = 0
    for number, (rendered, length) in enumerate(zip(record.rendered, record.branches, strict=True)):
        own = taught[begin : begin + length]
        messages = _messages(preference, number)
        labels += labels_of(
            made.tokenizer, rendered.cut(0, length), own, messages, branch=names[number]
        )
        begin += length
    return labels


def _of_steps(
    use: Use, made: Made, maker: RecordMaker, row: Row, record: Record, taught: np.ndarray
) -> list[Label]:
    separator = use.data.separator
    assert separator
    solution = records.solution(maker.known(row.fields), maker.fields, separator)
    preference = solution.answered(separator)
    names = ["prompt", *("right" if label else "wrong" for label in record.labels)]
    labels: list[Label] = []
    begin = 0
    for number, (rendered, length) in enumerate(zip(record.rendered, record.branches, strict=True)):
        messages = _messages(preference, min(number, 1))
        own = taught[begin : begin + length]
        branch = names[number] if not number else f"step {number}, {names[number]}"
        labels += labels_of(made.tokenizer, rendered, own, messages, branch=branch)
        begin += length
    return labels


def _messages(preference: records.Preference, branch: int) -> list[Mapping[str, Any]]:
    """The messages of a preference's prompt and of one of its responses."""
    prompt = preference.prompt if isinstance(preference.prompt, list) else []
    if not branch:
        return list(prompt)
    response = preference.responses[branch - 1]
    if isinstance(preference.prompt, str) and isinstance(response, list):
        prompt = [{"role": "user", "content": preference.prompt}]
    return [*prompt, *(response if isinstance(response, list) else [])]


def taught_of(use: Use, record: Record) -> np.ndarray:
    """Which tokens of a record count in a stage's loss: bool, shape (n,).

    For a reward model, the tokens at which the score of a response or a step is read.
    """
    taught = np.zeros(len(record.tokens), bool)
    objective = use.objective
    if isinstance(objective, Prm):
        taught[list(step_ends(record.branches, last=objective.loss_on == "last"))] = True
        return taught
    if isinstance(objective, Sft | Distill):
        return learned(record.parts, every_token=objective.loss_on == "all")
    if not isinstance(objective, Reward | Dpo | Kto) or not record.branches:
        return taught
    ends = np.cumsum(record.branches)
    for response in compared(len(ends) - 1, ends=isinstance(objective, Dpo)):
        begin, end = ends[response], ends[response + 1]
        if isinstance(objective, Dpo | Kto):
            taught[begin:end] = counted(record.parts[begin:end], objective.mask)
        else:
            taught[end - 1] = True
    return taught
