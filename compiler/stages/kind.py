"""What the compiler knows about a kind of stage: the row for each kind in the table."""

from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from ...spec.record import Record
from ..lowering.way import Way
from ..program import Stage
from ..resolve.scope import Scope

if TYPE_CHECKING:
    from ..lowering.lowering import Lowering


class Kind(Record):
    """A kind of stage.

    What is true of a kind before its names are resolved, such as whether its result is a model,
    its model in the schema says.

    Attributes:
        resolve: from the spec to the program's stage; None after reporting.
        lower: adds the jobs of a stage. Plans are no concern of whoever checks a spec, so it
            imports their models when it is called.
        shown: the attributes that are shown of a stage, in this order. None: those of the schema.
        said: values of such attributes that the spec does not hold as they are shown.
    """

    resolve: Callable[[Any, Scope], Stage | None]
    lower: Callable[[Any, "Lowering"], None]
    shown: tuple[str, ...] | None = None
    said: Callable[[Any], Mapping[str, Any]] = lambda stage: {}


class TrainingKind(Kind):
    """A kind of stage that trains.

    Attributes:
        peak: the highest learning rate of a miniature: a model two layers deep learns well with it.
    """

    way: Way
    peak: Fraction
