"""Specs that tune published weights: what `etude new --weights FOLDER --data FILE` writes."""

from collections.abc import Mapping
from fractions import Fraction
from typing import NamedTuple

from ..compiler.families.architectures import parameters
from ..compiler.files.weights_folder import WeightsFolder
from ..compiler.values import ModelShape
from . import writing as w

NEEDS = {
    "sft": ("dialogs",),
    "dpo": ("preferences",),
    "align": ("dialogs", "preferences"),
}
"""Template → the kinds of data that it trains on."""
ABOUT = {
    "sft": "Fine-tuning of published weights on dialogs",
    "dpo": "Published weights trained on preferences by DPO",
    "align": "Fine-tuning of published weights on dialogs, and DPO on preferences after it",
}
CHARACTERS_PER_TOKEN = 3
"""Fewer than there are in most texts, so that lengths are rather too large."""
SHORTEST, LONGEST = 256, 8192
"""Tokens of a row, at least and at most."""
RATES = (
    (1_000_000_000, Fraction("2e-5"), Fraction("5e-7")),
    (10_000_000, Fraction("1e-4"), Fraction("5e-6")),
    (0, Fraction("1e-3"), Fraction("5e-5")),
)
"""Parameters that a model has at least, and its rates of sft and dpo: those of Zephyr 7B
(arXiv:2310.16944 §4), of models of some hundred million parameters, and of those that a laptop
trains in a minute."""
MOST = 10_000
"""Records that are looked at."""


class Looked(NamedTuple):
    """What a file of records looks like.

    Attributes:
        file: its path, as the spec writes it.
        fields: what `fields` of the data set has to say.
        records: how many there are; at most `MOST` are counted.
        characters: of the longest record.
        bad: how many of them cannot be read.
    """

    file: str
    fields: Mapping[str, str]
    records: int
    characters: int
    bad: int


def tuned(
    template: str,
    name: str,
    weights: str,
    folder: WeightsFolder,
    data: Mapping[str, Looked],
) -> str:
    """The text of a spec that runs as it stands.

    Args:
        template: a key of NEEDS.
        weights: the folder, as the spec writes it.
        data: kind of records → what its file looks like.
    """
    model = folder.described.model
    assert model
    file = f"{name}.etude"
    top = (
        f"# {ABOUT[template]}.\n#\n"
        f"#     etude check   {file}     is anything wrong?\n"
        f"#     etude preview {file}     what is learned from the data?\n"
        f"#     etude run     {file}     let it happen"
    )
    title = w.quoted(name.replace("_", " ").capitalize())
    blocks = [
        top,
        w.block(f"recipe {name}", ("title", title), ("seed", "1")),
        "# Shape, tokenizer and chat template are read from the folder.\n"
        + w.block("model base", ("weights", w.quoted(weights))),
        *(_dataset(kind, looked) for kind, looked in data.items()),
    ]
    if "dialogs" in data:
        blocks.append(_sft(data["dialogs"], model, folder.described.longest))
    if "preferences" in data:
        start = "sft" if "dialogs" in data else "base"
        blocks.append(_dpo(data["preferences"], model, folder.described.longest, start))
    return w.laid_out("\n\n".join(blocks))


def _dataset(kind: str, looked: Looked) -> str:
    fields = ", ".join(f"{name} = {w.quoted(value)}" for name, value in looked.fields.items())
    return w.block(
        f"dataset {_name(kind)}",
        ("files", w.quoted(looked.file)),
        ("kind", kind),
        ("fields", f"{{ {fields} }}") if fields else None,
        ("holdout", "2%"),
        ("bad_lines", w.plain(max(looked.bad * 2, looked.records // 100, 1))),
        ("long", "drop"),
    )


def _name(kind: str) -> str:
    return {"dialogs": "people", "preferences": "labels"}[kind]


def _length(looked: Looked, longest: int) -> int:
    """Tokens of a row in which the longest record has room, as a power of two."""
    tokens = looked.characters // CHARACTERS_PER_TOKEN + 64
    length = SHORTEST
    while length < min(tokens, LONGEST):
        length *= 2
    return min(length, longest) if longest else length


def _batch(looked: Looked, most: int) -> int:
    """A batch of which an epoch has ten or more."""
    batch = most
    while batch > 1 and looked.records < 10 * batch:
        batch //= 2
    return batch


def _rates(model: ModelShape) -> tuple[Fraction, Fraction]:
    """The peak rates of sft and dpo for a model of this size."""
    return next((sft, dpo) for least, sft, dpo in RATES if parameters(model) >= least)


def _sft(looked: Looked, model: ModelShape, longest: int) -> str:
    length = ("seq_len", w.count(_length(looked, longest)))
    peak, _ = _rates(model)
    return (
        "# Dialogs are packed into rows; only the assistant's tokens are learned. How long three\n"
        "# epochs are is known once the data are tokenized.\n"
        + w.block(
            "stage sft: sft",
            ("from", "base"),
            ("data", "people"),
            ("epochs", "3"),
            length,
            ("batch", f"{_batch(looked, 16)} seqs"),
            ("lr", f"0 -> {w.real(peak)} for 3% then -> {w.real(peak / 10)} cosine"),
        )
        + "\n\n# Dialogs that were not learned, before and after.\n"
        + w.block("stage before: evaluate", ("from", "base"), ("loss", "[people]"), length)
        + "\n\n"
        + w.block("stage after: evaluate", ("from", "sft"), ("loss", "[people]"), length)
    )


def _dpo(looked: Looked, model: ModelShape, longest: int, start: str) -> str:
    _, peak = _rates(model)
    return (
        "# Preferred answers against others, kept near the model that it starts from.\n"
        + w.block(
            "stage dpo: dpo",
            ("from", start),
            ("data", "labels"),
            ("epochs", "1"),
            ("seq_len", w.count(_length(looked, longest))),
            ("batch", f"{_batch(looked, 32)} pairs"),
            ("lr", f"0 -> {w.real(peak)} for 10% then -> 0"),
            ("beta", "0.1"),
        )
    )
