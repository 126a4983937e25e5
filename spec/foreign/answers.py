"""Names from other programs that this language lacks, and what to use instead.

Only unknown names are looked up here, so checking a correct spec never reads the tables.
"""

from collections.abc import Collection, Iterable, Mapping
from difflib import get_close_matches

from .foreign_attributes import ANY, NOT_YET, OUTSIDE, Answer
from .foreign_blocks import BLOCKS as OF_BLOCKS
from .foreign_blocks import OTHERS, RENAMED
from .foreign_policies import POLICIES
from .foreign_stages import STAGES
from .foreign_torchtitan import TORCHTITAN
from .foreign_values import VALUES

ATTRIBUTES: tuple[Answer, ...] = (
    *TORCHTITAN,
    *POLICIES,
    *STAGES,
    *OTHERS,
    *OF_BLOCKS,
    *RENAMED,
    *OUTSIDE,
    *NOT_YET,
)
"""Answers about attributes; those for one block come before those for any."""

PLACES: Mapping[str, str] = {
    "recipe": "the recipe",
    "tracker": "`tracking = wandb { … }` of the recipe",
    "model": "a model",
    "experts": "`experts = { … }` of a model",
    "latent": "`latent = { … }` of a model",
    "rope_scaling": "`rope_scaling` of a model",
    "tokenizer": "a tokenizer",
    "vocabulary": "`train = { … }` of a tokenizer",
    "dataset": "a dataset",
    "fields": "`fields = { … }` of a dataset",
    "dialog": "a dialog",
    "verifier": "a verifier",
    "cluster": "a cluster",
    "optimizer": "`optimizer = adamw { … }` of a stage",
    "gate": "a gate",
    "needle": "`needle = { … }` of an evaluate stage",
    "evaluation": "`evaluate = { … }` of a stage that trains",
    "torchtitan": "`torchtitan = { … }` of a stage or cluster",
    **{
        f"torchtitan.{section}": f"`torchtitan = {{ {section} = {{ … }} }}` of a stage or cluster"
        for section in ("training", "parallelism", "compile", "comm", "debug", "optimizer")
    },
}
"""Where the attributes of a block belong; a stage's belong in stages of its kind."""
_ALIKE = 0.8
"""From this similarity on, one of two names is a misspelling of the other."""


def attribute(
    name: str, block: str, known: Iterable[str], language: Mapping[str, Collection[str]]
) -> str:
    """What to answer about an attribute that a block lacks; "" if its name is unknown.

    Args:
        block: its name in the tables.
        known: the block's attributes: a name that differs by a letter is a misspelling of one.
        language: the attributes of all blocks.
    """
    plain = _plain(name)
    answers = [answer for answer in ATTRIBUTES if plain in answer.all_names]
    for answer in answers:
        if answer.where == ANY or block in answer.where.split():
            return answer.text
    if get_close_matches(name, list(known), n=1, cutoff=_ALIKE):
        return ""
    return _elsewhere(plain, language) or next(
        (f"this belongs in {_places(a.where.split())}: {a.text}" for a in answers), ""
    )


def value(of: str, name: str) -> str:
    """What to answer about an unknown value of an attribute or of another place in a spec."""
    plain = _plain(name)
    return next((a.text for a in VALUES if of in a.where.split() and plain in a.all_names), "")


def all_answers() -> tuple[Answer, ...]:
    """Both tables."""
    return (*ATTRIBUTES, *VALUES)


def _plain(name: str) -> str:
    """A name in lower case with underscores; of a dotted path, as in JSON, the last part."""
    return name.strip().lower().replace("-", "_").rsplit(".", 1)[-1]


def _elsewhere(name: str, language: Mapping[str, Collection[str]]) -> str:
    """Where the language has an attribute of this name."""
    owners = [block for block, attributes in language.items() if name in attributes]
    return f"`{name}` is an attribute of {_places(owners)}" if owners else ""


def _places(blocks: Iterable[str]) -> str:
    """`a dataset and sft stages`, for people."""
    blocks = list(blocks)
    places = [PLACES[block] for block in blocks if block in PLACES]
    kinds = [block for block in blocks if block not in PLACES]
    if kinds:
        places.append(f"{_listed(kinds)} stages")
    return _listed(places)


def _listed(words: list[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
