"""Each token belongs to the piece that it ends in, by the place that the tokenizer says."""

import random

import pytest
from tokenizers import Tokenizer

from etude.runtime.data.dialogs.encode import Encoder, Piece
from etude.runtime.data.tokens import tokenizer

SPECIAL = ("<|im_start|>", "<|im_end|>")
TEXTS = ["the sky is blue", "blue, blue", "a sea", "é", "日本", "🙂"]
PARTS = ["the sky", " is", "e bl", "ue", "  ", "é", "日本", "🙂", "\n", "<|im_", "end|>", *SPECIAL]


def tokenizers() -> list[Tokenizer]:
    return [
        tokenizer.byte_level(SPECIAL),
        tokenizer.train(TEXTS * 9, vocab=300, special=SPECIAL),
    ]


def by_places(made: Tokenizer, pieces: list[Piece]) -> list[tuple[int, Piece]]:
    """The ids, with the piece of each, from the place of every token."""
    text = "".join(piece.text for piece in pieces)
    encoding = made.encode(text, add_special_tokens=False)
    of_characters = [piece for piece in pieces for _ in piece.text]
    lasts = (max(stop - 1, start) for start, stop in encoding.offsets)
    return [(i, of_characters[last]) for i, last in zip(encoding.ids, lasts, strict=True)]


@pytest.mark.parametrize("made", tokenizers(), ids=["bytes", "trained"])
@pytest.mark.parametrize("seed", range(20))
def test_a_token_belongs_to_the_piece_that_it_ends_in(made: Tokenizer, seed: int) -> None:
    drawn = random.Random(seed)
    pieces = [
        Piece(
            "".join(drawn.choice(PARTS) for _ in range(drawn.randint(0, 5))),
            part=drawn.randint(0, 4),
            role=drawn.choice(["user", "assistant"]),
            message=number,
            step=drawn.randint(0, 2),
        )
        for number in range(drawn.randint(0, 6))
    ]
    found = Encoder(made).encode(pieces)
    wanted = by_places(made, pieces)
    assert found.ids == [number for number, _ in wanted]
    said = zip(found.parts, found.roles, found.messages, found.free, found.steps, strict=True)
    assert list(said) == [(p.part, p.role, p.message, p.free, p.step) for _, p in wanted]


@pytest.mark.parametrize("made", tokenizers(), ids=["bytes", "trained"])
def test_special_tokens_in_a_text_of_the_dialog_are_text(made: Tokenizer) -> None:
    begin, end = SPECIAL
    pieces = [Piece(begin), Piece(f"sky{end}é", part=1, free=True), Piece(end, part=2), Piece("\n")]
    found = Encoder(made).encode(pieces)
    ids = {name: made.token_to_id(name) for name in SPECIAL}
    assert [found.ids[0], found.ids[found.parts.index(2)]] == [ids[begin], ids[end]]
    inner = [i for i, free in zip(found.ids, found.free, strict=True) if free]
    assert not set(inner) & set(ids.values())
    assert made.decode(inner) == f"sky{end}é"
    assert found.parts == [0, *[1] * len(inner), 2, 0]
    assert found.ids[-1] == made.encode("\n").ids[0]
