"""`let`: names for values, replaced by the values before anything else is read."""

from collections.abc import Iterable
from typing import Any

from .. import syntax as s
from ..findings.diagnostics import Report
from ..source import Span
from .convert import Invalid

MAX_LETS = 64
"""The longest chain of `let`s that refer to one another."""

_VALUES: dict[type, tuple[str, ...]] = {
    s.List: ("items",),
    s.Indexed: ("among",),
    s.Range: ("first", "last"),
    s.Either: ("first", "second"),
    s.Braces: ("items",),
    s.Tagged: ("braces",),
    s.Scaled: ("factors",),
    s.Counted: ("number", "what"),
    s.Periodic: ("every", "over"),
    s.Bound: ("quantity",),
    s.Hold: ("value", "bound"),
    s.Ramp: ("start", "end", "levels", "over", "bound"),
    s.Repeat: ("times", "segments"),
    s.Schedule: ("segments",),
    s.Claim: ("within", "reason"),
    s.Reason: ("text",),
    s.Origin: ("text",),
    s.Assign: ("at", "value", "claim", "origin"),
    s.Entry: ("value",),
    s.Every: ("every",),
    s.Keep: ("amount",),
    s.Require: ("value",),
    s.Otherwise: ("length", "times"),
    s.Filter: ("share", "value"),
    s.Alike: ("value",),
}
"""Where a node has a value, which may be the name of a `let`."""


class Lets:
    """The values of all `let`s.

    Attributes:
        of: name → the `let`.
        uses: where a name was replaced → the `let` whose value is there now.
        used: names that were replaced somewhere.
    """

    def __init__(self, lets: Iterable[s.Let], report: Report) -> None:
        self.report = report
        self.of: dict[str, s.Let] = {}
        for item in lets:
            self.of.setdefault(item.word.name, item)
        self.uses: dict[Span, s.Let] = {}
        self.used: set[str] = set()
        self._values: dict[str, s.Value] = {}
        self._open: list[str] = []
        self._circular: set[str] = set()

    def replaced(self, node: Any) -> Any:
        """The node with the name of every `let` replaced by its value.

        The value gets the place of the name, so that findings point to the use; the report learns
        where the value was written.

        Raises: Invalid: a `let` is defined by itself.
        """
        if type(node) is tuple:
            found = tuple(map(self.replaced, node))
            same = all(new is old for new, old in zip(found, node, strict=True))
            return node if same else found
        if isinstance(node, s.Path):
            if len(node.words) == 1 and node.name in self.of:
                return self._value(node.name, node.span)
            return node
        if isinstance(node, s.Block):
            return node._replace(items=self.replaced(node.items))
        changes = {}
        for name in _VALUES.get(type(node), ()):
            old = getattr(node, name)
            new = self.replaced(old)
            if new is not old:
                changes[name] = new
        return node._replace(**changes) if changes else node

    def head(self, block: s.Block) -> s.Block:
        """The block; if its number of rounds is the name of a `let`, replaced by the value."""
        labels = block.labels
        if block.keyword.name == "rounds" and len(labels) == 2 and isinstance(labels[1], s.Word):
            number = self.replaced(s.Path((labels[1],), labels[1].span))
            if isinstance(number, s.Number):
                return block._replace(labels=(labels[0], number))
        return block

    def _value(self, name: str, at: Span) -> Any:
        let = self.of[name]
        if name in self._open or name in self._circular or len(self._open) >= MAX_LETS:
            self._circular.update(self._open)
            what = f"more than {MAX_LETS} others" if len(self._open) >= MAX_LETS else "itself"
            raise Invalid("E317", f"`{name}` is defined by {what}", let.word.span)
        self.used.add(name)
        if name not in self._values:
            self._open.append(name)
            try:
                self._values[name] = self.replaced(let.value)
            finally:
                self._open.pop()
        self.uses[at] = let
        self.report.point(at, let.word.span, f"`{name}` is given here")
        return self._values[name]._replace(span=at)
