"""Tokenizers: trained, byte-level, from a file or from the Hugging Face Hub."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from ..errors import DataError

BOS = "<|begin_of_text|>"
EOS = "<|end_of_text|>"
SMALLEST_VOCAB = 256 + 2

# The names by which the published tokenizers call the two, the most specific first.
_BOS_NAMES = (BOS, "<｜begin▁of▁sentence｜>", "<s>", "<bos>", "[BOS]")
_EOS_NAMES = (EOS, "<｜end▁of▁sentence｜>", "</s>", "<eos>", "<|endoftext|>", "[EOS]")


@dataclass(frozen=True)
class Special:
    """The token ids that stand at a document's beginning (where there is one) and end."""

    bos: int | None
    eos: int


def train(texts: Iterable[str], *, vocab: int, special: Sequence[str] = ()) -> Tokenizer:
    """Trains a byte-level byte-pair encoding; equal texts give an equal tokenizer.

    Args:
        texts: what to learn the merges from.
        vocab: tokens in all, the 256 bytes and the special ones included. The result has
            fewer where the texts hold no more pairs to merge.
        special: further special tokens; their ids follow on those of BOS and EOS, 0 and 1.

    Raises:
        DataError: `vocab` is smaller than the bytes and special tokens alone, or a special token
            is empty.
    """
    names = _special_names(special)
    smallest = 256 + len(names)
    if vocab < smallest:
        number = "two" if len(names) == 2 else str(len(names))
        raise DataError(
            f"a tokenizer cannot have a vocabulary of {vocab}: "
            f"the 256 bytes and {number} special tokens alone are {smallest}",
            f"write `vocab = {smallest}` or more in the tokenizer",
        )
    tokenizer = _byte_pairs(models.BPE())
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        special_tokens=names,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def byte_level(special: Sequence[str] = ()) -> Tokenizer:
    """The tokenizer without merges: a byte's id is its value; BOS and EOS are 256 and 257.

    Args:
        special: further special tokens, from 258 on.
    """
    vocab = {character: byte for byte, character in enumerate(_byte_characters())}
    tokenizer = _byte_pairs(models.BPE(vocab=vocab, merges=[]))
    tokenizer.add_special_tokens(list[str | AddedToken](_special_names(special)))
    return tokenizer


def _special_names(further: Sequence[str]) -> list[str]:
    """All special tokens in the order of their ids, each once."""
    if not all(name.strip() for name in further):
        raise DataError("a special token is empty", "write texts such as `<|end|>`")
    return list(dict.fromkeys([BOS, EOS, *further]))


def require(tokenizer: Tokenizer, names: Sequence[str], what: str) -> None:
    """Checks that a tokenizer has special tokens.

    Args:
        what: what needs them, for the message.

    Raises:
        DataError: it lacks some, or does not declare them special.
    """
    added = tokenizer.get_added_tokens_decoder().values()
    there = {token.content for token in added if token.special}
    missing = [name for name in names if name not in there]
    if missing:
        raise DataError(
            f"the tokenizer lacks special tokens of {what}: {', '.join(missing)}",
            "use the tokenizer that the protocol was made for, or train one with these tokens",
        )


def load(path: Path) -> Tokenizer:
    """Loads a tokenizer.json file.

    Raises:
        DataError: it cannot be read or is no tokenizer.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(
            f"the tokenizer {path} cannot be read: {error.strerror or error}",
            "name a tokenizer.json file in the tokenizer's `file`",
        ) from error
    # The library raises plain Exceptions.
    try:
        tokenizer = Tokenizer.from_buffer(content)
    except Exception as error:
        raise DataError(
            f"{path} is no tokenizer.json of the `tokenizers` library: {error}",
            "name a tokenizer.json file, as Hugging Face models have one",
        ) from error
    # Limits for short inputs that some published files carry would cut or fill up documents.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def from_hub(repo: str) -> Tokenizer:
    """Loads the tokenizer.json of a Hugging Face repository, from the local cache if it is there.

    Raises:
        DataError: no network, no such repository, no access, or no tokenizer.json in it.
    """
    import huggingface_hub
    from huggingface_hub import errors

    copy = "or copy its tokenizer.json here and name it with `file`"
    # The library passes on whatever the network raises.
    try:
        path = huggingface_hub.hf_hub_download(repo, "tokenizer.json")
    except errors.LocalEntryNotFoundError as error:
        raise DataError(
            f"the tokenizer {repo} is not on this machine and the Hub is out of reach",
            f"download it where there is a network (`hf download {repo} tokenizer.json`), {copy}",
        ) from error
    except errors.EntryNotFoundError as error:
        raise DataError(
            f"the Hugging Face repository {repo} has no tokenizer.json",
            "name a repository with one, or convert its tokenizer with transformers",
        ) from error
    except Exception as error:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise DataError(
            f"the tokenizer {repo} cannot be loaded from the Hub: {reason}",
            f"check its name and whether it needs `hf auth login`, {copy}",
        ) from error
    return load(Path(path))


def save(tokenizer: Tokenizer, folder: Path) -> None:
    """Writes tokenizer.json and tokenizer_config.json, as transformers reads them.

    Raises:
        DataError: the tokenizer has no end-of-text token.
        OSError: writing failed.
    """
    ids = special(tokenizer)
    config: dict[str, object] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": tokenizer.id_to_token(ids.eos),
        "clean_up_tokenization_spaces": False,
    }
    if ids.bos is not None:
        config["bos_token"] = tokenizer.id_to_token(ids.bos)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(tokenizer.to_str(pretty=True), encoding="utf-8")
    text = json.dumps(config, indent=2, sort_keys=True, ensure_ascii=False)
    (folder / "tokenizer_config.json").write_text(text + "\n", encoding="utf-8")


def special(tokenizer: Tokenizer) -> Special:
    """The ids of the beginning-of-text and end-of-text tokens.

    Only tokens that are declared special count: "</s>" may also be an ordinary piece of HTML.

    Raises:
        DataError: there is no end-of-text token.
    """
    ids = {
        token.content: number
        for number, token in tokenizer.get_added_tokens_decoder().items()
        if token.special
    }
    bos = next((ids[name] for name in _BOS_NAMES if name in ids), None)
    eos = next((ids[name] for name in _EOS_NAMES if name in ids), None)
    if eos is None:
        raise DataError(
            f"the tokenizer has no end-of-text token (one of {', '.join(_EOS_NAMES)})",
            "add one of them to its special tokens, or use another tokenizer",
        )
    return Special(bos, eos)


def _byte_pairs(model: models.BPE) -> Tokenizer:
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _byte_characters() -> list[str]:
    """The character that stands for each byte in a byte-level vocabulary.

    The mapping of the GPT-2 tokenizer (Radford et al. 2019, §2.2): the printable bytes of
    Latin-1 are themselves, the 68 others are the characters from U+0100 on.
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]
