"""Where in a spec's blocks a place is, and blocks with other statements in them."""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from ...spec import syntax as s
from ...spec.source import Span
from .stand_ins import key, statement_name

_GROUPS = {
    "train",
    "fields",
    "experts",
    "latent",
    "needle",
    "optimizer",
    "precision",
    "rope_scaling",
}
"""Attributes that are groups of attributes."""
Put = Sequence[tuple[Span, Span]]
"""Places of what changes have put into statements, each with the place of the statement."""


class Found(NamedTuple):
    """Where in a block something was found.

    Attributes:
        path: the attribute, `train.vocab` in a group; "" for the head.
        inner: whether it is in a group.
    """

    block: s.Block
    path: str
    inner: bool = False


class Index:
    """Finds the top-level block that contains a place."""

    def __init__(self, items: Sequence[s.Item], put: Put) -> None:
        self.items = items
        self._put = put
        self._blocks: dict[int, list[tuple[int, int, s.Block]]] = {}
        for number, item in enumerate(items):
            if isinstance(item, s.Block):
                of = self._blocks.setdefault(id(item.span.source), [])
                of.append((item.span.start, number, item))
        for each in self._blocks.values():
            each.sort(key=lambda found: found[:2])

    def block(self, span: Span | None) -> s.Block | None:
        if span is None:
            return None
        span = home(span, self._put)
        blocks = self._blocks.get(id(span.source), [])
        after = bisect_right(blocks, span.start, key=lambda found: found[0])
        block = blocks[after - 1][2] if after else None
        return block if block and covers(block, span) else None


def put_into(items: Iterable[s.Item]) -> Put:
    """What a variant or `--set` has put into statements, whose source text is outside of them."""
    found: list[tuple[Span, Span]] = []
    for item in items:
        parts = item.items if isinstance(item, s.Block) else ()
        for span in [part.span for part in parts]:
            if not within(span, item.span):
                found.append((span, item.span))
        found += [(span, item.span) for span, _ in put_into(parts)]
        if isinstance(item, s.Let) and not within(item.value.span, item.span):
            found.append((item.value.span, item.span))
    return found


def home(span: Span, put: Put) -> Span:
    """The place that a place counts as: the statement into which a change has put it, or itself."""
    return next((of for changed, of in put if within(span, changed)), span)


def covers(item: s.Item, span: Span) -> bool:
    return within(span, item.span)


def within(span: Span, of: Span) -> bool:
    """Whether one place begins in another one.

    Sources are compared by content, because command line texts are parsed more than once.
    """
    same = of.source is span.source or of.source == span.source
    return same and of.start <= span.start < max(of.end, of.start + 1)


def holds(item: s.Item, span: Span) -> bool:
    """Whether a place is in a statement, or in one that a change has put into or around it."""
    if covers(item, span):
        return True
    parts = item.items if isinstance(item, s.Block) else inner_of(item)
    return any(holds(part, span) for part in parts)


def place_of(block: s.Block, span: Span) -> Found | None:
    """Where in a block a place is."""
    item = next((each for each in block.items if holds(each, span)), None)
    if block.keyword.name == "rounds":
        return place_of(item, span) if isinstance(item, s.Block) else None
    if item is None:
        return Found(block, "")
    inner = next((each for each in inner_of(item) if covers(each, span)), None)
    if inner is None:
        return Found(block, statement_name(item))
    return Found(block, f"{statement_name(item)}.{statement_name(inner)}", True)


def inner_of(item: s.Item) -> tuple[s.Item, ...]:
    """The statements of a group of attributes."""
    if statement_name(item) not in _GROUPS:
        return ()
    if isinstance(item, s.Block):
        return item.items
    value = item.value if isinstance(item, s.Assign) else None
    if isinstance(value, s.Tagged):
        return value.braces.items
    return value.items if isinstance(value, s.Braces) else ()


def without(item: s.Item, span: Span) -> s.Item:
    """A group of attributes without the one at a place."""
    kept = tuple(each for each in inner_of(item) if not covers(each, span))
    if isinstance(item, s.Block):
        return item._replace(items=kept)
    assert isinstance(item, s.Assign)
    if isinstance(item.value, s.Tagged):
        braces = item.value.braces._replace(items=kept)
        return item._replace(value=item.value._replace(braces=braces))
    assert isinstance(item.value, s.Braces)
    return item._replace(value=item.value._replace(items=kept))


def with_block(at: s.Block, block: s.Block) -> s.Block:
    """A block with another one in place of itself, or of one in it."""
    if key(at) == key(block):
        return block
    same = key(block)
    inner = (block if isinstance(i, s.Block) and key(i) == same else i for i in at.items)
    return at._replace(items=tuple(inner))
