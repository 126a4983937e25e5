"""The key of a job: a digest of everything that can change its result by more than rounding.

Every field of a job, and of the values inside it, is part of the key, unless its declaration is
marked: `id: Annotated[str, NAME]`. So new fields are part of the key by default.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel

from ...spec.record import MISSING, fields
from ..values import Value

KEYS = 2
"""The version of the key format, raised if a key would come to mean another result."""


@dataclass(frozen=True)
class Outside:
    """Marks a field that is not part of the key.

    Attributes:
        why: the reason, for people.
        parts: for a mapping, dotted names of the entries that are not part of the key; the others
            are. None: no part of the field is.
        prefix: for a mapping, how the names of the entries begin that are not part of the key; the
            others are.
        told: whether a comparison of plans mentions the field if the result stays the same.
    """

    why: str
    parts: tuple[str, ...] | None = None
    prefix: str | None = None
    told: bool = False

    @property
    def whole(self) -> bool:
        """Whether nothing of the field is part of the key."""
        return self.parts is None and self.prefix is None


NAME = Outside("says what something is called")
DERIVED = Outside("follows from the rest, or tells people about it")
SAVING = Outside("says when a job is saved, which changes no result", told=True)
PROFILED = Outside("says what is recorded of the training, which changes no result", told=True)
LIMIT = Outside("says when a run gives up, which changes no result", told=True)
OBSERVED = Outside("says what is measured of the training, which changes no result", told=True)
OBSERVER = "observed:"
"""How the roles of inputs begin that a job only measures something with."""
INPUTS = Outside(OBSERVED.why, prefix=OBSERVER)
PLACEMENT = Outside("changes a result only up to rounding", told=True)
_HOW = (
    "training.local_batch_size",
    "training.disable_cuda_graphs",
    "training.enable_cpu_offload",
    "training.gc_freq",
    "training.gc_debug",
    "parallelism",
    "optimizer.implementation",
    "activation_checkpoint",
    "attention",
    "dispatcher",
    "compile",
    "debug.deterministic",
    "debug.deterministic_warn_only",
    "debug.detect_anomaly",
    "debug.spmd_typechecking",
    "debug.print_config",
    "debug.enable_structured_logging",
    "comm",
)
PLACED = Outside(PLACEMENT.why, parts=_HOW, told=True)
"""For torchtitan's configuration: where and how a job computes. Precision is part of the key: bf16
rounds a hundred times more coarsely than a change in the order of a sum, and changes a loss curve.
"""
UNTRAINED = Outside(
    "changes a result only up to rounding, or matters to training alone",
    parts=(*_HOW, "optimizer", "training.max_norm", "training.steps", "debug"),
    told=True,
)
"""For the configuration of a job that does not train."""


def content_key(job: BaseModel) -> str:
    """The key of a job: SHA-256 over its content, including the keys of its inputs."""
    text = json.dumps(
        {"version": KEYS, "content": content(job)}, sort_keys=True, separators=(",", ":")
    )
    return hashlib.sha256(text.encode()).hexdigest()


def content(value: Any, *, defaults: bool = False) -> Any:
    """The part of a value that is in the key, as JSON.

    Args:
        defaults: include fields at their defaults. Keys leave them out, so that a field added later
            with a default does not change keys.
    """
    if isinstance(value, BaseModel | Value):
        found = {}
        for each in declared(type(value)):
            item = getattr(value, each.name)
            if not each.left_out(item, defaults=defaults):
                kept = item if each.outside is None else _split(item, each.outside, within=False)
                found[each.name] = content(kept, defaults=defaults)
        return found
    return _items(value, partial(content, defaults=defaults))


def placement(value: Any) -> Any:
    """The part of a value that is not in the key but is mentioned if it changes; {} for nothing."""
    if isinstance(value, BaseModel | Value):
        found = {}
        for each in declared(type(value)):
            item = getattr(value, each.name)
            if each.outside is None:
                inside = placement(item)
            elif each.outside.told:
                inside = _plain(_split(item, each.outside, within=True))
            else:
                continue
            if inside != {}:
                found[each.name] = inside
        return found
    return {}


@dataclass(frozen=True)
class Declared:
    """A field of a model, as far as keys are concerned.

    Attributes:
        default: MISSING if it has none.
        tag: whether it distinguishes alternative models; then it is never left out.
    """

    name: str
    outside: Outside | None
    default: Any
    tag: bool = False

    def left_out(self, item: Any, *, defaults: bool) -> bool:
        """Whether the key leaves out the field."""
        if self.outside is not None and self.outside.whole:
            return True
        return not (defaults or self.tag or self.default is MISSING) and item == self.default


@cache
def declared(model: type[BaseModel] | type[Value]) -> tuple[Declared, ...]:
    """The fields of a model, in order."""
    return tuple(_declared(model))


def _declared(model: type[BaseModel] | type[Value]) -> Iterator[Declared]:
    if issubclass(model, BaseModel):
        for name, of in model.model_fields.items():
            outside = next((each for each in of.metadata if isinstance(each, Outside)), None)
            tag = get_origin(of.annotation) is Literal and len(get_args(of.annotation)) == 1
            default = MISSING if of.is_required() else of.get_default(call_default_factory=True)
            yield Declared(name, outside, default, tag)
        return
    for name, of in fields(model).items():
        outside = of.metadata if isinstance(of.metadata, Outside) else None
        yield Declared(name, outside, of.default)


def _split(item: Any, outside: Outside, *, within: bool) -> Any:
    """The parts of a field that are outside the key, or those that are inside."""
    if outside.whole:
        return item if within else {}
    assert isinstance(item, Mapping)
    if outside.prefix is not None:
        return {n: of for n, of in item.items() if n.startswith(outside.prefix) == within}
    assert outside.parts is not None
    return _entries(item, "", outside.parts, within=within)


def _entries(item: Mapping[str, Any], above: str, parts: tuple[str, ...], *, within: bool) -> Any:
    found = {}
    for name, entry in item.items():
        path = above + name
        if path in parts:
            if within:
                found[name] = entry
        elif any(part.startswith(f"{path}.") for part in parts) and isinstance(entry, Mapping):
            found[name] = _entries(entry, f"{path}.", parts, within=within)
        elif not within:
            found[name] = entry
    return found


def _plain(value: Any) -> Any:
    """A value as JSON."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    return value.as_dict() if isinstance(value, Value) else _items(value, _plain)


def _items(value: Any, each: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: each(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [each(item) for item in value]
    return value
