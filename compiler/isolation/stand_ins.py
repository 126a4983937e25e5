"""Stand-ins for required attributes that could not be parsed."""

from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from typing import NamedTuple

from ...spec import syntax as s
from ...spec.schema import kinds as k
from ...spec.schema import number_kinds as nk
from ...spec.schema import recipe as r
from ...spec.source import Span

_LENGTH = "steps|tokens|epochs"
_MEASURES = "loss|needle|accuracy|judge|verify|suites"
_INSTEAD = {"epochs": "steps", "files": "sample", "hub": "sample", "tokenized": "sample"}
"""Attribute → its stand-in, if not itself; for models see `of`."""


class Key(NamedTuple):
    """Identifies a block, even if its statements change."""

    name: str
    start: int


def key(block: s.Block) -> Key:
    """The identity of a block."""
    return Key(block.span.source.name, block.span.start)


def blocks(items: Iterable[s.Item]) -> Iterator[s.Block]:
    """Blocks and the stages of rounds."""
    for item in items:
        if isinstance(item, s.Block):
            yield item
            if item.keyword.name == "rounds":
                yield from (each for each in item.items if isinstance(each, s.Block))


def statement_name(item: s.Item) -> str:
    """The attribute that a statement sets."""
    match item:
        case s.Assign():
            return item.path.name
        case s.Entry() | s.Every() | s.Keep() | s.Flag():
            return item.word.name
        case s.Block():
            return item.keyword.name
        case s.Alike():
            return item.what.name
        case s.Open():
            return item.attribute.name
    return "where"


class StandIns:
    """Values for attributes that a block cannot do without; references use declared names."""

    def __init__(self, items: Sequence[s.Item]) -> None:
        self.models: list[str] = []
        self.data: dict[str, str] = {}
        self.above: dict[Key, str] = {}
        trained = ""
        for block in blocks(items):
            name = next((each.name for each in block.labels if isinstance(each, s.Word)), "")
            keyword = block.keyword.name
            if keyword == "model":
                self.models.append(name)
            elif keyword == "dataset":
                self.data.setdefault(_kind(block), name)
            elif keyword == "stage":
                self.above[key(block)] = trained
                model = r.STAGES.get(block.kind.name) if block.kind else None
                if model and issubclass(model, r.Training) and model.writes_text:
                    trained = name

    def of(self, block: s.Block, name: str, span: Span) -> s.Item | None:
        """A statement that sets an attribute, at a place; None: the block goes without."""
        kind = block.kind.name if block.kind else block.keyword.name
        value = self._value(block, kind, name, span)
        if value is None:
            return None
        name = "weights" if kind == "model" and name == "hub" else _INSTEAD.get(name, name)
        path = s.Path((s.Word(name, span),), span)
        return s.Assign(path, None, value, None, None, span)

    def _value(self, block: s.Block, kind: str, name: str, span: Span) -> s.Value | None:
        model = r.STAGES.get(kind)
        if model and issubclass(model, r.Training):
            padded = model.rows != r.Training.rows
            match name:
                case "steps" | "tokens" | "epochs" if not self._has(block, _LENGTH):
                    if name == "tokens":
                        return None if padded else _number(10**6, span, "tokens")
                    return _number(1000, span, "steps")
                case "lr":
                    return _number(Fraction(1, 1000), span)
                case "batch":
                    return _number(8, span, r.attributes(model)["batch"].kind.units[0])
                case "seq_len":
                    return _number(128, span)
                case "data":
                    return _path(self.data.get(model.data_kind), span)
                case "model" if "model" in r.attributes(model) and not self._has(block, "from"):
                    return _path(next(iter(self.models), None), span)
            return None
        if model:
            return self._required(model, block, name, span)
        match kind, name:
            case "model", "hub" | "weights" if not self._has(block, "hub|weights"):
                return s.Text("weights", span)  # a model with its own weights is a stage
            case "dataset", "sample" | "files" | "hub" | "tokenized":
                if not self._has(block, "sample|files|hub|tokenized"):
                    return _path("python_functions", span)
        return None

    def _required(
        self, model: type[r.Stage], block: s.Block, name: str, span: Span
    ) -> s.Value | None:
        """The value that a stage that does not train needs, by the kind of the attribute."""
        attribute = r.attributes(model).get(name)
        measures = name == "loss" and issubclass(model, r.Measuring)
        idle = measures and not self._has(block, _MEASURES)
        if attribute is None or not (attribute.required or idle):
            return None
        kind = attribute.kind
        if "stage" in kind.refers and "dataset" not in kind.refers:
            return _list(self.above.get(key(block)), span)
        if isinstance(kind, k.Ref) and kind.many:
            return _list(self.data.get("documents"), span)
        if isinstance(kind, k.Ref):
            return _path(self.data.get("prompts"), span)
        return _number(8, span) if isinstance(kind, nk.Whole) else _number(1, span, "steps")

    @staticmethod
    def _has(block: s.Block, one_of: str) -> bool:
        return any(statement_name(item) in one_of.split("|") for item in block.items)


def _kind(dataset: s.Block) -> str:
    for item in dataset.items:
        if isinstance(item, s.Assign) and item.path.name == "kind":
            return item.value.name if isinstance(item.value, s.Path) else ""
    return "documents"


def _number(value: int | Fraction, span: Span, unit: str = "") -> s.Number:
    word = s.Word(unit, span) if unit else None
    return s.Number(Fraction(value), "", word, str(value), span)


def _path(name: str | None, span: Span) -> s.Path | None:
    return s.Path((s.Word(name, span),), span) if name else None


def _list(name: str | None, span: Span) -> s.List | None:
    path = _path(name, span)
    return s.List((path,), span) if path else None
