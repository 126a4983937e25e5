"""Shards hold exactly the tokens of the documents, in two splits, and notice damage."""

import errno
import json
from collections.abc import Iterator
from fractions import Fraction

import numpy as np
import pytest
from tokenizers import Tokenizer, models

from etude.runtime.data.tokens import shards as shards_module
from etude.runtime.data.tokens import split_writer
from etude.runtime.data.tokens.shards import SPLITS, Shards, held_out, write_shards
from etude.runtime.data.tokens.tokenizer import byte_level
from etude.runtime.errors import DataError

TEXTS = [f"document {i}: " + "é" * (i % 7) for i in range(300)]


def write(texts, folder, *, holdout: str | int = "1/10", tokenizer=None, **options):
    options = {"seed": 1, "name": "web"} | options
    return write_shards(
        texts, tokenizer or byte_level(), folder, holdout=Fraction(holdout), **options
    )


def expected(texts: list[str]) -> list[list[int]]:
    return [[256, *text.encode(), 257] for text in texts]


def contents(folder, split: str) -> list[list[int]]:
    shards = Shards(folder, split)
    return [shards.document(i).tolist() for i in range(shards.documents)]


@pytest.mark.parametrize("shard_tokens", [1, 100, 2**28])
def test_every_document_is_in_one_split_token_for_token(tmp_path, shard_tokens):
    summary = write(iter(TEXTS), tmp_path, shard_tokens=shard_tokens)
    outside = [held_out(i, Fraction(1, 10), seed=1, name="web") for i in range(len(TEXTS))]
    documents = expected(TEXTS)
    splits = {
        "train": [each for each, out in zip(documents, outside, strict=True) if not out],
        "heldout": [each for each, out in zip(documents, outside, strict=True) if out],
    }
    for split in SPLITS:
        shards = Shards(tmp_path, split)
        assert contents(tmp_path, split) == splits[split]
        assert shards.lengths.tolist() == [len(each) for each in splits[split]]
        assert shards.lengths.dtype == np.int64
        assert shards.tokens == sum(map(len, splits[split]))
        assert summary["splits"][split]["documents"] == shards.documents
        assert summary["splits"][split]["tokens"] == shards.tokens
    assert summary["documents"] == 300
    assert summary["tokens"] == sum(map(len, documents))
    files = summary["splits"]["train"]["files"]
    assert len(files) == {1: len(splits["train"]), 2**28: 1}.get(shard_tokens, len(files))
    assert json.loads((tmp_path / "shards.json").read_text()) == summary
    made = {"shards.json"} | {name for part in summary["splits"].values() for name in _names(part)}
    assert {path.name for path in tmp_path.iterdir()} == made


def _names(part: dict) -> list[str]:
    return [part["index"], *(file["file"] for file in part["files"])]


def test_writing_again_gives_the_same_bytes(tmp_path):
    for folder in ("a", "b"):
        write(TEXTS, tmp_path / folder, shard_tokens=500)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_memory_and_results_do_not_depend_on_batches(tmp_path, monkeypatch):
    write(TEXTS, tmp_path / "a")
    monkeypatch.setattr(shards_module, "_BATCH_DOCUMENTS", 7)
    monkeypatch.setattr(split_writer, "_INDEX_PIECE", 5)
    seen: list[tuple[int, int]] = []
    taken = 0

    def texts() -> Iterator[str]:
        nonlocal taken
        for taken, text in enumerate(TEXTS):
            done = seen[-1][0] if seen else 0
            assert taken - done <= 7
            yield text

    write(texts(), tmp_path / "b", progress=lambda *done: seen.append(done))
    assert contents(tmp_path / "b", "train") == contents(tmp_path / "a", "train")
    assert seen[-1] == (300, sum(map(len, expected(TEXTS))))
    assert seen == sorted(seen)
    assert len(seen) == 43


def test_the_share_held_out():
    def held(share: Fraction, seed: int = 1, name: str = "web") -> set[int]:
        return {i for i in range(20_000) if held_out(i, share, seed=seed, name=name)}

    assert len(held(Fraction(1, 100))) == pytest.approx(200, abs=50)
    assert len(held(Fraction(1, 3))) == pytest.approx(6667, abs=250)
    assert held(Fraction(1, 100)) < held(Fraction(1, 3))
    assert held(Fraction(1, 100)) != held(Fraction(1, 100), seed=2)
    assert held(Fraction(1, 100)) != held(Fraction(1, 100), name="code")
    assert held(Fraction(0)) == set()
    assert held(Fraction(1)) == set(range(20_000))


@pytest.mark.parametrize("count", [2, 3, 10])
@pytest.mark.parametrize("share", ["1/1000000", "1/2", "999/1000"])
def test_both_splits_get_a_document_if_there_are_two(tmp_path, count, share):
    summary = write(TEXTS[:count], tmp_path, holdout=share)
    assert all(summary["splits"][split]["documents"] > 0 for split in SPLITS)


def test_an_empty_split(tmp_path):
    write(TEXTS[:1], tmp_path / "one", holdout="1/2")
    write(TEXTS, tmp_path / "all", holdout=0)
    write(TEXTS, tmp_path / "none", holdout=1)
    for folder, whole, documents, other in [
        ("one", "train", 1, "heldout"),
        ("all", "train", 300, "heldout"),
        ("none", "heldout", 300, "train"),
    ]:
        assert Shards(tmp_path / folder, whole).documents == documents
        empty = Shards(tmp_path / folder, other)
        assert (empty.documents, empty.tokens, len(empty.lengths)) == (0, 0, 0)


def test_no_documents(tmp_path):
    with pytest.raises(DataError, match="`web` has no documents"):
        write([], tmp_path)


def test_a_document_cannot_forge_special_tokens(tmp_path):
    text = "a<|end_of_text|><|begin_of_text|>b"
    tokenizer = byte_level()
    write([text], tmp_path, tokenizer=tokenizer)
    assert contents(tmp_path, "train") == expected([text])
    assert tokenizer.encode("<|end_of_text|>").ids == [257]


@pytest.mark.parametrize(("largest", "dtype"), [(2**16 - 1, "uint16"), (2**16, "uint32")])
def test_the_token_type_follows_the_vocabulary(tmp_path, largest, dtype):
    tokenizer = Tokenizer(models.BPE(vocab={"a": largest, "</s>": 3}, merges=[]))
    tokenizer.add_special_tokens(["</s>"])
    summary = write(["aa"], tmp_path, tokenizer=tokenizer)
    assert (summary["dtype"], summary["bos"], summary["vocab"]) == (dtype, None, largest + 1)
    assert contents(tmp_path, "train") == [[largest, largest, 3]]


def test_a_full_disk_is_the_callers(tmp_path, monkeypatch):
    def texts() -> Iterator[str]:
        yield "one"
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space left") as caught:
        write(texts(), tmp_path)
    assert caught.value.errno == errno.ENOSPC


def cut(name: str, size: int):
    def damage(folder):
        path = folder / name
        path.write_bytes(path.read_bytes()[:size])

    return damage


def remove(name: str):
    return lambda folder: (folder / name).unlink()


def swap_offsets(folder):
    offsets = np.load(folder / "train-index.npy")
    offsets[[1, 2]] = offsets[[2, 1]]
    np.save(folder / "train-index.npy", offsets)


def forget_last(folder):
    np.save(folder / "train-index.npy", np.load(folder / "train-index.npy")[:-1])


def change_end(folder):
    offsets = np.load(folder / "train-index.npy")
    offsets[-1] += 1
    np.save(folder / "train-index.npy", offsets)


def grow(folder):
    with (folder / "train-00001.bin").open("ab") as file:
        file.write(b"\0\0")


def forget_file(folder):
    summary = json.loads((folder / "shards.json").read_text())
    summary["splits"]["train"]["files"].pop()
    (folder / "shards.json").write_text(json.dumps(summary))


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (remove("shards.json"), "shards.json"),
        (cut("shards.json", 30), "Unterminated|Expecting|delimiter"),
        (remove("train-00001.bin"), "train-00001.bin: No such file"),
        (cut("train-00001.bin", 50), "train-00001.bin has 50 bytes instead of"),
        (grow, "train-00001.bin has"),
        (remove("train-index.npy"), "train-index.npy"),
        (cut("train-index.npy", 500), ""),
        (cut("train-index.npy", 0), ""),
        (forget_last, "does not have"),
        (change_end, "does not end at"),
        (forget_file, "the files do not contain"),
        (swap_offsets, "does not ascend"),
    ],
)
def test_damage_is_noticed(tmp_path, damage, reason):
    write(TEXTS, tmp_path, shard_tokens=500)
    assert len(Shards(tmp_path, "train").lengths) > 200
    damage(tmp_path)
    with pytest.raises(DataError, match=f"are damaged: .*({reason})") as caught:
        _ = Shards(tmp_path, "train").lengths
    assert str(tmp_path) in caught.value.message
    assert caught.value.help


def test_a_document_that_is_not_there(tmp_path):
    write(TEXTS[:3], tmp_path, holdout=0)
    shards = Shards(tmp_path, "train")
    for i in (-1, 3):
        with pytest.raises(IndexError):
            shards.document(i)
