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


class Optimizer(Declaration):
    """The optimizer's settings. Those of `muon` that AdamW has too are those of the AdamW that the
    parameters besides matrices learn by; the weight decay is that of both."""

    kind: str = "adamw"
    betas: tuple[float, ...] = attribute(nk.Betas(), (0.9, 0.95), doc="decay rates of the moments")
    weight_decay: float | Schedule = attribute(
        cs.Setting(nk.Real(least=0)),
        0.1,
        doc="weight decay, decoupled for `adamw`; applies to the parameters set by `decay`",
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

    def of_muon(self) -> dict[str, Any]:
        """The settings of Muon alone, with the defaults of those that are left out."""
        given = {name: getattr(self, name) for name in MUON}
        return {name: MUON[name] if value is None else value for name, value in given.items()}


OPTIMIZERS = g.Optimizers(
    tags=("adamw", "adam", "muon"),
    names=("adamw", "adam", "muon", "last"),
    holds=Optimizer,
    typical="betas = [0.9, 0.95], weight_decay = 0.1",
    what="an optimizer",
    help="write `adamw { betas = [0.9, 0.95], weight_decay = 0.1 }` or `last`",
    foreign="optimizer",
)
