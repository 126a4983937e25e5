"""Rows of about the same length for the records of a step.

Rows that are as long as each other need little padding, and give all ranks the same work.
"""

from collections.abc import Sequence
from heapq import heapify, heapreplace

Rows = list[list[int]]
"""The numbers of the items in each row."""


def balanced(lengths: Sequence[int], rows: int) -> Rows:
    """Divides items among rows, each, longest first, to the shortest row so far.

    Graham: Bounds on multiprocessing timing anomalies (1969): no row is longer than 4/3 of what is
    possible.

    Returns:
        The items of each row in the order in which they came, the longest rows first. With no more
        rows than items, no row is empty.
    """
    heap = [(0, row) for row in range(rows)]
    heapify(heap)
    found: Rows = [[] for _ in range(rows)]
    for item in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        length, row = heap[0]
        found[row].append(item)
        heapreplace(heap, (length + lengths[item], row))
    total = {row: length for length, row in heap}
    return [found[row] for row in sorted(range(rows), key=lambda row: (-total[row], row))]


def micro_batches(lengths: Sequence[int], *, ranks: int, rows: int, room: int) -> list[Rows]:
    """The rows of a step in as few micro-batches as they fit into, and in these in as few rows.

    Depends on nothing else than the arguments.

    Args:
        lengths: tokens of each item; as many as fill whole micro-batches of one item a row.
        ranks: which have the same number of rows in each micro-batch.
        rows: the most of a rank in a micro-batch.
        room: the most tokens of a row, unless one item alone has more.

    Returns:
        For each micro-batch the rows of all ranks, the longest first.
    """
    room, total, most = max(room, *lengths), sum(lengths), ranks * rows
    if len(lengths) % most:
        raise ValueError(f"{len(lengths)} items do not fill micro-batches of {most}")
    for number in range(-(-total // (room * most)), len(lengths) // most + 1):
        for each in range(-(-total // (room * number * ranks)), rows + 1):
            size = ranks * each
            found = balanced(lengths, size * number)
            if sum(lengths[item] for item in found[0]) <= room:
                return [found[first : first + size] for first in range(0, size * number, size)]
    raise AssertionError("a row of its own has room for each item")
