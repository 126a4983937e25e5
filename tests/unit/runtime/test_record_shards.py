"""Record shards hold exactly the records, in two splits, and notice damage."""

import json
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from etude.runtime.data.records.shards import Record, Records, write_records
from etude.runtime.data.tokens.shards import held_out
from etude.runtime.errors import DataError


def records(count: int, form: str, vocab: int) -> list[Record]:
    made = []
    for i in range(count):
        rng = np.random.default_rng(i)
        branches = tuple(int(n) for n in rng.integers(1, 9, size=3 + i % 2))
        length = sum(branches)
        made.append(
            Record(
                rng.integers(0, vocab, length),
                rng.integers(0, 4, length).astype(np.uint8),
                branches if form == "preferences" else (),
            )
        )
    return made


def write(made, folder, *, form: str, vocab: int = 300, **options):
    options = {"holdout": Fraction(1, 4), "seed": 5, "name": "chat"} | options
    return write_records(iter(made), folder, form=form, vocab=vocab, **options)


@pytest.mark.parametrize("form", ["dialogs", "preferences"])
@pytest.mark.parametrize("vocab", [4, 2**14, 2**14 + 1, 200_000])
def test_every_record_is_in_one_split(tmp_path, form, vocab):
    made = records(40, form, vocab)
    made[0].tokens[0] = vocab - 1
    made[0].parts[0] = 3
    summary = write(made, tmp_path, form=form, vocab=vocab, extra=lambda: {"dropped": 2})
    assert json.loads((tmp_path / "records.json").read_text()) == summary
    assert summary["form"] == form
    assert summary["dropped"] == 2
    assert summary["documents"] == 40
    for split in ("train", "heldout"):
        outside = split == "heldout"
        expected = [
            record
            for i, record in enumerate(made)
            if held_out(i, Fraction(1, 4), seed=5, name="chat") == outside
        ]
        found = Records(tmp_path, split)
        assert found.count == len(expected) > 5
        assert found.lengths.tolist() == [len(record.tokens) for record in expected]
        for i, record in enumerate(expected):
            each = found.record(i)
            assert each.tokens.dtype == np.int64
            assert each.parts.dtype == np.uint8
            np.testing.assert_array_equal(each.tokens, record.tokens)
            np.testing.assert_array_equal(each.parts, record.parts)
            assert each.branches == record.branches
        if form == "preferences":
            assert found.branches.sum(axis=1).tolist() == found.lengths.tolist()
        else:
            with pytest.raises(ValueError, match="no branches"):
                _ = found.branches


def test_a_split_may_be_empty(tmp_path):
    write(records(3, "preferences", 9), tmp_path, form="preferences", holdout=Fraction(0))
    assert Records(tmp_path, "heldout").count == 0
    assert Records(tmp_path, "train").count == 3


def test_no_records_at_all(tmp_path):
    with pytest.raises(DataError, match="`chat` has no records"):
        write([], tmp_path, form="dialogs")


@pytest.mark.parametrize(
    ("tokens", "parts", "branches", "form"),
    [
        ([], [], (), "dialogs"),
        ([1, 2], [0], (), "dialogs"),
        ([1, 300], [0, 0], (), "dialogs"),
        ([1, 2], [0, 5], (), "dialogs"),
        ([1, 2, 3], [0, 1, 1], (1, 1, 1), "dialogs"),
        ([1, 2, 3], [0, 1, 1], (1, 2), "preferences"),
        ([1, 2, 3], [0, 1, 1], (1, 1, 2), "preferences"),
        ([1, 2, 3], [0, 1, 1], (1, 2, 0), "preferences"),
    ],
)
def test_a_record_that_does_not_fit_itself_is_refused(tmp_path, tokens, parts, branches, form):
    record = Record(np.array(tokens, np.int64), np.array(parts, np.uint8), branches)
    with pytest.raises(ValueError, match=r"a record|a dialog|a preference"):
        write([record], tmp_path, form=form)


def _summary_gone(folder):
    (folder / "records.json").unlink()


def _branches_gone(folder):
    (folder / "train-branches.npy").unlink()


def _branches_cut_off(folder):
    path = folder / "train-branches.npy"
    path.write_bytes(path.read_bytes()[:-4])


def _branches_of_fewer(folder):
    np.save(folder / "train-branches.npy", np.load(folder / "train-branches.npy")[1:])


def _tokens_cut_off(folder):
    path = folder / "train-00000.bin"
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize(
    "damage",
    [_summary_gone, _branches_gone, _branches_cut_off, _branches_of_fewer, _tokens_cut_off],
)
def test_damage_is_noticed(tmp_path, damage):
    write(records(9, "preferences", 300), tmp_path, form="preferences")
    damage(tmp_path)
    with pytest.raises(DataError, match="damaged"):
        Records(tmp_path, "train")


def test_branches_that_do_not_add_up_are_noticed(tmp_path):
    write(records(9, "preferences", 300), tmp_path, form="preferences")
    table = np.load(tmp_path / "train-branches.npy")
    table[2, 1] += 1
    np.save(tmp_path / "train-branches.npy", table)
    found = Records(tmp_path, "train")
    found.record(1)
    with pytest.raises(DataError, match="record 2 do not add up"):
        found.record(2)


def test_margins_stay_beside_their_preferences(tmp_path):
    made = [replace(each, margin=i / 2) for i, each in enumerate(records(20, "preferences", 300))]
    write(made, tmp_path, form="preferences")
    for split in ("train", "heldout"):
        kept = [
            i / 2
            for i in range(20)
            if held_out(i, Fraction(1, 4), seed=5, name="chat") == (split == "heldout")
        ]
        found = Records(tmp_path, split).margins
        assert found is not None
        assert found.tolist() == kept
    np.save(tmp_path / "train-margins.npy", np.zeros(3, np.float32))
    with pytest.raises(DataError, match=r"train-margins.npy does not have"):
        Records(tmp_path, "train")
    write(records(20, "preferences", 300), tmp_path / "without", form="preferences")
    assert Records(tmp_path / "without", "train").margins is None
