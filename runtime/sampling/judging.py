"""A judge's input: prompts with answers, as its training renders them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ...compiler.plan.plan import JudgeJob
from ..data import tokenizer
from ..data.drawn import DRAWS
from .prompts import Prompt, Protocol, read

SCORES = "scores.npy"
"""In the result of a judge job: the score of each draw, in order; float32, nan if the answer is too
long for the judge."""


class Answered:
    """Answers as the tokens that a judge reads.

    Args:
        inputs: "draws", the result of a draw job; "prompts"; "tokenizer", the judge's.
        root: the folder of the spec, which a template's path is relative to.

    Attributes:
        count: how many answers there are.

    Raises: DataError: the prompts are damaged, or protocol and tokenizer are incompatible.
    """

    def __init__(self, job: JudgeJob, inputs: Mapping[str, Path], root: Path) -> None:
        made = tokenizer.load(inputs["tokenizer"] / "tokenizer.json")
        self._protocol = Protocol(job.dialog, made, root)
        self._file = (inputs["draws"] / DRAWS).open("rb")
        self._places = [0]
        answered: dict[int, None] = {}
        for line in self._file:
            self._places.append(self._places[-1] + len(line))
            answered[_record(json.loads(line))] = None
        self.count = len(self._places) - 1
        path, numbers = inputs["prompts"] / "prompts.jsonl", list(answered)
        found = read(path, self._protocol, context=None, numbers=numbers)
        self._prompts: dict[int, Prompt] = dict(zip(numbers, found, strict=True))

    def tokens(self, number: int) -> np.ndarray:
        """Prompt and answer: int64, shape (n,).

        Raises: DataError: the protocol cannot write the answer.
        """
        self._file.seek(self._places[number])
        draw: dict[str, Any] = json.loads(self._file.readline())
        said = {"role": "assistant", "content": draw["text"]}
        message = draw["messages"][-1] if draw["messages"] else said
        return self._protocol.whole(self._prompts[_record(draw)], message)


def _record(draw: Mapping[str, Any]) -> int:
    """The number of a draw's prompt in its set."""
    return int(draw.get("record", draw["prompt"]))
