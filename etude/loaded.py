"""What `etude.load` and `etude.loads` give."""

from collections.abc import Sequence

from .spec.load import Sources
from .spec.record import Record
from .spec.schema.recipe import Recipe


class Spec(Record):
    """A spec that was read.

    Attributes:
        recipe: what it declares, changed as requested.
        sources: its statements, with their places.
        variant: the variant that was applied; "" for none.
        sets: the changes on top of it.
    """

    recipe: Recipe
    sources: Sources
    variant: str = ""
    sets: Sequence[str] = ()
