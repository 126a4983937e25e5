"""Which tokens of a row see which: spans, each with a prefix that it continues.

Names carry shapes: B rows, L tokens of a row, S spans.
"""
# ruff: noqa: N803 (the names of the shapes)

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple, Self

import torch


class Span(NamedTuple):
    """Tokens `start` to `end` (excluded) of a row. Each sees itself, the earlier tokens of its span
    and all tokens from `prefix_start` to `prefix_end` (excluded).

    The span continues its prefix: for a window, its first token comes right after the prefix's
    last, wherever the prefix is in the row. A span without a prefix has an empty one.
    """

    start: int
    end: int
    prefix_start: int = 0
    prefix_end: int = 0

    @property
    def length(self) -> int:
        """Tokens of the span, without the prefix."""
        return self.end - self.start

    @property
    def prefix(self) -> int:
        """Tokens of the prefix."""
        return self.prefix_end - self.prefix_start


@dataclass(frozen=True)
class Spans:
    """The spans of some rows.

    Attributes:
        rows: the spans of each row, in order; together they are the whole row.
        length: tokens of each row.

    Raises:
        ValueError: the spans of a row are not the whole row, or a prefix ends behind its span's
            first token.
    """

    rows: tuple[tuple[Span, ...], ...]
    length: int

    def __post_init__(self) -> None:
        for row, spans in enumerate(self.rows):
            borders = [0, *(span.end for span in spans)]
            whole = borders[-1] == self.length
            for begin, span in zip(borders, spans, strict=False):
                whole &= begin == span.start < span.end
                if not 0 <= span.prefix_start <= span.prefix_end <= span.start:
                    raise ValueError(f"the prefix of {span} in row {row} is not before it")
            if not whole:
                raise ValueError(f"the spans of row {row} are not its {self.length} tokens")

    @classmethod
    def of_documents(cls, positions_BL: torch.Tensor) -> Self:
        """Each document sees itself.

        Args:
            positions_BL: positions in the documents; a 0 begins a document.
        """
        rows, length = positions_BL.shape
        begins = positions_BL == 0
        begins[:, 0] = True
        found: list[list[int]] = [[] for _ in range(rows)]
        for row, place in begins.nonzero().tolist():
            found[row].append(place)
        return cls(
            tuple(tuple(Span(*of) for of in pairwise((*row, length))) for row in found), length
        )

    @classmethod
    def of_segments(cls, segments_BL: torch.Tensor, prefixes_BL: torch.Tensor) -> Self:
        """Each segment sees itself, and the one that it continues.

        Args:
            segments_BL: the number of each token's segment; the tokens of a segment are together.
            prefixes_BL: the number of the segment that it continues, earlier in the row; its own if
                it continues none.
        """
        length = segments_BL.shape[1]

        def spans(segments: list[int], prefixes: list[int]) -> Iterable[Span]:
            starts = [at for at in range(1, length) if segments[at] != segments[at - 1]]
            seen: dict[int, tuple[int, int]] = {}
            for start, end in pairwise((0, *starts, length)):
                own, prefix = segments[start], prefixes[start]
                yield Span(start, end, *((0, 0) if prefix == own else seen[prefix]))
                seen[own] = start, end

        rows = zip(segments_BL.tolist(), prefixes_BL.tolist(), strict=True)
        return cls(tuple(tuple(spans(*row)) for row in rows), length)

    def dense(self, window: int = 0) -> torch.Tensor:
        """The whole mask. Its size is the square of the length: for tests.

        Args:
            window: tokens that a token sees, including itself; 0: all.

        Returns:
            bool, shape (B, 1, L, L): whether the token (third axis) sees the token (last axis).
        """
        mask = torch.zeros(len(self.rows), 1, self.length, self.length, dtype=torch.bool)
        for row, spans in enumerate(self.rows):
            for span in spans:
                own = torch.arange(span.start, span.end)
                seen = torch.cat([torch.arange(span.prefix_start, span.prefix_end), own])
                apart = torch.arange(span.prefix, len(seen))[:, None] - torch.arange(len(seen))
                sees = (apart >= 0) & (apart < window) if window else apart >= 0
                mask[row, 0, own[:, None], seen] = sees
        return mask
