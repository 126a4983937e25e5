"""Configurations in YAML, JSON and TOML as one tree whose leaves know their line.

Nothing in a file is ever executed, and aliases are expanded to at most `MOST_LEAVES` leaves.
"""

import re
from collections.abc import Iterator
from fractions import Fraction
from itertools import accumulate
from typing import Any, NamedTuple, TypeAlias

MAX_BYTES = 1_000_000
MAX_YAML = 200_000
"""YAML is read at about 100 kB/s."""
MOST_LEAVES = 20_000
MOST_LEVELS = 40

Scalar: TypeAlias = str | bool | int | Fraction | None


class ConfigError(Exception):
    """A configuration that cannot be read, or a value in it of the wrong kind.

    Attributes:
        line: counted from 1; None for the file as a whole.
        help: how to fix it.
    """

    def __init__(self, message: str, line: int | None = None, help: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.line = line
        self.help = help


class Leaf(NamedTuple):
    """A value without parts, or a list of such values."""

    value: Scalar | list[Scalar]
    line: int | None


Node: TypeAlias = Leaf | dict[str, "Node"] | list["Node"]

_NUMBER = re.compile(r"[+-]?(\d[\d_]*(\.\d*)?|\.\d+)([eE][+-]?\d{1,3})?")


def number_in(text: str) -> Fraction | None:
    """The exact number in a text; None if it is not a number."""
    if len(text) > 60 or not _NUMBER.fullmatch(text):
        return None
    return Fraction(text.replace("_", ""))


def read(text: str, *, toml: bool) -> dict[str, Node]:
    """The tree of a configuration.

    Args:
        toml: whether it is TOML; else it is JSON if it begins with a brace, or YAML.

    Raises: ConfigError: it breaks the rules of its format.
    """
    if len(text.encode("utf-8", "replace")) > MAX_BYTES:
        raise ConfigError("the file is larger than 1 MB, too large for a configuration")
    parse = _toml if toml else _json if text.lstrip().startswith("{") else _yaml
    root = parse(text)
    if not isinstance(root, dict):
        raise ConfigError("the file has no names with values", 1)
    return root


def leaves(node: Node, path: str = "") -> Iterator[tuple[str, Leaf]]:
    """All leaves with their paths, such as `data_stages[0].data.seed`, in the file's order."""
    if isinstance(node, Leaf):
        yield path, node
    elif isinstance(node, dict):
        for name, child in node.items():
            yield from leaves(child, f"{path}.{name}" if path else name)
    else:
        for number, child in enumerate(node):
            yield from leaves(child, f"{path}[{number}]")


class _Budget:
    def __init__(self) -> None:
        self.left = MOST_LEAVES

    def spend(self, level: int, line: int | None) -> None:
        self.left -= 1
        if self.left < 0:
            raise ConfigError(f"the file holds more than {MOST_LEAVES} values", line)
        if level > MOST_LEVELS:
            raise ConfigError(f"the file is nested more than {MOST_LEVELS} deep", line)


def _json(text: str) -> Node:
    import json

    try:
        root = json.loads(text, parse_float=_float, parse_int=_float, parse_constant=str)
    except json.JSONDecodeError as problem:
        what = problem.msg[:1].lower() + problem.msg[1:]
        raise ConfigError(f"this is not JSON: {what}", problem.lineno) from None
    except RecursionError:
        raise ConfigError(f"the file is nested more than {MOST_LEVELS} deep") from None
    return _converted(root, "", {}, _Budget(), 0)


def _yaml(text: str) -> Node:
    import yaml

    if len(text) > MAX_YAML:
        raise ConfigError(f"more than {MAX_YAML // 1000} kB of YAML, too large for a configuration")
    open_ones = accumulate(+1 if c in "[{" else -1 for c in text if c in "[{]}")
    if max(open_ones, default=0) > MOST_LEVELS:  # PyYAML's time is quadratic in the depth
        raise ConfigError(f"the file is nested more than {MOST_LEVELS} deep")
    try:
        loader = yaml.SafeLoader(text)
        try:
            root = loader.get_single_node()
            if root is None:
                return {}
            return _composed(root, loader, _Budget(), 0)
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as problem:
        mark = problem.problem_mark or problem.context_mark
        what = problem.problem or problem.context or "it cannot be read"
        raise ConfigError(f"this is not YAML: {what}", mark.line + 1 if mark else None) from None
    except yaml.YAMLError as problem:
        reason = getattr(problem, "reason", "it cannot be read")
        raise ConfigError(f"this is not YAML: {reason}") from None
    except RecursionError:
        raise ConfigError(f"the file is nested more than {MOST_LEVELS} deep") from None


def _composed(node: Any, loader: Any, budget: _Budget, level: int) -> Node:
    """The tree of a PyYAML node."""
    import yaml

    line = node.start_mark.line + 1
    budget.spend(level, line)
    if isinstance(node, yaml.MappingNode):
        _refuse_twins(node)
        loader.flatten_mapping(node)  # `<<: *defaults` comes first; keys given here override it
        return {
            _clean(key.value): _composed(value, loader, budget, level + 1)
            for key, value in node.value
        }
    if isinstance(node, yaml.SequenceNode):
        items = [_composed(item, loader, budget, level + 1) for item in node.value]
        return _listed(items, line)
    return Leaf(_scalar(node, loader), line)


def _refuse_twins(node: Any) -> None:
    """Raises: ConfigError: a name is given twice, or is not a text."""
    import yaml

    if hasattr(node, "checked"):  # used by several aliases, and flattened since
        return
    seen: set[str] = set()
    for key, _ in node.value:
        line = key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode):
            raise ConfigError("a name must be plain text", line)
        if key.value in seen:
            raise ConfigError(f"`{_clean(key.value)}` is given twice", line)
        seen.add(key.value)
    node.checked = True


def _scalar(node: Any, loader: Any) -> Scalar:
    kind = node.tag.rsplit(":", 1)[-1]
    if kind == "null":
        return None
    if kind == "bool":
        return bool(loader.construct_yaml_bool(node))
    if kind in ("int", "float"):
        exact = number_in(node.value)
        if exact is not None:
            return int(exact) if exact.denominator == 1 and kind == "int" else exact
    return _clean(node.value)


def _toml(text: str) -> Node:
    import tomllib

    try:
        root = tomllib.loads(text, parse_float=_float)
    except tomllib.TOMLDecodeError as problem:
        message = str(problem)
        place = re.search(r"\(at line (\d+), column \d+\)", message)
        what = re.sub(r" ?\(at .*\)$", "", message)
        line = int(place[1]) if place else text.count("\n") + 1
        raise ConfigError(f"this is not TOML: {what[:1].lower()}{what[1:]}", line) from None
    except RecursionError:
        raise ConfigError(f"the file is nested more than {MOST_LEVELS} deep") from None
    except ValueError as problem:  # an integer of thousands of digits
        raise ConfigError(f"this is not TOML: {str(problem).lower()}") from None
    return _converted(root, "", _lines(text), _Budget(), 0)


def _float(shown: str) -> Any:
    exact = number_in(shown)
    return shown if exact is None else exact


def _converted(value: Any, path: str, lines: dict[str, int], budget: _Budget, level: int) -> Node:
    line = lines.get(path)
    budget.spend(level, line)
    if isinstance(value, dict):
        return {
            _clean(name): _converted(
                of, f"{path}.{name}" if path else name, lines, budget, level + 1
            )
            for name, of in value.items()
        }
    if isinstance(value, list):
        return _listed([_converted(item, path, lines, budget, level + 1) for item in value], line)
    if value is None or isinstance(value, bool | int):
        return Leaf(value, line)
    if isinstance(value, Fraction):
        return Leaf(int(value) if value.denominator == 1 else value, line)
    return Leaf(_clean(str(value)), line)


def _lines(text: str) -> dict[str, int]:
    """Lines where names are given in TOML. Parsers do not report them; a long text may mislead."""
    found: dict[str, int] = {}
    table = ""
    for number, line in enumerate(text.splitlines(), start=1):
        if head := re.match(r"\s*\[+\s*([^\[\]]+?)\s*\]+\s*(#.*)?$", line):
            table = head[1].replace('"', "")
        elif pair := re.match(r"\s*([\w.\-\"]+)\s*=", line):
            name = pair[1].replace('"', "")
            found.setdefault(f"{table}.{name}" if table else name, number)
    return found


def _listed(items: "list[Node]", line: int | None) -> Node:
    """A list of plain values becomes one leaf."""
    values: list[Scalar] = []
    for item in items:
        if not isinstance(item, Leaf) or isinstance(item.value, list):
            return items
        values.append(item.value)
    return Leaf(values, line)


def _clean(text: str) -> str:
    """Text that can be written as UTF-8."""
    return text.encode("utf-8", "replace").decode("utf-8")
