"""The groups and blocks of attributes in stages that train."""

from fractions import Fraction
from typing import Literal

from ..quantity import Quantity
from . import group_kinds as g
from . import kinds as k
from . import number_kinds as nk
from .declaration import Declaration, attribute


class Polyak(Declaration):
    """Averaging of weights over the steps of a stage or of its last part."""

    every: int = attribute(nk.Whole("steps"), doc="steps between the averaged weights")
    over: Quantity | None = attribute(
        nk.LENGTH,
        None,
        otherwise="the whole stage",
        doc="the last part of the stage to average over",
    )


POLYAK = g.Periodic(
    holds=Polyak,
    word="polyak",
    what="a way of averaging",
    help="write `polyak every 1 step`, or `polyak every 10 steps over 50%`",
    foreign="average",
)


class Needle(Declaration):
    """The grid of a needle-in-a-haystack evaluation."""

    lengths: list[int] | None = attribute(
        nk.Wholes("tokens"),
        None,
        otherwise="the stage's last length; in a gate see [gates](#gates)",
        doc="lengths of prompt and answer together",
    )
    depths: int = attribute(
        nk.Whole(most=nk.MOST),
        5,
        doc="number of positions of the secret, evenly from beginning to end",
    )
    samples: int = attribute(nk.Whole(most=nk.MOST), 4, doc="prompts for each length and depth")


class Requirement(Declaration):
    """A condition of a gate."""

    measure: str
    argument: str | None
    op: Literal[">=", "<=", ">", "<"]
    value: Fraction
    of_start: bool


class Gate(Declaration):
    """What has to hold before a sequence length may be increased."""

    requirements: list[Requirement]
    extend: Quantity | None = None
    attempts: int = 0
    needle: Needle = attribute(
        g.Group(Needle, "depths = 5, samples = 4"),
        Needle(),
        doc="the [grid](#needle) of `require needle`",
    )


class Profile(Declaration):
    """What torchtitan's profiler records of a stage."""

    steps: list[int] = attribute(
        nk.Consecutive(),
        doc="steps of the stage, from 0, the last included: `[10..12]` are three",
    )
    memory: bool = attribute(
        k.Flag(), False, doc="also record what a GPU's memory holds, and where it was allocated"
    )
    ranks: str = attribute(
        k.OneOf("first", "all"),
        "first",
        doc="`first`: only rank 0 records; `all`: every rank writes files",
    )


BACK = 100
"""Steps that a rollback goes back at least, as PaLM's did (arXiv:2204.02311, §5.1)."""
ROLLBACKS = 10
"""Rollbacks of a job, after which the run stops."""


class Spikes(Declaration):
    """What happens to a step whose gradient is far larger than usual."""

    do: str = attribute(
        k.OneOf("skip", "rollback", "stop", "nothing"),
        doc="`skip`: the weights stay as they are, and the step's data are not used; `rollback`: "
        "training goes back to an earlier checkpoint, and reads later data; `stop`: the run stops "
        "before the step; `nothing`: the step is taken",
    )
    above: float = attribute(
        nk.Real(least=1),
        10.0,
        doc="a gradient norm of more than so many times the usual one is a spike",
    )
    back: int | None = attribute(
        nk.Whole("steps", most=nk.MOST),
        None,
        otherwise="100 steps",
        doc="for `rollback`: how many steps before the spike the checkpoint lies at least",
    )
    at_most: int | None = attribute(
        nk.Whole(most=nk.MOST),
        None,
        otherwise="10",
        doc="for `rollback`: how often a job goes back before the run stops; changes no result",
    )
