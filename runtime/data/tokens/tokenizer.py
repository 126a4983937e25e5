"""Tokenizers: trained, byte-level, from a file or from the Hugging Face Hub."""

import json
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    pre_tokenizers,
    processors,
    trainers,
)

from ...disk import write
from ...errors import DataError
from . import tokenizer_files
from .tokenizer_files import BESIDE as BESIDE
from .tokenizer_files import GENERATION, SETTINGS, Published, processed

BOS = "<|begin_of_text|>"
EOS = "<|end_of_text|>"
SMALLEST_VOCAB = 256 + 2

# Usual names of the two in tokenizers without settings, most specific first.
_BOS_NAMES = (BOS, "<｜begin▁of▁sentence｜>", "<s>", "<bos>", "[BOS]")
_EOS_NAMES = (EOS, "<｜end▁of▁sentence｜>", "</s>", "<eos>", "<|endoftext|>", "[EOS]")


_PUBLISHED = "published"
"""The attribute of a loaded tokenizer that holds the contents of the files next to it."""


@dataclass(frozen=True)
class Special:
    """The token ids at a document's beginning (if any) and end."""

    bos: int | None
    eos: int


def train(texts: Iterable[str], *, vocab: int, special: Sequence[str] = ()) -> Tokenizer:
    """Trains a byte-level byte-pair encoding; equal texts give an equal tokenizer.

    Args:
        texts: what to learn the merges from.
        vocab: tokens in total, including the 256 bytes and the special ones. The result has fewer
            if the texts have no more pairs to merge.
        special: further special tokens; their ids follow those of BOS and EOS, 0 and 1.

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
    # The library reads `texts` in a thread of its own and keeps this one from Python meanwhile. A
    # signal is noticed here, in the main thread, so it waits, and others work.
    with ThreadPoolExecutor(1) as worker:
        worker.submit(tokenizer.train_from_iterator, texts, trainer).result()
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
            f"the tokenizer lacks special tokens for {what}: {', '.join(missing)}",
            "use the tokenizer that the protocol was made for, or train one with these tokens",
        )


def load(path: Path) -> Tokenizer:
    """Loads a tokenizer.json file, with what the files next to it say.

    Raises:
        DataError: it cannot be read or is not a tokenizer, or a file next to it is broken.
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
            f"{path} is not a tokenizer.json of the `tokenizers` library: {error}",
            "name a tokenizer.json file, such as that of a Hugging Face model",
        ) from error
    # Some published files limit or pad the length, which would truncate or pad documents.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    setattr(tokenizer, _PUBLISHED, tokenizer_files.read(path.parent, tokenizer, BOS))
    return tokenizer


def from_hub(repo: str) -> Tokenizer:
    """Loads the tokenizer of a Hugging Face repository, from the local cache if it is there.

    Raises:
        DataError: no network, no such repository, no access, or no tokenizer.json in it.
    """
    import huggingface_hub
    from huggingface_hub import errors

    copy = "or copy its files here and name the tokenizer.json with `file`"
    # The library passes on whatever the network raises.
    try:
        path = huggingface_hub.hf_hub_download(repo, "tokenizer.json")
        for name in BESIDE:
            _download_beside(repo, name)
    except errors.LocalEntryNotFoundError as error:
        raise DataError(
            f"the tokenizer {repo} is not on this machine, and the Hub cannot be reached",
            f"download it on a machine with a network (`hf download {repo} --include "
            f"'tokenizer*' '*.json'`), {copy}",
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


def _download_beside(repo: str, name: str) -> None:
    """Downloads a file with further tokenizer settings, if the repository has it.

    Raises: LocalEntryNotFoundError: the settings may exist, but the Hub is unreachable. Without
        them, a text would begin and end with other tokens.
    """
    import huggingface_hub
    from huggingface_hub import errors

    if isinstance(huggingface_hub.try_to_load_from_cache(repo, name), str):
        return
    try:
        huggingface_hub.hf_hub_download(repo, name)
    except errors.EntryNotFoundError as error:
        known = huggingface_hub.try_to_load_from_cache(repo, name) is not None
        if name == SETTINGS and isinstance(error, errors.LocalEntryNotFoundError) and not known:
            raise


def begins(tokenizer: Any) -> int | None:
    """The id that every text begins with, for a tokenizer that transformers has loaded from an
    export; None if there is none."""
    begin = processed(tokenizer.backend_tokenizer)
    # Earlier versions of etude saved their own tokenizers without a processor.
    return tokenizer.bos_token_id if begin is None and tokenizer.bos_token == BOS else begin


def save(tokenizer: Tokenizer, folder: Path) -> None:
    """Writes tokenizer.json and tokenizer_config.json for transformers, so that a text begins as in
    training. The publisher's tokens that end a generation are written too.

    Raises:
        DataError: the tokenizer has no end-of-text token.
        OSError: writing failed.
    """
    published = _published(tokenizer)
    config: dict[str, object] = {
        **(published.settings if published else {}),
        "tokenizer_class": "PreTrainedTokenizerFast",
        **named(tokenizer),
        "clean_up_tokenization_spaces": False,
    }
    folder.mkdir(parents=True, exist_ok=True)
    text = _beginning(tokenizer).to_str(pretty=True)
    write(folder / "tokenizer.json", text)
    _write_json(folder / SETTINGS, config)
    if published and published.stops:
        _write_json(folder / GENERATION, {"eos_token_id": list(published.stops)})


def _beginning(tokenizer: Tokenizer) -> Tokenizer:
    """The tokenizer that adds the beginning of text where training does."""
    begin = special(tokenizer).bos
    if begin is None or processed(tokenizer) == begin:
        return tokenizer
    name = tokenizer.id_to_token(begin)
    template = processors.TemplateProcessing(
        single=f"{name} $A", pair=f"{name} $A {name}:1 $B:1", special_tokens=[(name, begin)]
    )
    changed = Tokenizer.from_str(tokenizer.to_str())
    before = changed.post_processor
    changed.post_processor = processors.Sequence([before, template]) if before else template
    return changed


def _write_json(path: Path, content: dict[str, object]) -> None:
    text = json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False)
    write(path, text + "\n")


def named(tokenizer: Tokenizer) -> dict[str, str]:
    """The special tokens by their names in chat templates: `eos_token`, `bos_token` if there is
    one, even if no text begins with it, and those for padding and unknown text.

    Raises: DataError: there is no end-of-text token.
    """
    published, ids = _published(tokenizer), special(tokenizer)
    found = {"eos_token": tokenizer.id_to_token(ids.eos) or ""}
    begin = published.bos if published else None
    if begin is None and ids.bos is not None:
        begin = tokenizer.id_to_token(ids.bos)
    others = published.settings if published else {}
    found |= {name: others[name] for name in tokenizer_files.OTHERS if name in others}
    return found | ({"bos_token": begin} if begin else {})


def stops(tokenizer: Tokenizer) -> tuple[int, ...]:
    """The ids that end a generation, according to the tokenizer's publisher; () if unspecified."""
    published = _published(tokenizer)
    return published.stops if published else ()


def _published(tokenizer: Tokenizer) -> Published | None:
    return getattr(tokenizer, _PUBLISHED, None)


def special(tokenizer: Tokenizer) -> Special:
    """The ids of the tokens at the beginning and the end of every text.

    The files next to the tokenizer name them. The beginning counts only if the tokenizer also adds
    it. If no file names them, they are found by their usual names among the tokens declared
    special: "</s>" may also be an ordinary piece of HTML.

    Raises:
        DataError: there is no end-of-text token.
    """
    published = _published(tokenizer)
    ids = {
        token.content: number
        for number, token in tokenizer.get_added_tokens_decoder().items()
        if token.special
    }
    bos = published.begins if published else processed(tokenizer)
    if bos is None and not (published and published.declared):
        bos = next((ids[name] for name in _BOS_NAMES if name in ids), None)
    eos = tokenizer.token_to_id(published.eos) if published and published.eos else None
    if eos is None:
        eos = next((ids[name] for name in _EOS_NAMES if name in ids), None)
    if eos is None:
        raise DataError(
            "the tokenizer has no end-of-text token: no tokenizer_config.json or "
            "generation_config.json next to it names one, and no special token is called "
            f"{' or '.join((', '.join(_EOS_NAMES[:-1]), _EOS_NAMES[-1]))}",
            "next to the tokenizer.json, add a tokenizer_config.json that names the special "
            'token which ends a text: {"eos_token": "<|end|>"}',
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
    Latin-1 are themselves, the other 68 are the characters from U+0100 on.
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]
