"""Forward passes without training: references for DPO, document scores, held-out measures, judges.

The rows of a split are processed in chunks that depend only on the data. Each chunk's results are
kept in a file, so that a killed job continues with the chunk that it had begun.
"""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from functools import partial as bound
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
import torch.distributed as dist

from ....compiler.plan.measures import AccuracyMeasure
from ....compiler.plan.plan import (
    Cost,
    Distill,
    Dpo,
    ForwardJob,
    Grpo,
    HeldOutJob,
    JudgeJob,
    LikelihoodJob,
    MixturePiece,
    Objective,
    ReferenceJob,
    Reward,
    Schedule,
    ScoreJob,
    TeacherJob,
    TrainJob,
)
from ....compiler.schedule.timeline import Timeline
from ....compiler.values import BatchPiece, LrPiece, Saving
from ...data.order.packing import counted
from ...data.records.shards import Records
from ...data.tokens.shards import SPLITS, Shards
from ...disk import disk, move, write, write_by
from ...errors import RunError
from ..checkpoints.storage import weights_of
from ..device import prepare
from ..inputs import input_of, read_records
from ..process import join, logging_to, own_garbage, rank_log, traces
from ..train import RESULT, build
from .walk import CHUNKS, Walk

if TYPE_CHECKING:
    from ..metrics import OnEvent
    from ..records.rows import Row
    from ..trainer import Trainer

RESPONSES = 3
"""The columns of a reference: the most responses of a preference."""

SCORES = "scores.json"


def reference(
    job: ReferenceJob,
    inputs: Mapping[str, Path],
    folder: Path,
    *,
    root: Path,
    on_event: "OnEvent",
) -> None:
    """Writes `result/reference.npy`; all ranks call this together.

    Row i has, for each response of record i of the job's split, best first, the sum of the
    log-probabilities (nats) of its tokens that count under the job's mask; float32, shape
    (records, 3), nan if there is no such response. Of ratings, the first is of the record's own
    answer and the second of another's, see `ratings.mismatched`.

    Args:
        inputs: role → folder: "data:<source>" (records) and "model".
        folder: of the job.
        root: of the run, whose `logs` receive the log.
        on_event: gets, on rank 0, one dict per chunk: `event` ("progress"), `job`, `stage`, `done`
            and `of` (records).

    Raises:
        Stopped: the disk cannot take the result.
        Interrupted: a rank was asked to stop.
        RunError: the job cannot run here, or an input is missing or damaged.
    """

    def work(trainer: "Trainer", partial: Path) -> None:
        from ..records.rows import ask_tokens

        data = input_of(inputs, f"data:{job.source}")
        records = read_records(data, job.form, job.source, job.split)
        walk = Walk(trainer, job, folder, on_event, bound(ask_tokens, mask=job.mask))
        if job.form == "ratings":
            from ..records.ratings import both_answers

            found = both_answers(walk, records, job)
        else:
            rows = bound(_compared, job, records)
            found = walk.over(job.split, records.count, rows, RESPONSES)
        # A response that is there has at least one token that counts.
        values = np.where(found[:, 1] > 0, -found[:, 0], np.nan)
        save(partial / "reference.npy", values.astype(np.float32))

    run(job, inputs, folder, root, on_event, work)


def _compared(job: ReferenceJob, records: Records, number: int) -> Sequence["Row"]:
    """The row of a preference, with all its responses.

    Raises: DataError: it is too long, or nothing that counts tells its responses apart.
    """
    from ..loader import check_vocab
    from ..records.rows import check_counts, check_different, check_length, lay_out

    record = records.record(number)
    check_length(len(record.tokens), job.seq_len, job.source, number)
    check_vocab(record.tokens, job.source, job.model.vocab)
    row = lay_out(record, range(len(record.branches) - 1), job.layout)
    counts = torch.tensor([[int(counted(each, job.mask).sum()) for each in row.parts]])
    check_counts(counts, [(job.source, number)])
    check_different(row, job.mask, job.source, number)
    return [row]


def score(
    job: ScoreJob,
    inputs: Mapping[str, Path],
    folder: Path,
    *,
    root: Path,
    on_event: "OnEvent",
) -> None:
    """Writes `result/train.npy` and `result/heldout.npy`; all ranks call this together.

    Entry i is the mean cross-entropy (nats per token) of document i, float32. A document's first
    token is not predicted. A document of more than `seq_len` tokens is cut into windows, whose
    first tokens are predicted from the window before; nan if nothing is predicted.

    Arguments and errors are those of `reference`; `done` and `of` count documents of a split.
    """

    def work(trainer: "Trainer", partial: Path) -> None:
        from ..loader import check_vocab
        from ..records.rows import ask_tokens, window

        walk = Walk(trainer, job, folder, on_event, bound(ask_tokens, mask="none"))
        for split in SPLITS:
            shards = Shards(input_of(inputs, f"data:{job.source}"), split)

            def rows(number: int, shards: Shards = shards) -> Sequence["Row"]:
                tokens = shards.document(number).astype(np.int64)
                check_vocab(tokens, job.source, job.model.vocab)
                ends = range(0, len(tokens) - 1, job.seq_len)
                return [window(tokens[begin : begin + job.seq_len + 1]) for begin in ends]

            found = walk.over(split, shards.documents, rows, 1)[:, :, 0]
            values = np.full(shards.documents, np.nan)
            np.divide(found[:, 0], found[:, 1], out=values, where=found[:, 1] > 0)
            save(partial / f"{split}.npy", values.astype(np.float32))

    run(job, inputs, folder, root, on_event, work)


def held_out(
    job: HeldOutJob,
    inputs: Mapping[str, Path],
    folder: Path,
    *,
    root: Path,
    on_event: "OnEvent",
) -> None:
    """Writes `result/scores.json`: measure → {"score", …}, see `held_out`; all ranks call this
    together.

    Arguments and errors are those of `reference`; `done` and `of` count the rows of a source.

    Raises: DataError: a source has no held-out data.
    """

    def work(trainer: "Trainer", partial: Path) -> None:
        from ..records.rows import ask_ends, ask_tokens
        from . import held_out as measures

        scores = {}
        for number, measure in enumerate(job.measures):
            accuracy = isinstance(measure, AccuracyMeasure)
            ask = ask_ends if accuracy else bound(ask_tokens, mask="none")
            walk = Walk(trainer, job, folder, on_event, ask)
            found = {}
            for place, source in enumerate(measure.data):
                data = measures.rows_of(measure, job, input_of(inputs, f"data:{source}"), source)
                name = f"{number}-{place}"
                made = walk.over(name, len(data.rows), data.row, data.most)
                found[source] = data, made
            summed = measures.summed(measure)
            if dist.get_rank() == 0:
                scores[measure.name] = summed(found)
        if dist.get_rank() == 0:
            write(partial / SCORES, json.dumps(scores, indent=1) + "\n")

    run(job, inputs, folder, root, on_event, work)


class Answers(Protocol):
    """Answers as the tokens that a judge reads: int64, shape (n,) each; and the places in them at
    which it scores."""

    count: int

    def read(self, number: int, /) -> tuple[np.ndarray, Sequence[int]]: ...


def judge(
    job: JudgeJob,
    answers: Answers,
    inputs: Mapping[str, Path],
    folder: Path,
    *,
    root: Path,
    on_event: "OnEvent",
) -> None:
    """Writes `result/scores.npy`, the score of each answer: float32, nan if it is too long for the
    judge; all ranks call this together. If the job scores steps, it is made of theirs (`score_of`).

    Arguments and errors are those of `reference`; `done` and `of` count answers.

    Args:
        inputs: "model", a reward model.

    Raises: RunError: a score is not finite.
    """

    def work(trainer: "Trainer", partial: Path) -> None:
        from ..loader import check_vocab
        from ..records.rows import ask_ends, ask_steps, scored
        from ..records.solutions import score_of

        def rows(number: int) -> Sequence["Row"]:
            tokens, ends = answers.read(number)
            check_vocab(tokens, "draws", job.model.vocab)
            return [scored(tokens, ends)] if len(tokens) <= job.seq_len else []

        if job.by_step:
            # An answer shows only in tokens how many steps it has.
            sizes = np.array([sum(len(row.ends) for row in rows(n)) for n in range(answers.count)])
            said = Walk(trainer, job, folder, on_event, ask_steps).each("draws", sizes, rows)
            combine = job.by_step.combine
            each = np.split(said, np.cumsum(sizes)[:-1])
            found = np.array([score_of(of, combine) if len(of) else np.nan for of in each])
            read = sizes > 0
        else:
            walk = Walk(trainer, job, folder, on_event, ask_ends)
            said, counts = walk.over("draws", answers.count, rows, 1)[:, :, 0].T
            read = counts > 0
            found = np.where(read, said, np.nan)
        if not np.isfinite(found[read]).all():
            raise RunError("the judge gives a reward that is not finite", "train it again")
        save(partial / "scores.npy", found.astype(np.float32))

    run(job, inputs, folder, root, on_event, work)


def save(path: Path, values: np.ndarray) -> None:
    if dist.get_rank() == 0:
        write_by(path, lambda file: np.save(file, values))


def run(
    job: ForwardJob,
    inputs: Mapping[str, Path],
    folder: Path,
    root: Path,
    on_event: "OnEvent",
    work: Callable[["Trainer", Path], None],
) -> None:
    """Loads the job's model and has `work` write the result into a folder."""
    prepare(job.resources.device)
    rank = join(job.resources.world_size, job.resources.device)
    result, partial = folder / RESULT, folder / f"{RESULT}.partial"
    if result.is_dir():
        return
    from ..checkpoints.checkpoint import Start
    from ..config import trainer_config
    from ..loader import Loader

    train_job = _as_train_job(job)
    start = Start(weights_of(input_of(inputs, "model")), optimizer=False, average=False)
    loader = Loader.Config(timeline=Timeline.of(train_job), first_tokens={}, vocab=job.model.vocab)
    with disk(folder, "the job continues from its last chunk"):
        folder.mkdir(parents=True, exist_ok=True)
        with logging_to(rank_log(root, rank)), own_garbage():
            config = trainer_config(
                train_job, folder, dataloader=loader, start=start, on_event=on_event
            )
            config.comm.save_traces_folder = traces(root)
            with build(config) as trainer:
                trainer.checkpoints.load()
                if rank == 0:
                    shutil.rmtree(partial, ignore_errors=True)
                    partial.mkdir()
                work(trainer, partial)
                if rank == 0:
                    move(partial, result)
                    shutil.rmtree(folder / CHUNKS, ignore_errors=True)
                dist.barrier()


def _objective(job: ForwardJob) -> Objective:
    """An objective whose model gives the job's outputs: cross-entropies of tokens, scores, or the
    probabilities of likely tokens."""
    if job.scores:
        return Reward()
    if isinstance(job, TeacherJob):
        loss_on = "all" if job.every_token else "assistant"
        return Distill(
            temperature=job.temperature, top_k=job.top_k, vocab=job.vocab, loss_on=loss_on
        )
    if isinstance(job, LikelihoodJob):
        return Grpo(
            objective="grpo", clip_ratio=(1, 1), kl=0, max_tokens=1, temperature=job.temperature
        )
    return Dpo(beta=1, nll=0, label_smoothing=0, normalize=False, mask="none")


def _as_train_job(job: ForwardJob) -> TrainJob:
    """A job of one step that builds the model as training would; the step is never taken."""
    resources = job.resources
    local = job.torchtitan.get("training", {}).get("local_batch_size", 1)
    sections = {**job.torchtitan}
    sections["training"] = {**sections.get("training", {}), "local_batch_size": local}
    batch = local * resources.replicate * resources.shard
    return TrainJob(
        key=job.key,
        id=job.id,
        stage=job.stage,
        inputs=job.inputs,
        steps=1,
        objective=_objective(job),
        model=job.model,
        seed=0,
        seq_len=job.seq_len,
        first_step=0,
        first_token=0,
        segment=0,
        segments=1,
        sequences=batch,
        schedule=Schedule(
            lr=[
                LrPiece(
                    from_step=0,
                    to_step=1,
                    shape="hold",
                    start=0,
                    end=0,
                    clock="steps",
                    origin=0,
                    length=1,
                )
            ],
            batch=[BatchPiece(from_step=0, to_step=1, sequences=batch)],
            mixture=[MixturePiece(from_step=0, to_step=1, weights={"rows": 1})],
        ),
        data={},
        optimizer_state="fresh",
        average=None,
        saving=Saving(every=None, seconds=None),
        roundings=[],
        resources=resources,
        cost=Cost(
            parameters=0,
            active_parameters=0,
            flops_per_token=0,
            attention_flops_per_token=0,
            flops=0,
        ),
        torchtitan=sections,
    )
