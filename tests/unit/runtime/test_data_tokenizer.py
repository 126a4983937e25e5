"""Tokenizers lose nothing, are the same every time, and say where a text begins and ends."""

import json

import pytest
from tokenizers import Tokenizer, models

from etude.runtime.data.samples import samples
from etude.runtime.data.tokens import tokenizer
from etude.runtime.errors import DataError

TEXTS = [
    "",
    "plain words",
    " two  spaces\n\ttabs\r\n",
    "Grüße, 世界 🙂",
    "x\x00\x7f\x85\u2028",
    "1234567",
]


def corpus() -> list[str]:
    return list(samples.documents("python_docs", count=60, seed=0))


@pytest.fixture(scope="module")
def trained() -> Tokenizer:
    return tokenizer.train(corpus(), vocab=512)


def test_training_reaches_the_vocabulary_and_compresses(trained):
    assert trained.get_vocab_size() == 512
    text = corpus()[0]
    assert len(trained.encode(text).ids) < 0.6 * len(text)


def test_training_is_repeatable(trained):
    assert tokenizer.train(iter(corpus()), vocab=512).to_str() == trained.to_str()


@pytest.mark.parametrize("text", TEXTS)
def test_nothing_is_lost(trained, text):
    for each in (trained, tokenizer.byte_level()):
        assert each.decode(each.encode(text).ids, skip_special_tokens=False) == text


def test_byte_level_ids_are_bytes():
    each = tokenizer.byte_level()
    assert each.get_vocab_size() == 258
    assert tokenizer.special(each) == tokenizer.Special(bos=256, eos=257)
    for text in TEXTS:
        assert each.encode(text).ids == list(text.encode())


def test_special_tokens_are_part_of_the_vocabulary():
    smallest = tokenizer.train(["abc abc"], vocab=258)
    assert smallest.get_vocab_size() == 258
    ids = tokenizer.special(smallest)
    assert (smallest.id_to_token(ids.bos or 0), smallest.id_to_token(ids.eos)) == (
        "<|begin_of_text|>",
        "<|end_of_text|>",
    )


def test_a_vocabulary_larger_than_the_texts_support():
    assert 258 < tokenizer.train(["abc abc abc"], vocab=100_000).get_vocab_size() < 300


def test_a_vocabulary_smaller_than_the_bytes():
    with pytest.raises(DataError, match="258"):
        tokenizer.train(["abc"], vocab=257)


def test_save_and_load(trained, tmp_path):
    tokenizer.save(trained, tmp_path / "made" / "here")
    loaded = tokenizer.load(tmp_path / "made" / "here" / "tokenizer.json")
    assert loaded.get_vocab() == trained.get_vocab()
    for text in TEXTS:
        ids = trained.encode(text).ids
        assert loaded.encode(text, add_special_tokens=False).ids == ids
        assert loaded.encode(text).ids == [0, *ids]
        assert loaded.encode(text, text).ids == [0, *ids, 0, *ids]
    assert tokenizer.special(loaded) == tokenizer.special(trained) == tokenizer.Special(0, 1)
    config = json.loads((tmp_path / "made" / "here" / "tokenizer_config.json").read_text())
    assert (config["bos_token"], config["eos_token"]) == ("<|begin_of_text|>", "<|end_of_text|>")


def test_limits_in_a_published_file_cut_no_documents(tmp_path):
    limited = tokenizer.byte_level()
    limited.enable_truncation(4)
    limited.enable_padding(length=10)
    limited.save(str(tmp_path / "tokenizer.json"))
    assert tokenizer.load(tmp_path / "tokenizer.json").encode("abcdef").ids == list(b"abcdef")


@pytest.mark.parametrize(
    ("names", "bos", "eos"),
    [
        (["<s>", "</s>"], 0, 1),
        (["[EOS]", "[BOS]"], 1, 0),
        (["<|endoftext|>"], None, 0),
        (["<s>", "</s>", "<|end_of_text|>"], 0, 2),
    ],
)
def test_special_tokens_under_their_usual_names(names, bos, eos):
    each = Tokenizer(models.BPE())
    each.add_special_tokens(names)
    assert tokenizer.special(each) == tokenizer.Special(bos, eos)


def test_a_plain_token_is_not_taken_for_a_special_one():
    each = Tokenizer(models.BPE(vocab={"</s>": 0, "a": 1}, merges=[]))
    each.add_tokens(["<s>"])
    with pytest.raises(DataError, match="no end-of-text token"):
        tokenizer.special(each)
    each.add_special_tokens(["<|endoftext|>"])
    assert tokenizer.special(each) == tokenizer.Special(None, 3)


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff\xfe", b'{"model": {"type": "?"}}'])
def test_a_file_that_is_no_tokenizer(tmp_path, content):
    path = tmp_path / "tokenizer.json"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"tokenizer\.json is not a tokenizer"):
        tokenizer.load(path)


def test_a_tokenizer_that_is_not_there(tmp_path):
    with pytest.raises(DataError, match="cannot be read: No such file"):
        tokenizer.load(tmp_path / "tokenizer.json")
    with pytest.raises(DataError, match="cannot be read: Is a directory"):
        tokenizer.load(tmp_path)


def test_the_hub_out_of_reach(monkeypatch):
    import huggingface_hub
    from huggingface_hub import errors

    def fails_with(error: Exception) -> DataError:
        def download(*_: object) -> str:
            raise error

        monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
        with pytest.raises(DataError, match="org/name") as caught:
            tokenizer.from_hub("org/name")
        return caught.value

    assert "cannot be reached" in fails_with(errors.LocalEntryNotFoundError("offline")).message
    assert "has no tokenizer.json" in fails_with(errors.EntryNotFoundError("404")).message
    assert "gated" in fails_with(RuntimeError("this\nis gated")).message
