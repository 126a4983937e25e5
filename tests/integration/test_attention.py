"""Which tokens see which, and attention among them on CPUs."""

import random

import engine_jobs  # noqa: F401 (before torchtitan is imported: on CPUs)
import pytest
import torch
from torch.utils.checkpoint import checkpoint

from etude.runtime.engine.attention import documents as attention
from etude.runtime.engine.attention.documents import (
    NEAR,
    WHOLE,
    DocumentAttention,
    by_window,
    document_mask,
    segment_mask,
)
from etude.runtime.engine.attention.grouped import Grouped
from etude.runtime.engine.attention.spans import Span, Spans

POSITIONS = torch.tensor([[3, 4, 0, 1, 2, 0, 0, 1], [0, 1, 2, 3, 4, 5, 6, 7]])
SEGMENTS = torch.tensor([[0, 0, 0, 1, 1, 2, 2, -1], [1, 1, 1, 2, 2, 2, -1, -1]])
PREFIXES = torch.tensor([[0, 0, 0, 0, 0, 0, 0, -1], [1, 1, 1, 2, 2, 2, -1, -1]])
PLACES = torch.tensor([[0, 1, 2, 3, 4, 3, 4, 0], [0, 1, 2, 0, 1, 2, 0, 0]])
"""Positions for `SEGMENTS`, with padding."""


def test_documents_are_spans() -> None:
    found = Spans.of_documents(POSITIONS)
    assert found.rows == ((Span(0, 2), Span(2, 5), Span(5, 6), Span(6, 8)), (Span(0, 8),))
    assert found.dense().equal(document_mask(POSITIONS))
    near = by_window(document_mask(POSITIONS), POSITIONS, 2)
    assert isinstance(near, dict)
    assert found.dense(2).equal(near[NEAR])


def test_segments_are_spans_that_continue_others() -> None:
    found = Spans.of_segments(SEGMENTS, PREFIXES)
    assert found.rows[0] == (Span(0, 3), Span(3, 5, 0, 3), Span(5, 7, 0, 3), Span(7, 8))
    assert found.rows[1] == (Span(0, 3), Span(3, 6), Span(6, 8))
    assert found.dense().equal(segment_mask(SEGMENTS, PREFIXES))
    near = by_window(segment_mask(SEGMENTS, PREFIXES), PLACES, 3)
    assert isinstance(near, dict)
    told = (SEGMENTS >= 0)[:, None, :, None]
    assert (found.dense(3) & told).equal(near[NEAR] & told)


@pytest.mark.parametrize("window", [0, 3])
def test_several_prompts_share_a_row(window: int) -> None:
    row = (Span(0, 3), Span(3, 5, 0, 3), Span(5, 7, 0, 3), Span(7, 9), Span(9, 12, 7, 9))
    spans = Spans((row,), 12)
    sees = spans.dense(window)[0, 0]
    segments = torch.tensor([[0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 4]])
    prefixes = torch.tensor([[0, 0, 0, 0, 0, 0, 0, 3, 3, 3, 3, 3]])
    assert Spans.of_segments(segments, prefixes) == spans
    assert [len(line.nonzero()) for line in sees] == (
        [1, 2, 3, 3, 3, 3, 3, 1, 2, 3, 3, 3] if window else [1, 2, 3, 4, 5, 4, 5, 1, 2, 3, 4, 5]
    )


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


def spans_of(seed: int, rows: int, length: int) -> Spans:
    """Documents of any length, one of a single token among them, and some that others continue."""
    drawn = random.Random(seed)

    def row() -> tuple[Span, ...]:
        found, at, prefix = [], 0, (0, 0)
        while at < length:
            count = min(drawn.choice([1, 2, 7, 30, 64, 100, length]), length - at)
            prefix = (0, 0) if drawn.random() < 0.4 else prefix
            found.append(Span(at, at + count, *prefix))
            prefix = prefix if any(prefix) else (at, at + count)
            at += count
        return tuple(found)

    return Spans(tuple(row() for _ in range(rows)), length)


def explicit(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor, scale: float | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention as its formula says it, and the log denominators."""
    each = q.shape[2] // k.shape[2]
    q, k, v = q.transpose(1, 2), *(of.repeat_interleave(each, 2).transpose(1, 2) for of in (k, v))
    by = q.shape[-1] ** -0.5 if scale is None else scale
    scores = (q @ k.transpose(2, 3) * by).masked_fill(~mask, float("-inf"))
    return (scores.softmax(-1) @ v).transpose(1, 2), scores.logsumexp(-1).transpose(1, 2)


@pytest.mark.parametrize("seed", range(40))
def test_attention_by_spans_is_that_of_the_dense_mask(seed: int) -> None:
    drawn = random.Random(seed)
    rows, length = drawn.choice([1, 2, 3]), drawn.choice([1, 5, 64, 129, 200])
    heads, each = drawn.choice([1, 2]), drawn.choice([1, 2, 3])
    width, window = drawn.choice([8, 8, 4]), drawn.choice([0, 0, 1, 3, 64, 100])
    scale, sums = drawn.choice([None, 0.3]), drawn.random() < 0.4
    spans = spans_of(seed, rows, length)
    torch.manual_seed(seed)
    given = [
        torch.randn(rows, length, *shape, requires_grad=True)
        for shape in ((heads * each, 8), (heads, 8), (heads, width))
    ]
    grouped = Grouped.of(spans).within(window)
    q, k, v = given
    by_spans = (
        grouped.attend_with_sums(q, k, v, scale) if sums else (grouped.attend(q, k, v, scale),)
    )
    dense = explicit(q, k, v, spans.dense(window), scale)[: len(by_spans)]
    upstream = [torch.randn_like(of) for of in dense]
    torch.testing.assert_close(by_spans, dense, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(
        torch.autograd.grad(by_spans, given, upstream),
        torch.autograd.grad(dense, given, upstream),
        rtol=1e-4,
        atol=2e-5,
    )


@pytest.mark.parametrize("how", ["documents", "segments"])
@pytest.mark.parametrize("sinks", [False, True])
def test_layers_of_short_and_long_rows_say_the_same(
    how: str, sinks: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = DocumentAttention(DocumentAttention.Config())
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 8, heads, 4, requires_grad=True) for heads in (4, 2, 2))
    rescale = (lambda out, lse: out * (lse - 1).sigmoid()[..., None]) if sinks else None
    found = []
    for most in (256, 0):
        monkeypatch.setattr(attention, "DENSE", most)
        masks = (
            attention.of_documents(POSITIONS, 3, dense=False)
            if how == "documents"
            else attention.of_segments(SEGMENTS, PREFIXES, PLACES, 3, dense=False)
        )
        assert isinstance(masks, dict)
        assert isinstance(masks[WHOLE], Grouped) == (most == 0)
        for name in (WHOLE, NEAR):
            out = layer(
                q, k, v, attention_masks=masks[name], enable_gqa=True, out_transform=rescale
            )
            # Padding looks no further back than its window in its span, not by its positions.
            told = (SEGMENTS >= 0 if how == "segments" else POSITIONS >= 0)[..., None, None]
            out = out * told
            found.append((out, *torch.autograd.grad(out.square().sum(), (q, k, v))))
    torch.testing.assert_close(found[0], found[2])
    torch.testing.assert_close(found[1], found[3])


@pytest.mark.parametrize("window", [0, 128])
@pytest.mark.parametrize("sums", [False, True])
def test_what_a_long_row_keeps_grows_with_its_length(window: int, sums: bool) -> None:
    def kept(length: int) -> int:
        sizes: dict[int, int] = {}

        def keep(of: torch.Tensor) -> torch.Tensor:
            sizes[of.untyped_storage().data_ptr()] = of.untyped_storage().nbytes()
            return of

        q, k, v = (torch.randn(1, length, 1, 8, requires_grad=True) for _ in range(3))
        spans = Spans(((Span(0, 16), Span(16, length, 0, 16)),), length)
        grouped = Grouped.of(spans).within(window)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda of: of):
            if sums:
                grouped.attend_with_sums(q, k, v)
            else:
                grouped.attend(q, k, v)
        return sum(sizes.values())

    assert kept(4096) < 2.2 * kept(2048)


def test_recomputation_finds_the_same() -> None:
    spans = spans_of(3, 2, 129)
    grouped = Grouped.of(spans).within(64)
    torch.manual_seed(0)
    given = [torch.randn(2, 129, 2, 8, requires_grad=True) for _ in range(3)]
    q, k, v = given
    plain = grouped.attend(q, k, v)
    again = checkpoint(grouped.attend, *given, use_reentrant=False)
    assert torch.equal(plain, again)
    one, other = (torch.autograd.grad(of.square().sum(), given) for of in (plain, again))
    assert all(map(torch.equal, one, other))


def test_half_precision_is_that_of_its_result() -> None:
    spans = spans_of(5, 1, 200)
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, 200, 2, 8, dtype=torch.bfloat16) for _ in range(3))
    found = Grouped.of(spans).within(7).attend(q, k, v)
    assert found.dtype == torch.bfloat16
    exact = explicit(q.float(), k.float(), v.float(), spans.dense(7), None)[0]
    torch.testing.assert_close(found.float(), exact, rtol=0.01, atol=0.01)
