"""Needle in a haystack: exact match of generated answers over lengths and depths."""

from typing import Any

import torch

from ...compiler.plan.measures import NeedleMeasure
from ..data.needles import haystack
from ..data.tokenizer import begins


def needle(measure: NeedleMeasure, network: Any, tokenizer: Any) -> dict[str, Any]:
    """{"score", "grid": length → depth → share of right answers}.

    Raises: RunError: a length has no room for a needle and its question.
    """

    def count(text: str) -> int:
        return len(tokenizer.encode(text, add_special_tokens=False))

    begin = begins(tokenizer)
    start = [] if begin is None else [begin]
    grid: dict[str, dict[str, float]] = {}
    for length in measure.lengths:
        row: dict[str, float] = {}
        for place in range(measure.depths):
            depth = place / max(measure.depths - 1, 1)
            items = [
                haystack(
                    measure.seed * 1_000_003 + length * 1009 + place * 101 + sample,
                    depth=depth,
                    length=length - len(start),
                    count=count,
                )
                for sample in range(measure.samples)
            ]
            prompts = [
                start + tokenizer.encode(item.prompt, add_special_tokens=False) for item in items
            ]
            longest = max(count(item.answer) for item in items)
            answers = _generate(network, prompts, longest, tokenizer)
            right = sum(
                answer.startswith(item.answer) for answer, item in zip(answers, items, strict=True)
            )
            row[f"{depth:.0%}"] = right / len(items)
        grid[str(length)] = row
    cells = [score for row in grid.values() for score in row.values()]
    return {"score": sum(cells) / len(cells), "grid": grid}


def _generate(network: Any, prompts: list[list[int]], most: int, tokenizer: Any) -> list[str]:
    """Greedy continuations; prompts are padded on the left and the padding masked."""
    width = max(map(len, prompts))
    pad = tokenizer.eos_token_id
    tokens = torch.tensor([[pad] * (width - len(p)) + p for p in prompts])
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
    output = network.generate(
        input_ids=tokens.to(network.device),
        attention_mask=mask.to(network.device),
        max_new_tokens=most,
        do_sample=False,
        pad_token_id=pad,
    )
    return tokenizer.batch_decode(
        output[:, width:], skip_special_tokens=True, clean_up_tokenization_spaces=False
    )
