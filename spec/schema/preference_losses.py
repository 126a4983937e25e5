"""The losses of preferences, and what their attributes usually are."""

from collections.abc import Mapping
from typing import Any, NamedTuple


class UsualBeta(NamedTuple):
    """The usual range of β, and a typical value."""

    low: float
    high: float
    typical: float


SUMS = UsualBeta(0.01, 1, 0.1)
MEANS = UsualBeta(0.1, 20, 5)


class Loss(NamedTuple):
    """What a loss of preferences is made of.

    Attributes:
        reference: whether it compares the model with a reference.
        smoothed: whether it may assume a share of wrong labels.
        penalized: whether it may have a penalty for length.
        usual: what β usually is; the typical value is the default.
        gamma: the default of the margin; None: it has no margin.
        nll: the default of the coefficient of the chosen response's cross-entropy.
        normalize: whether its log-probabilities are means over tokens; None: the spec says so.
    """

    reference: bool = True
    smoothed: bool = False
    penalized: bool = False
    usual: UsualBeta = SUMS
    gamma: float | None = None
    nll: float = 0.0
    normalize: bool | None = None

    @property
    def defaults(self) -> dict[str, Any]:
        """The values of attributes that a stage leaves out."""
        return {
            "beta": self.usual.typical,
            "gamma": self.gamma,
            "nll": self.nll,
            "normalize": bool(self.normalize),
        }

    @property
    def lacks(self) -> tuple[str, ...]:
        """The attributes that have no meaning for it."""
        meant = {
            "reference": self.reference,
            "label_smoothing": self.smoothed,
            "length_penalty": self.penalized,
            "gamma": self.gamma is not None,
            "normalize": self.normalize is None,
        }
        return tuple(name for name, known in meant.items() if not known)


LOSSES: Mapping[str, Loss] = {
    "dpo": Loss(smoothed=True, penalized=True),
    "ipo": Loss(smoothed=True),
    "robust": Loss(smoothed=True),
    "hinge": Loss(),
    "apo_zero": Loss(),
    "apo_down": Loss(),
    "simpo": Loss(reference=False, usual=UsualBeta(0.1, 20, 2), gamma=1.0, normalize=True),
    "cpo": Loss(reference=False, smoothed=True, nll=1.0),
    "orpo": Loss(reference=False, nll=1.0, normalize=True),
}
"""By the values of `objective`; see `DpoLoss` for the formulas and their sources.

The defaults of `simpo` are a typical β and half of it, as its authors recommend
(github.com/princeton-nlp/SimPO); those of `orpo` and `cpo` are of TRL.
"""


def in_words(name: str) -> str:
    """The default of an attribute, for the reference: `0.1`; `2` with `simpo`."""
    found: dict[str, list[str]] = {}
    for objective, loss in LOSSES.items():
        value = loss.defaults[name]
        if value is not None:
            found.setdefault(_written(value), []).append(f"`{objective}`")
    first, *others = found.items()
    return "; ".join(
        [f"`{first[0]}`", *(f"`{value}` with {' and '.join(of)}" for value, of in others)]
    )


def _written(value: bool | float) -> str:
    return str(value).lower() if isinstance(value, bool) else f"{value:g}"
