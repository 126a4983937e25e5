"""The attributes of stages that score, sample, average and measure."""

from collections.abc import Mapping
from typing import ClassVar

from ..quantity import Quantity
from ..reference import PAIRS
from . import group_kinds as g
from . import kinds as k
from . import number_kinds as nk
from .data_blocks import DATA
from .declaration import attribute
from .stage_groups import Needle
from .training_blocks import (
    DIALOG,
    EXPORT,
    EXPORTED,
    EXPORTS,
    WITH_WEIGHTS,
    Stage,
)

VERIFY = k.Name("verifier", many=True)


class Score(Stage):
    """Cross-entropy of every document of some datasets, for filters."""

    kind: ClassVar[str] = "score"
    has_weights: ClassVar[bool] = False
    continued: ClassVar[bool] = False
    scores: ClassVar[bool] = True
    from_: str | None = attribute(
        k.Ref(*WITH_WEIGHTS),
        None,
        name="from",
        otherwise="the nearest stage above that is not a reward model",
        doc="the model",
    )
    data: list[str] = attribute(
        k.Ref(*DATA, many=True), doc="documents to score, before filters by score"
    )
    seq_len: int | None = attribute(
        nk.Whole("tokens", least=2),
        None,
        otherwise="the last length of the stage",
        doc="documents are cut into windows of this many tokens",
    )


class Sample(Stage):
    """Rejection sampling: draws for every prompt; verifiers keep right ones, a judge the best."""

    kind: ClassVar[str] = "sample"
    has_weights: ClassVar[bool] = False
    continued: ClassVar[bool] = False
    offers: ClassVar[Mapping[str, str]] = {"": "dialogs", PAIRS: "preferences"}
    from_: str | None = attribute(
        k.Ref(*WITH_WEIGHTS),
        None,
        name="from",
        otherwise="the nearest stage above that is not a reward model",
        doc="the model",
    )
    prompts: str = attribute(k.Ref(*DATA), takes="dataset of prompts", doc="the prompts to answer")
    draws: int = attribute(nk.Whole(most=nk.MOST), 1, doc="answers to each prompt")
    temperature: float = attribute(nk.Real(least=0), 1.0, doc="0 is greedy")
    top_p: float = attribute(nk.Real(above=0, most=1), 1.0, doc="nucleus sampling")
    max_tokens: int = attribute(nk.Whole("tokens"), doc="longest answer")
    judge: str | None = attribute(
        k.Judge(*WITH_WEIGHTS),
        None,
        takes="reward or prm stage, or model with weights",
        doc="scores every draw",
    )
    verify: list[str] | None = attribute(
        VERIFY, None, doc="a draw that any of them scores below 1 is wrong, and is not kept"
    )
    keep: int | None = attribute(
        nk.Draws(),
        None,
        otherwise="`best` with a judge, else `all`",
        doc="draws of each prompt that become dialogs",
    )
    dialog: str | None = attribute(
        DIALOG, None, otherwise="see [`dialog`](#dialog)", doc="the protocol"
    )


class Average(Stage):
    """The mean of the weights of other stages."""

    kind: ClassVar[str] = "average"
    of: list[str] = attribute(
        k.Ref(*WITH_WEIGHTS, many=True), doc="the models to average, all of the same shape"
    )
    weights: tuple[float, ...] | None = attribute(
        nk.Reals(),
        None,
        takes="list of numbers, 0 or more",
        otherwise="equal",
        doc="one per stage; scaled to add up to one",
    )
    export: str | None = attribute(EXPORT, None, otherwise=EXPORTED, doc=EXPORTS)


class Checkpoint(Stage):
    """A checkpoint in the middle of a stage, `after` some tokens, steps or percent of it."""

    kind: ClassVar[str] = "checkpoint"
    continued: ClassVar[bool] = False
    moment: ClassVar[bool] = True
    from_: str | None = attribute(
        k.Ref(*WITH_WEIGHTS),
        None,
        name="from",
        takes="stage",
        otherwise="the stage above",
        doc="a stage that trains, without `average`",
    )
    after: Quantity = attribute(
        nk.LENGTH, doc="how far into the stage; tokens are rounded to the nearest step"
    )


MEASURES = ("loss", "needle", "accuracy", "judge", "verify", "suites")
ANSWERING = ("judge", "verify")
"""Measures for which a model answers prompts."""


class Measuring(Stage):
    """What can be measured of a model: loss, needle, accuracy, reward, right answers and suites of
    tasks."""

    loss: list[str] | None = attribute(
        k.Ref(*DATA, many=True),
        None,
        doc="mean cross-entropy in nats per token on their held-out documents or dialogs, at most "
        "65,536 tokens of each",
    )
    seq_len: int | None = attribute(
        nk.Whole("tokens"),
        None,
        needs=("loss",),
        otherwise="the last length of the stage",
        doc="documents are cut into windows of this many tokens for `loss`",
    )
    needle: Needle | None = attribute(
        g.Group(Needle, "depths = 5, samples = 4"), None, doc="needle in a haystack, see below"
    )
    accuracy: list[str] | None = attribute(
        k.Ref(*DATA, many=True),
        None,
        takes="list of datasets of preferences",
        doc="share of held-out ordered pairs that a reward model ranks like people",
    )
    judge: str | None = attribute(
        k.Judge(*WITH_WEIGHTS),
        None,
        takes="reward or prm stage, or model with weights",
        doc="mean reward of the model's answers; needs `prompts` and `max_tokens`",
    )
    verify: list[str] | None = attribute(
        VERIFY,
        None,
        doc="share of the model's answers that each scores as right, and pass@k; needs `prompts` "
        "and `max_tokens`",
    )
    prompts: str | None = attribute(
        k.Ref(*DATA),
        None,
        needs=ANSWERING,
        takes="dataset of prompts",
        doc="the prompts to answer for the judge and the verifiers",
    )
    draws: int = attribute(nk.Whole(most=nk.MOST), 1, needs=ANSWERING, doc="answers to each prompt")
    limit: int | None = attribute(
        nk.Whole(most=nk.MOST),
        None,
        needs=(*ANSWERING, "suites"),
        otherwise="256 prompts; all documents of a task",
        doc="the most prompts or documents",
    )
    max_tokens: int | None = attribute(
        nk.Whole("tokens"), None, needs=ANSWERING, doc="longest answer"
    )
    temperature: float = attribute(
        nk.Real(least=0), 1.0, needs=ANSWERING, doc="sampling temperature of the answers"
    )
    dialog: str | None = attribute(
        DIALOG,
        None,
        needs=ANSWERING,
        otherwise="see [`dialog`](#dialog)",
        doc="the protocol of the answers",
    )
    suites: dict[str, list[str]] | None = attribute(
        k.Suites(), None, doc="tasks of lm-evaluation-harness, grouped by capability (extra `eval`)"
    )
    tasks: str | None = attribute(
        k.Text(),
        None,
        needs=("suites",),
        doc="a folder with your own task files, relative to the spec's folder",
    )


class Ensemble(Stage):
    """Several reward models that judge as one (arXiv:2310.02743)."""

    kind: ClassVar[str] = "ensemble"
    judges: ClassVar[bool] = True
    has_weights: ClassVar[bool] = False
    writes_text: ClassVar[bool] = False
    continued: ClassVar[bool] = False
    of: list[str] = attribute(
        k.Ref(*WITH_WEIGHTS, many=True),
        takes="list of reward or prm stages, or models with weights",
        doc="the reward models, two or more",
    )
    combine: str = attribute(
        k.OneOf("mean", "minimum", "minus_std", "minus_variance"),
        "mean",
        doc="their scores of an answer as one: `minus_std` and `minus_variance` are the mean minus "
        "`penalty` times the standard deviation or the variance",
    )
    penalty: float | None = attribute(
        nk.Real(above=0),
        None,
        needs=("combine",),
        otherwise="1",
        doc="how much it costs that they disagree; with `minus_std` and `minus_variance`",
    )


class Evaluate(Measuring):
    """Measures a stage's result."""

    kind: ClassVar[str] = "evaluate"
    has_weights: ClassVar[bool] = False
    continued: ClassVar[bool] = False
    from_: str | None = attribute(
        k.Ref(*WITH_WEIGHTS),
        None,
        name="from",
        otherwise="the nearest stage above that is not a reward model",
        doc="the model to measure",
    )


class Best(Measuring):
    """The best of several stages by one measure."""

    kind: ClassVar[str] = "best"
    ways: ClassVar[tuple[tuple[str, ...], ...]] = (MEASURES,)
    of: list[str] = attribute(
        k.Ref(*WITH_WEIGHTS, many=True), doc="the models to choose from, all of the same shape"
    )
