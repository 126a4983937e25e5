"""Placements that would separate what has to be together, or what has to stay the same."""

from collections.abc import Iterable, Sequence

from ...spec import schedule as sc
from ...spec.findings.diagnostics import Report
from ...spec.schema import recipe as r
from ...spec.schema.convert_schedule import DIALOGS
from ..placement import no_graphs
from ..program import Segment, TrainStage
from ..tensor_widths import shared_keys

_ONE_ROW = (
    "responses are compared with each other, so a row must stay on one rank: write "
    "`parallel = { tensor … }`, or `{ shard … }`"
)
_ALL_TOKENS = (
    "all tokens are compared at each place, so a rank must have them all: write "
    "`parallel = { shard … }`"
)
_WHOLE_ROWS = (
    "its kernels read documents from their beginning to their end: write `attention = flex`, or "
    "leave out `context`"
)
_ANY_LENGTH = (
    "a batch of dialogs has rows of any length: write `parallel = { tensor … }`, or let the batch "
    "count sequences: `batch = 64 seqs`"
)


def together(spec: r.Training, parallel: Sequence[sc.Segment], report: Report) -> None:
    """Reports placements that would separate responses that are compared with each other, tokens
    that are, or rows of any length."""
    for segment in parallel:
        for name in spec.unplaceable:
            if segment.end.get(name, 1) > 1:
                inherited = ", which it would inherit" if spec.parallel is None else ""
                kind = (
                    "`attention = varlen`" if _cut(spec, name) else f"a stage of kind {spec.kind}"
                )
                report.add(
                    "E519",
                    f"{kind} cannot use {name} parallelism{inherited}",
                    segment.span,
                    help=_why(spec, name),
                )


def unfit(stage: TrainStage, segments: Sequence[Segment], report: Report) -> None:
    """Reports what the placements of a stage do not allow."""
    replayed(stage, segments, report)
    sent(stage, segments, report)
    same_keys(stage, segments, report)


def sent(stage: TrainStage, segments: Iterable[Segment], report: Report) -> None:
    """Reports a stage that says how tokens reach experts on other GPUs, and has none there."""
    written = stage.spec.dispatcher
    if written in (None, "all_to_all") or stage.spec.parallel == sc.AUTO:
        return
    meshes = [each.resources for each in segments if each.resources.device != "cpu"]
    if meshes and all(mesh.expert == 1 for mesh in meshes):
        report.add(
            "E568",
            f"`dispatcher = {written}` sends tokens to other GPUs, and each has all experts here",
            stage.spec.at("dispatcher"),
            help="write `parallel = { expert 8 }`, or remove `dispatcher`",
        )


def same_keys(stage: TrainStage, segments: Iterable[Segment], report: Report) -> None:
    """Reports what changes heads of keys and values that several tensor ranks share."""
    adapter = stage.spec.adapter
    changed = "adapters of attention" if adapter and "attention" in adapter.on else ""
    changed = changed or ("heads that `qk_clip` clips" if stage.optimizer.qk_clip else "")
    degrees = {each.resources.tensor for each in segments}
    degrees = {degree for degree in degrees if shared_keys(stage.model, degree)}
    if changed and degrees:
        report.add(
            "E433",
            f"tensor {min(degrees)} does not divide the model's {stage.model.kv_heads} kv_heads, "
            f"and ranks cannot share {changed}",
            stage.spec.at("parallel" if stage.spec.parallel else "adapter"),
            help="write a degree that divides them"
            + (", or `on = [feed_forward]`" if adapter else ""),
        )


def replayed(stage: TrainStage, segments: Iterable[Segment], report: Report) -> None:
    """Reports a stage that asks for CUDA graphs and cannot have them on GPUs."""
    told = stage.spec.torchtitan and stage.spec.torchtitan.training
    if not told or told.disable_cuda_graphs is not False:
        return
    found = (
        no_graphs(stage, each.resources) for each in segments if each.resources.device != "cpu"
    )
    if reason := next(filter(None, found), None):
        report.add(
            "E429",
            f"a CUDA graph cannot replay the steps of this stage: {reason}",
            told.at("disable_cuda_graphs"),
            help="remove `disable_cuda_graphs`",
        )


def _cut(spec: r.Training, name: str) -> bool:
    """Whether the attention of a stage needs rows that context parallelism would cut."""
    return name == "context" and spec.attention == "varlen" and spec.uniform


def _why(spec: r.Training, name: str) -> str:
    """Why a stage cannot use a kind of parallelism, and what to write."""
    if name in spec.apart:
        return _ALL_TOKENS
    if _cut(spec, name):
        return _WHOLE_ROWS
    return _ANY_LENGTH if spec.counts == DIALOGS else _ONE_ROW
