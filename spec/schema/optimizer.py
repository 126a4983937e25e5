"""The optimizer of a stage, and its settings."""

from typing import Any

from ..schedule import Schedule
from . import convert_schedule as cs
from . import group_kinds as g
from . import kinds as k
from . import number_kinds as nk
from .declaration import Declaration, attribute

ADJUST_LR = ("match_rms_adamw", "original", "spectral_unclamped")
MUON = {
    "momentum": 0.95,
    "nesterov": True,
    "ns_steps": 5,
    "adjust_lr": ADJUST_LR[0],
    "qk_clip": None,
}
"""The attributes of Muon alone, with their defaults."""
ADAFACTOR = {"beta2_decay": 0.8, "eps1": 1e-15, "eps2": 1e-3, "d": 1.0, "scale_parameter": True}
"""The attributes of Adafactor alone, with their defaults, which are those of the paper: its ε₁ =
1e-30 belongs to squares (arXiv:1804.04235, Algorithm 6)."""
OWN = {"muon": MUON, "adafactor": ADAFACTOR}
"""The attributes of one optimizer alone, with their defaults."""
LACKING = {"adafactor": ("betas", "eps"), "lion": ("eps",)}
"""What an optimizer lacks of what the others share: Adafactor has no first moment, and two bounds
in place of `eps`; Lion divides by nothing."""
OTHER_DEFAULTS: dict[str, dict[str, Any]] = {
    "adafactor": {"weight_decay": 0.0},
    "lion": {"betas": (0.9, 0.99)},
}
"""Defaults of one optimizer. Adafactor's rates are relative to the size of a parameter: decay at a
rate of 1e-2 by 0.1 would shrink a parameter faster than its updates can make it grow. Lion's are
those of its paper (arXiv:2302.06675, Program 1)."""


LEAST_EPS1 = 1e-18
"""Its square is a number that fp32 holds in full."""


class Optimizer(Declaration):
    """The optimizer's settings. Those of `muon` that AdamW has too are those of the AdamW that the
    parameters besides matrices learn by; the weight decay is that of both."""

    kind: str = "adamw"
    betas: tuple[float, ...] = attribute(
        nk.Betas(),
        (0.9, 0.95),
        doc="decay rates of the moments; by default [0.9, 0.99] for `lion`, of whose one moment "
        "the first is the share in an update and the second the decay rate",
    )
    weight_decay: float | Schedule = attribute(
        cs.Setting(nk.Real(least=0)),
        0.1,
        doc="weight decay, decoupled but for `adam`; by default 0 for `adafactor`; applies to the "
        "parameters set by `decay`",
    )
    decay: str = attribute(
        k.OneOf("all", "matrices"),
        "all",
        doc="parameters that decay: all, or `matrices` without norms, biases and embeddings",
    )
    eps: float = attribute(nk.Real(above=0), 1e-8, doc="added to the denominator")
    momentum: float | None = attribute(
        nk.Real(least=0, below=1),
        None,
        otherwise="0.95",
        doc="decay rate of the momentum of `muon`",
    )
    nesterov: bool | None = attribute(
        k.Flag(), None, otherwise="`true`", doc="Nesterov's form of that momentum"
    )
    ns_steps: int | None = attribute(
        nk.Whole(most=99),
        None,
        otherwise="5",
        doc="iterations of Newton–Schulz, by which `muon` makes its updates orthogonal",
    )
    adjust_lr: str | None = attribute(
        k.OneOf(*ADJUST_LR),
        None,
        otherwise="`match_rms_adamw`",
        doc="factor on the rate of a matrix of A rows and B columns: `match_rms_adamw` "
        "0.2 √max(A, B), so that rates and decay suit AdamW's parameters too (arXiv:2502.16982 "
        "§2.2); `original` √max(1, A / B); `spectral_unclamped` √(A / B)",
    )

    qk_clip: float | None = attribute(
        nk.Real(above=0),
        None,
        otherwise="none",
        doc="the largest attention score of a head: where it is above, the weights of the head's "
        "queries and keys are made smaller after the step (QK-clip of `muon`)",
    )

    beta2_decay: float | None = attribute(
        nk.Real(above=0),
        None,
        otherwise="0.8",
        doc="how the decay rate of the squares of `adafactor` rises: in its step t it is "
        "1 − t^−`beta2_decay`",
    )
    eps1: float | None = attribute(
        nk.Real(least=LEAST_EPS1),
        None,
        otherwise="1e-15",
        doc="the least that `adafactor` divides a gradient by",
    )
    eps2: float | None = attribute(
        nk.Real(least=0),
        None,
        otherwise="0.001",
        doc="the least size of a parameter, its root mean square, by which its rate is multiplied",
    )
    d: float | None = attribute(
        nk.Real(above=0),
        None,
        otherwise="1",
        doc="the largest root mean square of an update of `adafactor`, before the rate",
    )
    scale_parameter: bool | None = attribute(
        k.Flag(),
        None,
        otherwise="`true`",
        doc="whether rates of `adafactor` are relative to the size of a parameter",
    )

    def own(self) -> dict[str, Any]:
        """The settings of this optimizer alone, with the defaults of those that are left out."""
        return {
            name: default if getattr(self, name) is None else getattr(self, name)
            for name, default in OWN.get(self.kind, {}).items()
        }


OPTIMIZERS = g.Optimizers(
    tags=("adamw", "adam", "muon", "adafactor", "lion"),
    names=("adamw", "adam", "muon", "adafactor", "lion", "last"),
    holds=Optimizer,
    typical="betas = [0.9, 0.95], weight_decay = 0.1",
    what="an optimizer",
    help="write `adamw { betas = [0.9, 0.95], weight_decay = 0.1 }` or `last`",
    foreign="optimizer",
    defaults=OTHER_DEFAULTS,
)
