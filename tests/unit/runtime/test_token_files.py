"""Tokens of other programs that cannot be used: one message each, with file, reason and fix."""

import gzip
import os
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import token_layouts as layouts
from specs import HEAD, after, stage

from etude.cli.main import main
from etude.compiler.driver import analyse
from etude.runtime.data.tokens import token_files
from etude.runtime.data.tokens.token_files import Vocabulary
from etude.runtime.errors import DataError
from etude.spec.load import read

EOS = 257
DOCUMENTS = [[256, 65, 66, EOS], [256, 67, EOS], [256, *[68] * 30, EOS]]
SPEC = """recipe bad {{ seed = 3 }}
tokenizer bytes {{ bytes }}
dataset web {{ {source} }}
model tiny {{ layers = 2, dim = 64, heads = 4, ffn = 128, vocab = 320 }}
stage pretrain: train {{
  model = tiny, steps = 10, seq_len = 16, batch = 4 seqs, lr = 1e-3, data = web
}}
"""

Change = Callable[[Path], object]


def megatron(folder: Path, dtype: str = "uint16") -> None:
    layouts.megatron(folder / "a.bin", DOCUMENTS, dtype)


def datatrove(folder: Path) -> None:
    layouts.datatrove(folder / "a.ds", DOCUMENTS)


def memmap(folder: Path) -> None:
    layouts.memmap(folder / "a.npy", DOCUMENTS, table=True)


def npy(folder: Path) -> None:
    layouts.npy(folder / "a.npy", DOCUMENTS)


def nothing(folder: Path) -> None:
    """No files."""


def cut(name: str, size: int = -1) -> Change:
    """A file without its last bytes, or with so many."""
    return lambda folder: os.truncate(
        folder / name, (folder / name).stat().st_size - 1 if size < 0 else size
    )


def put(name: str, place: int, content: bytes) -> Change:
    def change(folder: Path) -> None:
        with (folder / name).open("r+b") as file:
            file.seek(place)
            file.write(content)

    return change


def write(name: str, content: bytes) -> Change:
    return lambda folder: (folder / name).write_bytes(content)


def remove(name: str) -> Change:
    return lambda folder: (folder / name).unlink()


def table(*lines: str) -> Change:
    return write("a.csv.gz", gzip.compress("\n".join(lines).encode()))


CHECKED = [
    (megatron, remove("a.idx"), "a.bin", "there is no a.idx"),
    (megatron, cut("a.bin"), "a.bin", "a.bin has 77 bytes, and a.idx tells of 78: it is cut off"),
    (megatron, cut("a.idx"), "a.bin", "a.idx has"),
    (megatron, cut("a.idx", 20), "a.bin", "a.idx has 20 bytes"),
    (megatron, put("a.idx", 0, b"TNTIDX"), "a.bin", "a.idx is no index of Megatron"),
    (megatron, put("a.idx", 9, b"\x02"), "a.bin", "a.idx has the version 2"),
    (megatron, put("a.idx", 17, b"\x07"), "a.bin", "a.idx has tokens of the type 7"),
    (datatrove, remove("a.ds.index"), "a.ds", "there is no a.ds.index"),
    (datatrove, cut("a.ds"), "a.ds", "a.ds has 77 bytes, and a.ds.index tells of 39 tokens"),
    (datatrove, cut("a.ds.index"), "a.ds", "a.ds.index has 23 bytes"),
    (datatrove, cut("a.ds.index", 0), "a.ds", "a.ds.index has 0 bytes"),
    (datatrove, write("a.ds.loss", b"\x01" * 39), "a.ds", "a.ds.loss takes tokens out of the loss"),
    (memmap, cut("a.npy"), "a.npy", "a.npy has 77 bytes, which are not numbers of 16 or 32 bits"),
    (npy, cut("a.npy"), "a.npy", "a.npy has"),
    (npy, cut("a.npy", 9), "a.npy", "the header of a.npy is damaged"),
    (npy, put("a.npy", 20, b"'<f2'"), "a.npy", "numbers `<f2`"),
    (memmap, megatron, "a.*", "a.bin is of the layout `megatron`, and a.npy of `"),
    (memmap, nothing, "*.csv.gz", "`*.csv.gz` names no tokens"),
    (nothing, lambda folder: (folder / "b").mkdir(), "b", "`b` is a folder"),
    (nothing, write("a.tok", b"\x01\x00"), "a.tok", "the name of a.tok does not tell"),
]


@pytest.mark.parametrize(("make", "spoil", "pattern", "words"), CHECKED)
def test_what_headers_tell_is_found_by_check_and_by_the_run(
    tmp_path, capsys, make, spoil, pattern, words
):
    make(tmp_path)
    spoil(tmp_path)
    file = tmp_path / "spec.etude"
    file.write_text(HEAD + stage() + f'dataset t {{ tokenized = "{pattern}" }}\n')
    report = analyse(read(file), root=tmp_path).report
    (found,) = [each for each in report.ordered() if each.code == "E547"]
    assert words in found.message
    assert found.help
    source = {"kind": "tokens", "tokens": [pattern]}
    with pytest.raises(DataError) as caught:
        token_files.sources(source, tmp_path)
    assert words.replace("`", "") in caught.value.message.replace("`", "")
    assert caught.value.help


FOUND = [
    (megatron, put("a.bin", 8, struct.pack("<H", 999)), "a.bin", "a.bin: token 4 (counted from 0)"),
    (
        lambda folder: megatron(folder, "int32"),
        put("a.bin", 8, struct.pack("<i", -1)),
        "a.bin",
        "is -1, and the ids of the tokenizer end at 257",
    ),
    (memmap, put("a.npy", 76, struct.pack("<H", 258)), "a.npy", "a.npy: token 38"),
    (
        memmap,
        lambda folder: ((folder / "a.csv.gz").unlink(), write("a.npy", b"\x41\x00" * 50)(folder)),
        "a.npy",
        "a.npy holds 50 tokens without any end-of-text token",
    ),
    (memmap, table("0,4", "4,7", "7,40"), "a.npy", "has a border at token 40, behind the end"),
    (memmap, table("0,4", "5,39"), "a.npy", "begins the document of line 2 at token 5"),
    (memmap, table("0,4", "4,7"), "a.npy", "ends at token 7"),
    (memmap, table("start,end", "0,4"), "a.npy", "has no two numbers"),
    (memmap, write("a.csv.gz", b"no gzip"), "a.npy", "is damaged"),
    (
        datatrove,
        put("a.ds.index", 0, struct.pack("<Q", 50)),
        "a.ds",
        "has a border at token 7, behind the end or out of order",
    ),
    (
        megatron,
        put("a.idx", 34 + 12, struct.pack("<q", 2)),
        "a.bin",
        "has sequences that do not follow one another",
    ),
    (
        megatron,
        put("a.idx", 34 + 36, struct.pack("<4q", 0, 1, 2, 2)),
        "a.bin",
        "has 1 sequences that belong to no document",
    ),
    (
        megatron,
        put("a.idx", 34 + 36, struct.pack("<4q", 0, 2, 1, 3)),
        "a.bin",
        "out of order",
    ),
    (nothing, write("a.npy", b""), "a.npy", "a.npy has 0 bytes"),
]


@pytest.mark.parametrize(("make", "spoil", "pattern", "words"), FOUND)
def test_what_tokens_and_borders_tell_is_found_before_the_first_job(
    tmp_path, capsys, make, spoil, pattern, words
):
    make(tmp_path)
    spoil(tmp_path)
    spec = tmp_path / "spec.etude"
    spec.write_text(SPEC.format(source=f'tokenized = "{pattern}"'))
    assert main(["prepare", str(spec), "--folder", str(tmp_path / "run")]) == 1
    said = " ".join(capsys.readouterr().err.split())
    assert words in said
    assert "help:" in said
    assert "Traceback" not in said
    assert not list(tmp_path.glob("run/artifacts/*/shards.json"))


def test_an_id_that_no_page_shows_is_found_with_its_place(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(token_files, "_PAGE", 16)
    monkeypatch.setattr(token_files, "_PAGES", 3)
    layouts.memmap(tmp_path / "a.npy", [[65] * 4000, [EOS]])
    put("a.npy", 2 * 777, struct.pack("<H", 300))(tmp_path)
    spec = tmp_path / "spec.etude"
    spec.write_text(SPEC.format(source='tokenized = "a.npy"'))
    assert main(["prepare", str(spec), "--folder", str(tmp_path / "run")]) == 1
    said = " ".join(capsys.readouterr().err.split())
    assert "a.npy: token 777 (counted from 0) is 300" in said


def test_ids_too_narrow_for_the_vocabulary_are_refused(tmp_path):
    megatron(tmp_path)
    source = {"kind": "tokens", "tokens": ["a.bin"]}
    with pytest.raises(DataError, match=r"a\.bin holds uint16 numbers, up to 65,535"):
        token_files.sources(source, tmp_path, Vocabulary(128_256, 128_001))


def test_urls_are_refused(tmp_path):
    with pytest.raises(DataError, match="is a URL"):
        token_files.sources({"kind": "tokens", "tokens": ["s3://b/a.bin"]}, tmp_path)


@pytest.mark.parametrize("dtype", ["uint16", "uint32"])
def test_the_bits_of_ids_without_a_header_are_found(tmp_path, dtype):
    layouts.memmap(tmp_path / "a.npy", [*DOCUMENTS, [65, 66, EOS]], dtype)
    (file,) = token_files.sources(
        {"kind": "tokens", "tokens": ["a.npy"]}, tmp_path, Vocabulary(258, EOS)
    )
    assert file.dtype.name == dtype
    assert file.tokens == 42


def test_a_wrong_number_of_tokens_is_a_warning(tmp_path):
    megatron(tmp_path)
    more = 'dataset t { tokenized = "a.bin", tokens = 1M }\n'
    file = tmp_path / "spec.etude"
    file.write_text(HEAD + stage() + more + after(data="t"))
    codes = [each.code for each in analyse(read(file), root=tmp_path).report.ordered()]
    assert "W679" in codes
    file.write_text(file.read_text().replace("tokens = 1M", "tokens = 40"))
    codes = [each.code for each in analyse(read(file), root=tmp_path).report.ordered()]
    assert "W679" not in codes
    assert "E547" not in codes


def test_a_prefix_of_megatron_is_completed_in_words(tmp_path):
    megatron(tmp_path)
    file = tmp_path / "spec.etude"
    file.write_text(HEAD + stage() + 'dataset t { tokenized = "a" }\n')
    (note,) = [e for e in analyse(read(file), root=tmp_path).report.ordered() if e.code == "N657"]
    assert note.help == 'name the file of the tokens: `tokenized = "a.bin"`'
