"""What the compiler knows about a kind of stage: its row in the table of kinds."""

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

    Facts that hold before names are resolved, such as whether the result is a model, are in its
    model in the schema.

    Attributes:
        resolve: from the spec to the program's stage; None after reporting.
        lower: adds the jobs of a stage. It imports the plan's models when it is called, because
            checking a spec does not need them.
        shown: the attributes shown for a stage, in this order. None: those of the schema.
        said: values of such attributes that the spec does not hold in the form shown.
    """

    resolve: Callable[[Any, Scope], Stage | None]
    lower: Callable[[Any, "Lowering"], None]
    shown: tuple[str, ...] | None = None
    said: Callable[[Any], Mapping[str, Any]] = lambda stage: {}


class TrainingKind(Kind):
    """A kind of training stage.

    Attributes:
        peak: the highest learning rate in a miniature: a model two layers deep learns well with it.
    """

    way: Way
    peak: Fraction
