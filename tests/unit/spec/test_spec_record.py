"""Records: what they refuse, when they are equal, and that pydantic takes those of the plan."""

import copy
import pickle
from typing import Any, ClassVar

import pytest
from pydantic import TypeAdapter, ValidationError

from etude.compiler.values import BatchPiece
from etude.spec.record import Record, field, fields, replace


class Point(Record, kw_only=False):
    space: ClassVar[str] = "plane"
    x: int
    y: "int" = 0
    seen: list[int] = field(default_factory=list, compare=False)


class Named(Point):
    name: str


def test_the_fields_are_those_of_the_class_after_those_above_it() -> None:
    assert list(fields(Named)) == ["x", "y", "seen", "name"]
    assert (Point(1), Point(1, 2).y, Named(x=1, name="a").y) == (Point(x=1, y=0), 2, 0)


@pytest.mark.parametrize(
    ("args", "values", "wrong"),
    [
        ((), {}, "twice: x$"),
        ((), {"x": 1, "z": 2}, "twice: z$"),
        ((1,), {"x": 1}, "twice: x$"),
        ((1, 2, [], 4), {}, "too many"),
    ],
)
def test_what_is_missing_unknown_or_given_twice_is_refused(
    args: tuple[Any, ...], values: dict[str, Any], wrong: str
) -> None:
    with pytest.raises(TypeError, match=wrong):
        Point(*args, **values)


def test_only_what_says_so_is_given_by_position() -> None:
    with pytest.raises(TypeError, match="too many"):
        Named(1, name="a")  # type: ignore[misc]


def test_a_record_never_changes() -> None:
    point = Point(1)
    with pytest.raises(AttributeError, match="frozen"):
        point.x = 2  # type: ignore[misc]
    with pytest.raises(AttributeError, match="frozen"):
        del point.x  # type: ignore[misc]
    assert replace(point, x=2) == Point(2)
    assert point == Point(1)


def test_what_is_not_compared_makes_no_difference() -> None:
    assert Point(1, seen=[1]) == Point(1, seen=[2])
    assert len({Point(1, seen=[1]), Point(1, seen=[2]), Point(2)}) == 2
    assert repr(Point(1, seen=[1])) == "Point(x=1, y=0)"
    assert Point(1) != Named(x=1, name="a")


def test_defaults_are_made_anew() -> None:
    assert Point(1).seen is not Point(1).seen


def test_copies_are_equal() -> None:
    for made in (copy.copy, copy.deepcopy, lambda p: pickle.loads(pickle.dumps(p))):
        assert made(Point(1, 2)) == Point(1, 2)


def test_pydantic_reads_writes_and_describes_the_values_of_plans() -> None:
    adapter = TypeAdapter(BatchPiece)
    piece = BatchPiece(from_step=0, to_step=5, sequences=8)
    assert adapter.validate_json(adapter.dump_json(piece)) == piece
    assert adapter.validate_python(piece) is piece
    schema = adapter.json_schema()
    assert schema["required"] == list(fields(BatchPiece)) == list(schema["properties"])
    assert schema["additionalProperties"] is False
    for wrong in ({}, {**vars(piece), "more": 1}, {**vars(piece), "to_step": "soon"}):
        with pytest.raises(ValidationError):
            adapter.validate_python(wrong)
