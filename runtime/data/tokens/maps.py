"""Memory maps of flat files, read sequentially or at random."""

import mmap
import os
from pathlib import Path

import numpy as np

_PAGE = mmap.PAGESIZE


class Map:
    """A memory map of numbers in a file.

    The rest of the file is not read, and nothing is held in memory except in the kernel's page
    cache, which all processes share.

    Args:
        path: of the file.
        dtype: of the numbers.
        count: how many.
        offset: the byte at which they begin.
        scattered: whether they are read in random order. The kernel then reads only the requested
            pages, instead of 32 pages around each.

    Attributes:
        numbers: all of them, shape (count,); read when used.

    Raises:
        OSError: the file cannot be opened.
        ValueError: the file is too short.
    """

    def __init__(
        self, path: Path, dtype: np.dtype, count: int, *, offset: int = 0, scattered: bool = False
    ) -> None:
        self._itemsize = dtype.itemsize
        self._offset = offset
        self._map: mmap.mmap | None = None
        self._scattered = scattered
        if count == 0:
            self.numbers = np.empty(0, dtype)
            return
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size < offset + count * dtype.itemsize:
                raise ValueError(f"{path.name} ends too early")
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        if scattered and hasattr(mmap, "MADV_RANDOM"):
            self._map.madvise(mmap.MADV_RANDOM)
        self.numbers = np.frombuffer(self._map, dtype, count, offset)

    def read(self, begin: int, count: int) -> np.ndarray:
        """Some of the numbers, as a view of the file. If they fill more than a page, all of them
        are requested at once."""
        size = count * self._itemsize
        if self._scattered and size > _PAGE and self._map is not None:
            first = self._offset + begin * self._itemsize
            aligned = first - first % _PAGE
            if hasattr(mmap, "MADV_WILLNEED"):
                self._map.madvise(mmap.MADV_WILLNEED, aligned, first + size - aligned)
        return self.numbers[begin : begin + count]


def map_npy(path: Path, *, scattered: bool = False) -> Map:
    """The numbers of a one-dimensional `.npy` file.

    Raises:
        OSError: the file cannot be opened.
        ValueError: it is not such a file, or too short.
    """
    with path.open("rb") as file:
        version = np.lib.format.read_magic(file)
        if version != (1, 0):
            raise ValueError(f"{path.name} has a header of the version {version}, not 1.0")
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
        if len(shape) != 1:
            raise ValueError(f"{path.name} has {len(shape)} dimensions, not one")
        return Map(path, dtype, shape[0], offset=file.tell(), scattered=scattered)
