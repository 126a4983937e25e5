"""What stages compute in, what they recompute, and by what they attend: `precision`, `recompute`
and `attention`."""

from fractions import Fraction
from typing import Any

from .. import syntax as s
from ..findings.diagnostics import did_you_mean
from ..quantity import plain
from . import group_kinds as g
from . import kinds as k
from .convert import Invalid, quantity
from .declaration import Declaration, attribute
from .number_kinds import Whole

PARTS = ("attention", "feed_forward", "experts", "shared_experts", "router", "output")
"""The parts of a model that have matrix products."""
RECIPES = ("rowwise", "rowwise_with_gw_hp")
"""torchao's recipes of fp8 that torchtitan has (torchtitan 0.3, `quantization/float8.py`)."""


class Parts(k.Name):
    """A list of parts of a model: of `among`."""

    def __init__(self, among: tuple[str, ...] = PARTS) -> None:
        super().__init__(many=True, known=among)

    @property
    def example(self) -> str:
        return f"[{', '.join(self.known[:2])}]"

    def takes(self, name: str) -> str:
        return f"list of {k.listed(self.known)}"

    def shown(self, value: Any) -> str:
        return f"[{', '.join(value)}]"

    def read(self, value: s.Value) -> tuple[str, ...]:
        if isinstance(value, s.List) and not value.items:
            return ()
        found = super().read(value)
        assert isinstance(value, s.List)
        for part, item in zip(found, value.items, strict=True):
            if part not in self.known:
                raise Invalid(
                    "E202",
                    f"`{part}` is not one of {', '.join(self.known)}",
                    item.span,
                    help=did_you_mean(part, self.known),
                )
        return tuple(found)


class Precision(Declaration):
    """What the matrix products of a stage are computed in; the rest of fp8, mxfp8 and nvfp4 is
    bf16."""

    kind: str = "bf16"
    recipe: str | None = attribute(
        k.OneOf(*RECIPES, foreign="precision"),
        None,
        otherwise="`rowwise`",
        doc="how tensors are scaled, `fp8` only; `rowwise_with_gw_hp` has gradients of weights in "
        "bf16",
    )
    except_: tuple[str, ...] = attribute(
        Parts(), ("output", "router"), name="except", doc="parts of the model that stay in bf16"
    )
    bf16_first: int = attribute(
        Whole(least=0), 0, doc="layers that stay in bf16, from the first on"
    )
    bf16_last: int = attribute(Whole(least=0), 0, doc="layers that stay in bf16, up to the last")

    @property
    def low(self) -> bool:
        """Whether matrix products are in 8 or 4 bits."""
        return self.kind not in ("bf16", "fp32")

    @property
    def scaling(self) -> str:
        """The recipe of fp8; "" for others."""
        return (self.recipe or RECIPES[0]) if self.kind == "fp8" else ""

    def shown(self) -> str:
        """As a spec writes it, with what is left out."""
        if not self.low:
            return self.kind
        given = {
            "recipe": self.scaling,
            "except": f"[{', '.join(self.except_)}]",
            "bf16_first": str(self.bf16_first or ""),
            "bf16_last": str(self.bf16_last or ""),
        }
        said = ", ".join(f"{name} = {value}" for name, value in given.items() if value)
        return f"{self.kind} {{ {said} }}"


PRECISION = g.Tagged(
    tags=("fp8", "mxfp8", "nvfp4"),
    names=("bf16", "fp32", "fp8", "mxfp8", "nvfp4"),
    holds=Precision,
    typical="except = [output, router]",
    what="a precision",
    help="write `bf16`, `fp32`, `fp8`, `mxfp8`, `nvfp4`, or `fp8 { except = [output] }`",
    foreign="precision",
)


class Recompute(k.OneOf):
    """`none`, `selective`, `full`, or `budget 60%` → "budget 60%"."""

    word = "budget"

    def __init__(self) -> None:
        super().__init__("none", "selective", "full", foreign="recompute")

    def takes(self, name: str) -> str:
        return f"{', '.join(f'`{one}`' for one in self.names)} or `{self.word} 60%`"

    def read(self, value: s.Value) -> str:
        if isinstance(value, s.Path) and value.name == self.word:
            message = f"`{self.word}` needs the share of the memory that it keeps"
            raise Invalid("E202", message, value.span, help=f"write `{self.word} 60%`")
        if not isinstance(value, s.Sized):
            return super().read(value)
        share = quantity(value.size, ["%"]).value
        if share > 1:
            raise Invalid("E208", "this must be at most 100%", value.size.span)
        return f"{self.word} {plain(share * 100)}%"


ATTENTION: Any = attribute(
    k.OneOf("flex", "flex_flash", "varlen", foreign="attention"),
    None,
    otherwise="`flex`",
    inherits=None,
    doc="the [kernels of attention](#attention) on GPUs; changes results only by rounding",
)
"""torchtitan's backends of attention (torchtitan 0.3, `models/common/config_utils.py`)."""

DISPATCHER: Any = attribute(
    k.OneOf("all_to_all", "deepep", "hybridep", "minimal_async_ep", foreign="dispatcher"),
    None,
    otherwise="`all_to_all`",
    inherits=None,
    doc="how tokens [reach the experts](#dispatcher) on other GPUs; changes results only by "
    "rounding",
)
"""torchtitan's token dispatchers (torchtitan 0.3, `models/common/config_utils.py`)."""


def budget(recompute: str) -> Fraction | None:
    """The share of "budget 60%"; None for other ways."""
    word, _, share = recompute.partition(" ")
    return Fraction(share.removesuffix("%")) / 100 if word == Recompute.word else None
