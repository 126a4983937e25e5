"""A judge's input: prompts with answers, as its training renders them."""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...compiler.plan.plan import EnsembleJob, JudgeJob
from ..data.drawn import DRAWS
from ..data.order.packing import step_ends
from ..data.tokens import tokenizer
from ..disk import disk, move, write_by
from .prompts import Message, Prompt, Protocol, read

SCORES = "scores.npy"
"""In the result of a judge job: the score of each draw, in order; float32, nan if the answer is too
long for the judge."""


def together(job: EnsembleJob, inputs: Mapping[str, Path], folder: Path) -> None:
    """Writes `result/scores.npy`: one score of each answer from those of several judges.

    With the scores sᵢ of k judges, m = Σ sᵢ / k and v = Σ (sᵢ − m)² / k, it is m, min sᵢ,
    m − penalty · √v or m − penalty · v (Coste et al., arXiv:2310.02743, §3.2). An answer that one
    of them cannot read has none (nan).

    Args:
        inputs: "of.0", "of.1", …: results of judge jobs on the same answers.
    """
    many = np.stack([np.load(inputs[f"of.{n}"] / SCORES) for n in range(len(inputs))])
    scores = many.astype(np.float64)
    mean = scores.mean(0)
    made = {
        "mean": lambda: mean,
        "minimum": lambda: scores.min(0),
        "minus_std": lambda: mean - job.penalty * scores.std(0),
        "minus_variance": lambda: mean - job.penalty * scores.var(0),
    }[job.combine]()
    with disk(folder, "the job starts over"):
        partial, result = folder / "result.partial", folder / "result"
        for each in (partial, result):
            shutil.rmtree(each, ignore_errors=True)
        partial.mkdir(parents=True)
        write_by(partial / SCORES, lambda file: np.save(file, made.astype(np.float32)))
        move(partial, result)


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
        self._steps = job.by_step
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

    def read(self, number: int) -> tuple[np.ndarray, Sequence[int]]:
        """Prompt and answer: int64, shape (n,); and the places of the tokens at which it is
        scored: of the last one, or the last of each step.

        Raises: DataError: the protocol cannot write the answer.
        """
        prompt, message = self._said(number)
        if self._steps is None:
            tokens = self._protocol.whole(prompt, message)
            return tokens, [len(tokens) - 1]
        record = self._protocol.stepped(prompt, message, self._steps.separator)
        return record.tokens, step_ends(record.branches, last=False)

    def _said(self, number: int) -> tuple[Prompt, Message]:
        """The prompt of an answer, and the answer."""
        self._file.seek(self._places[number])
        draw: dict[str, Any] = json.loads(self._file.readline())
        said = {"role": "assistant", "content": draw["text"]}
        message = draw["messages"][-1] if draw["messages"] else said
        return self._prompts[_record(draw)], message


def _record(draw: Mapping[str, Any]) -> int:
    """The number of a draw's prompt in its set."""
    return int(draw.get("record", draw["prompt"]))
