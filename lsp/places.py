"""The part of a syntax tree that contains a place in the text."""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from ..spec import syntax as s
from ..spec.schema import recipe as r
from ..spec.source import Span
from . import names


class Place(NamedTuple):
    """An attribute, or another item, and the blocks and groups around it.

    Attributes:
        blocks: outermost first.
        groups: the attributes around it that are groups, outermost first.
        item: the innermost statement.
        nodes: the parts of its value that contain the place, outermost first.
    """

    blocks: tuple[s.Block, ...]
    groups: tuple[str, ...]
    item: s.Item
    nodes: tuple[Any, ...]

    @property
    def scope(self) -> str:
        """The rounds around the place, or ""."""
        first = self.blocks[0] if self.blocks else None
        if first and first.keyword.name == "rounds" and first.labels:
            label = first.labels[0]
            return label.name if isinstance(label, s.Word) else ""
        return ""

    @property
    def block(self) -> s.Block | None:
        """The declared block around the place: neither rounds nor a group inside it."""
        blocks = [block for block in self.blocks if block.keyword.name != "rounds"]
        return blocks[0] if blocks else None

    @property
    def stage(self) -> str:
        """The name of the stage around the place, or ""."""
        block = self.block
        if block is None or block.keyword.name != "stage" or not block.labels:
            return ""
        label = block.labels[0]
        return label.name if isinstance(label, s.Word) else ""

    @property
    def model(self) -> type[r.Declaration] | None:
        """The model of the innermost block or group."""
        block = self.block
        if block is None:
            return None
        model = r.block_model(block.keyword.name, block.kind.name if block.kind else None)
        for inner in self.blocks[self.blocks.index(block) + 1 :]:
            model = names.group_model(model, inner.keyword.name)
        for group in self.groups:
            model = names.group_model(model, group)
        return model


def place(items: Iterable[s.Item], offset: int) -> Place | None:
    """What contains a character of a file."""
    return _within(items, offset, (), ())


def _within(
    items: Iterable[s.Item], offset: int, blocks: tuple[s.Block, ...], groups: tuple[str, ...]
) -> Place | None:
    for item in items:
        if not _holds(item.span, offset):
            continue
        if isinstance(item, s.Block):
            inside = _within(item.items, offset, (*blocks, item), ())
            return inside or Place((*blocks, item), (), item, ())
        value = getattr(item, "value", None)
        nodes = tuple(_path(value, offset))
        for node in nodes:
            braces = node.braces if isinstance(node, s.Tagged) else node
            if isinstance(item, s.Assign) and isinstance(braces, s.Braces):
                inside = _within(braces.items, offset, blocks, (*groups, item.path.name))
                if inside and isinstance(inside.item, s.Assign | s.Entry) and inside.model:
                    return inside
        return Place(blocks, groups, item, nodes)
    return None


def _path(node: Any, offset: int) -> Iterator[Any]:
    """The parts of a value that contain a place, outermost first."""
    while node is not None:
        if hasattr(node, "span"):
            yield node
        parts = (part for of in node for part in (of if type(of) is tuple else (of,)))
        node = next((of for of in parts if _is_node(of) and _holds(of.span, offset)), None)


def _is_node(of: Any) -> bool:
    return isinstance(of, tuple) and hasattr(of, "span")


def _holds(span: Span, offset: int) -> bool:
    return span.start <= offset <= span.end
