"""Records as tokens."""

import json
from dataclasses import replace

import numpy as np
from tokenizers import Tokenizer

from ...errors import DataError
from ..dialogs.encode import CONTENT, OTHER, TERMINATION, Encoder, Piece, Rendered, in_steps
from ..dialogs.rendering import Renderer, continuations
from ..tokens.tokenizer import special
from .records import Dialog, Preference, Prompt, Rating, Solution, as_prompt, as_response
from .shards import Record


class Tokens:
    """Tokenizes records.

    Args:
        renderer: for the data set's dialogs; None if there is no protocol.
    """

    def __init__(self, tokenizer: Tokenizer, renderer: Renderer | None) -> None:
        self._renderer = renderer
        self._encoder = renderer.encoder if renderer else Encoder(tokenizer)
        ids = special(tokenizer)
        self._begin = "" if ids.bos is None else tokenizer.id_to_token(ids.bos) or ""
        self._end = tokenizer.id_to_token(ids.eos) or ""

    def warnings(self) -> list[str]:
        """Likely problems with the dialogs so far, one sentence each."""
        return self._renderer.warnings() if self._renderer else []

    def dialog(self, dialog: Dialog) -> Record:
        """Raises: DataError: it cannot be rendered."""
        if isinstance(dialog.text, str):
            rendered = self._encoder.encode(
                [Piece(self._begin), Piece(dialog.prompt, free=True), *self._answer(dialog.text)]
            )
        else:
            rendered = self._protocol().render(dialog.text, tools=dialog.tools)
        return _record(rendered)

    def preference(self, preference: Preference) -> Record:
        """Raises: DataError: it cannot be rendered."""
        head, answers = self._continued(preference)
        return replace(_record(head, *answers), margin=preference.margin)

    def rating(self, rating: Rating) -> Record:
        """Raises: DataError: it cannot be rendered."""
        return replace(self.preference(rating.alone), good=rating.good)

    def solution(self, solution: Solution, separator: str) -> Record:
        """Raises: DataError: it cannot be rendered, or not in its steps."""
        record = self.stepped(solution.answered(separator), separator)
        if len(record.branches) != len(solution.steps) + 1:
            raise DataError(
                f"its {len(solution.steps)} steps are {len(record.branches) - 1} once they are "
                "joined and tokenized: two of them share a token, or a separator begins in one",
                "write another `separator` in the stage, or correct the steps",
            )
        return replace(record, labels=tuple(solution.labels))

    def stepped(self, preference: Preference, separator: str) -> Record:
        """A prompt with one answer, whose branches are its steps. A step that has no token of its
        own is one with the next.

        Raises: DataError: it cannot be rendered.
        """
        head, (answer,) = self._continued(preference, separator)
        _, counts = np.unique(np.maximum.accumulate(answer.steps), return_counts=True)
        ends = np.cumsum(counts).tolist()
        parts = [answer.cut(end - count, end) for end, count in zip(ends, counts, strict=True)]
        return _record(head, *parts)

    def asked(self, prompt: Prompt) -> Rendered:
        """A prompt as a model receives it, with the assistant's header if it is a dialog.

        Raises: DataError: it cannot be rendered.
        """
        if isinstance(prompt.text, str):
            return self._encoder.encode([Piece(self._begin), Piece(prompt.text, free=True)])
        return self._protocol().render(prompt.text, tools=prompt.tools, prompt=True)

    def _continued(
        self, preference: Preference, separator: str | None = None
    ) -> tuple[Rendered, list[Rendered]]:
        prompt, responses = preference.prompt, preference.responses
        texts = [response for response in responses if isinstance(response, str)]
        if not isinstance(prompt, str) or len(texts) < len(responses):
            answers = list(map(as_response, responses))
            asked = as_prompt(prompt)
            return continuations(self._protocol(), asked, answers, preference.tools, separator)
        head = [Piece(self._begin), Piece(prompt, free=True)]
        start = self._encoder.encode(head)
        rendered: list[Rendered] = []
        for text in texts:
            answer = self._answer(text)
            if separator:
                answer = in_steps(answer, separator)
            whole = self._encoder.encode([*head, *answer])
            joins = whole.ids[: len(start)] != start.ids
            after = self._encoder.encode(answer) if joins else whole.cut(len(start))
            rendered.append(after)
        return start, rendered

    def _answer(self, text: str) -> list[Piece]:
        return [Piece(text, CONTENT, free=True), Piece(self._end, TERMINATION)]

    def _protocol(self) -> Renderer:
        if self._renderer is None:
            raise DataError("the record is a dialog, and the recipe declares no dialog protocol")
        return self._renderer


def require_text(separator: str, tokenizer: Tokenizer) -> None:
    """Raises: DataError: the separator of steps has a special token of the tokenizer in it, which
    no answer has: as text it is other tokens, and what a model writes is read without it."""
    added = tokenizer.get_added_tokens_decoder().values()
    taken = [each.content for each in added if each.special and each.content in separator]
    if taken:
        raise DataError(
            f"the separator {json.dumps(separator)} has {taken[0]} in it, a special token of the "
            "tokenizer, which stands around what is said and never in it",
            "write a `separator` that stands between steps, such as a line feed",
        )


def _record(*parts: Rendered) -> Record:
    """One record of a dialog, or of a prompt and its responses."""
    tokens = np.array([number for part in parts for number in part.ids], np.int64)
    codes = np.array(
        [
            OTHER if len(parts) > 1 and part is parts[0] else code
            for part in parts
            for code in part.parts
        ],
        np.uint8,
    )
    return Record(tokens, codes, tuple(map(len, parts)) if len(parts) > 1 else (), rendered=parts)
