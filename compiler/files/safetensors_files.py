"""Reads the headers of safetensors files, without torch.

A file begins with the length of its header, 8 bytes, little endian; the header is JSON: tensor →
`dtype`, `shape` and `data_offsets`, counted from the end of the header.
"""

import json
from pathlib import Path
from typing import Any

INDEX = "model.safetensors.index.json"
WHOLE = "model.safetensors"
PIECE = 4096
"""Bytes compared at each of `PLACES` places in a tensor."""
PLACES = 9
_LONGEST_HEADER = 100_000_000


class Tensors:
    """The tensors of a folder; empty if a file is missing or broken."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        index = _json(folder / INDEX)
        places = index.get("weight_map") if index else None
        self._places: dict[str, Any] = places if isinstance(places, dict) else {}
        self._headers: dict[str, tuple[int, dict[str, Any]]] = {}

    def sample(self, name: str) -> tuple[Any, ...] | None:
        """Type, shape and some of the bytes of a tensor; None if it cannot be read."""
        file = self._places.get(name, WHOLE)
        try:
            start, header = self._header(str(file))
            entry = header[name]
            first, last = entry["data_offsets"]
            with (self._folder / str(file)).open("rb") as stream:
                pieces = []
                for place in range(PLACES):
                    offset = max(last - first - PIECE, 0) * place // (PLACES - 1)
                    stream.seek(start + first + offset)
                    pieces.append(stream.read(min(PIECE, last - first)))
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return entry.get("dtype"), tuple(entry.get("shape") or ()), tuple(pieces)

    def _header(self, file: str) -> tuple[int, dict[str, Any]]:
        if file not in self._headers:
            with (self._folder / file).open("rb") as stream:
                length = int.from_bytes(stream.read(8), "little")
                if length > _LONGEST_HEADER:
                    raise ValueError("no safetensors file")
                self._headers[file] = 8 + length, json.loads(stream.read(length))
        return self._headers[file]


def _json(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None
