"""Files of tokens, byte by byte as their formats are published: see `token_files.py`."""

import gzip
import struct
from collections.abc import Sequence
from pathlib import Path

Documents = Sequence[Sequence[int]]
_FORMATS = {"uint8": "B", "uint16": "H", "uint32": "I", "int32": "i", "int64": "q"}
_CODES = {"uint8": 1, "int32": 4, "int64": 5, "uint16": 8}


def ids(documents: Documents, dtype: str = "uint16") -> bytes:
    """All ids one after the other."""
    flat = [token for document in documents for token in document]
    return struct.pack(f"<{len(flat)}{_FORMATS[dtype]}", *flat)


def megatron(path: Path, documents: Documents, dtype: str = "uint16", *, cut: int = 0) -> None:
    """`path` and the `.idx` beside it; with `cut`, documents are made of sequences that long."""
    sequences: list[Sequence[int]] = []
    borders = [0]
    for document in documents:
        step = cut or max(len(document), 1)
        sequences += [document[n : n + step] for n in range(0, len(document), step)]
        borders.append(len(sequences))
    size = struct.calcsize(_FORMATS[dtype])
    lengths = [len(each) for each in sequences]
    pointers = [size * sum(lengths[:n]) for n in range(len(lengths))]
    path.write_bytes(ids(documents, dtype))
    path.with_suffix(".idx").write_bytes(
        b"MMIDIDX\x00\x00"
        + struct.pack("<QBQQ", 1, _CODES[dtype], len(lengths), len(borders))
        + struct.pack(f"<{len(lengths)}i", *lengths)
        + struct.pack(f"<{len(pointers)}q", *pointers)
        + struct.pack(f"<{len(borders)}q", *borders)
    )


def datatrove(path: Path, documents: Documents, dtype: str = "uint16") -> None:
    """`path`, a `.ds`, with `.index` and `.metadata` beside it."""
    ends = [sum(map(len, documents[: n + 1])) for n in range(len(documents))]
    path.write_bytes(ids(documents, dtype))
    path.with_name(f"{path.name}.index").write_bytes(struct.pack(f"<{len(ends)}Q", *ends))
    path.with_name(f"{path.name}.metadata").write_text(f"a-tokenizer|2\n{ends[-1]}\n0 T")


def memmap(path: Path, documents: Documents, dtype: str = "uint16", *, table: bool = False) -> None:
    """`path` with ids alone, as OLMo has them; with `table`, borders beside it."""
    path.write_bytes(ids(documents, dtype))
    if table:
        rows, begin = [], 0
        for number, document in enumerate(documents):
            rows.append(f"{begin},{begin + len(document)},id-{number},a.jsonl.gz,{number}\n")
            begin += len(document)
        path.with_suffix(".csv.gz").write_bytes(gzip.compress("".join(rows).encode()))


def npy(path: Path, documents: Documents, dtype: str = "uint16") -> None:
    """`path` with the header of NumPy's format 1.0."""
    kind = {"uint16": "<u2", "uint32": "<u4", "int64": "<i8", "int32": "<i4"}[dtype]
    count = sum(map(len, documents))
    header = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': ({count},), }}"
    header += " " * (-(10 + len(header) + 1) % 64) + "\n"
    start = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header))
    path.write_bytes(start + header.encode() + ids(documents, dtype))
