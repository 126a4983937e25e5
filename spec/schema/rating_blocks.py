"""The attributes of stages that learn from answers that are rated good or bad."""

from fractions import Fraction
from typing import ClassVar

from ..schedule import Schedule
from . import convert_schedule as cs
from . import kinds as k
from . import number_kinds as nk
from .declaration import attribute
from .preference_losses import SUMS, UsualBeta
from .training_blocks import DIALOG, DROP_LAST, MASK, WITH_WEIGHTS, Training


class Kto(Training):
    """Preference optimization from answers that are rated good or bad, without pairs."""

    kind: ClassVar[str] = "kto"
    data_kind: ClassVar[str] = "ratings"
    rows: ClassVar[str] = "ratings"
    forwards: ClassVar[Fraction] = Fraction(1)
    usual_beta: ClassVar[UsualBeta] = SUMS
    batch: Schedule | None = attribute(
        cs.ScheduleOf(cs.Ratings()), None, doc="rated answers per step; inherited"
    )
    dialog: str | None = attribute(
        DIALOG, None, otherwise="see [`dialog`](#dialog)", doc="the protocol"
    )
    reference: str | None = attribute(
        k.Ref(*WITH_WEIGHTS),
        None,
        otherwise="`from`",
        doc="the model that the policy should stay near",
    )
    beta: float = attribute(nk.Real(above=0), 0.1, doc="β, how near to the reference")
    desirable_weight: float = attribute(
        nk.Real(above=0), 1.0, doc="weight of the loss of answers that are good"
    )
    undesirable_weight: float = attribute(
        nk.Real(above=0), 1.0, doc="weight of the loss of answers that are bad"
    )
    mask: str = MASK
    drop_last: bool = DROP_LAST
