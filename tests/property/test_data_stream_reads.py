"""Any stretch of the stream is the same stretch of the documents laid end to end."""

from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from etude.runtime.data.order.stream import IGNORE, Stream, pack
from etude.runtime.data.tokens.shards import Shards, write_shards
from etude.runtime.data.tokens.tokenizer import byte_level


@settings(max_examples=60, deadline=None)
@given(
    texts=st.lists(st.text(min_size=1, max_size=12), min_size=1, max_size=12),
    shard_tokens=st.integers(1, 60),
    seed=st.integers(0, 2**64),
    reads=st.lists(st.tuples(st.integers(0, 300), st.integers(0, 200)), min_size=1, max_size=8),
)
def test_reading_equals_the_documents_laid_end_to_end(texts, shard_tokens, seed, reads):
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_shards(
            texts,
            byte_level(),
            folder,
            holdout=Fraction(0),
            seed=0,
            name="web",
            shard_tokens=shard_tokens,
        )
        shards = Shards(folder, "train")
        stream = Stream(shards, seed=seed, name="web")
        assert stream.epoch_tokens == shards.tokens
        tokens: list[int] = []
        starts: list[bool] = []
        for epoch in range(500 // shards.tokens + 1):
            for document in naive_epoch(stream, epoch, texts):
                tokens += document
                starts += [True] + [False] * (len(document) - 1)
        for position, length in reads:
            read_tokens, read_starts = stream.read(position, length)
            assert read_tokens.tolist() == tokens[position : position + length]
            assert read_starts.tolist() == starts[position : position + length]


def naive_epoch(stream: Stream, epoch: int, texts: list[str]) -> list[list[int]]:
    """The documents, encoded here, in the order of the epoch, which must be a permutation."""
    size = stream.epoch_tokens
    order = [document for document, _ in stream.stretches(epoch * size, size)]
    assert sorted(order) == list(range(len(texts)))
    return [[256, *texts[i].encode(), 257] for i in order]


@given(
    lengths=st.lists(st.integers(1, 6), min_size=1, max_size=10),
    skip=st.integers(0, 5),
)
def test_a_sequence_never_predicts_across_documents(lengths, skip):
    starts = np.concatenate([[True] + [False] * (length - 1) for length in lengths])
    places = np.concatenate([np.arange(length) for length in lengths])
    owners = np.repeat(np.arange(len(lengths)), lengths)
    skip = min(skip, len(starts) - 1)
    starts, places, owners = starts[skip:], places[skip:], owners[skip:]
    tokens = np.arange(len(starts)) + 1000
    inputs, labels, positions = pack(tokens, starts)
    assert inputs.tolist() == tokens[:-1].tolist()
    for i in range(len(inputs)):
        assert labels[i] == (tokens[i + 1] if owners[i] == owners[i + 1] else IGNORE)
        within_first = owners[i] == owners[0]
        assert positions[i] == (i if within_first else places[i])
