"""What attributes take, asked of the attributes themselves, and what the reference says of them."""

import json
import re
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import NamedTuple

from ..spec import convert as c
from ..spec import recipe as r
from ..spec import syntax as s
from ..spec.quantity import UNITS
from ..spec.source import Source, Span

NOWHERE = Span(Source("", ""), 0, 0)
_CHOICES = re.compile(r"is not one of (.+)$")


class Entry(NamedTuple):
    """An attribute in the reference: what it takes, what it is where left out, what it means."""

    value: str
    default: str
    meaning: str


def _word(name: str) -> s.Word:
    return s.Word(name, NOWHERE)


def _path(name: str) -> s.Path:
    return s.Path((_word(name),), NOWHERE)


@cache
def choices(model: type[r.Declaration], attribute: str) -> tuple[str, ...]:
    """The names among which an attribute chooses; none where it takes something else."""
    known = r.attributes(model).get(attribute)
    if known is None or known.read is None:
        return ()
    try:
        known.read(_path("?"))
    except c.Invalid as problem:
        match = _CHOICES.search(problem.message) if problem.code == "E202" else None
        return tuple(match[1].split(", ")) if match else ()
    except Exception:  # it is asked with what no spec can hold
        return ()
    return ()


@cache
def units(model: type[r.Declaration], attribute: str) -> tuple[str, ...]:
    """The units in which an attribute is measured, in the plural."""
    known = r.attributes(model).get(attribute)
    if attribute == "checkpoint":
        return ("steps",)
    if known is None or known.read is None:
        return ()
    found = []
    for unit in dict.fromkeys(UNITS.values()):
        number = s.Number(Fraction(4096), "", _word(unit), f"4096 {unit}", NOWHERE)
        try:
            known.read(number)
        except Exception:  # not in this unit, or no number at all
            continue
        found.append(unit)
    return tuple(found)


def is_schedule(model: type[r.Declaration], attribute: str) -> bool:
    """Whether an attribute changes over time."""
    known = r.attributes(model).get(attribute)
    if known is None or known.read is None:
        return False
    return getattr(known.read, "__qualname__", "").startswith("schedule.")


TITLES: dict[type[r.Declaration], str] = {
    r.Header: "recipe",
    r.Model: "model",
    r.Experts: "experts of a model",
    r.Latent: "latent of a model",
    r.RopeScaling: "yarn and llama of rope_scaling",
    r.Tokenizer: "tokenizer",
    r.TokenizerTraining: "train of a tokenizer",
    r.Dataset: "dataset",
    r.Fields: "fields of a dataset",
    r.Dialog: "dialog",
    r.Cluster: "cluster",
    r.Optimizer: "optimizer",
    r.Needle: "needle",
    **{of: f"stage NAME: {kind}" for kind, of in r.STAGES.items()},
}
"""Kind of block → the heading of its table in the reference."""


@cache
def _reference() -> dict[str, dict[str, list[str]]]:
    return json.loads(Path(__file__).with_name("reference.json").read_text(encoding="utf-8"))


def documentation(model: type[r.Declaration], attribute: str) -> Entry | None:
    """What the reference says of an attribute of a block."""
    titles = [TITLES.get(model, "")]
    if issubclass(model, r.Training):
        titles.append(TITLES[r.Train])
    if issubclass(model, r.Measuring):
        titles.append("Measures")
    for title in titles:
        found = _reference().get(title, {}).get(attribute)
        if found:
            return Entry(*found)
    return None


def about(model: type[r.Declaration]) -> str:
    """What a kind of block is, in its own words."""
    return (model.__doc__ or "").partition("\n\n")[0].replace("\n    ", " ")


def markdown(attribute: str, entry: Entry) -> str:
    """An entry of the reference, to be shown beside the code."""
    default = "" if entry.default in ("—", "required", "") else f"; default: {entry.default}"
    needed = "; required" if entry.default == "required" else ""
    return f"**`{attribute}`** — {entry.meaning}\n\nTakes {entry.value}{needed}{default}."
