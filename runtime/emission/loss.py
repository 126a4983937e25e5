"""The loss of a job under torchtitan."""

from collections.abc import Iterator, Sequence

from ...compiler.plan.plan import NextToken, Sft, TrainJob
from ...compiler.values import LrPiece


def lacks(job: TrainJob) -> str | None:
    """What torchtitan's loss lacks of a job's, so that it cannot run it; None if nothing."""
    terms = isinstance(job.objective, NextToken | Sft) and job.objective.terms()
    if job.schedule.mtp_loss and terms:
        return f"torchtitan's loss of further tokens has no {' and no '.join(terms)}"
    return None


def loss(job: TrainJob) -> Iterator[str]:
    """torchtitan's cross-entropy, or its loss of further tokens; with other terms, etude's loss,
    whose sum torchtitan shows."""
    assert isinstance(job.objective, NextToken | Sft)
    if pieces := job.schedule.mtp_loss:
        most = max(max(piece.start, piece.end) for piece in pieces)
        yield "        loss=MTPLoss.Config("
        yield f"            mtp_scale={most!r}, global_vocab_size={job.model.vocab}"
        yield "        ),"
        return
    terms, kind, rest = job.objective.terms(), "CrossEntropyLoss", ""
    if terms:
        kind, rest = "LanguageLoss", f", terms={terms!r}"
    yield "        loss=ChunkedLossWrapper.Config("
    yield f"            loss_fn={kind}.Config(global_vocab_size={job.model.vocab}{rest})"
    yield "        ),"


def changes(pieces: Sequence[LrPiece]) -> bool:
    """Whether a setting has several values."""
    return len(pieces) > 1 or pieces[0].shape != "hold"


def of_modules(job: TrainJob) -> dict[str, bool]:
    """What torchtitan does otherwise with modules of further tokens → whether there are some."""
    experts = job.model.experts
    return {
        "the experts of the modules of further tokens are not balanced, and their layers are "
        "neither recomputed nor compiled": bool(job.model.mtp and experts and experts.balance),
    }
