"""Where the tokens of a shuffled epoch lie: blocks in an order without a table, in windows."""

from dataclasses import dataclass

import numpy as np

from .permutation import Permutation, digest

WINDOW_DOCUMENTS = 2**20
"""So many documents are shuffled with each other, one by one: 16 MB for a window's table."""
WINDOW_BLOCKS = 1024
"""So many blocks make a window. More would spread documents further and cut more of them."""


@dataclass(frozen=True)
class Layout:
    """How an epoch of a split is cut.

    Of up to `WINDOW_DOCUMENTS` documents, an epoch is one window of all of them. More are laid end
    to end in a circle, which each epoch cuts, from a place of its own on, in blocks of the same
    number of tokens. The blocks are permuted, and every `WINDOW_BLOCKS` of them or fewer make a
    window, whose documents are shuffled.

    Since all blocks but the last are of the same size, where a window begins in the epoch, and
    which blocks it has, takes no sums over documents: nothing is made or read ahead, whatever the
    size of the split.

    Attributes:
        tokens: of the split.
        block: tokens of a block; 0 where all documents are one window.
        blocks: whole ones.
        windows: how many.
    """

    tokens: int
    block: int
    blocks: int
    windows: int

    @staticmethod
    def of(documents: int, tokens: int) -> "Layout":
        """The layout of a split with so many documents, one or more, and tokens."""
        if documents <= WINDOW_DOCUMENTS:
            return Layout(tokens, 0, 0, 1)
        block = max(tokens * (WINDOW_DOCUMENTS // WINDOW_BLOCKS) // documents, 1)
        blocks = tokens // block
        return Layout(tokens, block, blocks, -(-blocks // WINDOW_BLOCKS))

    def window_at(self, place: int) -> int:
        """The window that holds this token of an epoch."""
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
        """The stretches of the split that a window is made of.

        Args:
            identity: JSON values: seed, name and epoch.

        Returns:
            begins, ends: int64, shape (stretches,): tokens of the split, each stretch at least
            one. Together the windows of an epoch hold every token once.
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
        # One that runs over the end of the split continues at its beginning.
        begins = np.concatenate([begins, np.zeros(over.sum(), np.int64)])
        ends = np.concatenate([np.where(over, self.tokens, ends), ends[over]])
        return begins, ends
