"""Losses on held-out data of a model that is being trained, as its trainer has it."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.distributed as dist

from ....compiler.plan.measures import LossMeasure
from ....compiler.plan.objectives import makes_logits
from ....compiler.plan.plan import Dpo, Reward, TrainJob
from ...data.order.packing import compared
from ...data.order.stream import IGNORE
from ...data.records.shards import SUMMARY, Record, Records
from ...errors import DataError
from ..loader import check_vocab
from ..objectives import LanguageLoss, preference_figures, reported
from ..records.rewards import compared as compared_scores
from ..records.rewards import reward_figures
from ..records.rows import Row, ask_ends, ask_tokens, check_length, lay_out, read_reference
from ..records.solutions import labels, laid_out, step_losses
from .held_out import nothing_held_out, windows
from .walk import Ask, said, sums, together

if TYPE_CHECKING:
    from ..trainer import Trainer

Measuring = Callable[[], dict[str, float]]
"""Measures a loss, `score`, and what comes with it; all ranks call this together."""
Batch = tuple[dict[str, torch.Tensor], torch.Tensor]


def measuring(
    trainer: "Trainer", job: TrainJob, measure: LossMeasure, folder: Path, reference: Path | None
) -> Measuring:
    """How a job's trainer measures a loss: of tokens of documents and dialogs, or the objective's
    on preferences or on the steps of answers.

    Args:
        folder: of the data.
        reference: the result of a reference job, if the objective compares preferences with one.

    Raises: DataError: nothing is held out, or it does not fit the model.
    """
    (source,) = measure.data
    held = Records(folder, "heldout") if (folder / SUMMARY).is_file() else None
    if held and held.form == "solutions":
        return _steps(trainer, job, measure, held, source)
    if held and held.form == "preferences":
        records = held
        if isinstance(job.objective, Reward):
            return _ranks(trainer, job, measure, records, source)
        assert isinstance(job.objective, Dpo)
        return _prefers(trainer, job, measure, records, source, reference)
    rows = windows(measure, job, folder, source).rows
    if makes_logits(job.objective):
        tokens = sum(len(row.targets[0]) for row in rows)
        return partial(_tokens_of_sequences, trainer, _sequences(trainer, job, rows), tokens)
    return partial(_tokens_of_rows, trainer, job, rows)


# Documents and dialogs, for models that make logits


def _tokens_of_sequences(
    trainer: "Trainer", batches: Sequence[Batch], tokens: int
) -> dict[str, float]:
    """The mean cross-entropy of the labels in this rank's batches, in nats."""
    loss = reported(trainer.loss_fn)
    terms = loss if isinstance(loss, LanguageLoss) else None
    if terms:
        terms.plain = True
    try:
        total = torch.stack([*trainer.summed_losses(batches)]).sum()
    finally:
        if terms:
            terms.plain = False
    mesh = trainer.parallel_dims.get_optional_mesh("loss")
    if mesh is not None:
        dist.all_reduce(total, group=mesh.get_group())
    if dist.get_world_size() > 1:  # a pipeline's last stage alone knows it
        dist.all_reduce(total, dist.ReduceOp.MAX)
    return {"score": total.item() / tokens, "tokens": tokens}


def _sequences(trainer: "Trainer", job: TrainJob, rows: Sequence[Row]) -> list[Batch]:
    """This rank's batches of sequences into which the rows are packed, in their order; sequences
    without a label fill up the last batches, so that all ranks have as many."""
    packed: list[list[Row]] = []
    room = 0
    for row in rows:
        if len(row.tokens) > room:
            packed.append([])
            room = job.seq_len
        packed[-1].append(row)
        room -= len(row.tokens)
    mesh = trainer.batch_mesh
    rank, ranks = (mesh.get_local_rank(), mesh.size()) if mesh is not None else (0, 1)
    local, together = trainer.loader.local_batch, trainer.num_pipeline_parallel_microbatches
    whole = local * ranks * together
    packed += [[] for _ in range(-len(packed) % whole)]
    made = []
    for begin in range(rank * local, len(packed), local * ranks):
        made.append(_sequence_batch(packed[begin : begin + local], job.seq_len))
    return made


def _sequence_batch(packed: Sequence[Sequence[Row]], length: int) -> Batch:
    """Rows one behind the other, as training has documents; padding is one more document."""
    shape = (len(packed), length)
    inputs, positions = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    labels = np.full(shape, IGNORE, np.int64)
    for number, rows in enumerate(packed):
        begin = 0
        for row in rows:
            end = begin + len(row.tokens)
            inputs[number, begin:end] = row.tokens
            positions[number, begin:end] = row.positions
            labels[number, begin + row.places[0]] = row.targets[0]
            begin = end
        positions[number, begin:] = np.arange(length - begin)
    tensors = {"input": torch.from_numpy(inputs), "positions": torch.from_numpy(positions)}
    return tensors, torch.from_numpy(labels)


# Rows, for models that are asked about places


def _asked(
    trainer: "Trainer", job: TrainJob, rows: Sequence[Row], ask: Ask, responses: int
) -> np.ndarray:
    """For each row and response, the sum of the model's outputs and how many they are: float64,
    shape (rows, 2, responses), on all ranks."""
    every = said(trainer, job, [*enumerate(rows)], ask)
    return together(trainer, sums(every, (len(rows), 2, responses)))


def _tokens_of_rows(trainer: "Trainer", job: TrainJob, rows: Sequence[Row]) -> dict[str, float]:
    found = _asked(trainer, job, rows, partial(ask_tokens, mask="none"), 1)[:, :, 0]
    nats, tokens = found.sum(0)
    return {"score": float(nats / tokens), "tokens": int(tokens)}


def _read(
    job: TrainJob, measure: LossMeasure, records: Records, source: str, what: str = "preferences"
) -> Iterator[tuple[int, Record]]:
    """Held-out preferences or solutions and their numbers, until they have `measure.tokens` tokens.

    Raises: DataError: there are none, or one does not fit the model.
    """
    if not records.count:
        raise nothing_held_out(source, what, "loss")
    total = 0
    for number in range(records.count):
        record = records.record(number)
        check_vocab(record.tokens, source, job.model.vocab)
        check_length(len(record.tokens), job.seq_len, source, number)
        yield number, record
        total += len(record.tokens)
        if total >= measure.tokens:
            return


def _ranks(
    trainer: "Trainer", job: TrainJob, measure: LossMeasure, records: Records, source: str
) -> Measuring:
    """The loss of a reward model over all ordered pairs of a record's responses."""
    objective = job.objective
    assert isinstance(objective, Reward)
    rows, responses, margins = [], [], []
    for number, record in _read(job, measure, records, source):
        count = len(record.branches) - 1
        rows += [lay_out(record, [place], "pairs") for place in range(count)]
        responses.append(count)
        margins.append(0.0 if records.margins is None else float(records.margins[number]))
    pairs, _ = compared_scores(objective, responses)
    pairs["margins"] = torch.tensor(margins, dtype=torch.float64)

    def measured() -> dict[str, float]:
        scores = torch.from_numpy(_asked(trainer, job, rows, ask_ends, 1)[:, 0, 0])
        losses, right, margin = reward_figures(objective, scores, pairs)
        return _compared(losses, right, margin) | {"pairs": len(losses)}

    return measured


def _steps(
    trainer: "Trainer", job: TrainJob, measure: LossMeasure, records: Records, source: str
) -> Measuring:
    """The loss of a process reward model over the steps of answers."""
    objective: Any = job.objective
    rows, right = [], []
    for _, record in _read(job, measure, records, source, "solutions"):
        rows.append(laid_out(record, objective))
        right.append(labels(record, objective))
    most, known = max(map(len, right)), torch.tensor([label for of in right for label in of])

    def measured() -> dict[str, float]:
        found = _asked(trainer, job, rows, ask_ends, most)[:, 0]
        said = [found[row, : len(of)] for row, of in enumerate(right)]
        scores = torch.from_numpy(np.concatenate(said))
        return {
            "score": step_losses(scores, known).mean().item(),
            "accuracy": ((scores > 0) == known).double().mean().item(),
            "steps": len(scores),
        }

    return measured


def _prefers(
    trainer: "Trainer",
    job: TrainJob,
    measure: LossMeasure,
    records: Records,
    source: str,
    reference: Path | None,
) -> Measuring:
    """The loss of DPO, of the best response of each record against the worst."""
    objective: Any = job.objective
    rows, pairs = [], []
    for number, record in _read(job, measure, records, source):
        responses = compared(len(record.branches) - 1, ends=True)
        rows.append(lay_out(record, responses, objective.layout))
        pairs.append((number, [responses[0], responses[-1]]))
    references = None
    if reference is not None:
        known = read_reference(reference / "reference.npy", records.count, source)
        theirs = np.stack([known[number][ends] for number, ends in pairs])
        if np.isnan(theirs).any():
            raise DataError(
                f"the reference log-probabilities of `{source}` do not match its held-out "
                "responses",
                "remove the artifact of the reference; the next run rebuilds it",
            )
        references = torch.from_numpy(theirs).double()

    def measured() -> dict[str, float]:
        ask = partial(ask_tokens, mask=objective.mask)
        found = torch.from_numpy(_asked(trainer, job, rows, ask, 2))
        figures = preference_figures(objective, found[:, 0], found[:, 1], references)
        margin = figures["margin"]
        return _compared(figures["loss"], margin > 0, margin) | {"pairs": len(rows)}

    return measured


def _compared(losses: torch.Tensor, right: torch.Tensor, margin: torch.Tensor) -> dict[str, float]:
    """Means over pairs or records: of the loss, of how far they are in order, and of the margin."""
    return {
        "score": losses.mean().item(),
        "accuracy": right.double().mean().item(),
        "margin": margin.mean().item(),
    }
