"""Keywords: what each of them does, and which of them cannot be names.

The grammar uses the words of `FORMS` and `STATEMENTS`. `tests/unit/spec/test_spec_keywords.py`
checks that it has these and no others, and that names that could not be parsed are rejected.
"""

import re
from collections.abc import Collection

from ..schedule import SHAPES

BLOCKS = {
    "recipe": "recipe NAME { … }",
    "model": "model NAME { … }",
    "tokenizer": "tokenizer NAME { … }",
    "dataset": "dataset NAME { … }",
    "cluster": "cluster NAME { … }",
    "dialog": "dialog NAME { … }",
    "verifier": "verifier NAME { … }",
    "stage": "stage NAME: KIND { … }",
    "rounds": "rounds NAME 6 { … }",
    "expect": "expect { … }",
    "variant": "variant NAME { stage.attribute = value }",
}
"""Keyword of a block → how it begins. Each can itself be a name."""
NAMED = tuple(word for word in BLOCKS if word != "expect")
"""The keywords of blocks that have a name."""

STAGE_KINDS = (
    "train",
    "sft",
    "distill",
    "reward",
    "dpo",
    "kto",
    "prm",
    "grpo",
    "score",
    "sample",
    "checkpoint",
    "average",
    "evaluate",
    "best",
    "ensemble",
)
"""What follows the name of a stage."""

MEANINGS = {
    "use": "includes another file",
    "let": "gives a value a name",
    "require": "states a condition of a gate",
    "otherwise": "says what happens if a condition fails",
    "allow": "silences a warning",
    "open": "marks an attribute as not set yet",
    "then": "joins the segments of a schedule",
    "repeat": "repeats segments of a schedule",
    "for": "says how long a segment lasts",
    "until": "says where a segment ends",
    "over": "says how long a curve takes",
    "levels": "says how far apart the levels of a ramp are",
    **dict.fromkeys(SHAPES, "is the shape of a ramp"),
    "within": "gives the tolerance of a claim",
    "at": "gives the point in training of a claim",
    "because": "gives the reason of a tolerance",
    "contradicted": "says what contradicts a claim",
    "cite": "gives the source of a value",
    "assumed": "says why a value is assumed",
    "of": "counts things of a kind",
    "every": "says how often something happens",
    "with": "scales a mixture",
    "or": "joins two references",
    "where": "gives the condition of a filter",
    "in": "looks up a value in a file",
    "extend": "says how much longer a stage trains",
    "most": "limits how often",
    "last": "is the value at the end of the previous stage",
    "round": "is the number of the stage's round",
    "previous": "is the previous round",
    "auto": "is the placement that the compiler finds",
    "default": "removes an attribute, in a variant",
    "short": "is the loss at the length before a gate",
    "true": "turns an attribute on",
    "false": "turns an attribute off",
}
"""Word → what it does, to follow “it”."""

STATEMENTS = ("use", "let", "require", "otherwise", "allow", "open")
"""Words that begin a statement of their own."""

FORMS: dict[str, tuple[str, ...]] = {
    "schedule": ("repeat", "then", "->", "for", "until", "over", "in", "levels", *SHAPES),
    "claim": ("at", "within", "because", "contradicted", "cite"),
    "origin": ("cite", "assumed"),
    "count": ("of",),
    "period": ("every", "over"),
    "kept": ("last", "every"),
    "scaling": ("with",),
    "choice": ("or",),
    "filter": ("where", "in"),
    "condition": ("of",),
    "extension": ("extend", "at", "most"),
}
"""A kind of statement or value → the words that build it. The grammar says which of them a place
allows: `following` in `parse.py`."""

SNIPPETS = {
    "checkpoint": "checkpoint every ${1:20} min",
    "gate": "gate seq_len {\n  require needle >= ${1:90}%\n}",
    "keep last": "keep last ${1:2}",
    "keep": "keep ${1:10}% where ${2:quality}.loss > ${3:4.0}",
    "drop": "drop where ${1:quality}.loss > ${2:8.0}",
    "drop similar": "drop similar > ${1:90}%",
    "require": "require ${1:needle} >= ${2:90}%",
    "otherwise": "otherwise extend ${1:10B} tokens at most ${2:3} times",
    "allow": 'allow ${1:W601} "${2:the reason}"',
    "open": 'open ${1:lr} "${2:the reason}"',
    "use": 'use "${1:file.etude}"',
    "let": "let ${1:name} = ${2:value}",
}
"""How the statements that are not `name = value` are written, with `${1:…}` to fill in."""

VALUES = ("last", "round", "previous", "auto", "default", "short", "true", "false")
"""Names that mean the same everywhere, regardless of declarations."""

FREE = frozenset({"open", "extend", "most", "levels"})
"""Words that the grammar never treats as keywords where a name is allowed."""

RESERVED = frozenset(MEANINGS) - FREE
"""Words that cannot be names."""

CONTINUES = ("then", "over", "until", "for", "within")
"""A line that begins with one of these, or with `->`, continues the line before."""
CONTINUES_WITH_TEXT = ("cite", "assumed", "because", "contradicted")
"""A line that begins with one of these and a text continues the line before."""
CONTINUATION = rf"(?:->|(?:{'|'.join(CONTINUES)})\b|(?:{'|'.join(CONTINUES_WITH_TEXT)})[ \t]+\")"
"""What continues the line before, as a pattern."""
BREAKS_AFTER = ("=", "->", "then")
"""A line that ends with one of these continues with the next."""

NAME = "[a-z][a-z0-9_]*"
"""What a name looks like, as a pattern."""
_TO_FILL_IN = re.compile(r"\$\{\d:([^}]*)\}")


def as_name(text: str) -> str:
    """What a text with capitals, dashes or a version is as a name; "" if it is not nearly one."""
    found = re.sub(r"[ -]|\.(?=[0-9])", "_", text).lower()
    return found if re.fullmatch(NAME, found) else ""


def why_no_name(name: str) -> str:
    """Why a name is not allowed; "" if it is."""
    if name in RESERVED:
        return f"`{name}` cannot be a name: it {MEANINGS[name]}"
    return "" if re.fullmatch(NAME, name) else f"`{name}` cannot be a name"


def proposal(name: str, kind: str) -> str:
    """A valid name, in place of an invalid one, for something of a kind: `dataset`, `let`.

    "" if nothing of the name is left that could be one.
    """
    if name in RESERVED:
        return f"{name}_{'value' if kind == 'let' else kind}"
    plain = re.sub("[^a-z0-9]+", "_", name.lower()).strip("_")
    if not plain.strip("_0123456789"):
        return ""
    plain = plain if plain[0].isalpha() else f"{kind}_{plain}"
    return proposal(plain, kind) if plain in RESERVED else plain


def advice(name: str, kind: str) -> str:
    """What to write in place of an invalid name."""
    other = proposal(name, kind)
    such = f", such as `{other}`" if other else ""
    if name in RESERVED:
        return f"choose another name{such}"
    return f"names are lower case and consist of a letter, then letters, digits and _{such}"


def example(statement: str) -> str:
    """An example of a statement, on one line."""
    return " ".join(_TO_FILL_IN.sub(r"\1", SNIPPETS[statement]).split())


def any_of(words: Collection[str]) -> str:
    """A pattern that matches each of the words as a whole."""
    return rf"(?:{'|'.join(sorted(words, key=lambda word: (-len(word), word)))})\b"
