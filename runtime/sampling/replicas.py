"""Replicas of a model that writes: which answers each draws."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from ...compiler.values import Resources


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
