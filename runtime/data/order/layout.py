"""The layout of a shuffled epoch: blocks in an order without a table, grouped into windows."""

from dataclasses import dataclass

import numpy as np

from .permutation import Permutation, digest

WINDOW_DOCUMENTS = 2**20
"""Documents that are shuffled individually with each other: 16 MB for a window's table."""
WINDOW_BLOCKS = 1024
"""Blocks per window. More would spread documents further and cut more of them."""


@dataclass(frozen=True)
class Layout:
    """How an epoch of a split is cut.

    With up to `WINDOW_DOCUMENTS` documents, an epoch is one window of all of them. More documents
    are laid end to end in a circle. Each epoch cuts it, from its own starting point, into blocks
    of the same number of tokens. The blocks are permuted, every `WINDOW_BLOCKS` of them or fewer
    form a window, and the documents of a window are shuffled.

    All blocks but the last have the same size, so a window's start in the epoch and its blocks
    follow without sums over documents: nothing is built or read ahead, whatever the size of the
    split.

    Attributes:
        tokens: tokens of the split.
        block: tokens per block; 0 if all documents form one window.
        blocks: how many whole blocks.
        windows: how many windows.
    """

    tokens: int
    block: int
    blocks: int
    windows: int

    @staticmethod
    def of(documents: int, tokens: int) -> "Layout":
        """The layout of a split with this many documents (at least one) and tokens."""
        if documents <= WINDOW_DOCUMENTS:
            return Layout(tokens, 0, 0, 1)
        block = max(tokens * (WINDOW_DOCUMENTS // WINDOW_BLOCKS) // documents, 1)
        blocks = tokens // block
        return Layout(tokens, block, blocks, -(-blocks // WINDOW_BLOCKS))

    def window_at(self, place: int) -> int:
        """The window that contains this token of an epoch."""
        if self.windows == 1:
            return 0
        block = min(place // self.block, self.blocks - 1)
        return ((block + 1) * self.windows - 1) // self.blocks

    def begin(self, window: int) -> int:
        """The token of an epoch at which the window begins."""
        return self._first_block(window) * self.block

    def _first_block(self, window: int) -> int:
        return window * self.blocks // self.windows

    def ranges(self, window: int, *identity: object) -> tuple[np.ndarray, np.ndarray]:
        """The ranges of the split that make up a window.

        Args:
            identity: JSON values: seed, name and epoch.

        Returns:
            begins, ends: int64, shape (stretches,): tokens of the split, at least one per range.
            Together the windows of an epoch contain every token once.
        """
        if not self.block:
            return np.array([0]), np.array([self.tokens])
        turn = int.from_bytes(digest(*identity, "turn"), "big") % self.tokens
        order = Permutation(self.blocks, digest(*identity, "blocks"))
        first, last = self._first_block(window), self._first_block(window + 1)
        begins = order(np.arange(first, last)) * self.block
        ends = begins + self.block
        rest = self.blocks * self.block
        if window == self.windows - 1 and rest < self.tokens:
            begins, ends = np.append(begins, rest), np.append(ends, self.tokens)
        begins, ends = (begins + turn) % self.tokens, (ends + turn - 1) % self.tokens + 1
        over = begins >= ends
        # A range that runs past the end of the split continues at its beginning.
        begins = np.concatenate([begins, np.zeros(over.sum(), np.int64)])
        ends = np.concatenate([np.where(over, self.tokens, ends), ends[over]])
        return begins, ends
