"""What all ranks agree on between two steps: whether to stop, and whether to save."""

from functools import cache
from typing import Any, NamedTuple

import torch
import torch.distributed as dist

from .. import stopping


class Agreed(NamedTuple):
    """The common decision of all ranks.

    Attributes:
        stop: the number of the signal that asked a rank to stop; 0: none.
        save: whether a checkpoint is due.
    """

    stop: int
    save: bool


def agree(*, due: bool = False) -> Agreed:
    """All ranks call this between the same two steps, and get the same answer.

    It costs one reduction of two numbers between the hosts; with one rank, nothing.

    Args:
        due: whether a checkpoint is due; rank 0 decides, since clocks differ.
    """
    asked = stopping.asked()
    if dist.get_world_size() == 1:
        return Agreed(asked, due)
    said = torch.tensor([asked, int(due and dist.get_rank() == 0)])
    dist.all_reduce(said, dist.ReduceOp.MAX, group=hosts("border"))
    stop, save = said.tolist()
    return Agreed(stop, bool(save))


def hosts(use: str) -> Any:
    """A group of all ranks that communicates through host memory, one per use; all ranks call this.

    Each use has its own: saving in the background must not wait for a border.
    """
    return _group(dist.group.WORLD, use)


@cache
def _group(world: Any, use: str) -> Any:
    return dist.new_group(backend="gloo")
