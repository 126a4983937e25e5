"""Rows hold every dialog of an epoch once, whole; the order is the seed's alone."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from etude.runtime.data.order import packing as packing_module
from etude.runtime.data.order.packing import Packing, Shuffled, pack_dialogs
from etude.runtime.data.records.shards import Record, Records, write_records
from etude.runtime.errors import DataError

SEQ_LEN = 32


def make(folder: Path, lengths: list[int]) -> Records:
    records = (
        Record(np.full(length, i % 500), np.full(length, 1, np.uint8))
        for i, length in enumerate(lengths)
    )
    write_records(
        records, folder, form="dialogs", vocab=512, holdout=Fraction(0), seed=1, name="chat"
    )
    return Records(folder, "train")


@pytest.fixture
def records(tmp_path: Path) -> Records:
    rng = np.random.default_rng(0)
    return make(tmp_path / "chat", [int(n) for n in rng.integers(1, SEQ_LEN + 1, 300)])


def packed(records: Records, **changes) -> Packing:
    return Packing(records, **{"seed": 1, "name": "chat", "seq_len": SEQ_LEN, **changes})


def test_every_epoch_has_every_dialog_once_and_whole(records, monkeypatch):
    monkeypatch.setattr(packing_module, "_WINDOW", 64)
    rows = packed(records)
    begin, seen = 0, []
    for epoch in range(3):
        count = rows.rows(epoch)
        epoch_rows = [rows.row(begin + i) for i in range(count)]
        assert sorted(i for row in epoch_rows for i in row) == list(range(300))
        assert all(0 < records.lengths[row].sum() <= SEQ_LEN for row in epoch_rows)
        seen.append(epoch_rows)
        begin += count
    assert seen[0] != seen[1] != seen[2]


def test_rows_are_nearly_full(records):
    rows = packed(records)
    assert records.lengths.sum() > 0.95 * rows.rows(0) * SEQ_LEN


def test_any_row_can_be_read_first(records, tmp_path):
    rows = packed(records)
    far = rows.rows(0) + rows.rows(1) + 5
    expected = [rows.row(far), rows.row(0)]
    again = packed(records)
    assert [again.row(far), again.row(0)] == expected
    # From the cache, where another process has made it, and where it is cut off.
    for damage in (False, False, True):
        if damage:
            for path in tmp_path.glob("cache/rows-*.npy"):
                path.write_bytes(path.read_bytes()[:-8])
        cached = packed(records, cache=tmp_path / "cache")
        assert [cached.row(far), cached.row(0)] == expected
    assert len(list(tmp_path.glob("cache/rows-*.npy"))) == 3


@pytest.mark.parametrize("change", [{"seed": 2}, {"name": "other"}])
def test_seed_and_name_make_the_order(records, change):
    assert [packed(records).row(i) for i in range(9)] != [
        packed(records, **change).row(i) for i in range(9)
    ]


def test_a_long_dialog_is_named(tmp_path):
    records = make(tmp_path, [3, 33, 2])
    with pytest.raises(DataError, match="dialog 1 of the data set `chat` has 33 tokens"):
        packed(records)


def test_a_row_of_dialogs_token_by_token():
    one = Record(np.array([1, 2, 3, 4]), np.array([0, 3, 1, 2], np.uint8))
    two = Record(np.array([5, 6, 7]), np.array([0, 1, 0], np.uint8))
    inputs, labels, positions = pack_dialogs([one, two], 9, every_token=False)
    assert inputs.tolist() == [1, 2, 3, 4, 5, 6, 7, 0, 0]
    assert labels.tolist() == [-100, 3, 4, -100, 6, -100, -100, -100, -100]
    assert positions.tolist() == [0, 1, 2, 3, 0, 1, 2, 0, 1]
    _, labels, _ = pack_dialogs([one, two], 9, every_token=True)
    assert labels.tolist() == [2, 3, 4, -100, 6, 7, -100, -100, -100]


def test_preferences_come_in_a_new_order_every_epoch(records):
    order = Shuffled(records, seed=1, name="chat")
    epochs = [[order.index(300 * epoch + i) for i in range(300)] for epoch in range(3)]
    assert all(sorted(epoch) == list(range(300)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    assert order.index(0) == epochs[0][0]


def test_a_split_without_records_is_named(tmp_path):
    make(tmp_path, [3])
    with pytest.raises(DataError, match="has no dialogs"):
        packed(Records(tmp_path, "heldout"))
    with pytest.raises(DataError, match="has no records"):
        Shuffled(Records(tmp_path, "heldout"), seed=1, name="chat")


def test_with_drop_last_an_epoch_of_preferences_has_whole_batches(records):
    whole, cut = (Shuffled(records, seed=1, name="chat", batch=batch) for batch in (1, 16))
    # 300 records are 18 batches of 16, and 12 that are left out.
    for epoch in range(3):
        expected = [whole.index(300 * epoch + place) for place in range(288)]
        assert [cut.index(288 * epoch + place) for place in range(288)] == expected


def test_with_drop_last_an_epoch_of_rows_has_whole_batches(records):
    whole, cut = packed(records), packed(records, batch=16)
    begin = used = 0
    for epoch in range(3):
        count = whole.rows(epoch) // 16 * 16
        assert whole.rows(epoch) - count > 0
        assert cut.rows(epoch) == count
        expected = [whole.row(begin + place) for place in range(count)]
        assert [cut.row(used + place) for place in range(count)] == expected
        begin, used = begin + whole.rows(epoch), used + count


def test_an_epoch_without_a_whole_batch_is_named(tmp_path):
    records = make(tmp_path, [30, 30, 30])
    with pytest.raises(DataError, match="data set `chat` has 3 records, but a batch needs 4"):
        Shuffled(records, seed=1, name="chat", batch=4)
    with pytest.raises(DataError, match="epoch 1 of the data set `chat` has 3 rows"):
        packed(records, batch=4).row(0)
