"""Needle in a haystack: exact match of generated answers across lengths and depths."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...compiler.plan.measures import NeedleMeasure
from ..data.samples.needles import Haystack, haystack
from ..data.tokens.tokenizer import begins
from ..sampling.drawing import Generator, Request, Settings, all_of


def needle(measure: NeedleMeasure, generator: Generator, tokenizer: Any) -> dict[str, Any]:
    """{"score", "grid": length → depth → share of correct answers}.

    All questions go to the generator in one stream.

    Raises: RunError: a length has no room for a needle and its question.
    """

    def count(text: str) -> int:
        return len(tokenizer.encode(text, add_special_tokens=False))

    begin = begins(tokenizer)
    start = [] if begin is None else [begin]
    cells = [
        (length, place / max(measure.depths - 1, 1), place)
        for length in measure.lengths
        for place in range(measure.depths)
    ]
    items = [
        haystack(
            measure.seed * 1_000_003 + length * 1009 + place * 101 + sample,
            depth=depth,
            length=length - len(start),
            count=count,
        )
        for length, depth, place in cells
        for sample in range(measure.samples)
    ]
    right = _right(items, start, generator, tokenizer)
    grid: dict[str, dict[str, float]] = {}
    for number, (length, depth, _) in enumerate(cells):
        of = right[number * measure.samples : (number + 1) * measure.samples]
        grid.setdefault(str(length), {})[f"{depth:.0%}"] = sum(of) / len(of)
    scores = [score for row in grid.values() for score in row.values()]
    return {"score": sum(scores) / len(scores), "grid": grid}


def _right(
    items: Sequence[Haystack], start: list[int], generator: Generator, tokenizer: Any
) -> list[bool]:
    """For each item, whether the most probable continuation begins with its answer."""

    def encode(text: str) -> list[int]:
        return tokenizer.encode(text, add_special_tokens=False)

    requests = [
        Request(np.array([*start, *encode(item.prompt)], np.int32), 0, len(encode(item.answer)))
        for item in items
    ]
    settings = Settings(0.0, 1.0, frozenset([tokenizer.eos_token_id]))
    answers = tokenizer.batch_decode(
        all_of(generator, requests, settings),
        skip_special_tokens=True,
        clean_up_tokenization_spaces=False,
    )
    return [answer.startswith(item.answer) for answer, item in zip(answers, items, strict=True)]
