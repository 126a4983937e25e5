"""Held-out data as rows, and measures of a model's outputs on them: losses and accuracies."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, groupby
from math import fsum
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np

from ....compiler.plan.measures import AccuracyMeasure, HeldOut, LossMeasure
from ....compiler.plan.plan import HeldOutJob, Prm, TrainJob
from ...data.records.shards import SUMMARY, Records
from ...data.tokens.shards import Shards
from ...errors import DataError
from ...standard_errors import clustered_error
from ..loader import check_vocab
from ..records.rows import Row, check_length, dialog_row, lay_out, window
from ..records.solutions import laid_out


@dataclass(frozen=True)
class Data:
    """The rows of a source.

    Attributes:
        responses: for preferences, the number of responses of each record.
        documents: for documents, the number of the one that each row is a window of.
        right: for solutions, whether each of the steps of a record is right.
    """

    rows: Sequence[Row]
    responses: Sequence[int] = ()
    documents: Sequence[int] = ()
    right: Sequence[Sequence[bool]] = ()

    @property
    def most(self) -> int:
        """The most responses of a row."""
        return max(len(row.parts) for row in self.rows)

    def row(self, number: int) -> Sequence[Row]:
        """The rows of one item of a walk."""
        return [self.rows[number]]


def rows_of(measure: HeldOut, job: HeldOutJob, folder: Path, source: str) -> Data:
    """The data of one source for a measure.

    Raises: DataError: nothing is held out, or a token is not in the model's vocabulary.
    """
    if isinstance(measure, AccuracyMeasure):
        read = ranked if measure.of == "preferences" else stepped
        return read(measure, job, folder, source)
    return windows(measure, job, folder, source)


def windows(measure: LossMeasure, job: HeldOutJob | TrainJob, folder: Path, source: str) -> Data:
    """Held-out documents cut into windows of at most seq_len + 1 tokens, or dialogs, one per row;
    with `measure.tokens` labels in total, or up to a window more.

    Raises: DataError: there are none, or a token is not in the model's vocabulary.
    """
    rows: list[Row] = []
    numbers: list[int] = []
    total = 0
    dialogs = (folder / SUMMARY).is_file()
    made = _dialogs(measure, job, folder, source) if dialogs else _documents(measure, folder)
    for number, row in made:
        check_vocab(row.tokens, source, job.model.vocab)
        check_vocab(row.targets[0], source, job.model.vocab)
        rows.append(row)
        numbers.append(number)
        total += len(row.targets[0])
        if total >= measure.tokens:
            break
    if not rows:
        what = "dialogs" if dialogs else "documents"
        raise nothing_held_out(source, what, "loss")
    return Data(rows, documents=numbers)


def _documents(measure: LossMeasure, folder: Path) -> Iterator[tuple[int, Row]]:
    shards = Shards(folder, "heldout")
    for number in range(shards.documents):
        tokens = shards.document(number).astype(np.int64)
        for begin in range(0, len(tokens) - 1, measure.seq_len):
            yield number, window(tokens[begin : begin + measure.seq_len + 1])


def _dialogs(
    measure: LossMeasure, job: HeldOutJob | TrainJob, folder: Path, source: str
) -> Iterator[tuple[int, Row]]:
    records = Records(folder, "heldout")
    for number in range(records.count):
        record = records.record(number)
        check_length(len(record.tokens), job.seq_len, source, number)
        row = dialog_row(record, every_token=measure.every_token)
        if len(row.targets[0]):
            yield number, row


def loss(found: Mapping[str, tuple[Data, np.ndarray]]) -> dict[str, Any]:
    """{"score", "stderr", "tokens", "sources": source → loss}, in nats per token. The standard
    error takes the tokens of a document or dialog for dependent on each other.

    Args:
        found: source → its rows, with the sum of cross-entropies and the number of tokens of each.
    """
    sums = {source: values.sum((0, 2)) for source, (_, values) in found.items()}
    nats, tokens = np.sum([*sums.values()], axis=0)
    return {
        "score": float(nats / tokens),
        "stderr": clustered_error(
            [
                of
                for data, values in found.values()
                for of in _by_number(data.documents, values.sum(2))
            ]
        ),
        "tokens": int(tokens),
        "sources": {source: float(each[0] / each[1]) for source, each in sums.items()},
    }


def ranked(measure: AccuracyMeasure, job: HeldOutJob, folder: Path, source: str) -> Data:
    """Held-out preferences: for each response, best first, a row with the prompt before it.

    Raises: DataError: there are none, or one is longer than the rows of the job.
    """
    records = Records(folder, "heldout")
    if records.form != "preferences" or not records.count:
        raise nothing_held_out(source, "preferences", "accuracy")
    rows, responses = [], []
    for number in range(records.count):
        record = records.record(number)
        check_vocab(record.tokens, source, job.model.vocab)
        each = [lay_out(record, [place], "pairs") for place in range(len(record.branches) - 1)]
        for row in each:
            check_length(len(row.tokens), job.seq_len, source, number)
        rows += each
        responses.append(len(each))
    return Data(rows, responses)


def stepped(measure: AccuracyMeasure, job: HeldOutJob, folder: Path, source: str) -> Data:
    """Held-out answers in steps, each of which has a score.

    Raises: DataError: there are none, or one is longer than the rows of the job.
    """
    records = Records(folder, "heldout")
    if records.form != "solutions" or not records.count:
        raise nothing_held_out(source, "solutions", "accuracy")
    rows, right = [], []
    for number in range(records.count):
        record = records.record(number)
        check_vocab(record.tokens, source, job.model.vocab)
        check_length(len(record.tokens), job.seq_len, source, number)
        rows.append(laid_out(record, Prm()))
        right.append(record.labels)
    return Data(rows, right=right)


def summed(measure: HeldOut) -> Callable[[Mapping[str, tuple[Data, np.ndarray]]], dict[str, Any]]:
    """What makes the figures of a measure of source → its rows, and what the model says of them:
    float64, shape (rows, 2, responses)."""
    if not isinstance(measure, AccuracyMeasure):
        return loss
    return accuracy if measure.of == "preferences" else accuracy_of_steps


def accuracy_of_steps(found: Mapping[str, tuple[Data, np.ndarray]]) -> dict[str, Any]:
    """{"score", "stderr", "steps", "right", "right_accuracy", "wrong_accuracy", "sources": source →
    share}.

    The score is the share of steps of held-out answers that the model calls right or wrong as their
    labels do, `right` the share that the labels call right; the other two are the shares of right
    steps and of wrong ones, None if there are none. The standard error takes the steps of an answer
    for dependent on each other.

    Args:
        found: source → its rows, with the score of each step.
    """
    labels: list[bool] = []
    agrees: list[bool] = []
    answers: list[tuple[float, float]] = []
    sources = {}
    for source, (data, values) in found.items():
        scores = [values[row, 0, : len(right)] > 0 for row, right in enumerate(data.right)]
        same = [(of == np.array(right)) for of, right in zip(scores, data.right, strict=True)]
        answers += [(float(each.sum()), float(len(each))) for each in same]
        every = np.concatenate(same)
        sources[source] = float(every.mean())
        agrees += every.tolist()
        labels += [label for right in data.right for label in right]
    known, said = np.array(labels), np.array(agrees)
    return {
        "score": float(said.mean()),
        "stderr": clustered_error(answers),
        "steps": len(said),
        "right": float(known.mean()),
        "right_accuracy": float(said[known].mean()) if known.any() else None,
        "wrong_accuracy": float(said[~known].mean()) if (~known).any() else None,
        "sources": sources,
    }


def accuracy(found: Mapping[str, tuple[Data, np.ndarray]]) -> dict[str, Any]:
    """{"score", "stderr", "pairs", "margin", "sources": source → share}.

    The score is the share of ordered pairs of held-out responses in which the better one has the
    higher reward (ties count as wrong), the margin the mean difference of the rewards. The standard
    error takes the pairs of a record for dependent on each other.

    Args:
        found: source → its rows, with the reward of each.
    """
    records = {
        n: _of_records(data.responses, values[:, 0, 0]) for n, (data, values) in found.items()
    }
    by_source = {
        source: [margin for each in of for margin in each] for source, of in records.items()
    }
    every = [margin for of in by_source.values() for margin in of]
    right = [
        (float(_right(each)), float(len(each))) for of in records.values() for each in of if each
    ]
    return {
        "score": _share(every),
        "stderr": clustered_error(right),
        "pairs": len(every),
        "margin": sum(every) / len(every),
        "sources": {source: _share(of) for source, of in by_source.items()},
    }


def margins(responses: Sequence[int], rewards: np.ndarray) -> list[float]:
    """Reward of the better minus that of the worse response, for every record's ordered pairs.

    Args:
        responses: how many each record has.
        rewards: of all responses, one after the other.
    """
    return [margin for of in _of_records(responses, rewards) for margin in of]


def _of_records(responses: Sequence[int], rewards: np.ndarray) -> list[list[float]]:
    """The margins of each record."""
    parts = np.split(rewards, np.cumsum(responses)[:-1])
    return [[float(a - b) for a, b in combinations(of.tolist(), 2)] for of in parts]


def _right(margins: list[float]) -> int:
    return sum(margin > 0 for margin in margins)


def _share(margins: list[float]) -> float:
    return _right(margins) / len(margins)


def _by_number(numbers: Sequence[int], values: np.ndarray) -> Iterator[tuple[float, float]]:
    """The sums of nats and of tokens of each document."""
    for _, rows in groupby(zip(numbers, values.tolist(), strict=True), key=itemgetter(0)):
        sums = [(nats, tokens) for _, (nats, tokens) in rows]
        yield fsum(nats for nats, _ in sums), fsum(tokens for _, tokens in sums)


def nothing_held_out(source: str, what: str, measure: str) -> DataError:
    return DataError(
        f"the data set `{source}` holds no {what} out, so no {measure} can be measured on it",
        f"give it a larger share: holdout = 5% in dataset {source}",
    )
