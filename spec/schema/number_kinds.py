"""Kinds of attributes that are numbers, with or without a unit: counts, rates, shares, amounts."""

from fractions import Fraction
from typing import Any, ClassVar, NamedTuple

from .. import syntax as s
from ..quantity import Quantity, plain
from ..record import Record
from .convert import Invalid, items, plain_number, quantity, whole, wrong_value
from .kinds import Kind, OneOf, listed, text

MOST = 10**9
"""The upper limit of any dimension of a model or an evaluation."""
MOST_DEVICES = 10**6
"""The upper limit of nodes in a cluster, and of devices in a node."""


class Whole(Kind, kw_only=False):
    """A whole number, in `unit` or without one."""

    unit: str = ""
    least: int = 1
    most: int | None = None

    @property
    def units(self) -> tuple[str, ...]:
        return (self.unit,) if self.unit else ()

    @property
    def example(self) -> str:
        return f"{max(self.least, 8)} {self.unit}".rstrip()

    def takes(self, name: str) -> str:
        least = f", {self.least} or more" if self.least != 1 else ""
        if self.unit:
            return self.unit + least
        return f"whole number{least}" if least else "count"

    def read(self, value: s.Value) -> Any:
        number = plain_number(value, "a whole number")
        return whole(
            quantity(number, [self.unit], self.unit), value.span, least=self.least, most=self.most
        )


class Draws(Whole, kw_only=False):
    """How many draws of a prompt are kept: `best` is one, `all` is 0."""

    @property
    def choices(self) -> tuple[str, ...]:
        return tuple(_DRAWS)

    def takes(self, name: str) -> str:
        return f"{', '.join(f'`{name}`' for name in _DRAWS)} or a count"

    def read(self, value: s.Value) -> int:
        if isinstance(value, s.Number):
            return super().read(value)
        return _DRAWS[OneOf(*_DRAWS).read(value)]


_DRAWS = {"best": 1, "all": 0}


class Every(Kind):
    """An interval in steps or minutes: `checkpoint every 20 min`."""

    statement: ClassVar[bool] = True

    @property
    def units(self) -> tuple[str, ...]:
        return ("min", "h", "steps")

    @property
    def example(self) -> str:
        return "20 min"

    def read(self, value: s.Value) -> Quantity:
        number = plain_number(value, "a number of minutes or steps")
        found = quantity(number, self.units, "steps")
        if found.unit == "steps":
            whole(found, value.span, least=1)
        elif found.value < Fraction(1, 60) * (1 if found.unit == "min" else Fraction(1, 60)):
            raise Invalid("E208", "this must be at least a second", value.span)
        return found

    def takes(self, name: str) -> str:
        return f"the statement `{self.written(name)}`"

    def written(self, name: str) -> str:
        return f"{name} every {self.example}"


class Duration(Kind, kw_only=False):
    """A time, such as `typical`, read as seconds; with `zero`, 0 is allowed."""

    typical: str
    zero: bool = False

    @property
    def units(self) -> tuple[str, ...]:
        return tuple(SECONDS)

    @property
    def example(self) -> str:
        return self.typical

    def takes(self, name: str) -> str:
        return "time"

    def read(self, value: s.Value) -> float:
        found = quantity(plain_number(value, "a time"), self.units)
        if not found.value and not self.zero:
            raise Invalid("E208", "this must be longer than zero", value.span)
        return float(found.value * SECONDS[found.unit])


SECONDS = {"s": 1, "min": 60, "h": 3600}


class Kept(NamedTuple):
    """Which checkpoints of a job stay on the disk while it runs.

    Attributes:
        last: how many of the newest; None: all.
        every: also those of every `every`-th step; None: no others.
    """

    last: int | None
    every: int | None = None


EVERY = Quantity(Fraction(20), "min")
"""The default time between two checkpoints."""
LAST = 2
"""How many of the newest checkpoints are kept by default."""


class Keep(Kind):
    """`keep last 3`, `keep every 5000 steps` or `keep all`, in changes also `3` and `all`."""

    statement: ClassVar[bool] = True

    @property
    def units(self) -> tuple[str, ...]:
        return ("steps",)

    @property
    def example(self) -> str:
        return "3"

    def written(self, name: str) -> str:
        return f"{name} last {self.example}"

    def takes(self, name: str) -> str:
        return "the statement `keep last 2`, `keep every 5000 steps` or `keep all`"

    def read(self, value: s.Value | s.Keep) -> Kept:
        if isinstance(value, s.Keep):
            if value.amount is None:
                return Kept(None)
            if value.how == "every":
                return Kept(LAST, Whole("steps").read(value.amount))
            return Kept(Whole(most=10_000).read(value.amount))
        if isinstance(value, s.Path):
            OneOf("all").read(value)
            return Kept(None)
        return Kept(Whole(most=10_000).read(value))


class Wholes(Kind, kw_only=False):
    """A list of whole numbers, in `unit` or without one."""

    unit: str = ""

    @property
    def units(self) -> tuple[str, ...]:
        return (self.unit,) if self.unit else ()

    @property
    def example(self) -> str:
        return "[128, 256]"

    def takes(self, name: str) -> str:
        return "list of counts" + (f", in {self.unit}" if self.unit else "")

    def read(self, value: s.Value) -> list[int]:
        if not isinstance(value, s.List):
            raise wrong_value(value, "a list of whole numbers", "[128, 256]")
        return [Whole(self.unit).read(item) for item in items(value)]


class Consecutive(Wholes, kw_only=False):
    """Steps that follow each other: `[10..12]`, or one after the other, as in `[10, 11, 12]`."""

    unit: str = ""

    @property
    def example(self) -> str:
        return "[10..12]"

    def takes(self, name: str) -> str:
        return f"steps that follow each other: `{self.example}`"

    def read(self, value: s.Value) -> list[int]:
        if not isinstance(value, s.List):
            raise wrong_value(value, "a list of steps", self.example)
        found: list[int] = []
        for item in items(value):
            first, last = (item.first, item.last) if isinstance(item, s.Range) else (item, item)
            begin, end = (Whole("", least=0, most=MOST).read(each) for each in (first, last))
            if begin > end or (found and begin != found[-1] + 1) or end - begin > MOST_PROFILED:
                raise Invalid(
                    "E571",
                    "these steps do not follow each other"
                    if end - begin <= MOST_PROFILED
                    else f"more than {MOST_PROFILED:,} steps cannot be profiled",
                    value.span,
                    help=f"write the first and the last step: `{self.example}`",
                )
            found.extend(range(begin, end + 1))
        return found


MOST_PROFILED = 1000
"""The most steps that a profile may have."""


class Real(Kind, kw_only=False):
    """A plain number within bounds."""

    least: float | None = None
    below: float | None = None
    above: float | None = None
    most: float | None = None

    @property
    def example(self) -> str:
        from_ = max(bound for bound in (self.least, self.above, 0.0) if bound is not None)
        return "0.1" if from_ < 0.1 else f"{from_ + 1:g}"

    def takes(self, name: str) -> str:
        if self.least is not None and self.below is not None:
            return f"number from {self.least:g} to below {self.below:g}"
        if self.above is not None and self.below is not None:
            return f"number above {self.above:g} and below {self.below:g}"
        parts = ["number"] if self.above is None else [f"number above {self.above:g}"]
        parts += [] if self.least is None else [f"{self.least:g} or more"]
        parts += [] if self.most is None else [f"at most {self.most:g}"]
        return ", ".join(parts)

    def read(self, value: s.Value) -> float:
        number = plain_number(value, "a plain number")
        result = float(quantity(number, [""], "").value)
        if self.least is not None and result < self.least:
            raise Invalid("E208", f"this must be at least {self.least:g}", value.span)
        if self.above is not None and result <= self.above:
            raise Invalid("E208", f"this must be above {self.above:g}", value.span)
        if self.below is not None and result >= self.below:
            raise Invalid("E208", f"this must be below {self.below:g}", value.span)
        if self.most is not None and result > self.most:
            raise Invalid("E208", f"this must be at most {self.most:g}", value.span)
        return result


class Reals(Kind, kw_only=False):
    """A list of plain numbers."""

    below: float | None = None

    @property
    def example(self) -> str:
        return "[0.9, 0.95]"

    def takes(self, name: str) -> str:
        return "list of numbers"

    def shown(self, value: Any) -> str:
        return str(list(value))

    def read(self, value: s.Value) -> tuple[float, ...]:
        if not isinstance(value, s.List):
            raise wrong_value(value, "a list of numbers", "[0.9, 0.95]")
        return tuple(Real(below=self.below).read(item) for item in items(value))


class Betas(Reals, kw_only=False):
    """The two decay rates of Adam's moments."""

    below: float | None = 1

    def takes(self, name: str) -> str:
        return "list of two numbers below 1"

    def read(self, value: s.Value) -> tuple[float, ...]:
        rates = super().read(value)
        if len(rates) != 2:
            raise Invalid(
                "E208",
                "there must be two betas, one for each moment",
                value.span,
                help="write [0.9, 0.95]",
            )
        return rates


class ClipRatio(Reals, kw_only=False):
    """How far a ratio of probabilities may fall below 1 and rise above it."""

    @property
    def example(self) -> str:
        return "[0.2, 0.28]"

    def takes(self, name: str) -> str:
        return "list of two numbers above 0, the first below 1"

    def read(self, value: s.Value) -> tuple[float, ...]:
        found = super().read(value)
        if len(found) != 2 or not (0 < found[0] < 1 and found[1] > 0):
            raise Invalid(
                "E208",
                "this must be two numbers: how far the ratio may fall, above 0 and below 1, and "
                "how far it may rise, above 0",
                value.span,
                help=f"write {self.example}",
            )
        return found


class Share(Kind, kw_only=False):
    """A percentage from 0 to 100; `all` of it only where that is allowed."""

    all: bool = False

    @property
    def example(self) -> str:
        return "1%"

    def takes(self, name: str) -> str:
        return f"percentage {'up to' if self.all else 'below'} 100%"

    def shown(self, value: Any) -> str:
        return f"{plain(value * 100)}%"

    def read(self, value: s.Value) -> Fraction:
        result = quantity(plain_number(value, "a percentage: 1%"), ["%"]).value
        if result > 1 or (result == 1 and not self.all):
            bound = "at most" if self.all else "below"
            raise Invalid("E208", f"this must be {bound} 100%", value.span)
        return result


class Amount(Kind):
    """A quantity above zero in one of the units; if there is only one, it may be left out.

    Attributes:
        zero: whether it may be zero, as a point may be that is counted from the beginning.
    """

    of: tuple[str, ...]
    zero: bool

    def __init__(self, *of: str, zero: bool = False) -> None:
        Record.__init__(self, of=of, zero=zero)

    @property
    def units(self) -> tuple[str, ...]:
        return tuple(unit for unit in self.of if unit != "%")

    @property
    def example(self) -> str:
        return f"{2 if len(self.of) == 1 else 100} {self.of[0]}"

    def takes(self, name: str) -> str:
        return self.of[0] if len(self.of) == 1 else listed(self.of)

    def read(self, value: s.Value) -> Quantity:
        only = self.of[0] if len(self.of) == 1 else None
        wanted = f"a number of {only}" if only else "a number with its unit"
        result = quantity(plain_number(value, f"{wanted}: {self.example}"), self.of, only)
        if result.value < 0 or (not self.zero and result.value == 0):
            raise Invalid("E208", "this must be more than 0", value.span)
        return result


LENGTH = Amount("tokens", "steps", "%")
"""The length of a part of a stage."""


class Devices(Kind):
    """`8 of "H100 80GB"` → (8, "H100 80GB")."""

    @property
    def example(self) -> str:
        return '8 of "H100 80GB"'

    def read(self, value: s.Value) -> tuple[int, str]:
        if not isinstance(value, s.Counted):
            raise wrong_value(value, "a number of GPUs and their name", self.example)
        number = quantity(plain_number(value.number, "a number: 8"), [""], "")
        return whole(number, value.number.span, most=MOST_DEVICES), text(value.what)
