"""What stages train in place of all weights: `adapter`."""

from math import sqrt

from . import group_kinds as g
from . import kinds as k
from . import number_kinds as nk
from .declaration import Declaration, attribute
from .precision import Parts

ADAPTED = ("attention", "feed_forward")
"""The parts of a model that can have adapters: those with linear layers that every token takes."""


class Adapter(Declaration):
    """Low-rank adapters (LoRA, arXiv:2106.09685): beside a frozen matrix W, the product of a matrix
    B of `rank` columns and a matrix A of `rank` rows."""

    kind: str = "lora"
    rank: int = attribute(nk.Whole(), 16, doc="rows of A and columns of B")
    alpha: float | None = attribute(
        nk.Real(above=0), None, otherwise="twice the rank", doc="numerator of the factor of B A"
    )
    over: str = attribute(
        k.OneOf("rank", "sqrt_rank"),
        "rank",
        doc="its denominator; `sqrt_rank` is rsLoRA (arXiv:2312.03732)",
    )
    on: tuple[str, ...] = attribute(
        Parts(ADAPTED), ADAPTED, doc="parts of the model whose matrices have adapters"
    )

    @property
    def factor(self) -> float:
        """What the product of the two matrices is multiplied by: alpha / rank (§4.1)."""
        alpha = 2.0 * self.rank if self.alpha is None else self.alpha
        return alpha / (sqrt(self.rank) if self.over == "sqrt_rank" else self.rank)

    def shown(self) -> str:
        """As a spec writes it, with what is left out."""
        alpha = 2 * self.rank if self.alpha is None else self.alpha
        given = f"rank = {self.rank}, alpha = {alpha:g}, over = {self.over}"
        return f"{self.kind} {{ {given}, on = [{', '.join(self.on)}] }}"


ADAPTER = g.Tagged(
    tags=("lora",),
    names=("lora",),
    holds=Adapter,
    typical="rank = 16, alpha = 32",
    what="an adapter",
    help="write `lora` or `lora { rank = 16, alpha = 32 }`",
    foreign="adapter",
)
