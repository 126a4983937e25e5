"""Cuts labelled tokens into parts of text."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby

from tokenizers import Tokenizer

from ..data.texts import common_start
from .shown import Part


@dataclass(frozen=True)
class Label:
    """A token's label; the attributes are those of `Part`."""

    kind: str
    learned: bool = False
    special: bool = False
    branch: str = ""
    message: int = -1
    document: str = ""


def cut(tokenizer: Tokenizer, ids: Sequence[int], labels: Sequence[Label]) -> tuple[Part, ...]:
    """The parts of decoded tokens, one for every run of equal labels.

    A character whose tokens are in two parts belongs to the second; joined, the parts are always
    the whole text.

    Args:
        labels: one per token.
    """
    runs = [(label, len(list(run))) for label, run in groupby(labels)]
    texts = texts_of(tokenizer, ids, [count for _, count in runs])
    return tuple(
        Part(
            text,
            label.kind,
            label.learned,
            count,
            label.special,
            label.branch,
            label.message,
            label.document,
        )
        for (label, count), text in zip(runs, texts, strict=True)
    )


def texts_of(tokenizer: Tokenizer, ids: Sequence[int], counts: Sequence[int]) -> list[str]:
    """The texts of consecutive runs of tokens; `counts` are the runs' lengths."""
    whole = decoded(tokenizer, ids)
    lengths = list(_lengths(tokenizer, ids, counts))
    if sum(lengths) != len(whole):
        lengths = list(_exact_lengths(tokenizer, ids, counts, whole))
    texts, begin = [], 0
    for length in lengths:
        texts.append(whole[begin : begin + length])
        begin += length
    return texts


def decoded(tokenizer: Tokenizer, ids: Sequence[int]) -> str:
    return tokenizer.decode(list(ids), skip_special_tokens=False)


def _lengths(tokenizer: Tokenizer, ids: Sequence[int], counts: Sequence[int]) -> Iterator[int]:
    """How many characters each run adds to the text, decoded together with its neighbours.

    Decoders treat the beginning of a text specially; taking differences leaves that out.
    """
    borders = [0, 0, *accumulate(counts), len(ids)]
    stretches = zip(borders, borders[1:], borders[2:], borders[3:], strict=False)
    for before, begin, end, after in stretches:
        around = decoded(tokenizer, ids[before:after])
        ends = (decoded(tokenizer, ids[before:border]) for border in (begin, end))
        first, last = (_shared(text, around) for text in ends)
        yield last - first


def _exact_lengths(
    tokenizer: Tokenizer, ids: Sequence[int], counts: Sequence[int], whole: str
) -> Iterator[int]:
    """The same, decoded from the beginning of the text, which is always right, but slow."""
    done = end = 0
    for number, count in enumerate(counts, 1):
        end += count
        last = number == len(counts)
        reached = len(whole) if last else max(_shared(decoded(tokenizer, ids[:end]), whole), done)
        yield reached - done
        done = reached


def _shared(one: str, other: str) -> int:
    """The length of the common beginning of two texts."""
    return len(one) if other.startswith(one) else len(common_start([one, other]))
