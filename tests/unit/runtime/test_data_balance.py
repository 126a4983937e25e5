"""Records of a step as rows of about the same length."""

import random
from itertools import chain

import pytest

from etude.runtime.data.order.balance import balanced, micro_batches


def sums(lengths: list[int], rows: list[list[int]]) -> list[int]:
    return [sum(lengths[item] for item in row) for row in rows]


def test_the_longest_come_first_into_the_shortest_row() -> None:
    lengths = [3, 9, 4, 6]
    assert balanced(lengths, 2) == [[1, 0], [3, 2]]
    assert sums(lengths, balanced(lengths, 2)) == [12, 10]


def test_items_of_one_length_keep_their_order() -> None:
    assert balanced([5] * 6, 3) == [[0, 3], [1, 4], [2, 5]]


@pytest.mark.parametrize("seed", range(60))
def test_every_item_is_in_one_row_with_room_and_no_rank_lacks_a_row(seed: int) -> None:
    drawn = random.Random(seed)
    ranks, rows = drawn.randint(1, 4), drawn.randint(1, 4)
    most, room = drawn.choice([8, 40, 90]), drawn.choice([64, 100])
    lengths = [drawn.randint(1, most) for _ in range(ranks * rows * drawn.randint(1, 9))]
    found = micro_batches(lengths, ranks=ranks, rows=rows, room=room)
    every = [row for each in found for row in each]
    assert sorted(chain(*every)) == list(range(len(lengths)))
    assert all(every)
    assert max(sums(lengths, every)) <= max(room, *lengths)
    assert all(len(each) % ranks == 0 and len(each) <= ranks * rows for each in found)
    # Fewer micro-batches cannot hold them, or would be nearly full.
    fewer = (len(found) - 1) * ranks * rows * room
    assert sum(lengths) > 0.6 * fewer
    for each in found:
        assert sums(lengths, each) == sorted(sums(lengths, each), reverse=True)


def test_short_records_take_few_rows() -> None:
    assert micro_batches([10] * 16, ranks=1, rows=4, room=100) == [
        [list(range(0, 16, 2)), list(range(1, 16, 2))]
    ]
    (only,) = micro_batches([10] * 16, ranks=2, rows=4, room=100)
    assert [len(row) for row in only] == [8, 8]


def test_records_as_long_as_a_row_have_one_each() -> None:
    assert micro_batches([100] * 4, ranks=2, rows=1, room=100) == [[[0], [1]], [[2], [3]]]


def test_a_record_that_is_longer_than_a_row_is_alone() -> None:
    (only,) = micro_batches([50, 130, 40, 30], ranks=1, rows=2, room=100)
    assert only == [[1], [0, 2, 3]]


def test_a_batch_that_ranks_cannot_share_is_an_error() -> None:
    with pytest.raises(ValueError, match="3 items do not fill micro-batches of 2"):
        micro_batches([1, 2, 3], ranks=2, rows=1, room=10)
