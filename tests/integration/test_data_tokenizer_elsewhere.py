"""What etude saves, transformers and torchtitan load as the same tokenizer."""

import pytest
from transformers import AutoTokenizer

from etude.runtime.data.samples import samples
from etude.runtime.data.tokens import tokenizer

TEXTS = [
    "plain words",
    " two  spaces\n\ttabs ,. n't",
    "Grüße, 世界 🙂",
    "<|end_of_text|> inside",
    "x\x00",
]


@pytest.mark.parametrize("kind", ["trained", "bytes"])
def test_a_saved_tokenizer_encodes_the_same_elsewhere(kind, tmp_path):
    if kind == "bytes":
        own = tokenizer.byte_level()
    else:
        own = tokenizer.train(samples.documents("python_docs", count=40, seed=0), vocab=400)
    tokenizer.save(own, tmp_path)
    other = AutoTokenizer.from_pretrained(str(tmp_path))
    ids = tokenizer.special(own)
    assert (other.bos_token_id, other.eos_token_id) == (ids.bos, ids.eos)
    assert len(other) == own.get_vocab_size()
    for text in TEXTS:
        assert other(text)["input_ids"] == [ids.bos, *own.encode(text).ids]
        assert other.decode(other(text)["input_ids"][1:]) == text


def test_torchtitan_finds_the_ends_of_text(tmp_path):
    from torchtitan.components.tokenizer import HuggingFaceTokenizer

    own = tokenizer.byte_level()
    tokenizer.save(own, tmp_path)
    other = HuggingFaceTokenizer(tokenizer_path=str(tmp_path))
    assert (other.bos_id, other.eos_id) == (256, 257)
    assert other.encode("ab", add_bos=True, add_eos=True) == [256, 97, 98, 257]
