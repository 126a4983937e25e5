"""Fill-in-the-middle: documents that a model learns with their middle last.

A document is cut at two random characters (Bavarian et al., arXiv:2207.14255 §3), and its parts are
written with a special token before each: prefix, suffix, middle (PSM), or with prefix and middle
together at the end (SPM). What becomes of a document follows from the seed, the data set's name and
the text alone: not from its place, nor from who tokenizes it.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from hashlib import sha256
from typing import Any

from tokenizers import Tokenizer

from ...errors import DataError
from .tokenizer import special

TOKENS = ("prefix", "suffix", "middle")


@dataclass(frozen=True)
class Fim:
    """How documents are rearranged.

    Attributes:
        rate: of the documents.
        spm: share of these whose suffix comes first.
        ids: of the tokens before prefix, suffix and middle.
        salt: of the data set.
    """

    rate: Fraction
    spm: Fraction
    ids: tuple[int, int, int]
    salt: bytes

    @classmethod
    def of(
        cls, settings: Mapping[str, Any] | None, tokenizer: Tokenizer, *, seed: int, name: str
    ) -> "Fim | None":
        """
        Args:
            settings: of the plan: `rate`, `spm` and the names of the tokens; None: no document is
                rearranged.
            name: of the data set.

        Raises: DataError: the tokenizer lacks a token.
        """
        if settings is None:
            return None
        ids = required(settings, tokenizer, name)
        salt = json.dumps(["fim", seed, name]).encode()
        return cls(Fraction(settings["rate"]), Fraction(settings["spm"]), ids, salt)

    def parts(self, text: str) -> list[str | int] | None:
        """The texts and special tokens that a document becomes; None if it stays as it is."""
        digest = sha256(self.salt + text.encode("utf-8", "surrogatepass")).digest()
        chosen, order, one, other = (
            int.from_bytes(digest[at : at + 8], "big") for at in range(0, 32, 8)
        )
        if not _below(chosen, self.rate):
            return None
        # Each of the len + 1 places between characters is as likely.
        first, last = sorted((one * (len(text) + 1) >> 64, other * (len(text) + 1) >> 64))
        prefix, middle, suffix = text[:first], text[first:last], text[last:]
        before, after, between = self.ids
        if _below(order, self.spm):
            return [before, after, suffix, between, prefix, middle]
        return [before, prefix, after, suffix, between, middle]


def required(settings: Mapping[str, Any], tokenizer: Tokenizer, name: str) -> tuple[int, int, int]:
    """The ids of the tokens before prefix, suffix and middle.

    Raises: DataError: the tokenizer lacks one, or has it for where a text begins or ends.
    """
    found = {settings[each]: tokenizer.token_to_id(settings[each]) for each in TOKENS}
    missing = [token for token, id in found.items() if id is None]
    if missing:
        known = sorted(
            token.content
            for token in tokenizer.get_added_tokens_decoder().values()
            if "fim" in token.content.lower()
        )
        have = f"; it has {', '.join(known)}" if known else ""
        raise DataError(
            f"the tokenizer lacks tokens for `fim` of the data set `{name}`: {', '.join(missing)}"
            f"{have}",
            "name its own in `fim { prefix, suffix, middle }`, or use a tokenizer that has them",
        )
    ends = special(tokenizer)
    if taken := [token for token, id in found.items() if id in (ends.bos, ends.eos)]:
        raise DataError(
            f"`fim` of the data set `{name}` puts {taken[0]} into documents, but with this token "
            "every document begins or ends",
            "name another token in `fim { prefix, suffix, middle }`",
        )
    prefix, suffix, middle = found.values()
    return prefix, suffix, middle  # type: ignore[return-value]


def pieces(texts: Iterable[str], fim: Fim | None) -> list[list[str | int]]:
    """Each document as texts to tokenize and ids that stand between them."""
    return [(fim.parts(text) if fim else None) or [text] for text in texts]


def _below(drawn: int, share: Fraction) -> bool:
    """Whether 64 random bits are within a share of their range."""
    return drawn * share.denominator < share.numerator * 2**64
