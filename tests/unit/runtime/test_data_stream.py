"""The stream is every document once an epoch, shuffled; a sequence ends no document in another."""

from concurrent.futures import ProcessPoolExecutor
from fractions import Fraction
from multiprocessing import get_context

import numpy as np
import pytest

from etude.runtime.data import stream as stream_module
from etude.runtime.data.shards import Shards, write_shards
from etude.runtime.data.stream import IGNORE, Stream, pack
from etude.runtime.data.tokenizer import byte_level
from etude.runtime.errors import DataError

TEXTS = [f"{i} " * (1 + i % 5) for i in range(100)]


@pytest.fixture
def shards(tmp_path) -> Shards:
    write_shards(TEXTS, byte_level(), tmp_path, holdout=Fraction(0), seed=0, name="web")
    return Shards(tmp_path, "train")


def epoch(stream: Stream, number: int) -> list[str]:
    """The documents of an epoch in the stream's order."""
    size = stream.epoch_tokens
    tokens, starts = stream.read(number * size, size)
    return [
        bytes(part[1:-1].tolist()).decode() for part in np.split(tokens, np.flatnonzero(starts)[1:])
    ]


def test_an_epoch_is_every_document_once(shards):
    stream = Stream(shards, seed=1, name="web")
    for number in (0, 1, 10**15):
        assert sorted(epoch(stream, number)) == sorted(TEXTS)


def test_orders_differ_between_epochs_seeds_and_names_and_nothing_else(shards):
    orders = [
        epoch(Stream(shards, seed=seed, name=name), number)
        for seed, name, number in [(1, "web", 0), (1, "web", 1), (2, "web", 0), (1, "code", 0)]
    ]
    assert len({tuple(order) for order in [*orders, TEXTS]}) == 5
    assert epoch(Stream(shards, seed=1, name="web"), 0) == orders[0]


def test_the_order_is_the_same_for_ever(shards):
    """Changing it would change what a resumed run reads."""
    first = [text.split()[0] for text in epoch(Stream(shards, seed=1, name="web"), 0)[:5]]
    assert first == ["59", "34", "33", "25", "16"]


def test_types_and_shapes(shards):
    tokens, starts = Stream(shards, seed=1, name="web").read(5, 17)
    assert (tokens.dtype, tokens.shape, starts.dtype, starts.shape) == (
        np.int64,
        (17,),
        bool,
        (17,),
    )


def test_places_that_do_not_exist(shards):
    stream = Stream(shards, seed=1, name="web")
    for position, length in [(-1, 1), (0, -1)]:
        with pytest.raises(ValueError, match="cannot read"):
            stream.read(position, length)


def test_a_split_without_documents(shards):
    with pytest.raises(DataError, match="`heldout` of the data set `web` has no documents"):
        Stream(Shards(shards.folder, "heldout"), seed=1, name="web")


def test_the_cache_changes_nothing_and_is_used(shards, tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    plain = epoch(Stream(shards, seed=1, name="web"), 3)
    assert epoch(Stream(shards, seed=1, name="web", cache=cache), 3) == plain
    assert len(list(cache.iterdir())) == 1
    monkeypatch.setattr(Stream, "_make_epoch", None)
    assert epoch(Stream(shards, seed=1, name="web", cache=cache), 3) == plain


@pytest.mark.parametrize("size", [0, 50, 130, 500])
def test_a_cache_file_that_was_cut_off_is_made_again(shards, tmp_path, size):
    cache = tmp_path / "cache"
    plain = epoch(Stream(shards, seed=1, name="web", cache=cache), 0)
    (path,) = cache.iterdir()
    whole = path.read_bytes()
    path.write_bytes(whole[:size])
    assert epoch(Stream(shards, seed=1, name="web", cache=cache), 0) == plain
    assert path.read_bytes() == whole


def test_a_cache_of_other_documents_is_not_used(shards, tmp_path):
    epoch(Stream(shards, seed=1, name="web", cache=tmp_path / "cache"), 0)
    other = tmp_path / "other"
    write_shards(TEXTS[::-1], byte_level(), other, holdout=Fraction(0), seed=0, name="web")
    turned = Shards(other, "train")
    assert (turned.documents, turned.tokens) == (shards.documents, shards.tokens)
    stream = Stream(turned, seed=1, name="web", cache=tmp_path / "cache")
    assert sorted(epoch(stream, 0)) == sorted(TEXTS)


def first_epoch(folder, cache):
    return epoch(Stream(Shards(folder, "train"), seed=1, name="web", cache=cache), 0)


def test_ranks_may_write_the_cache_at_once(shards, tmp_path):
    with ProcessPoolExecutor(8, mp_context=get_context("fork")) as ranks:
        read = list(ranks.map(first_epoch, [shards.folder] * 8, [tmp_path / "cache"] * 8))
    assert read == [epoch(Stream(shards, seed=1, name="web"), 0)] * 8
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_a_failed_write_leaves_nothing_behind(tmp_path):
    def full(_):
        raise OSError("No space left on device")

    with pytest.raises(OSError, match="No space"):
        stream_module.write_whole(tmp_path / "order.npy", full)
    assert list(tmp_path.iterdir()) == []


def test_reading_touches_only_the_documents_in_the_stretch(shards, monkeypatch):
    stream = Stream(shards, seed=1, name="web")
    read: list[int] = []
    document = Shards.document
    monkeypatch.setattr(Shards, "document", lambda self, i: read.append(i) or document(self, i))
    stream.read(700, 30)
    assert len(read) <= 1 + 30 // min(shards.lengths)


def test_pack():
    """Two documents, <1 11 12 2> and <1 13 2>, from the middle of the one before."""
    tokens = np.array([10, 2, 1, 11, 12, 2, 1, 13, 2])
    starts = np.array([0, 0, 1, 0, 0, 0, 1, 0, 0], bool)
    inputs, labels, positions = pack(tokens, starts)
    assert inputs.tolist() == [10, 2, 1, 11, 12, 2, 1, 13]
    assert labels.tolist() == [2, IGNORE, 11, 12, 2, IGNORE, 13, 2]
    assert positions.tolist() == [0, 1, 0, 1, 2, 3, 0, 1]
    assert IGNORE == -100
    assert {each.dtype for each in (inputs, labels, positions)} == {np.dtype(np.int64)}
