"""The files next to a tokenizer.json: which tokens begin and end a text, by their publisher's
names."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from ...errors import DataError

SETTINGS = "tokenizer_config.json"
NAMES = "special_tokens_map.json"
GENERATION = "generation_config.json"
MODEL = "config.json"
TEMPLATE = "chat_template.jinja"
BESIDE = (SETTINGS, NAMES, GENERATION, MODEL, TEMPLATE)
"""Files with further settings of a tokenizer; each may be missing."""
OTHERS = ("unk_token", "pad_token")
"""Tokens that templates may write, besides those that begin and end texts."""
_KEPT = ("additional_special_tokens", "extra_special_tokens", "chat_template")


@dataclass(frozen=True)
class Published:
    """The contents of the files next to a tokenizer.json.

    Attributes:
        bos: the token named as the beginning of a text, if any; templates write it.
        eos: the token named as the end of a text.
        begins: the id of the token that every text begins with; None if there is none.
        stops: ids that each end a generation.
        declared: whether the files name special tokens at all.
        settings: further settings, kept for other programs that load the tokenizer.
    """

    bos: str | None
    eos: str | None
    begins: int | None
    stops: tuple[int, ...] = ()
    declared: bool = True
    settings: Mapping[str, Any] = field(default_factory=dict)


def read(folder: Path, tokenizer: Tokenizer, own: str) -> Published:
    """Reads the files next to a tokenizer.json. Tokens that they name become special ones.

    A text begins with what the tokenizer itself adds, or with the beginning-of-text token if the
    settings ask for it (`add_bos_token`).

    Args:
        own: the beginning of text of etude's tokenizers, which earlier versions saved without a
            processor that adds it.

    Raises: DataError: a file is broken, or names a token that the tokenizer does not have.
    """
    settings, names = _object(folder / SETTINGS), _object(folder / NAMES)
    declared = settings is not None or names is not None
    merged = (names or {}) | (settings or {})
    generation = [_object(folder / name) or {} for name in (GENERATION, MODEL)]
    stops = tuple(dict.fromkeys(_ids(generation[0], "eos_token_id", tokenizer)))
    bos = _text(merged.get("bos_token"))
    eos = _text(merged.get("eos_token"))
    if not eos:
        found = [each for of in generation for each in _ids(of, "eos_token_id", tokenizer)]
        eos = tokenizer.id_to_token(found[0]) if found else None
    for what, name in (("beginning", bos), ("end", eos)):
        if name and tokenizer.token_to_id(name) is None:
            raise DataError(
                f"{folder / (SETTINGS if settings else NAMES)} names {name} as the {what} of a "
                "text, which the tokenizer.json next to it does not have",
                "download the files of the tokenizer again, all from one revision",
            )
    special = {t.content for t in tokenizer.get_added_tokens_decoder().values() if t.special}
    tokenizer.add_special_tokens([name for name in (bos, eos) if name and name not in special])
    begins = processed(tokenizer)
    if begins is None and bos and (merged.get("add_bos_token") or bos == own):
        begins = tokenizer.token_to_id(bos)
    kept = {name: merged[name] for name in _KEPT if merged.get(name)}
    kept |= {name: text for name in OTHERS if (text := _text(merged.get(name)))}
    template = folder / TEMPLATE
    if template.is_file():
        kept["chat_template"] = _read(template)
    return Published(bos, eos, begins, stops, declared, kept)


def processed(tokenizer: Tokenizer) -> int | None:
    """The id of the token that the tokenizer itself puts before a text; None if there is none."""
    plain = tokenizer.encode("x", add_special_tokens=False).ids
    ids = tokenizer.encode("x").ids
    return ids[0] if ids[1 : 1 + len(plain)] == plain and ids != plain else None


def _ids(config: Mapping[str, Any], key: str, tokenizer: Tokenizer) -> Iterator[int]:
    """The special tokens among the ids in a configuration. Other ids are a library's defaults,
    unrelated to the tokenizer."""
    given, added = config.get(key), tokenizer.get_added_tokens_decoder()
    for each in given if isinstance(given, list) else [given]:
        if isinstance(each, int) and each in added and added[each].special:
            yield each


def _text(token: Any) -> str | None:
    """The text of a token, which may be given with its properties."""
    if isinstance(token, dict):
        token = token.get("content")
    if not isinstance(token, str) or not token:
        return None
    # JSON can name halves of characters, which no tokenizer has.
    return token.encode("utf-8", "replace").decode()


def _object(path: Path) -> dict[str, Any] | None:
    """The object in a file; None if there is no such file."""
    if not path.is_file():
        return None
    try:
        found = json.loads(_read(path))
    except ValueError as problem:
        raise DataError(f"{path} is not JSON: {problem}", "download the file again") from None
    if not isinstance(found, dict):
        raise DataError(f"{path} is not a JSON object", "download the file again")
    return found


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as problem:
        reason = (problem.strerror or str(problem)).lower()
        raise DataError(
            f"{path} cannot be read: {reason}", "make sure that you may read it, then run again"
        ) from None
    except UnicodeDecodeError as problem:
        raise DataError(f"{path} is not a text: {problem}", "download the file again") from None
