"""The questions of templates, and the checks of their answers."""

import re
from collections.abc import Callable
from fractions import Fraction
from typing import Any, NamedTuple

from ..compiler.families import FAMILIES
from ..spec.schema.bind import MOST_ROUNDS
from ..spec.text.parse import SUFFIXES
from .tree import ConfigError

SIZES = ("tiny", *FAMILIES["llama3"].sizes)
LENGTHS = ("16Ki", "32Ki", "64Ki", "128Ki")


class Question(NamedTuple):
    """One answer that a template needs; the option of `etude new` has the same name.

    Attributes:
        ask: the question, for a person at a terminal.
        help: the option's help, for `etude new --help`.
        read: converts the text of the answer; raises ConfigError.
        default: previous answers → the default answer, as text.
    """

    name: str
    ask: str
    help: str
    read: Callable[[str], Any]
    default: Callable[[dict[str, Any]], str]
    choices: tuple[str, ...] = ()


def count(text: str) -> int:
    """A whole number such as 15T or 8_000, at least 1.

    Raises: ConfigError: it is not.
    """
    parts = re.fullmatch(r"(\d[\d_]{0,30}(?:\.\d{1,30})?)([A-Za-z]{0,2})", text.strip())
    size = SUFFIXES.get(parts[2]) if parts else None
    number = Fraction(parts[1].replace("_", "")) * size if parts and size else None
    if number is None or number.denominator != 1 or not 1 <= number <= 10**18:
        raise ConfigError(f"`{text}` is not a whole number", help="write 2000, 300M or 15T")
    return int(number)


def _rounds(text: str) -> int:
    number = count(text)
    if number > MOST_ROUNDS:
        raise ConfigError(f"there are at most {MOST_ROUNDS} rounds")
    return number


def words(text: str) -> str:
    """Text on one line.

    Raises: ConfigError: it is empty, or contains a line feed.
    """
    if not text.strip() or "\n" in text:
        raise ConfigError("this must be text on one line")
    return text.strip()


def one_of(*choices: str) -> Callable[[str], str]:
    """Reads one of some words.

    Raises: ConfigError: it is another word.
    """

    def read(text: str) -> str:
        if text not in choices:
            raise ConfigError(f"`{text}` is not one of {', '.join(choices)}")
        return text

    return read


def _of_size(**values: str) -> Callable[[dict[str, Any]], str]:
    named = {key.lstrip("_"): value for key, value in values.items()}
    return lambda answers: named[answers.get("size", "tiny")]


def fixed(value: str) -> Callable[[dict[str, Any]], str]:
    """A default that does not depend on previous answers."""
    return lambda answers: value


_ALL = (
    Question(
        "size",
        "Size of the model",
        "size of the model: tiny, or a published one such as 8B",
        one_of(*SIZES),
        fixed("tiny"),
        SIZES,
    ),
    Question(
        "tokens",
        "Tokens to train on",
        "tokens to train on, such as 15T",
        count,
        _of_size(tiny="700k", _1B="1T", _3B="3T", _8B="15T", _70B="15T", _405B="15T"),
    ),
    Question(
        "gpus",
        "GPUs in all",
        "GPUs in all",
        count,
        _of_size(tiny="1", _1B="64", _3B="128", _8B="512", _70B="2048", _405B="16384"),
    ),
    Question("gpu", "Kind of GPU", "kind of GPU", words, fixed("H100 80GB")),
    Question(
        "data", "Files of documents", "files of documents", words, fixed("corpus/**/*.jsonl.zst")
    ),
    Question("dialogs", "Files of dialogs", "files of dialogs", words, fixed("dialogs/*.jsonl")),
    Question(
        "preferences",
        "Files of preferences",
        "files of preferences",
        words,
        fixed("preferences/*.jsonl"),
    ),
    Question("prompts", "Files of prompts", "files of prompts", words, fixed("prompts/*.jsonl")),
    Question(
        "tokenizer",
        "Tokenizer on the Hugging Face Hub",
        "tokenizer on the Hugging Face Hub",
        words,
        fixed("meta-llama/Llama-3.1-8B"),
    ),
    Question(
        "length",
        "Longest sequence, in tokens",
        "longest sequence, such as 128Ki",
        one_of(*LENGTHS),
        fixed("128Ki"),
        LENGTHS,
    ),
    Question("rounds", "Rounds", "number of rounds", _rounds, fixed("2")),
)
QUESTIONS = {each.name: each for each in _ALL}
