"""Kinds of attributes that change over time."""

import re
from fractions import Fraction
from typing import Any, ClassVar

from .. import syntax as s
from ..findings.diagnostics import did_you_mean
from ..quantity import UNITS, Quantity, plain
from ..record import Record
from ..schedule import AUTO, LAST, Auto, Bound, Last, Schedule, Segment, constant
from ..text.keywords import SHAPES
from .convert import Invalid, plain_number, quantity, whole, wrong_value
from .kinds import Kind, OneOf, listed
from .number_kinds import LENGTH, Real
from .repeats import ADD_BOUND, UNTIL_END, turns

DIALOGS = "dialogs"
"""The unit of batches that count whole dialogs."""


class Operand(Kind):
    """The values at the ends of a schedule's segments; most kinds accept `last`."""

    @property
    def choices(self) -> tuple[str, ...]:
        return ("last",)


class Rate(Operand):
    """A plain number that changes over time."""

    @property
    def example(self) -> str:
        return "3e-4"

    def takes(self, name: str) -> str:
        return "numbers"

    def read(self, value: s.Value) -> Fraction | Last:
        if _is_last(value):
            return LAST
        return quantity(plain_number(value, "a plain number: 3e-4"), [""], "").value


class Theta(Rate):
    """A base of rotary positions."""

    @property
    def example(self) -> str:
        return "500_000"

    def takes(self, name: str) -> str:
        return "numbers above 0"

    def read(self, value: s.Value) -> Fraction | Last:
        result = super().read(value)
        if result == 0:
            raise Invalid("E208", "this must be above 0", value.span)
        return result


class SeqLen(Operand):
    """A sequence length."""

    @property
    def units(self) -> tuple[str, ...]:
        return ("tokens",)

    @property
    def example(self) -> str:
        return "8Ki"

    def takes(self, name: str) -> str:
        return "tokens, 2 or more"

    def read(self, value: s.Value) -> int | Last:
        if _is_last(value):
            return LAST
        number = plain_number(value, "a number of tokens: 8Ki")
        return whole(quantity(number, ["tokens"], "tokens"), value.span, least=2)


class Batch(Operand):
    """The batch size of a step."""

    what: ClassVar[str] = "tokens or sequences"

    @property
    def units(self) -> tuple[str, ...]:
        return ("seqs", "tokens")

    @property
    def example(self) -> str:
        return "4Mi tokens"

    def takes(self, name: str) -> str:
        return listed(self.units)

    def read(self, value: s.Value) -> Quantity | Last:
        if _is_last(value):
            return LAST
        number = plain_number(value, f"a number of {self.what}: {self.example}")
        result = quantity(number, self.units)
        whole(result, value.span)
        return result


class Dialogs(Batch):
    """A batch of dialogs, or of the sequences that they are packed into."""

    what: ClassVar[str] = "dialogs, sequences or tokens"

    @property
    def units(self) -> tuple[str, ...]:
        return ("seqs", "tokens", DIALOGS)

    @property
    def example(self) -> str:
        return "64 dialogs"


class Pairs(Operand):
    """A batch of preferences, each a sequence of its own."""

    unit: ClassVar[str] = "pairs"

    @property
    def choices(self) -> tuple[str, ...]:
        return ()

    @property
    def units(self) -> tuple[str, ...]:
        return (self.unit,)

    @property
    def example(self) -> str:
        return f"64 {self.unit}"

    def takes(self, name: str) -> str:
        return self.unit

    def read(self, value: s.Value) -> Quantity:
        number = plain_number(value, f"a number of {self.unit}: {self.example}")
        found = quantity(number, [self.unit], self.unit)
        return Quantity(Fraction(whole(found, value.span)), "seqs")


class Prompts(Pairs):
    """A batch of prompts, each with a group of answers."""

    unit: ClassVar[str] = "prompts"


class Ratings(Pairs):
    """A batch of rated answers."""

    unit: ClassVar[str] = "ratings"


class Solutions(Pairs):
    """A batch of answers in steps."""

    unit: ClassVar[str] = "solutions"


class Mixture(Operand):
    """Shares of sources, in the order written, that add up to 1."""

    @property
    def refers(self) -> tuple[str, ...]:
        return ("dataset", "stage")

    @property
    def example(self) -> str:
        return "{ web 90%, math 10% }"

    def takes(self, name: str) -> str:
        return "mixtures, or one dataset"

    def read(self, value: s.Value) -> dict[str, Fraction] | Last:
        if _is_last(value):
            return LAST
        if isinstance(value, s.Scaled):
            return _scaled(value)
        if isinstance(value, s.Path | s.Indexed):
            return {value.name: Fraction(1)}
        if not isinstance(value, s.Braces):
            raise wrong_value(value, "a mixture", self.example)
        weights = entries(value, ["%", ""], "a share: 50%")
        if not weights:
            raise Invalid(
                "E210", "this mixture is empty", value.span, help="name at least one source"
            )
        units = {number.unit for number in weights.values()}
        if len(units) > 1:
            raise Invalid(
                "E211",
                "this mixture has both percentages and plain weights",
                value.span,
                help="write all shares in the same way",
            )
        total = sum((number.value for number in weights.values()), Fraction(0))
        if units == {"%"} and total != 1:
            _wrong_sum(value, weights, total)
        if total <= 0:
            raise Invalid("E210", "the weights of this mixture add up to 0", value.span)
        return {name: number.value / total for name, number in weights.items()}


def _scaled(value: s.Scaled) -> Last:
    if value.base.name != "last":
        raise Invalid(
            "E209",
            f"`{value.base.name} with` is not valid",
            value.base.span,
            help="only `last with { name 1.5x }` can scale a mixture",
        )
    factors = entries(value.factors, ["x"], "a factor: 1.5x")
    return Last(tuple((name, number.value) for name, number in factors.items()))


def _wrong_sum(value: s.Braces, weights: dict[str, Quantity], total: Fraction) -> None:
    parts = " + ".join(plain(number.value * 100) for number in weights.values())
    off = plain(abs(1 - total) * 100)
    raise Invalid(
        "E214",
        f"the percentages of this mixture add up to {plain(total * 100)}%, not 100%",
        value.span,
        label=f"{parts} = {plain(total * 100)}",
        help=f"{'raise' if total < 1 else 'lower'} one of them by {off}%, or write plain weights: "
        f"{{ {next(iter(weights))} {plain(next(iter(weights.values())).value * 100)}, … }}",
    )


def entries(value: s.Braces, units: list[str], example: str) -> dict[str, Quantity]:
    result: dict[str, Quantity] = {}
    for item in value.items:
        if isinstance(item, s.Entry) and isinstance(item.value, s.Path):
            raise wrong_value(item.value, example.split(":")[0], example.split(": ")[1])
        if not isinstance(item, s.Entry) or not isinstance(item.value, s.Number):
            what, _, such = example.partition(": ")
            help = f"write a name and its {what.split()[-1]}, such as `{such}`"
            if isinstance(item, s.Flag):
                help = f"write `{item.word.name} {such.split()[-1]}`"
            if isinstance(item, s.Assign) and isinstance(item.value, s.Number | s.Path):
                text = item.value.text if isinstance(item.value, s.Number) else item.value.name
                help = f"there is no `=` here: write `{item.path.name} {text}`"
            raise Invalid("E212", f"this is not a name and {what}", item.span, help=help)
        if item.word.name in result:
            raise Invalid("E213", f"`{item.word.name}` is named twice", item.word.span)
        default = "" if "" in units else None
        result[item.word.name] = quantity(item.value, units, default)
    return result


DEGREES = (
    "replicate",
    "shard",
    "tensor",
    "context",
    "pipeline",
    "interleave",
    "expert",
    "micro_batch",
    "schedule",
    "first_less",
    "last_less",
)
SCHEDULES = ("gpipe", "looped_bfs", "zero_bubble", "zero_bubble_v", "dualpipe_v")
"""Schedules of pipelines other than the default, 1F1B. `interleave` makes any of them interleaved
that can be."""
LESS = ("first_less", "last_less")
"""What may be 0: layers that the first and the last stage of a pipeline have less."""


class Placement(Operand):
    """Degrees of parallelism by name, and how a pipeline is scheduled and split."""

    @property
    def choices(self) -> tuple[str, ...]:
        return ("last", "auto")

    @property
    def degrees(self) -> tuple[str, ...]:
        return DEGREES

    @property
    def example(self) -> str:
        return "{ tensor 8, pipeline 16 }"

    def takes(self, name: str) -> str:
        return "placements"

    def read(self, value: s.Value) -> dict[str, int | str] | Last | Auto:
        if _is_last(value):
            return LAST
        if isinstance(value, s.Path) and value.name == "auto":
            return AUTO
        if not isinstance(value, s.Braces):
            raise wrong_value(value, "a placement", self.example)
        result: dict[str, int | str] = {}
        named = [i for i in value.items if isinstance(i, s.Entry) and i.word.name == "schedule"]
        if len(named) > 1:
            raise Invalid("E213", "`schedule` is named twice", named[1].word.span)
        if named:
            result["schedule"] = OneOf(*SCHEDULES, foreign="schedule").read(named[0].value)
        alone = next((i for i in value.items if isinstance(i, s.Flag)), None)
        if alone and alone.word.name in SCHEDULES:
            help = f"write `schedule {alone.word.name}`"
            raise Invalid("E212", "this is not a name and a degree", alone.span, help=help)
        degrees = value._replace(items=tuple(i for i in value.items if i not in named))
        for degree, number in entries(degrees, [""], "a degree: tensor 8").items():
            place = next(i for i in value.items if isinstance(i, s.Entry) and i.word.name == degree)
            if degree not in DEGREES:
                raise Invalid(
                    "E215",
                    f"`{degree}` is not a kind of parallelism",
                    place.word.span,
                    help=did_you_mean(degree, DEGREES, of="degree"),
                )
            result[degree] = whole(number, place.value.span, least=0 if degree in LESS else 1)
        return result


def _is_last(value: s.Value) -> bool:
    return isinstance(value, s.Path) and value.name == "last"


def _no_shape(value: s.Value, ramp: bool) -> None:
    """Rejects a word after a number that looks like the shape of a ramp.

    Raises: Invalid: it does.
    """
    word = value.unit if isinstance(value, s.Number) else None
    if not word or word.name in UNITS or word.name in SHAPES:
        return
    if did_you_mean(word.name, (), of="unit"):  # a unit from other programs
        return
    near = did_you_mean(word.name, SHAPES)
    meant = near.startswith("did") or re.search(_SHAPE_LIKE, word.name)
    if meant or (ramp and not did_you_mean(word.name, UNITS).startswith("did")):
        shapes = f"the shapes are {', '.join(f'`{shape}`' for shape in SHAPES)}"
        help = f"{near} {shapes}" if near.startswith("did") else shapes
        if word.name in ("constant", "hold", "const"):
            help = "write a constant value alone, or with its length: `1e-3 for 2000 steps`"
        raise Invalid("E109", f"`{word.name}` is not the shape of a ramp", word.span, help=help)


_SHAPE_LIKE = "sqrt|cos|lin|exp|poly|const|hold|decay|warm|wsd|sine|quad|square|step_|sigm"


class ScheduleOf(Kind, kw_only=False):
    """A value of `operand`, or several in sequence, with ramps between them."""

    operand: Operand

    @property
    def choices(self) -> tuple[str, ...]:
        return self.operand.choices

    @property
    def units(self) -> tuple[str, ...]:
        return self.operand.units

    @property
    def refers(self) -> tuple[str, ...]:
        return self.operand.refers

    @property
    def example(self) -> str:
        return self.operand.example

    def takes(self, name: str) -> str:
        return f"schedule of {self.operand.takes(name)}"

    def read(self, value: s.Value) -> Schedule:
        if not isinstance(value, s.Schedule):
            if isinstance(value, s.Periodic | s.Counted | s.Sized):
                raise wrong_value(value, "a value or a schedule", "a value, or `a -> b for …`")
            _no_shape(value, False)
            return constant(self.operand.read(value), value.span)
        segments: list[Segment] = []
        for place, of in enumerate(value.segments):
            last = place == len(value.segments) - 1
            if isinstance(of, s.Repeat):
                segments += turns(of, self._segment, last)
                continue
            segments.append(self._segment(of))
            if of.bound is None and not last:
                raise Invalid("E216", UNTIL_END, of.span, help=ADD_BOUND)
        return Schedule(tuple(segments), value.span)

    def _segment(self, segment: s.Hold | s.Ramp) -> Segment:
        ramp = isinstance(segment, s.Ramp)
        _no_shape(segment.end if ramp else segment.value, ramp)
        read = self.operand.read
        if not isinstance(segment, s.Ramp):
            value, bound = read(segment.value), _bound(segment.bound)
            return Segment("hold", None, value, None, bound, segment.span)
        return Segment(
            segment.shape,  # type: ignore[arg-type]
            None if segment.start is None else read(segment.start),
            read(segment.end),
            LENGTH.read(segment.over) if segment.over else None,
            _bound(segment.bound),
            segment.span,
            None if segment.levels is None else self._levels(segment.levels),
        )

    def _levels(self, levels: s.Number | s.Path) -> Quantity:
        if not isinstance(self.operand, Batch | Pairs):
            raise Invalid(
                "E217",
                "only a batch moves in levels of a size",
                levels.span,
                help="remove `in levels of …`",
            )
        found = self.operand.read(levels)
        assert isinstance(found, Quantity)
        return found


class Number(Operand):
    """A number within the bounds of `kind`."""

    kind: Real

    def __init__(self, kind: Real) -> None:
        Record.__init__(self, kind=kind)

    @property
    def choices(self) -> tuple[str, ...]:
        return ()

    @property
    def example(self) -> str:
        return self.kind.example

    def takes(self, name: str) -> str:
        return self.kind.takes(name)

    def read(self, value: s.Value) -> float:
        if _is_last(value):
            raise Invalid(
                "E201",
                "this must be a number: settings have no `last`",
                value.span,
                help="write the number to begin with; a stage that continues another may leave it "
                f"out, `-> {self.example}`, and begins with the value there",
            )
        return self.kind.read(value)


class Setting(ScheduleOf):
    """A number, or a schedule of numbers within the same bounds.

    Attributes:
        off: the number that switches the setting off, if none says so by itself.
    """

    off: str = ""

    def __init__(self, kind: Real, off: str = "") -> None:
        Record.__init__(self, operand=Number(kind), off=off)

    def takes(self, name: str) -> str:
        return f"{self.operand.takes(name)}, or a schedule of them"

    def read(self, value: s.Value) -> Any:
        if isinstance(value, s.Schedule):
            return super().read(value)
        try:
            return self.operand.read(value)
        except Invalid as problem:
            if self.off:
                problem.help = f"to switch it off, write {self.off}"
            raise


def _bound(bound: s.Bound | None) -> Bound | None:
    if bound is None:
        return None
    return Bound(bound.relative, LENGTH.read(bound.quantity), bound.span)
