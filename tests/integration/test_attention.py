"""Which tokens see which, and attention among them on CPUs."""

import pytest
import torch

from etude.runtime.engine.attention import NEAR, by_window, document_mask, segment_mask, span_blocks
from etude.runtime.engine.spans import Span, Spans

POSITIONS = torch.tensor([[3, 4, 0, 1, 2, 0, 0, 1], [0, 1, 2, 3, 4, 5, 6, 7]])
SEGMENTS = torch.tensor([[0, 0, 0, 1, 1, 2, 2, -1], [1, 1, 1, 2, 2, 2, -1, -1]])
PLACES = torch.tensor([[0, 1, 2, 3, 4, 3, 4, 0], [0, 1, 2, 0, 1, 2, 0, 0]])
"""Positions for `SEGMENTS`, with padding."""


def test_documents_are_spans() -> None:
    found = Spans.of_documents(POSITIONS)
    assert found.rows == ((Span(0, 2), Span(2, 5), Span(5, 6), Span(6, 8)), (Span(0, 8),))
    assert found.dense().equal(document_mask(POSITIONS))
    near = by_window(document_mask(POSITIONS), POSITIONS, 2)
    assert isinstance(near, dict)
    assert found.dense(2).equal(near[NEAR])


def test_segments_are_spans_that_continue_the_first() -> None:
    found = Spans.of_segments(SEGMENTS)
    assert found.rows[0] == (Span(0, 3), Span(3, 5, 0, 3), Span(5, 7, 0, 3), Span(7, 8, 0, 3))
    assert found.rows[1] == (Span(0, 3), Span(3, 6), Span(6, 8))
    assert found.dense().equal(segment_mask(SEGMENTS))
    near = by_window(segment_mask(SEGMENTS), PLACES, 3)
    assert isinstance(near, dict)
    told = (SEGMENTS >= 0)[:, None, :, None]
    assert (found.dense(3) & told).equal(near[NEAR] & told)


def test_spans_come_as_a_table_and_what_is_left_is_padding() -> None:
    table = torch.tensor([[0, 0, 2, 0, 0], [0, 2, 4, 0, 2], [1, 0, 3, 0, 0], [1, 3, 8, 1, 3]])
    found = Spans.of_table(table, 3, 8)
    assert found.rows == (
        (Span(0, 2), Span(2, 4, 0, 2), Span(4, 8)),
        (Span(0, 3), Span(3, 8, 1, 3)),
        (Span(0, 8),),
    )


@pytest.mark.parametrize("window", [0, 3])
def test_several_prompts_share_a_row(window: int) -> None:
    row = (Span(0, 3), Span(3, 5, 0, 3), Span(5, 7, 0, 3), Span(7, 9), Span(9, 12, 7, 9))
    spans = Spans((row,), 12)
    sees = spans.dense(window)[0, 0]
    assert [len(line.nonzero()) for line in sees] == (
        [1, 2, 3, 3, 3, 3, 3, 1, 2, 3, 3, 3] if window else [1, 2, 3, 4, 5, 4, 5, 1, 2, 3, 4, 5]
    )
    blocks = span_blocks(spans, torch.device("cpu"), 4, window)
    b = torch.tensor(0)
    places = torch.arange(12)
    theirs = blocks.mask_mod(b, b, places[:, None], places[None])
    assert theirs.equal(sees)


@pytest.mark.parametrize(
    "row",
    [
        (Span(0, 3), Span(4, 8)),
        (Span(0, 3), Span(3, 7)),
        (Span(0, 3), Span(3, 3), Span(3, 8)),
        (Span(0, 3), Span(3, 8, 2, 4)),
        (),
    ],
)
def test_spans_are_the_whole_row(row: tuple[Span, ...]) -> None:
    with pytest.raises(ValueError, match=r"(of|in) row 0"):
        Spans((row,), 8)
