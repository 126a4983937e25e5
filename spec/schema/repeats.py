"""`repeat N times { … }` in schedules: segments that come once for each turn."""

from collections.abc import Callable, Iterator

from .. import syntax as s
from ..quantity import Quantity
from ..record import replace
from ..schedule import Last, Segment, Turn
from .convert import Invalid, plain_number, quantity, whole

MOST_TURNS = 1000
UNTIL_END = "this segment has no end, so the next one never begins"
_EXAMPLE = "`repeat 4 times { 3e-4 -> 3e-5 cosine }`"
ADD_BOUND = "add a bound: `for …` or `until …`"


def turns(
    repeat: s.Repeat, read: Callable[[s.Hold | s.Ramp], Segment], last: bool
) -> Iterator[Segment]:
    """The segments of all turns.

    Args:
        read: reads a segment.
        last: whether the schedule ends with the repeat, so that its turns can fill the stage.

    Raises: Invalid: it cannot be repeated.
    """
    number = plain_number(repeat.times, "a number of times: `repeat 4 times { … }`")
    times = whole(quantity(number, ["times"]), repeat.times.span, most=MOST_TURNS)
    once = [read(each) for each in _plain(repeat)]
    if not once:
        raise Invalid("E218", "nothing is repeated here", repeat.span, help=f"write {_EXAMPLE}")
    if len(once) == 1 and once[0].shape == "hold" and not isinstance(once[0].end, Last):
        raise Invalid(
            "E218",
            "a constant that is repeated stays the same",
            repeat.span,
            help=f"remove the `repeat`, or repeat a ramp: {_EXAMPLE}",
        )
    others: list[Quantity] = []
    for place, segment in enumerate(once):
        bound = segment.bound
        if bound is None and (place < len(once) - 1 or not last):
            raise Invalid("E216", UNTIL_END, segment.span or repeat.span, help="add `for …`")
        if bound and not bound.relative:
            raise Invalid(
                "E218",
                "`until` counts from the beginning of the stage, so every turn would end there",
                bound.span or repeat.span,
                help="write how long it lasts in each turn: `for …`",
            )
        if bound:
            others.append(bound.quantity)
    for turn in range(times):
        for place, segment in enumerate(once):
            open_end = tuple(others) if segment.bound is None else ()
            yield replace(segment, turn=Turn(turn, times, place, open_end))


def _plain(repeat: s.Repeat) -> Iterator[s.Hold | s.Ramp]:
    for each in repeat.segments:
        if isinstance(each, s.Repeat):
            raise Invalid(
                "E218",
                "a `repeat` cannot stand in another",
                each.span,
                help="write the segments of the inner one as often as they come in a turn",
            )
        yield each
