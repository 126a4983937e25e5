"""What attributes take, asked of the attributes themselves, and what the reference says of them."""

import json
from functools import cache
from pathlib import Path
from typing import NamedTuple

from ..spec.schema import recipe as r
from ..spec.source import Source, Span

NOWHERE = Span(Source("", ""), 0, 0)


class Entry(NamedTuple):
    """An attribute in the reference: what it takes, what it is where left out, what it means."""

    value: str
    default: str
    meaning: str


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
