"""Measuring exported models: held-out loss and needle in a haystack."""

import operator
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

from ..compiler.plan import GateJob, LossMeasure, Measure, NeedleMeasure
from .data.needles import haystack
from .data.shards import Shards
from .errors import DataError, RunError

BATCH_TOKENS = 16_384
"""Tokens that go through the model at a time."""

_OPERATORS = {">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt}


def measure(measures: list[Measure], model: Path, data: Mapping[str, Path]) -> dict[str, Any]:
    """Scores of an exported model, by the measures' names.

    A loss is {"score", "tokens", "sources"}, a needle test {"score", "grid"}, with the grid as
    length → depth → share of right answers.

    Args:
        model: folder of a Hugging Face model and its tokenizer.
        data: source → folder of its shards.
    """
    logging.disable_progress_bar()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    network: Any = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    network.to(device).eval()
    tokenizer = AutoTokenizer.from_pretrained(model)
    scores: dict[str, Any] = {}
    with torch.inference_mode():
        for each in measures:
            if isinstance(each, LossMeasure):
                scores[each.name] = _loss(each, network, data)
            else:
                scores[each.name] = _needle(each, network, tokenizer)
    return scores


def _loss(measure: LossMeasure, network: Any, data: Mapping[str, Path]) -> dict[str, Any]:
    sources: dict[str, float] = {}
    total, tokens = 0.0, 0
    for name in measure.data:
        windows = _windows(Shards(data[name], "heldout"), measure.seq_len, measure.tokens)
        if not windows:
            raise DataError(
                f"the data set `{name}` holds no documents out, so no loss can be measured on it",
                f"give it a larger share: holdout = 5% in dataset {name}",
            )
        loss, count = _cross_entropy(network, windows)
        sources[name] = loss / count
        total, tokens = total + loss, tokens + count
    return {"score": total / tokens, "tokens": tokens, "sources": sources}


def _windows(shards: Shards, seq_len: int, limit: int) -> list[np.ndarray]:
    """Held-out documents cut into windows of at most seq_len + 1 tokens, `limit` tokens in all."""
    windows: list[np.ndarray] = []
    total = 0
    for number in range(shards.documents):
        document = shards.document(number)
        for start in range(0, len(document) - 1, seq_len):
            window = np.asarray(document[start : start + seq_len + 1], dtype=np.int64)
            windows.append(window)
            total += len(window) - 1
            if total >= limit:
                return windows
    return windows


def _cross_entropy(network: Any, windows: list[np.ndarray]) -> tuple[float, int]:
    """Summed cross-entropy in nats and number of labels; windows of like length go together."""
    loss, count = 0.0, 0
    windows = sorted(windows, key=len)
    while windows:
        rows = max(BATCH_TOKENS // len(windows[-1]), 1)
        batch, windows = windows[-rows:], windows[:-rows]
        width = len(batch[-1])
        tokens = torch.zeros(len(batch), width, dtype=torch.long)
        labels = torch.full((len(batch), width - 1), -100)
        for row, window in enumerate(batch):
            tokens[row, : len(window)] = torch.from_numpy(window)
            labels[row, : len(window) - 1] = torch.from_numpy(window[1:])
        logits = network(tokens[:, :-1].to(network.device)).logits.float()
        loss += cross_entropy(
            logits.flatten(0, 1), labels.flatten().to(network.device), reduction="sum"
        ).item()
        count += int((labels != -100).sum())
    return loss, count


def _needle(measure: NeedleMeasure, network: Any, tokenizer: Any) -> dict[str, Any]:
    def count(text: str) -> int:
        return len(tokenizer.encode(text, add_special_tokens=False))

    start = [tokenizer.bos_token_id] if tokenizer.bos_token_id is not None else []
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


def verdict(job: GateJob, scores: Mapping[str, Any], start: Mapping[str, Any]) -> dict[str, Any]:
    """Whether a gate passes: each requirement with what was wanted and what was measured.

    Args:
        start: scores where the stage began, for requirements `of start`.
    """
    results = []
    for requirement in job.requirements:
        wanted = requirement.value
        if requirement.of_start:
            if requirement.measure not in start:
                raise RunError(f"{requirement.measure} was not measured where the stage began")
            wanted *= start[requirement.measure]["score"]
        score = scores[requirement.measure]["score"]
        results.append(
            {
                "measure": requirement.measure,
                "op": requirement.op,
                "wanted": wanted,
                "score": score,
                "passed": bool(_OPERATORS[requirement.op](score, wanted)),
            }
        )
    return {"passed": all(r["passed"] for r in results), "requirements": results}
