"""Attention by changed scores (ALiBi, caps): on CPUs by spans as with a dense mask, and as
FlexAttention computes it."""

import pytest
import torch
from engine_jobs import decoder
from torch.nn.attention.flex_attention import flex_attention

from etude.runtime.engine.attention.documents import DocumentAttention, of_documents, of_segments
from etude.runtime.engine.families import model_spec
from etude.runtime.engine.families.decoder_attention import PartsAttention, slopes

LENGTH = 300
"""More than what a dense mask is taken for."""


def drawn(heads: int) -> torch.Tensor:
    return torch.randn(2, LENGTH, heads, 16, generator=torch.Generator().manual_seed(heads))


def positions() -> torch.Tensor:
    """Of two rows: documents of 7, 200 and 93 tokens, and one of all."""
    first = torch.cat([torch.arange(n) for n in (7, 200, 93)])
    return torch.stack([first, torch.arange(LENGTH)])


def changed(parts: dict[str, float | bool], places: torch.Tensor):
    """How the attention of a model of these parts changes scores."""
    config = model_spec(decoder(parts=parts), "gpu", LENGTH).model.layers[0].attention
    assert isinstance(config, PartsAttention.Config)
    return config.build()._changed(places)


@pytest.mark.parametrize("window", [0, 20])
@pytest.mark.parametrize(
    "parts",
    [{"alibi": True}, {"attention_cap": 2.0}, {"alibi": True, "attention_cap": 2.0}],
    ids=["alibi", "capped", "both"],
)
def test_by_spans_it_is_what_a_dense_mask_gives(
    parts: dict[str, float | bool], window: int
) -> None:
    attention, places = DocumentAttention(DocumentAttention.Config()), positions()
    q, k, v = drawn(4), drawn(2), drawn(2) + 1
    found = []
    for dense in (True, False):
        masks = of_documents(places, window, dense=dense)
        for mask in masks.values() if isinstance(masks, dict) else (masks,):
            score = changed(parts, places)
            found.append(attention(q, k, v, attention_masks=mask, score_mod=score))
    half = len(found) // 2
    for one, other in zip(found[:half], found[half:], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
    whole = of_documents(places, 0, dense=True)
    plain = attention(q, k, v, attention_masks=whole, enable_gqa=True)
    assert not torch.allclose(found[0], plain, rtol=1e-3, atol=1e-3)


def test_it_is_what_flex_attention_computes() -> None:
    places = torch.arange(64).expand(2, -1)
    q, k, v = (of[:, :64] for of in (drawn(4), drawn(2), drawn(2) + 1))
    score = changed({"alibi": True, "attention_cap": 2.0}, places)
    mask = of_documents(places, 0, dense=True)
    attention = DocumentAttention(DocumentAttention.Config())
    found = attention(q, k, v, attention_masks=mask, score_mod=score)

    def causal(
        one: torch.Tensor, b: torch.Tensor, h: torch.Tensor, i: torch.Tensor, j: torch.Tensor
    ):
        return torch.where(i >= j, score(one, b, h, i, j), -float("inf"))

    expected = flex_attention(
        *(of.transpose(1, 2) for of in (q, k, v)), score_mod=causal, enable_gqa=True
    )
    assert isinstance(expected, torch.Tensor)
    torch.testing.assert_close(found, expected.transpose(1, 2), rtol=1e-4, atol=1e-5)


def test_distances_are_those_of_positions_where_two_answers_share_a_question() -> None:
    """The second answer of a row begins behind the question, not behind the first."""
    segments = torch.tensor([[0] * 100 + [1] * 100 + [2] * 100])
    places = torch.cat([torch.arange(200), torch.arange(100, 200)])[None]
    attention = DocumentAttention(DocumentAttention.Config())
    q, k, v = (of[:1].clone() for of in (drawn(4), drawn(2), drawn(2) + 1))
    for of in (q, k, v):
        of[:, 200:] = of[:, 100:200]
    for dense in (True, False):
        mask = of_segments(segments, torch.zeros_like(segments), places, 0, dense=dense)
        assert not isinstance(mask, dict)
        score = changed({"alibi": True}, places)
        found = attention(q, k, v, attention_masks=mask, score_mod=score)
        torch.testing.assert_close(found[:, 100:200], found[:, 200:], rtol=1e-5, atol=1e-5)


def test_slopes_are_those_that_alibi_publishes() -> None:
    # arXiv:2108.12409 §3: for 8 heads 1/2, 1/4, … 1/256.
    assert slopes(8).tolist() == [2.0**-n for n in range(1, 9)]
    assert slopes(6).tolist() == pytest.approx([1 / 4, 1 / 16, 1 / 64, 1 / 256, 1 / 2, 1 / 8])
