"""What `etude preview` shows of tokens: texts that together are the decoded text."""

from collections.abc import Callable

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from etude.runtime.data.tokens.tokenizer import byte_level
from etude.runtime.preview.parts import decoded, texts_of


def metaspace() -> Tokenizer:
    """Pieces with leading spaces, and bytes for what is no piece, as Llama 2 has them."""
    pieces = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "a", "▁a", "b", "▁b"]
    vocab = [(piece, -float(number)) for number, piece in enumerate(pieces)]
    made = Tokenizer(models.Unigram(vocab, 0, True))
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    return made


@pytest.mark.parametrize("make", [byte_level, metaspace], ids=["bytes", "pieces"])
@pytest.mark.parametrize("text", ["a b a", "é", "a👩‍👩‍👧b", "  a  é🇩🇪", "שלום a", "漢字"])
def test_parts_are_the_decoded_text_wherever_it_is_cut(
    make: Callable[[], Tokenizer], text: str
) -> None:
    tokenizer = make()
    ids = tokenizer.encode(text).ids
    for size in range(1, len(ids) + 1):
        counts = [min(size, len(ids) - begin) for begin in range(0, len(ids), size)]
        texts = texts_of(tokenizer, ids, counts)
        assert "".join(texts) == decoded(tokenizer, ids)
        assert not any("\ufffd" in each for each in texts)
