"""A configuration of another program, and how each of its values was converted."""

import re
from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import Any, Literal, NamedTuple

from .tree import ConfigError, Leaf, Node, Scalar, leaves, number_in

Fate = Literal["carried", "irrelevant", "assumed", "needed", "lost"]
"""How a value was converted.

carried: it is in the spec. irrelevant: it does not affect the training. assumed: the spec says
something that the configuration does not say, or says slightly differently. needed: the user has to
fill something in. lost: it affects the training and has no counterpart.
"""


class Finding(NamedTuple):
    """How one value was converted; `key` is its path, or the name of what is assumed or needed."""

    fate: Fate
    key: str
    value: str
    line: int | None
    reason: str

    def to_dict(self) -> dict[str, Any]:
        return self._asdict()


class Config:
    """Hands out values and notes which were read; values that nobody reads count as lost."""

    def __init__(self, root: dict[str, Node]) -> None:
        self.root = root
        self.leaves = dict(leaves(root))
        self.found: dict[str, Finding] = {}
        self.remarks: list[Finding] = []

    def has(self, *paths: str) -> bool:
        """Whether one of the paths has a value."""
        return any(self._leaf(path) is not None for path in paths)

    def node(self, path: str) -> Node | None:
        """The part of the tree at a path of names and `[numbers]`."""
        node: Any = self.root
        for part in re.findall(r"[^.\[\]]+|\[\d+\]", path):
            if part[0] == "[":
                number = int(part[1:-1])
                node = node[number] if isinstance(node, list) and number < len(node) else None
            else:
                node = node.get(part) if isinstance(node, dict) else None
        return node

    def count(self, path: str) -> int:
        """The length of the list of groups at a path."""
        node = self.node(path)
        return len(node) if isinstance(node, list) else 0

    def number(self, *paths: str, default: Any = None) -> Any:
        """A number, as a Fraction; the first path that has a value counts.

        Raises: ConfigError: the value is not a number.
        """
        for path in paths:
            leaf = self._leaf(path)
            if leaf is None:
                continue
            value = leaf.value
            if isinstance(value, str):
                value = number_in(value)
            if isinstance(value, bool) or not isinstance(value, int | Fraction):
                raise self.wrong(path, "a number")
            self._note("carried", path)
            return Fraction(value)
        return default

    def whole(self, *paths: str, default: Any = None, least: int | None = None) -> Any:
        """A whole number.

        Raises: ConfigError: the value is not a whole number, or below `least`.
        """
        for path in paths:
            value = self.number(path)
            if value is None:
                continue
            if value.denominator != 1:
                raise self.wrong(path, "a whole number")
            if least is not None and value < least:
                raise self.wrong(path, f"at least {least}")
            return int(value)
        return default

    def text(self, *paths: str, default: Any = None) -> Any:
        """A text; numbers and flags count as their text.

        Raises: ConfigError: the value is a list or a group.
        """
        for path in paths:
            leaf = self._leaf(path)
            if leaf is None:
                if isinstance(self.node(path), dict | list):
                    raise self.wrong(path, "a text")
                continue
            if isinstance(leaf.value, list):
                raise self.wrong(path, "a text")
            self._note("carried", path)
            return shown(leaf.value)
        return default

    def texts(self, *paths: str) -> list[str] | None:
        """A text, or a list of texts."""
        for path in paths:
            found = self.values(path)
            if found is not None:
                self._note("carried", path)
                return found
        return None

    def values(self, path: str) -> list[str] | None:
        """A text, or a list of texts, that is not read yet."""
        leaf = self._leaf(path)
        if leaf is None:
            return None
        values = leaf.value if isinstance(leaf.value, list) else [leaf.value]
        return [shown(value) for value in values]

    def flag(self, *paths: str, default: bool = False) -> bool:
        """True or false.

        Raises: ConfigError: the value is neither.
        """
        for path in paths:
            leaf = self._leaf(path)
            if leaf is None:
                continue
            if not isinstance(leaf.value, bool):
                raise self.wrong(path, "true or false")
            self._note("carried", path)
            return leaf.value
        return default

    def shares(self, path: str) -> dict[str, Fraction] | None:
        """Weights by name: a group whose names may hold dots and whose values are numbers."""
        node = self.node(path)
        if not isinstance(node, dict):
            return None
        return {name: self.number(f"{path}.{name}", default=Fraction(1)) for name in node}

    def carried(self, *paths: str) -> None:
        """Notes that the spec has the values at the paths."""
        for path in paths:
            for leaf in self._under(path):
                self._note("carried", leaf)

    def irrelevant(self, reasons: Mapping[str, str]) -> None:
        """Notes that the values at the paths do not affect the training, and why."""
        for path, reason in reasons.items():
            for leaf in self._under(path):
                self._note("irrelevant", leaf, reason)

    def lost(self, path: str, reason: str) -> None:
        """Notes that the values at a path have no counterpart, even if they were read."""
        for leaf in self._under(path):
            self._note("lost", leaf, reason, again=True)

    def lost_unless(self, path: str, same: Iterable[Any], reason: str, why_same: str) -> None:
        """Like `lost`, but irrelevant if the value is in `same`, which etude does too."""
        for key in self._under(path):
            value = self.leaves[key].value
            if value is None or value in list(same):
                self._note("irrelevant", key, why_same)
            else:
                self._note("lost", key, reason)

    def assumed(self, key: str, reason: str) -> None:
        """Notes what the spec says and the configuration does not."""
        self._remark("assumed", key, reason)

    def needed(self, key: str, reason: str) -> None:
        """Notes what the user has to fill in."""
        self._remark("needed", key, reason)

    def findings(self) -> list[Finding]:
        """How every value was converted, in the file's order; then what is assumed and needed."""
        for path, leaf in self.leaves.items():
            if path in self.found:
                continue
            if leaf.value is None or leaf.value == "" or leaf.value == []:
                self._note("irrelevant", path, "not set")
            else:
                self._note("lost", path, "etude does not know this setting")
        order = {path: number for number, path in enumerate(self.leaves)}
        values = sorted(self.found.values(), key=lambda f: order.get(f.key, len(order)))
        return values + self.remarks

    def wrong(self, path: str, wanted: str) -> ConfigError:
        leaf = self.leaves.get(path)
        value = shorten(leaf.value) if leaf else "a group of values"
        return ConfigError(f"`{path}` is {value}, but should be {wanted}", leaf and leaf.line)

    def _leaf(self, path: str) -> Leaf | None:
        leaf = self.leaves.get(path)
        return leaf if leaf and leaf.value is not None and leaf.value != "" else None

    def _under(self, path: str) -> list[str]:
        """The leaves at and below a path, in which `[]` stands for any index."""
        pattern = re.escape(path).replace(re.escape("[]"), r"\[\d+\]")
        return [leaf for leaf in self.leaves if re.match(pattern + r"(?=[.\[]|$)", leaf)]

    def _note(self, fate: Fate, path: str, reason: str = "", *, again: bool = False) -> None:
        if path in self.found and not again:
            return
        leaf = self.leaves.get(path)
        value = shorten(leaf.value) if leaf else ""
        self.found[path] = Finding(fate, path, value, leaf and leaf.line, reason)

    def _remark(self, fate: Fate, key: str, reason: str) -> None:
        leaf = self.leaves.get(key)
        value, line = (shorten(leaf.value), leaf.line) if leaf else ("", None)
        remark = Finding(fate, key, value, line, reason)
        if remark not in self.remarks:
            self.remarks.append(remark)


def shown(value: Scalar) -> str:
    """A value as written in its file."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Fraction):
        return f"{float(value):.15g}"
    return str(value)


def shorten(value: Scalar | list[Scalar], most: int = 60) -> str:
    """A value on one line, at most `most` characters long."""
    if isinstance(value, list):
        text = f"[{', '.join(shown(item) for item in value)}]"
    else:
        text = shown(value)
    text = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return text if len(text) <= most else f"{text[: most - 1]}…"
