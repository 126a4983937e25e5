"""Files of token ids written by other programs: their layout, according to their headers.

This uses only the standard library and reads a few bytes of each file, so checks and runs agree.
The published layouts:

- megatron (NVIDIA/Megatron-LM, `megatron/core/datasets/indexed_dataset.py`): `NAME.bin` holds the
  tokens. `NAME.idx` begins with `MMIDIDX` and two null bytes, the version 1 (64 bits), a code for
  the type of tokens (8 bits, see `CODES`), the number of sequences and of entries in the document
  index (64 bits each); then the lengths of sequences (32 bits), the bytes at which they begin (64
  bits), and the document index (64 bits): the first sequence of each document, and finally the
  number of sequences.
- datatrove (huggingface/datatrove, `src/datatrove/pipeline/tokens/tokenizer.py`), which nanotron
  reads: `NAME.ds` holds tokens of 16 or 32 bits, `NAME.ds.index` the end of each document, in
  tokens (64 bits). `NAME.ds.loss`, if present, masks tokens.
- OLMo (allenai/dolma, `python/dolma/tokenizer/memmap_writer.py`): `NAME.npy` holds tokens without a
  header; a document ends with the end-of-text token. `NAME.csv.gz`, if present, has a line per
  document, which begins with its first token and the one after its last.
- npy: the same with the header of NumPy (NEP 1).

All numbers are little-endian.
"""

import ast
import os
import struct
from pathlib import Path
from typing import NamedTuple

LAYOUTS = ("megatron", "datatrove", "npy", "uint16", "uint32")
"""Values of `layout`; the last two are tokens without a header or an index."""
CODES = {1: "uint8", 2: "int8", 3: "int16", 4: "int32", 5: "int64", 8: "uint16"}
"""Megatron's types of tokens; 6 and 7 are floating-point numbers."""
SIZES = {"uint8": 1, "int8": 1, "uint16": 2, "int16": 2}
SIZES |= {"uint32": 4, "int32": 4, "uint64": 8, "int64": 8}
"""Type → bytes of a token."""
BESIDE = (".idx", ".ds.index", ".ds.metadata", ".ds.loss", ".csv.gz")
"""Endings of companion files of token files."""
IDX_HEAD = 34
_MAGIC = b"MMIDIDX\x00\x00"
_NPY = b"\x93NUMPY"


class Header(NamedTuple):
    """What is known about a file without reading its tokens.

    Attributes:
        layout: one of LAYOUTS; "raw" for tokens without a header whose type is unknown.
        dtype: type of a token; None if only the tokens can tell.
        offset: the byte at which they begin.
        tokens: how many; None if the type is unknown.
        beside: the file of document boundaries; None: documents end with the end-of-text token.
        bytes: of the file.
    """

    layout: str
    dtype: str | None
    offset: int
    tokens: int | None
    beside: Path | None
    bytes: int


class Unusable(Exception):
    """A file does not hold tokens that can be read.

    Attributes:
        message: what is wrong.
        help: what to do.
    """

    def __init__(self, message: str, help: str) -> None:
        super().__init__(message)
        self.message = message
        self.help = help


def is_beside(name: str) -> bool:
    """Whether a file is a companion of a token file, not one itself."""
    return name.lower().endswith(BESIDE)


def header(path: Path, name: str, layout: str | None = None) -> Header:
    """What the name and the header of a file say about it.

    Args:
        name: as shown in messages.
        layout: from the spec.

    Raises:
        Unusable: it is damaged, does not have the layout, or its layout cannot be determined.
        OSError: it cannot be read.
    """
    size = path.stat().st_size
    lower = name.lower()
    if layout == "megatron" or (layout is None and lower.endswith(".bin")):
        return _megatron(path, name, size)
    if layout == "datatrove" or (layout is None and lower.endswith(".ds")):
        return _datatrove(path, name, size)
    with path.open("rb") as file:
        begins = file.read(len(_NPY))
    if begins == _NPY:
        if layout not in (None, "npy"):
            raise Unusable(
                f"{name} begins with the header of NumPy, and the dataset says `layout = {layout}`",
                "leave `layout` out",
            )
        return _npy(path, name, size)
    if layout == "npy":
        raise Unusable(
            f"{name} has no header of NumPy", "write `layout = uint16` or `layout = uint32`"
        )
    if layout is None and not lower.endswith(".npy"):
        raise Unusable(
            f"the name of {name} does not tell how it holds tokens",
            "write `layout = uint16` or `layout = uint32` for ids without a header, documents "
            f"ending with the end-of-text token; or another of {', '.join(LAYOUTS)}",
        )
    return _raw(path, name, size, layout)


def _raw(path: Path, name: str, size: int, dtype: str | None) -> Header:
    least = SIZES[dtype or "uint16"]
    if not size or size % least:
        bits = f"{8 * least}-bit numbers" if dtype else "numbers of 16 or 32 bits"
        raise Unusable(
            f"{name} has {size:,} bytes, which are not {bits}",
            "it may be cut off: copy or download it again",
        )
    index = path.with_suffix(".csv.gz")
    tokens = size // SIZES[dtype] if dtype else None
    there = index if path.suffix.lower() == ".npy" and index.is_file() else None
    return Header(dtype or "raw", dtype, 0, tokens, there, size)


def _npy(path: Path, name: str, size: int) -> Header:
    with path.open("rb") as file:
        file.seek(len(_NPY))
        version = file.read(2)[:1]
        wide = version in (b"\x02", b"\x03")
        try:
            (length,) = struct.unpack("<I" if wide else "<H", file.read(4 if wide else 2))
            found = ast.literal_eval(file.read(length).decode("latin-1"))
            descr, shape = str(found["descr"]), tuple(found["shape"])
        except (struct.error, ValueError, SyntaxError, KeyError, TypeError, MemoryError):
            raise Unusable(
                f"the header of {name} is damaged", "copy or download the file again"
            ) from None
        offset = file.tell()
    kinds = {"u": "uint", "i": "int"}
    dtype = f"{kinds.get(descr[1:2], '')}{8 * int(descr[2:])}" if descr[2:].isdecimal() else ""
    if dtype not in SIZES or descr[0] == ">" or len(shape) != 1:
        raise Unusable(
            f"{name} holds numbers `{descr}` of the shape {shape}, not a row of token ids",
            "save it as one dimension of little-endian integers, such as `numpy.uint16`",
        )
    if size != offset + shape[0] * SIZES[dtype]:
        raise _cut_off(name, size, offset + shape[0] * SIZES[dtype], "its header")
    index = path.with_suffix(".csv.gz")
    return Header("npy", dtype, offset, shape[0], index if index.is_file() else None, size)


def _datatrove(path: Path, name: str, size: int) -> Header:
    index = path.with_name(path.name + ".index")
    if path.with_name(path.name + ".loss").is_file():
        raise Unusable(
            f"{name}.loss takes tokens out of the loss, and of documents every token is learned",
            "move it away to learn all tokens, or make dialogs of the data",
        )
    if not index.is_file():
        raise Unusable(
            f"there is no {name}.index, which says where the documents of {name} end",
            "copy it too; or, where documents end with the end-of-text token, write "
            "`layout = uint16` or `layout = uint32`",
        )
    entries, rest = divmod(index.stat().st_size, 8)
    if rest or not entries:
        raise Unusable(
            f"{name}.index has {8 * entries + rest:,} bytes, which are not 64-bit numbers",
            "copy or download it again",
        )
    with index.open("rb") as file:
        file.seek(8 * (entries - 1))
        (tokens,) = struct.unpack("<Q", file.read(8))
    width = size // tokens if tokens else 0
    if width not in (2, 4) or size != tokens * width:
        raise Unusable(
            f"{name} has {size:,} bytes, and {name}.index tells of {tokens:,} tokens, which take 2 "
            "or 4 bytes each",
            "one of them is cut off, or of another file: copy both again",
        )
    return Header("datatrove", f"uint{8 * width}", 0, tokens, index, size)


def _megatron(path: Path, name: str, size: int) -> Header:
    index = path.with_suffix(".idx")
    shown = f"{name.removesuffix(path.suffix)}.idx"
    if not index.is_file():
        raise Unusable(
            f"there is no {shown}, which says where the documents of {name} are",
            "copy it too; or, where the file holds nothing but ids, and documents end with the "
            "end-of-text token, write `layout = uint16` or `layout = uint32`",
        )
    there = index.stat().st_size
    with index.open("rb") as file:
        head = file.read(IDX_HEAD)
        if not head.startswith(_MAGIC):
            raise Unusable(
                f"{shown} is no index of Megatron: it does not begin with `MMIDIDX`",
                "name the files that Megatron's `preprocess_data.py` has written",
            )
        if len(head) < IDX_HEAD:
            raise _cut_off(shown, there, IDX_HEAD, "the layout")
        version, code, sequences, entries = struct.unpack("<QBQQ", head[len(_MAGIC) :])
        if version != 1 or code not in CODES:
            what = f"the version {version}" if version != 1 else f"tokens of the type {code}"
            raise Unusable(
                f"{shown} has {what}; version 1 with integers is read",
                "write the data again with a current Megatron",
            )
        if there < IDX_HEAD + 12 * sequences + 8 * entries:
            raise _cut_off(shown, there, IDX_HEAD + 12 * sequences + 8 * entries, "its header")
        held = 0
        if sequences:
            file.seek(IDX_HEAD + 4 * (sequences - 1))
            (length,) = struct.unpack("<i", file.read(4))
            file.seek(IDX_HEAD + 4 * sequences + 8 * (sequences - 1))
            (pointer,) = struct.unpack("<q", file.read(8))
            held = pointer + length * SIZES[CODES[code]]
    if size != held:
        raise _cut_off(name, size, held, shown)
    return Header("megatron", CODES[code], 0, size // SIZES[CODES[code]], index, size)


def _cut_off(name: str, there: int, wanted: int, says: str) -> Unusable:
    what = "it is cut off" if there < wanted else "it is not the file that belongs to it"
    return Unusable(
        f"{name} has {there:,} bytes, and {says} tells of {wanted:,}: {what}",
        "copy or download it again",
    )


def advice(pattern: str, root: Path) -> str:
    """What a pattern that no file matches may mean; "" if unknown."""
    if os.path.isfile(root / f"{pattern}.bin"):
        return f'name the file of the tokens: `tokenized = "{pattern}.bin"`'
    return ""
