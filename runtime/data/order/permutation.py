"""Keyed permutations, computed without a table."""

import json
from hashlib import sha256

import numpy as np

_ROUNDS = 12
"""Even: each pair of rounds changes both halves. Three pairs suffice for large domains."""
_LEAST_BITS = 6
"""With halves of one or two bits, some orders would be more likely than others."""

# The multipliers of splitmix64's finaliser, and the shifts that go with them.
_MIX = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))
_LAST_SHIFT = 31


class Permutation:
    """The numbers below `count` in a pseudorandom order, computed one by one.

    A Feistel network permutes the numbers with just enough bits. Results that are not below `count`
    are permuted again until they are (cycle walking): for counts above 32 fewer than two times on
    average. It needs no memory and no setup time, whatever `count` is.

    Args:
        count: at least 1, less than 2**62.
        key: determines the order, with `count`; different keys give unrelated orders.
    """

    def __init__(self, count: int, key: bytes) -> None:
        if not 1 <= count < 2**62:
            raise ValueError(f"cannot permute {count} numbers")
        self._count = count
        bits = max((count - 1).bit_length(), _LEAST_BITS)
        self._low = np.uint64(bits // 2)
        # The bits of a round's 64 that each half keeps: the left half (high bits), then the right.
        widths = (bits - bits // 2, bits // 2)
        self._masks = [np.uint64((1 << width) - 1) for width in widths]
        self._keys = [
            np.uint64(int.from_bytes(digest(key.hex(), count, number)[:8], "big"))
            for number in range(_ROUNDS)
        ]

    def __call__(self, places: np.ndarray) -> np.ndarray:
        """The numbers at these places: int64, the shape of `places`, all below `count`."""
        if len(places) and not (places.min() >= 0 and places.max() < self._count):
            raise IndexError(f"no such place among {self._count}")
        numbers = self._network(places.astype(np.uint64))
        while (outside := numbers >= self._count).any():
            numbers[outside] = self._network(numbers[outside])
        return numbers.astype(np.int64)

    def _network(self, numbers: np.ndarray) -> np.ndarray:
        halves = [numbers >> self._low, numbers & self._masks[1]]
        for number, key in enumerate(self._keys):
            changed = number % 2
            halves[changed] = halves[changed] ^ _mixed(
                halves[1 - changed] + key, self._masks[changed]
            )
        return halves[0] << self._low | halves[1]


def _mixed(numbers: np.ndarray, mask: np.uint64) -> np.ndarray:
    """Some bits of a hash of each number; products and sums wrap around at 64 bits."""
    for shift, multiplier in _MIX:
        numbers = (numbers ^ numbers >> np.uint64(shift)) * np.uint64(multiplier)
    return (numbers ^ numbers >> np.uint64(_LAST_SHIFT)) & mask


def shuffled(count: int, *parts: object) -> np.ndarray:
    """The numbers below `count`, in an order set by JSON values: int64, shape (count,)."""
    return earliest(drawn(count, *parts))


def drawn(count: int, *parts: object) -> np.ndarray:
    """Pseudorandom numbers set by JSON values: uint64, shape (count,)."""
    number = int.from_bytes(digest(*parts), "big")
    # Raw numbers, because NumPy guarantees only these, not `permutation`, to stay the same across
    # versions: a run can be resumed after an update.
    return np.random.PCG64(np.random.SeedSequence(number)).random_raw(count)


def earliest(numbers: np.ndarray) -> np.ndarray:
    """The places of numbers in ascending order: int64, the shape of `numbers`."""
    return np.argsort(numbers, kind="stable").astype(np.int64)


def digest(*parts: object) -> bytes:
    """A hash of JSON values."""
    return sha256(json.dumps(parts).encode()).digest()
