"""The same documents as text and as tokens of any layout give the same batches, bit for bit."""

import json
import os
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import token_layouts as layouts

from etude.cli.main import main
from etude.runtime.data.order.stream import Stream
from etude.runtime.data.tokens import shards as shards_module
from etude.runtime.data.tokens.filter import filter_shards
from etude.runtime.data.tokens.shards import SPLITS, Shards
from etude.runtime.data.tokens.tokenizer import byte_level, special
from etude.runtime.preparation import token_units, units

SPEC = """recipe same {{ seed = 3 }}
tokenizer bytes {{ bytes }}
dataset web {{ {source}, holdout = 10% }}
model tiny {{ layers = 2, dim = 64, heads = 4, ffn = 128, vocab = 320 }}
stage pretrain: train {{
  model = tiny, steps = 10, seq_len = 16, batch = 4 seqs, lr = 1e-3, data = web
}}
"""
TEXTS = [f"document {number} " + "word " * (number * number % 23) for number in range(300)]


def documents() -> list[list[int]]:
    """The texts as the tokenizer of bytes has them."""
    made = byte_level([])
    marks = special(made)
    begin = [] if marks.bos is None else [marks.bos]
    return [[*begin, *made.encode(text).ids, marks.eos] for text in TEXTS]


def prepared(folder: Path, source: str, *parts: str, name: str = "run") -> Path:
    """The shards of the data set of a spec, made in parts where there are some."""
    spec = folder / "spec.etude"
    spec.write_text(SPEC.format(source=source))
    run = folder / name
    for part in (*parts, ""):
        given = ["--part", *part.split()] if part else []
        assert main(["prepare", str(spec), "--folder", str(run), *given]) == 0
    (found,) = run.glob("artifacts/*/shards.json")
    return found.parent


def batches(folder: Path) -> list[np.ndarray]:
    """Two epochs of training, and the held-out documents."""
    stream = Stream(Shards(folder, "train", scattered=True), seed=3, name="web")
    out = Shards(folder, "heldout")
    read = stream.read(0, 2 * stream.epoch_tokens + 77)
    return [*read, *(out.document(number) for number in range(out.documents))]


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> list[np.ndarray]:
    folder = tmp_path_factory.mktemp("texts")
    lines = [json.dumps({"text": text}) + "\n" for text in TEXTS]
    (folder / "a.jsonl").write_text("".join(lines))
    return batches(prepared(folder, 'files = "a.jsonl"'))


def halves(write: Callable[..., None], folder: Path, ending: str, **more: object) -> None:
    """Half of the documents in each of two files."""
    found = documents()
    for name, some in (("a", found[:120]), ("b", found[120:])):
        write(folder / f"{name}{ending}", some, **more)


LAYOUTS = {
    "megatron": (layouts.megatron, ".bin", {}, '"*.bin"'),
    "megatron int32, sequences": (layouts.megatron, ".bin", {"dtype": "int32", "cut": 7}, '"*"'),
    "datatrove": (layouts.datatrove, ".ds", {}, '"*.ds"'),
    "datatrove uint32": (layouts.datatrove, ".ds", {"dtype": "uint32"}, '"*"'),
    "olmo": (layouts.memmap, ".npy", {}, '"*.npy"'),
    "olmo uint32": (layouts.memmap, ".npy", {"dtype": "uint32"}, '"*.npy"'),
    "olmo with borders": (layouts.memmap, ".npy", {"table": True}, '"*"'),
    "numpy": (layouts.npy, ".npy", {"dtype": "int64"}, '"*.npy"'),
    "ids": (layouts.memmap, ".tok", {}, '"*.tok", layout = uint16'),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_tokens_give_the_batches_of_texts(tmp_path, texts, layout):
    write, ending, more, pattern = LAYOUTS[layout]
    (tmp_path / "tokens").mkdir()
    halves(write, tmp_path / "tokens", ending, **more)
    pattern = pattern.replace('"', '"tokens/', 1)
    folder = prepared(tmp_path, f"tokenized = {pattern}")
    for mine, theirs in zip(batches(folder), texts, strict=True):
        assert np.array_equal(mine, theirs)
    assert not list(folder.glob("*.bin"))
    assert sum(path.stat().st_size for path in folder.iterdir()) < 20_000


def test_parts_and_small_units_give_the_same_bytes(tmp_path, texts, monkeypatch):
    halves(layouts.memmap, tmp_path, ".npy")
    whole = prepared(tmp_path, 'tokenized = "*.npy"', name="whole")
    monkeypatch.setattr(token_units, "LARGE", 500)
    monkeypatch.setattr(token_units, "SMALL", 0)
    monkeypatch.setattr(units, "_MUCH", 0)
    monkeypatch.setattr(units, "processors", lambda: 2)
    parts = prepared(tmp_path, 'tokenized = "*.npy"', "2 of 2", "1 of 2", name="parts")
    names = sorted(path.name for path in whole.iterdir() if path.name != "manifest.json")
    assert names == sorted(p.name for p in parts.iterdir() if p.name != "manifest.json")
    for name in names:
        assert (whole / name).read_bytes() == (parts / name).read_bytes()
    for mine, theirs in zip(batches(parts), texts, strict=True):
        assert np.array_equal(mine, theirs)


@pytest.mark.parametrize("more", ["skip = 7 docs", "documents = 50 docs, skip = 3 docs"])
def test_some_of_the_documents(tmp_path, more):
    halves(layouts.megatron, tmp_path, ".bin")
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in TEXTS))
    mine = prepared(tmp_path, f'tokenized = "*.bin", {more}', name="tokens")
    theirs = prepared(tmp_path, f'files = "a.jsonl", {more}', name="texts")
    for one, other in zip(batches(mine), batches(theirs), strict=True):
        assert np.array_equal(one, other)


def test_documents_without_tokens_are_left_out(tmp_path):
    found = documents()
    with_empty = [*found[:3], [], [], *found[3:], []]
    (tmp_path / "m").mkdir()
    layouts.megatron(tmp_path / "m" / "a.bin", with_empty)
    layouts.datatrove(tmp_path / "m" / "a.ds", with_empty)
    for pattern in ("m/*.bin", "m/*.ds"):
        folder = prepared(tmp_path, f'tokenized = "{pattern}"', name=pattern[-2:])
        assert sum(Shards(folder, split).documents for split in SPLITS) == len(found)


def test_what_is_behind_the_last_end_of_text_is_a_document(tmp_path):
    layouts.memmap(tmp_path / "a.npy", [*documents(), [65, 66, 67]])
    folder = prepared(tmp_path, 'tokenized = "a.npy"')
    shards = Shards(folder, "train")
    last = shards.document(shards.documents - 1).tolist()
    assert last in ([65, 66, 67], documents()[-1])
    assert sum(Shards(folder, split).documents for split in SPLITS) == len(TEXTS) + 1


def test_tokens_that_have_moved_or_changed_are_told_and_found_again(tmp_path, capsys):
    (tmp_path / "tokens").mkdir()
    halves(layouts.datatrove, tmp_path / "tokens", ".ds")
    folder = prepared(tmp_path, 'tokenized = "tokens/*.ds"')
    os.rename(tmp_path / "tokens", tmp_path / "moved")
    with pytest.raises(shards_module.DataError, match=r"a\.ds: No such file") as lost:
        Shards(folder, "train")
    assert f"remove {folder}" in lost.value.help
    os.rename(tmp_path / "moved", tmp_path / "tokens")
    with (tmp_path / "tokens" / "a.ds").open("r+b") as file:
        file.seek(20)
        file.write(b"\x41\x00")
    spec = tmp_path / "spec.etude"
    assert main(["prepare", str(spec), "--folder", str(tmp_path / "run")]) == 0
    assert len(list((tmp_path / "run").glob("artifacts/*/shards.json"))) == 2


def test_what_the_documents_lack_is_said(tmp_path, capsys):
    layouts.megatron(tmp_path / "a.bin", [document[1:-1] for document in documents()])
    prepared(tmp_path, 'tokenized = "a.bin"')
    said = " ".join(capsys.readouterr().out.split())
    assert "0 end with" in said
    assert "they are taken as they are" in said


def test_a_preview_shows_tokens_as_it_shows_texts(tmp_path, capsys):
    halves(layouts.megatron, tmp_path, ".bin")
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in TEXTS))
    shown = []
    for source in ('tokenized = "*.bin"', 'files = "a.jsonl"'):
        (tmp_path / "spec.etude").write_text(SPEC.format(source=source))
        assert main(["preview", str(tmp_path / "spec.etude")]) == 0
        shown.append([line for line in capsys.readouterr().out.splitlines() if "word" in line])
    assert shown[0] == shown[1]
    assert shown[0]


def test_a_filter_of_tokens_copies_none(tmp_path):
    halves(layouts.datatrove, tmp_path, ".ds")
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in TEXTS))
    found = []
    for name, source in (("tokens", 'tokenized = "*.ds"'), ("texts", 'files = "a.jsonl"')):
        made = prepared(tmp_path, source, name=name)
        scores = tmp_path / f"{name}-scores"
        scores.mkdir()
        for split in SPLITS:
            np.save(scores / f"{split}.npy", np.arange(Shards(made, split).documents) % 3)
        rules = [(scores, ">", 1.0, Fraction(0)), (scores, "<", 1.0, Fraction(1, 2))]
        filter_shards(made, tmp_path / f"{name}-kept", rules, name="web", seed=3)
        found.append(batches(tmp_path / f"{name}-kept"))
    for mine, theirs in zip(*found, strict=True):
        assert np.array_equal(mine, theirs)
    assert not list((tmp_path / "tokens-kept").glob("*.bin"))
