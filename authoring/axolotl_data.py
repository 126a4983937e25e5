"""The data sets of an axolotl configuration."""

import re
from fractions import Fraction
from pathlib import Path

from ..spec.schema.recipe import data_kind
from . import writing as w
from .config import Config
from .draft import Draft

FILES = (".jsonl", ".json", ".parquet", ".txt", ".csv", ".arrow", ".zst", ".gz")
REMOTE = re.compile(r"(s3|gs|gcs|az|abfs|oci|https?)://")
_LONG = {"drop": "drop", "truncate": "truncate"}
"""What axolotl does with records that do not fit, unless it stops; by default it drops them."""
_ALPACA = (
    "alpaca adds its own wording around the instruction and `input`, which etude does not write; "
    'to train without it, write `fields = { prompt = "instruction", completion = "output" }`'
)
_SHAREGPT = {"user": "human", "assistant": "gpt"}

# Format → the fields that etude reads. In a format such as `chatml.intel`, the part after the dot
# names the public data set that it was made for.
_FIELDS: dict[str, dict[str, str]] = {
    "completion": {},
    "pretrain": {},
    "chat_template": {},
    "sharegpt": {"messages": "conversations", "role": "from", "content": "value"},
    "chatml.intel": {"prompt": "question"},
    "llama3.intel": {"prompt": "question"},
    "chatml.icr": {"prompt": "input"},
    "llama3.icr": {"prompt": "input"},
    "chatml.prompt_pairs": {},
    "llama3.prompt_pairs": {},
    "chatml.ultra": {},
    "llama3.ultra": {},
    "chatml.argilla_chat": {},
    "llama3.argilla_chat": {},
    "bradley_terry.chat_template": {},
    "chat_template.default": {},
    "stepwise_supervised": {},
}


_RATED = {
    f"{protocol}.{form}": fields
    for protocol in ("chatml", "llama3")
    for form, fields in {
        "argilla": {"prompt": "instruction"},
        "intel": {"prompt": "question"},
        "prompt_pairs": {},
        "ultra": {},
    }.items()
}
"""The same for answers that are rated (`prompt_strategies/kto`)."""
_ANSWERS = ("prompt", "chosen", "rejected", "completion", "label")


def datasets(config: Config, made: Draft, kind: str, unit: str) -> dict[str, Fraction]:
    """Declares the data sets of a stage; returns their shares, which are equal.

    Args:
        unit: what the stage's batch counts.
    """
    found: dict[str, Fraction] = {}
    held: Fraction = config.number("val_set_size", default=Fraction(0))
    if held > 1 or (held == 1 and config.text("val_set_size") == "1"):
        config.lost("val_set_size", "a share is held out, not a number of records")
        held = Fraction(1, 200)
    # Steps are always cut at the length (axolotl, `prompt_strategies/stepwise_supervised.py`).
    usual = "truncate" if kind == "prm" else "drop"
    strategy = config.text("excess_length_strategy", default=usual)
    for path in _paths(config):
        source, wish = _source(config, path)
        name = made.name(wish, "data")
        made.add(
            w.block(
                f"dataset {name}",
                *source,
                ("kind", data_kind(kind)) if kind != "train" else None,
                _fields(config, made, path, kind),
                ("long", _LONG[strategy]) if strategy in _LONG and kind != "train" else None,
                ("holdout", w.percent(held)),
                _size(config, made, path, name, unit),
            )
        )
        found[name] = Fraction(1)
    if len(found) > 1:
        config.assumed(
            "datasets",
            "sources have equal shares; axolotl samples all records equally, so a larger source "
            "has a larger share",
        )
    if config.has("test_datasets") or config.count("test_datasets"):
        config.lost("test_datasets", "write `evaluate = { … }` in the stage")
    return found


def _paths(config: Config) -> list[str]:
    section = "pretraining_dataset" if "pretraining_dataset" in config.root else "datasets"
    if section == "pretraining_dataset" and config.count(section) == 0:
        return [section]
    return [f"{section}[{number}]" for number in range(config.count(section))]


def _source(config: Config, path: str) -> tuple[list[w.Line], str]:
    place = config.text(f"{path}.path", default=None) if "[" in path else None
    if place is None:
        place = (config.texts(path) or [""])[0] or config.text(f"{path}.path", default="")
    files = config.texts(f"{path}.data_files")
    local = config.has(f"{path}.ds_type") or place.endswith(FILES) or place.startswith((".", "/"))
    if config.has(f"{path}.ds_type"):
        config.irrelevant({f"{path}.ds_type": "taken from the name"})
    if files and not local and not REMOTE.match(place):
        config.lost(f"{path}.data_files", "a Hub data set is read by `config` and `split`")
        files = None
    if local or REMOTE.match(place):
        wanted = files or [place]
        shown = (
            w.quoted(wanted[0])
            if len(wanted) == 1
            else (f"[{', '.join(w.quoted(file) for file in wanted)}]")
        )
        stem = re.sub(r"(\.\w+)+$", "", wanted[0].rstrip("/").rpartition("/")[2])
        _split(config, path)
        return [("files", shown)], stem
    version = config.text(f"{path}.name")
    split = _split(config, path)
    return [
        ("hub", w.quoted(place)),
        ("config", w.quoted(version)) if version else None,
        ("split", w.quoted(split)) if split != "train" else None,
    ], place.rpartition("/")[2]


def _split(config: Config, path: str) -> str:
    given = config.text(f"{path}.split", default="train")
    split, bracket, part = given.partition("[")
    if bracket:
        config.lost(
            f"{path}.split",
            f"not the part `[{part}` but all of `{split}` (`documents` and `skip` take numbers)",
        )
    return split


def _fields(config: Config, made: Draft, path: str, kind: str) -> w.Line:
    """The fields that differ from etude's defaults; open if they are not known."""
    custom = config.node(f"{path}.type")
    own = kind == "kto" and isinstance(custom, dict)
    form = None if own else config.text(f"{path}.type", default=None)
    if own:
        _own_words(config, path)
    elif form is None and custom is not None:
        config.lost(f"{path}.type", "a custom format")
        return made.open("fields", "the format is a custom one; set `fields`")
    base = form.partition(":")[0] if form else ""
    known = (_RATED if kind == "kto" else _FIELDS).get(form or "", _FIELDS.get(base))
    if form and known is None:
        reason = (
            _ALPACA
            if base.startswith("alpaca")
            else (f"etude does not know axolotl's format `{form}`; set `fields`")
        )
        return made.open("fields", reason, key=f"{path}.type")
    fields = dict(known or {})
    if kind in ("reward", "dpo"):
        names = {"prompt": "field_messages", "chosen": "field_chosen", "rejected": "field_rejected"}
    elif kind == "kto":
        names = {part: f"type.field_{part}" for part in ("prompt", "completion", "label")}
    elif kind == "prm":
        names = {}
    elif kind == "sft":
        names = {
            "messages": "field_messages",
            "text": "field",
            "tools": "field_tools",
            "system": "field_system",
        }
    else:
        names = {"text": "text_column", "text ": "field"}
    for ours, theirs in names.items():
        given = config.text(f"{path}.{theirs}", default=None)
        if given:
            fields[ours.strip()] = given
    fields |= _mappings(config, path, kind)
    defaults = ("text", "messages", "tools", "system", *_ANSWERS)
    shown = [
        f"{ours} = {w.quoted(theirs)}"
        for ours, theirs in fields.items()
        if not (ours in defaults and ours == theirs)
    ]
    return ("fields", f"{{ {', '.join(shown)} }}") if shown else None


def _own_words(config: Config, path: str) -> None:
    """What a custom format of rated answers writes around prompt and answer: the protocol's part
    here."""
    for part in ("prompt", "completion"):
        config.lost_unless(
            f"{path}.type.{part}_format",
            [f"{{{part}}}"],
            "the dialog's protocol writes what stands around prompt and answer",
            "nothing",
        )


def _mappings(config: Config, path: str, kind: str) -> dict[str, str]:
    """The names of a message's parts that are not `role` and `content`."""
    found = {}
    for part in ("role", "content"):
        given = config.text(
            f"{path}.message_property_mappings.{part}",
            f"{path}.message_field.{part}",
            f"{path}.message_field_{part}",
            default=part,
        )
        if given != part and kind == "sft":
            found[part] = given
    for mapping in (f"{path}.message_property_mappings", f"{path}.message_field"):
        node = config.node(mapping)
        for part in node if isinstance(node, dict) else ():
            config.lost_unless(
                f"{mapping}.{part}",
                [part],
                f"messages have their {part} in `{part}`: rename it in the data",
                "as in etude",
            )
    roles = config.node(f"{path}.roles")
    for role in roles if isinstance(roles, dict) else ():
        same = [[role], role, *([[_SHAREGPT[role]], _SHAREGPT[role]] if role in _SHAREGPT else [])]
        config.lost_unless(
            f"{path}.roles.{role}",
            same,
            f"the role is called `{role}`: rename it in the data",
            "as in etude",
        )
    config.lost_unless(
        f"{path}.roles_to_train",
        [["assistant"], "assistant"],
        "the assistant's messages are learned",
        "as in etude",
    )
    config.lost_unless(
        f"{path}.train_on_eos",
        ["turn"],
        "what ends the assistant's turns is learned",
        "as in etude",
    )
    config.lost_unless(f"{path}.revision", ["main"], "the newest revision is read", "the newest")
    config.irrelevant({f"{path}.trust_remote_code": "code that comes with data sets is never run"})
    return found


def _size(config: Config, made: Draft, path: str, name: str, unit: str) -> w.Line:
    """The size of a data set, which a length in epochs needs; of a file that is here, a run counts
    it."""
    here = Path(config.text(f"{path}.path") or "").is_file()
    epochs = config.whole("max_steps", default=0) <= 0 and not here
    attribute = "tokens" if unit == "seqs" else unit
    why = f"`epochs` needs the number of {attribute}" if epochs else ""
    return made.size(name, attribute, why)
