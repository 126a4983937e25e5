"""The stream is every document once an epoch, shuffled; a sequence ends no document in another."""

import json
import tracemalloc
from fractions import Fraction

import numpy as np
import pytest

from etude.runtime.data.order import layout
from etude.runtime.data.order.stream import IGNORE, Stream, pack
from etude.runtime.data.tokens.shards import Shards, write_shards
from etude.runtime.data.tokens.tokenizer import byte_level
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


def test_reading_touches_only_the_documents_in_the_stretch(shards, monkeypatch):
    stream = Stream(shards, seed=1, name="web")
    read: list[tuple[int, int]] = []
    plain = Shards.read
    monkeypatch.setattr(
        Shards, "read", lambda self, *where: read.append(where) or plain(self, *where)
    )
    stream.read(700, 30)
    assert sum(count for _, count in read) == 30
    assert len(read) <= 1 + 30 // min(shards.lengths)


@pytest.fixture
def small_windows(monkeypatch):
    """Windows of 4 blocks of about 4 documents each."""
    monkeypatch.setattr(layout, "WINDOW_DOCUMENTS", 16)
    monkeypatch.setattr(layout, "WINDOW_BLOCKS", 4)


def places(stream: Stream, shards: Shards, number: int) -> list[int]:
    """Where in the split the tokens of an epoch lie, in the stream's order."""
    found = []
    size = stream.epoch_tokens
    for first, skip, count in stream._pieces(number * size, size):
        found += range(first + skip, first + skip + count)
    return found


@pytest.mark.usefixtures("small_windows")
def test_an_epoch_of_many_windows_is_every_token_once(shards):
    stream = Stream(shards, seed=1, name="web")
    for number in (0, 1, 2, 10**15):
        assert sorted(places(stream, shards, number)) == list(range(shards.tokens))
    assert places(stream, shards, 0) != places(stream, shards, 1)


@pytest.mark.usefixtures("small_windows")
def test_blocks_cut_few_documents_and_elsewhere_in_each_epoch(shards):
    stream = Stream(shards, seed=1, name="web")
    documents = set(range(shards.documents))
    cut = []
    for number in range(20):
        pieces = list(stream.stretches(number * stream.epoch_tokens, stream.epoch_tokens))
        whole = {document for document, count in pieces if count == shards.lengths[document]}
        cut.append(documents - whole)
        assert len(cut[-1]) <= 26
    assert set().union(*cut) == documents


@pytest.mark.usefixtures("small_windows")
def test_what_a_block_has_of_a_document_begins_like_one(shards):
    """No token sees those of an unrelated document, though no begin of text tells them apart."""
    stream = Stream(shards, seed=1, name="web")
    _, starts = stream.read(0, stream.epoch_tokens)
    pieces = list(stream._pieces(0, stream.epoch_tokens))
    begins = np.cumsum([0, *(count for _, _, count in pieces[:-1])])
    assert np.flatnonzero(starts).tolist() == begins.tolist()
    assert len(pieces) > shards.documents


@pytest.mark.usefixtures("small_windows")
def test_the_order_of_many_windows_is_the_same_for_ever(shards):
    """Changing it would change what a resumed run reads."""
    stream = Stream(shards, seed=1, name="web")
    first = [(1, 6), (90, 5), (97, 7), (4, 12), (3, 10), (2, 8), (98, 12)]
    assert list(stream.stretches(0, 60)) == first
    later = [(64, 1), (33, 5), (62, 11), (95, 5), (94, 17), (74, 17), (77, 3), (96, 1)]
    assert list(stream.stretches(10**12 + 7, 60)) == later


@pytest.mark.usefixtures("small_windows")
def test_any_stretch_of_many_windows_is_the_same_alone(shards):
    whole = Stream(shards, seed=1, name="web").read(0, 3 * shards.tokens)
    for begin in range(0, 2 * shards.tokens, 37):
        tokens, starts = Stream(shards, seed=1, name="web").read(begin, 91)
        assert tokens.tolist() == whole[0][begin : begin + 91].tolist()
        assert starts.tolist() == whole[1][begin : begin + 91].tolist()


def test_neighbours_are_spread_over_an_epoch(tmp_path, monkeypatch):
    """Documents that lie side by side, as those of one site, come far from each other."""
    monkeypatch.setattr(layout, "WINDOW_DOCUMENTS", 256)
    monkeypatch.setattr(layout, "WINDOW_BLOCKS", 64)
    count = 2048
    write_shards(
        map(str, range(count)), byte_level(), tmp_path, holdout=Fraction(0), seed=0, name="web"
    )
    spread = Shards(tmp_path, "train")
    stream = Stream(spread, seed=1, name="web")
    last = {
        document: place
        for place, (document, _) in enumerate(stream.stretches(0, stream.epoch_tokens))
    }
    order = np.array([last[document] for document in range(count)]) / max(last.values())
    # Of two numbers drawn independently, one is a third of the range from the other.
    far = np.abs(order[32:] - order[:-32]).mean()
    assert far == pytest.approx(1 / 3, abs=0.03)
    # The first window holds documents of all parts of the split.
    first = np.flatnonzero(order < 0.1)
    assert all(np.histogram(first, bins=8, range=(0, count))[0] > 5)


def large(folder, count: int) -> None:
    """So many documents of 7 tokens, all 0; the tokens are a hole in a file."""
    folder.mkdir()
    with (folder / "train-00000.bin").open("wb") as file:
        file.truncate(2 * 7 * count)
    np.save(folder / "train-index.npy", np.arange(count + 1) * 7)
    part = {
        "documents": count,
        "tokens": 7 * count,
        "index": "train-index.npy",
        "files": [{"file": "train-00000.bin", "tokens": 7 * count}],
    }
    summary = {"dtype": "uint16", "splits": {"train": part}}
    (folder / "shards.json").write_text(json.dumps(summary))


def test_memory_does_not_depend_on_the_number_of_documents(tmp_path):
    """Nine million documents cost what three millions do."""
    used = {}
    for count in (3_000_000, 9_000_000):
        large(tmp_path / str(count), count)
        tracemalloc.start()
        shards = Shards(tmp_path / str(count), "train", scattered=True)
        stream = Stream(shards, seed=1, name="web")
        assert tracemalloc.get_traced_memory()[1] < 200_000
        for position in (0, 5 * count, 123 * count):
            stream.read(position, 1000)
        used[count] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert used[9_000_000] < 1.1 * used[3_000_000]
    assert used[9_000_000] < 150 * 2**20


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
