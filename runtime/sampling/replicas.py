"""Replicas of a model that writes: which answers each draws, and where its ranks meet."""

import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from ...compiler.values import Resources
from ..peers import Peers

AGENT = "TORCHELASTIC_USE_AGENT_STORE"
"""torchrun's word that its own process listens where ranks meet."""


@dataclass(frozen=True)
class Replica:
    """The replica of a rank.

    Attributes:
        number: from 0.
        of: how many there are.
        ranks: of each.
        rank: of this process in its replica.
    """

    number: int
    of: int
    ranks: int
    rank: int

    @classmethod
    def here(cls, mesh: Resources | None, rank: int) -> "Replica":
        """That of a rank of a job; None is the mesh of a job that one process does."""
        of, ranks = (mesh.replicate, mesh.replica) if mesh else (1, 1)
        return cls(rank // ranks, of, ranks, rank % ranks)

    def share(self, left: Sequence[int], draws: int) -> list[int]:
        """The answers that this replica draws.

        Shares differ by at most one answer if no prompt has some of its answers already, and a
        prompt's answers are together, as far as that allows: it is read once for all of them.

        Args:
            left: numbers of the answers that are left, p × draws + d for draw d of prompt p.
        """
        prompts: dict[int, list[int]] = defaultdict(list)
        for number in left:
            prompts[number // draws].append(number)
        every = list(prompts.values())
        whole = len(every) - len(every) % self.of
        apart = [number for numbers in every[whole:] for number in numbers]
        mine = [*every[self.number : whole : self.of], apart[self.number :: self.of]]
        return sorted(number for numbers in mine for number in numbers)

    @contextmanager
    def apart(self, peers: Peers) -> Iterator[None]:
        """Has torch find the ranks of this replica alone, where a process group is made.

        LOCAL_RANK stays: it is the number of this rank's GPU on its node.
        """
        if self.of * self.ranks == 1:
            yield
            return
        address, port = peers.meet(self.number * self.ranks)
        told = {
            "RANK": str(self.rank),
            "WORLD_SIZE": str(self.ranks),
            "MASTER_ADDR": address,
            "MASTER_PORT": str(port),
        }
        before = {name: os.environ.get(name) for name in (*told, AGENT)}
        os.environ.update(told)
        os.environ.pop(AGENT, None)
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value
