"""The data sets and the chat template of a TRL configuration."""

import re
from fractions import Fraction

from ..spec.schema.recipe import data_kind
from . import writing as w
from .axolotl_data import FILES, REMOTE
from .config import Config
from .draft import Draft, template_in

_READERS = ("json", "parquet", "csv", "arrow", "text")
"""Names of the `datasets` library for files, which `data_files` then names."""


def datasets(config: Config, made: Draft, kind: str, unit: str) -> dict[str, Fraction]:
    """Declares the data sets of a stage; returns their shares, which are equal.

    Args:
        unit: what the stage's batch counts.
    """
    paths = [f"datasets[{number}]" for number in range(config.count("datasets"))]
    if paths:
        config.irrelevant(dict.fromkeys(("dataset_name", "dataset_config"), "`datasets` is read"))
    found: dict[str, Fraction] = {}
    for path in paths or [""]:
        source, wish = _source(config, path)
        name = made.name(wish, "data")
        text = config.text("dataset_text_field") if kind == "train" else None
        made.add(
            w.block(
                f"dataset {name}",
                *source,
                ("kind", data_kind(kind)) if kind != "train" else None,
                ("fields", f"{{ text = {w.quoted(text)} }}") if text and text != "text" else None,
                _answers(config) if kind == "grpo" else None,
                _long(config, kind),
                _held(config),
                made.size(name, "tokens" if unit == "seqs" else unit, "")
                if kind != "grpo"
                else None,
            )
        )
        found[name] = Fraction(1)
    if len(found) > 1:
        config.assumed(
            "datasets",
            "sources have equal shares; TRL joins all records, so a larger source has a larger "
            "share",
        )
    return found


def _source(config: Config, path: str) -> tuple[list[w.Line], str]:
    """Where a data set is, and a name for it."""
    at = f"{path}." if path else ""
    place = config.text(f"{at}path" if path else "dataset_name", default="") or ""
    version = config.text(f"{at}name" if path else "dataset_config")
    split = config.text(f"{at}split" if path else "dataset_train_split", default="train")
    files = config.texts(f"{at}data_files") if path else None
    if path:
        for part in ("columns", "data_dir", "fraction"):
            config.lost(f"{at}{part}", "write `fields`, `files` or `documents` of the data set")
    if place in _READERS and files:
        wanted, stem = files, files[0]
    elif place.endswith(FILES) or place.startswith((".", "/")) or REMOTE.match(place):
        wanted, stem = files or [place], place
    else:
        lines: list[w.Line] = [("hub", w.quoted(place))]
        lines += [("config", w.quoted(version))] if version else []
        lines += [("split", w.quoted(split))] if split != "train" else []
        return lines, place.rpartition("/")[2]
    shown = [w.quoted(file) for file in wanted]
    listed = shown[0] if len(shown) == 1 else f"[{', '.join(shown)}]"
    return [("files", listed)], re.sub(r"(\.\w+)+$", "", stem.rstrip("/").rpartition("/")[2])


def _answers(config: Config) -> w.Line:
    """Where prompts have their right answers: `accuracy_reward` reads `solution`."""
    named = config.texts("reward_funcs") or []
    if not any("accuracy_reward" in name for name in named):
        return None
    return "fields", '{ answer = "solution" }'


def _long(config: Config, kind: str) -> w.Line:
    if kind == "reward":
        return "long", "drop"
    if kind not in ("sft", "dpo", "kto", "prm"):
        return None
    if config.text("truncation_mode", default="keep_start") != "keep_start":
        config.lost("truncation_mode", "the beginning of a record that is too long is kept")
    return "long", "truncate"


def _held(config: Config) -> w.Line:
    """What is held out; nothing if nothing is evaluated."""
    share = config.number("test_split_size", default=None)
    if config.text("eval_strategy", default="no") == "no":
        return "holdout", "0%"
    return ("holdout", w.percent(share)) if share is not None and share < 1 else None


def dialog(config: Config, made: Draft) -> str:
    """The chat protocol: a Jinja file, or that of the model's folder, if it is here."""
    place = config.text("chat_template_path")
    name = made.name("chat", "chat")
    if not place and not made.options.base:
        place = template_in(config.text("model_name_or_path"))
    if place and place.endswith((".jinja", ".jinja2", ".j2", "/tokenizer_config.json")):
        made.add(w.block(f"dialog {name}", ("template", w.quoted(place))))
        return name
    reason = (
        f"it is that of {place}; name its chat_template.jinja"
        if place
        else "it comes from the tokenizer; name its Jinja file, the model's chat_template.jinja, "
        "or write `protocol`"
    )
    opened = made.open("template", reason, key="chat_template")
    made.add(w.block(f"dialog {name}", opened))
    return name
