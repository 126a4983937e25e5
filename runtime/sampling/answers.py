"""Answers to a list of prompts, drawn and judged: what sampling and the reward measure share."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..data import tokenizer
from .drawing import Generator, Request, Settings
from .generators import generator
from .judge import Judge
from .noise import draw_seed
from .prompts import Message, Prompt, Protocol, read


@dataclass(frozen=True)
class Answer:
    """One draw.

    Attributes:
        message: the assistant's.
        score: the judge's; None where there is no judge, or the answer is too long for it.
        finished: whether the model ended it, rather than `max_tokens` or its context.
    """

    seed: int
    text: str
    message: Message
    score: float | None
    finished: bool


class Sampler:
    """A model that answers and, where there is one, a judge.

    Args:
        model: folder of the exported model.
        judge: folder of the exported reward model.
        dialog: settings of the dialog protocol.
        root: the folder of the spec.
        draw: what draws; chosen by the machine where it is not given.

    Raises:
        RunError: the model cannot be loaded, or the judge is not a reward model.
        DataError: protocol and tokenizer do not go together.
    """

    def __init__(
        self,
        model: Path,
        judge: Path | None,
        *,
        dialog: dict[str, Any],
        root: Path,
        max_tokens: int,
        temperature: float,
        top_p: float = 1.0,
        draw: Generator | None = None,
    ) -> None:
        self._judge = Judge(judge) if judge else None
        self._protocol = _protocol(model, dialog, root)
        self._judged = _protocol(judge, dialog, root) if judge else self._protocol
        self._generator = draw or generator(model, judged=judge is not None)
        self._settings = Settings(temperature, top_p, self._protocol.stop)
        self._max_tokens = max_tokens

    def prompts(self, path: Path, *, limit: int | None = None) -> list[Prompt]:
        """The prompts of a file. Raises: DataError, see `prompts.read`."""
        context = self._generator.context
        if self._judge:
            context = min(context, self._judge.context)
        return read(path, self._protocol, context=context, limit=limit)

    def answer(
        self, prompts: list[Prompt], *, first: int, draws: int, seed: int
    ) -> list[list[Answer]]:
        """`draws` answers to each prompt.

        Args:
            first: index of the first of these prompts among all, which its seeds are made of.

        Raises: RunError, DataError.
        """
        seeds = [draw_seed(seed, first + i, d) for i in range(len(prompts)) for d in range(draws)]
        asked = [prompt for prompt in prompts for _ in range(draws)]
        requests = [
            Request(
                prompt.tokens,
                seed,
                min(self._max_tokens, self._generator.context - len(prompt.tokens)),
            )
            for prompt, seed in zip(asked, seeds, strict=True)
        ]
        drawn = self._generator.generate(requests, self._settings)
        answers = [self._protocol.answer(tokens) for tokens in drawn]
        scores: list[float | None] = [None] * len(answers)
        if self._judge:
            scores = self._judge.score(
                [
                    self._judged.whole(prompt, message)
                    for prompt, (_, message, _) in zip(asked, answers, strict=True)
                ]
            )
        flat = [
            Answer(seed, text, message, score, finished)
            for seed, (text, message, finished), score in zip(seeds, answers, scores, strict=True)
        ]
        return [flat[i : i + draws] for i in range(0, len(flat), draws)]


def _protocol(model: Path, dialog: dict[str, Any], root: Path) -> Protocol:
    return Protocol(dialog, tokenizer.load(model / "tokenizer.json"), root)
