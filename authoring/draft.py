"""A spec that is being written: its blocks, its names, and code shared by importers."""

import json
import re
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from ..compiler.families import FAMILIES, architectures
from ..compiler.files.published_config import Described
from . import writing as w
from .config import Config
from .published_models import by_config, by_name, of_config

MOST_ON_A_NODE = 8
LION = re.compile("(paged_)?lion_(8|32)bit")
"""What transformers calls Lion, which is that of bitsandbytes there."""
NO_TOKENIZER = 'the configuration has none; declare one: tokenizer words { hub = "…" }'


class Base(NamedTuple):
    """A spec that trains the model that an imported stage continues from.

    Attributes:
        file: its path as `use` takes it.
        stage: the stage whose result is used.
        names: all names that it declares.
    """

    file: str
    stage: str
    names: frozenset[str]


class Options(NamedTuple):
    """What a configuration does not say and the user does.

    Attributes:
        gpus: number of GPUs of the whole run.
        gpu: the GPU model.
        sizes: data set → its tokens or pairs.
    """

    gpus: int | None = None
    gpu: str | None = None
    sizes: Mapping[str, int] = MappingProxyType({})
    base: Base | None = None


class Draft:
    """Blocks of a spec, in order."""

    def __init__(self, config: Config, options: Options) -> None:
        self.config = config
        self.options = options
        self.blocks: list[str] = []
        self.taken: set[str] = set(options.base.names) if options.base else set()
        self.unused = set(options.sizes)

    def name(self, wish: str, otherwise: str) -> str:
        """A name that is still free in the spec."""
        found = w.name(wish, self.taken, otherwise)
        self.taken.add(found)
        return found

    def add(self, block: str) -> None:
        self.blocks.append(block)

    def open(self, attribute: str, reason: str, *, key: str = "") -> str:
        """The line that leaves an attribute open; `check` reports it until it is set.

        Args:
            key: what is missing, as named in the summary; by default the attribute.
        """
        self.config.needed(key or attribute, reason)
        return f"open {attribute} {w.quoted(reason)}"

    def open_optimizer(self, kind: str) -> str:
        """The line that replaces an optimizer that etude lacks."""
        return self.open(
            "optimizer",
            f"the configuration has {kind}, which needs different rates from the optimizers of "
            "etude",
        )

    def open_rates(self, segments: Sequence[str], reason: str) -> list[w.Line]:
        """An open learning rate, with the configuration's schedule as a comment."""
        return [f"# lr = {' then '.join(segments)}", self.open("lr", reason)]

    def header(self, name: str, title: str, *lines: w.Line) -> None:
        """The `recipe` block, or the `use` of the base spec."""
        if self.options.base:
            self.blocks.insert(0, f"use {w.quoted(self.options.base.file)}")
        else:
            self.blocks.insert(
                0, w.block(f"recipe {w.name(name)}", ("title", w.quoted(title)), *lines)
            )

    def start(self, model: str | None) -> tuple[str, str]:
        """What a training stage starts from: the base's last stage, or new weights."""
        if self.options.base:
            return "from", self.options.base.stage
        assert model
        return "model", model

    def cluster(self, world: int | None) -> None:
        """A cluster for `world` ranks, open if None; with a base spec, none: its own is used."""
        if self.options.base:
            return
        if world is None:
            reason = (
                "their number is not in the configuration; write `gpus = 8 of "
                f"{w.quoted(self.options.gpu or 'H100 80GB')}`, for example, or import with "
                "--gpus N"
            )
            self.add(w.block("cluster gpus", self.open("gpus", reason, key="GPUs")))
            return
        size = next(n for n in range(min(MOST_ON_A_NODE, world), 0, -1) if world % n == 0)
        gpu = self.options.gpu or "H100 80GB"
        if not self.options.gpu:
            self.config.assumed(
                "cluster", f"the GPU model is not given; {gpu} is assumed (--gpu NAME)"
            )
        nodes = ("nodes", str(world // size)) if world > size else None
        self.add(w.block("cluster gpus", nodes, ("gpus", f"{size} of {w.quoted(gpu)}")))

    def size(self, dataset: str, attribute: str, why: str) -> w.Line:
        """The declared tokens or pairs of a data set, if the user gave them."""
        if dataset in self.options.sizes:
            self.unused.discard(dataset)
            return attribute, w.count(self.options.sizes[dataset])
        if why:
            reason = f"{why}; import with --size {dataset}=COUNT, or write it"
            return self.open(attribute, reason, key=f"dataset {dataset}")
        return None

    def model(
        self,
        shape: dict[str, object],
        published: tuple[str, int] | None = None,
        family: str = "llama3",
    ) -> str:
        """A model block from the numbers of its shape; returns its name.

        Args:
            shape: attributes of a model, groups as dicts: layers, dim, heads, kv_heads, ffn, …
            published: the folder of its weights and their context, if it has any.
        """
        weights: list[w.Line] = []
        if published:
            weights = [("weights", w.quoted(published[0])), ("context", w.count(published[1]))]
        stem = "llama" if family == "llama3" else family
        kind: list[w.Line] = [] if family == "llama3" else [("family", family)]
        for size in FAMILIES[family].sizes:
            known = architectures.published(family, size).as_dict()
            changed = _changed(known, shape)
            experts = changed.get("experts")
            balanced = isinstance(experts, dict) and set(experts) == {"balance"}
            free = {"rope_scaling", "rope_theta", "norm_eps", "vocab"}
            if set(changed) <= free | ({"experts"} if balanced else set()):
                name = self.name(f"{stem}_{size}", "model")
                lines = [*kind, ("size", w.quoted(size)), *attributes(changed), *weights]
                self.add(w.block(f"model {name}", *lines))
                return name
        name = self.name(stem, "model")
        lines = [("family", family), *attributes(shape), *weights]
        self.add(w.block(f"model {name}", *lines))
        return name

    def weights(self, place: str, revision: str | None = None) -> str:
        """A model with published weights, on the Hub or in a folder; returns its name.

        The shape is from config.json if the folder exists, else from the name.
        """
        local = is_local(place)
        described = by_config(Path(place)) if local else None
        known = of_config(described) if described else by_name(place)
        name = self.name(place.rstrip("/").rpartition("/")[2], "base")
        shape: list[w.Line] = (
            [("family", known.family), *attributes(known.shape)]
            if known
            else [self._unknown(place, described)]
        )
        self.add(
            w.block(
                f"model {name}",
                *shape,
                ("weights" if local else "hub", w.quoted(place)),
                ("revision", w.quoted(revision)) if revision and not local else None,
                ("context", w.count(known.context)) if known else None,
            )
        )
        return name

    def _unknown(self, place: str, described: Described | None) -> str:
        """The open line of a model whose family and shape are unknown or not supported."""
        families = ", ".join(FAMILIES)
        if described:
            problem = described.problems[0]
            reason = f"its config.json {problem.message}; {problem.help} (families are {families})"
        else:
            reason = (
                f"the shape of {place} is not known here; write family and size, or the shape, "
                f"and the context from its config.json (families are {families})"
            )
        return self.open("family", reason, key=f"model of {place}")

    def tokenizer(self, place: str) -> None:
        """A tokenizer on the Hub or in a file; with a base spec, none: its own is used."""
        if self.options.base:
            return
        if not is_local(place):
            self.add(w.block("tokenizer words", ("hub", w.quoted(place))))
            return
        file = place
        if place.endswith(".model"):
            reason = f"{place} cannot be read; name the `tokenizer.json` of the same model"
            self.add(w.block("tokenizer words", self.open("file", reason, key="tokenizer")))
            return
        if not place.endswith(".json"):
            file = f"{place.rstrip('/')}/tokenizer.json"
        self.add(w.block("tokenizer words", ("file", w.quoted(file))))


def is_local(place: str) -> bool:
    """Whether a name is a file or folder, not a repository on the Hub."""
    begins = place.startswith((".", "/", "~"))
    return begins or place.endswith((".json", ".model")) or place.count("/") != 1


def template_in(place: str | None) -> str | None:
    """The file with the chat template of a folder of weights; None if there is none here."""
    if not place or not is_local(place):
        return None
    folder = Path(place)
    if (folder / "chat_template.jinja").is_file():
        return f"{place.rstrip('/')}/chat_template.jinja"
    try:
        settings = json.loads((folder / "tokenizer_config.json").read_bytes())
    except (OSError, ValueError):
        return None
    held = isinstance(settings, dict) and isinstance(settings.get("chat_template"), str)
    return f"{place.rstrip('/')}/tokenizer_config.json" if held else None


def _changed(known: dict[str, Any], shape: dict[str, Any]) -> dict[str, object]:
    """Where a shape differs from a published size; for a group, only the parts that differ."""
    found = {}
    for key, value in shape.items():
        if isinstance(value, dict) and isinstance(known[key], dict):
            value = _changed(known[key], value)
            if value:
                found[key] = value
        elif known[key] != value:
            found[key] = value
    return found


def attributes(shape: dict[str, object]) -> list[tuple[str, str]]:
    """A model's shape as lines of its block."""
    lines = []
    for key, value in shape.items():
        if isinstance(value, bool):
            shown = str(value).lower()
        elif isinstance(value, float):
            shown = w.real(Fraction(repr(value)))
        elif key == "size":
            shown = w.quoted(str(value))
        elif isinstance(value, dict):
            written = {name: each for name, each in value.items() if name != "kind"}
            group = ", ".join(f"{name} = {each}" for name, each in attributes(written))
            shown = f"{{ {group} }}"
            if key == "rope_scaling":
                shown = f"{value.get('kind', 'yarn')} {shown}"
        else:
            shown = str(value)
        lines.append((key, shown))
    return lines


def placement(*pipelined: str, **degrees: int | None) -> w.Line:
    """The line `parallel` with all degrees above one, if there are any.

    Args:
        pipelined: how a pipeline is scheduled and split, as placements say it.
    """
    shown = [
        f"{name} {degree}"
        for name, degree in degrees.items()
        if degree is not None and (degree > 1 or name == "micro_batch")
    ]
    if (degrees.get("pipeline") or 1) > 1:
        shown += pipelined
    return ("parallel", f"{{ {', '.join(shown)} }}") if shown else None


def optimizer(betas: tuple[Fraction, Fraction], decay: Fraction, eps: Fraction) -> tuple[str, str]:
    """AdamW with all its settings."""
    shown = (
        f"adamw {{ betas = [{w.real(betas[0])}, {w.real(betas[1])}], "
        f"weight_decay = {w.real(decay)}, eps = {w.real(eps)} }}"
    )
    return "optimizer", shown


def lion(config: Config) -> tuple[str, str]:
    """Lion as the trainer of transformers 5.24 has it, with the decay rates that it has for Adam
    (`trainer_optimizer.py`)."""
    config.irrelevant({"adam_epsilon": "of AdamW"})
    first, second, decay = (
        config.number(name, default=Fraction(default))
        for name, default in (("adam_beta1", "0.9"), ("adam_beta2", "0.999"), ("weight_decay", "0"))
    )
    betas = f"betas = [{w.real(first)}, {w.real(second)}]"
    return "optimizer", f"lion {{ {betas}, weight_decay = {w.real(decay)} }}"


def adafactor(config: Config) -> tuple[str, str]:
    """Adafactor as the trainer of transformers 5.24 has it, which gives it the run's rate and decay
    and leaves the rest to `transformers.optimization.Adafactor` (`trainer_optimizer.py`)."""
    config.irrelevant(dict.fromkeys(("adam_beta1", "adam_beta2", "adam_epsilon"), "of AdamW"))
    decay = config.number("weight_decay", default=Fraction(0))
    return "optimizer", f"adafactor {{ scale_parameter = false, weight_decay = {w.real(decay)} }}"
