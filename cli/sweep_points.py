"""The points of a sweep: all combinations of the values that `--over` gives."""

import re
from collections.abc import Iterator, Sequence
from itertools import product
from typing import NamedTuple

MOST = 256
"""The most points of a sweep; more are a slip."""
EXAMPLE = '--over "pretrain.lr=1e-4..1e-3 log 5, tiny.dim=256,512"'
_RANGE = re.compile(r"(\S+?)\s*\.\.\s*(\S+)(?:\s+(\w+))?(?:\s+(\S+))?")
_PATH = re.compile(r"[a-z_][\w.\[\]]*")


class Bad(Exception):
    """A sweep that cannot be read: the message, and what to write instead."""

    def __init__(self, message: str, help: str = f"write it as in {EXAMPLE}") -> None:
        super().__init__(message)
        self.help = help


class Point(NamedTuple):
    """One combination: a name, which a variant can have, and path → value, as specs write both."""

    name: str
    values: dict[str, str]


def points(over: str) -> list[Point]:
    """The points of a sweep, the last path's values changing fastest.

    Args:
        over: `PATH=VALUE,VALUE,…` or `PATH=FROM..TO log COUNT` (or `linear`), separated by commas.

    Raises: Bad.
    """
    paths: dict[str, list[str]] = {}
    path = ""
    for part in _parts(over):
        name, equals, value = part.partition("=")
        if equals and _PATH.fullmatch(name.strip()):
            path, part = name.strip(), value.strip()
            if path in paths:
                raise Bad(f"`{path}` is given twice")
            paths[path] = []
        if not path:
            raise Bad(f"`{part}` is not PATH=VALUE")
        if not part:
            raise Bad(f"a value of `{path}` is missing")
        paths[path] += _values(path, part)
    for path, values in paths.items():
        if len(set(values)) < len(values):
            raise Bad(f"`{path}` has the same value twice: {', '.join(values)}")
    count = 1
    for values in paths.values():
        count *= len(values)
    if count > MOST:
        raise _too_many(count)
    found = [dict(zip(paths, each, strict=True)) for each in product(*paths.values())]
    told = [path for path, values in paths.items() if len(values) > 1] or [*paths]
    names = [_name({path: values[path] for path in told}) for values in found]
    if len(set(names)) < len(names):  # of long values the names are cut
        names = [f"point_{number}" for number in range(1, len(found) + 1)]
    return [Point(name, values) for name, values in zip(names, found, strict=True)]


def _too_many(count: int) -> Bad:
    return Bad(f"{count:,} points are too many", f"sweep over at most {MOST}, part by part")


def as_variants(found: Sequence[Point]) -> str:
    """Points as variants of a recipe, in the language."""
    return "".join(
        f"variant {name} {{\n"
        + "".join(f"  {path} = {value}\n" for path, value in values.items())
        + "}\n"
        for name, values in found
    )


def in_words(point: Point) -> str:
    """`pretrain.lr = 1e-4, tiny.dim = 256`."""
    return ", ".join(f"{path} = {value}" for path, value in point.values.items())


def _parts(text: str) -> Iterator[str]:
    """The text between commas that stand outside of braces, brackets and quotes."""
    depth, quoted, start = 0, False, 0
    for at, sign in enumerate(text):
        if sign == '"':
            quoted = not quoted
        elif not quoted and sign in "{[(":
            depth += 1
        elif not quoted and sign in "}])":
            depth -= 1
        elif sign == "," and not quoted and depth == 0:
            yield text[start:at].strip()
            start = at + 1
    yield text[start:].strip()


def _values(path: str, text: str) -> list[str]:
    """The values of a part: one, or those of a range."""
    match = _RANGE.fullmatch(text)
    if match is None or text.startswith('"'):
        return [text]
    low, high, shape, count = match.groups()
    try:
        first, last = float(low.replace("_", "")), float(high.replace("_", ""))
    except ValueError:
        raise Bad(f"the ends of `{path}={text}` are not plain numbers") from None
    if shape not in ("log", "linear"):
        raise Bad(f"`{path}={text}` does not say how its values lie: `log` or `linear`")
    if not (count or "").isdecimal() or int(count) < 2:
        raise Bad(f"`{path}={text}` does not say how many values: a whole number from 2 on")
    if first == last or (shape == "log" and min(first, last) <= 0):
        raise Bad(f"`{path}={text}` needs two different ends" + " above 0" * (shape == "log"))
    number = int(count)
    if number > MOST:
        raise _too_many(number)
    whole = all(end.replace("_", "").isdecimal() for end in (low, high))
    found = []
    for n in range(number):
        share = n / (number - 1)
        value = (
            first ** (1 - share) * last**share
            if shape == "log"
            else first * (1 - share) + last * share
        )
        found.append(str(round(value)) if whole else _written(value))
    if whole and len(set(found)) < len(found):
        raise Bad(
            f"there are no {count} whole numbers in `{path}={text}`",
            f"for values between them, write the ends with a point: {low}.0..{high}.0",
        )
    return found


def _written(value: float) -> str:
    """A number with four digits, as specs write it: `3.162e-4`."""
    text = f"{value:.4g}"
    digits, e, power = text.partition("e")
    return f"{digits}e{int(power)}" if e else text


def _name(values: dict[str, str]) -> str:
    """A name that a variant can have: `sweep_lr_1e_4_dim_256`."""
    parts = [
        part
        for path, value in values.items()
        for part in (path.rpartition(".")[2], re.sub(r"\W+", "_", value).strip("_").lower())
    ]
    return re.sub(r"_+", "_", "sweep_" + "_".join(parts))[:80].strip("_")
