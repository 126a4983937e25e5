"""Training: one job of the plan, from its inputs to its result."""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from traceback import extract_tb
from typing import TYPE_CHECKING, Any

from ...compiler.pipelines import pipelining
from ...compiler.plan.objectives import scores
from ...compiler.plan.plan import (
    Distill,
    Dpo,
    Grpo,
    Kto,
    NextToken,
    Prm,
    Reward,
    Sft,
    TrainJob,
)
from ...compiler.schedule.timeline import Timeline
from ..data.order.packing import Packing, Shuffled
from ..data.order.stream import Stream
from ..data.records.shards import LIKELIHOOD
from ..data.tokens.shards import Shards
from ..disk import disk
from ..errors import RunError
from ..run_folder.store import PROFILES
from .device import prepare, twice_backward
from .inputs import input_of, read_records
from .process import freeze_imports, join, logging_to, own_garbage, rank_log, traces, tracing

if TYPE_CHECKING:
    from .checkpoints.checkpoint import Start
    from .loader import Loader
    from .metrics import OnEvent
    from .trainer import Trainer
    from .updates.rollbacks import Rollback

FORMS = {Sft: "dialogs", Distill: "dialogs", Kto: "ratings", Prm: "solutions"}
"""Objective → the form of its records; of all others, preferences."""
RESULT = "result"
CHECKPOINTS = "checkpoints"


def train(
    job: TrainJob,
    inputs: Mapping[str, Path],
    folder: Path,
    *,
    root: Path,
    on_event: "OnEvent",
    positions: Mapping[str, int] | None = None,
    rollbacks: Sequence["Rollback"] = (),
) -> None:
    """Runs a train job, or the rest of it; all ranks call this together.

    Many jobs may run in one process, one after the other; the process group stays.

    Args:
        inputs: role → folder: "data:<source>" (shards, or records for an objective of
            post-training) for every source, "reference:<source>" (the result of a reference job)
            for losses with a reference, and "model" (the result of a train or average job) unless
            the job begins with random weights.
        folder: of the job. It holds checkpoints and log while the job runs, and afterwards
            `result`, with `state` (all that training needs to continue), `weights` (the mean, if
            the job averages) and `positions.json` (source → the next token of its stream). A job
            whose result exists is not run again.
        root: of the run; its `cache` keeps which dialogs share a row, and its `logs` the log.
        on_event: gets one dict per step, on rank 0; see `metrics.Metrics`.
        positions: source → the token of its stream at which the job begins, in place of the
            plan's; sources that the job does not read are passed on to `positions.json`.
        rollbacks: how often the job has gone back at spikes so far, in order.

    Raises:
        Stopped: training has diverged, or the disk cannot take a checkpoint.
        Interrupted: a rank was asked to stop; the job continues from what is saved.
        RunError: the job cannot run here, or an input is missing or damaged.
    """
    prepare(job.resources.device)
    twice_backward(pipelining(job.resources).split)
    rank = join(job.resources.world_size, job.resources.device)
    if (folder / RESULT).is_dir():
        return
    with disk(folder, "the job continues from its last checkpoint"):
        folder.mkdir(parents=True, exist_ok=True)
        traced = job.torchtitan.get("debug", {}).get("enable_structured_logging", False)
        with (
            logging_to(rank_log(root, rank)),
            tracing(root, rank, wanted=traced),
            own_garbage(),
        ):
            done = tuple(rollbacks)
            while more := _trained(job, inputs, folder, root, on_event, positions or {}, done):
                done += more
            if rank == 0:
                shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)


def _trained(
    job: TrainJob,
    inputs: Mapping[str, Path],
    folder: Path,
    root: Path,
    on_event: "OnEvent",
    positions: Mapping[str, int],
    rollbacks: tuple["Rollback", ...],
) -> tuple["Rollback", ...]:
    """Trains to the job's end, and writes its result, or to a spike at which it goes back.

    Returns: the rollback; () at the end.
    """
    from .updates.rollbacks import RollBack

    with make_trainer(job, inputs, folder, root, on_event, positions, rollbacks) as trainer:
        try:
            trainer.train()
        except RollBack as back:
            trainer.roll_back(back)
            return (back.rollback,)
        trainer.save_result(folder / RESULT)
    return ()


@contextmanager
def make_trainer(
    job: TrainJob,
    inputs: Mapping[str, Path],
    folder: Path,
    root: Path,
    on_event: "OnEvent",
    positions: Mapping[str, int],
    rollbacks: tuple["Rollback", ...] = (),
) -> Iterator["Trainer"]:
    """The trainer of a job, with nothing loaded yet; arguments and errors are those of `train`."""
    # torchtitan chooses its device when it is imported, so `prepare` must come first.
    from .config import trainer_config
    from .updates.rollbacks import PassedOver

    freeze_imports()
    if "model" not in inputs and job.drawn is None:
        raise RunError(
            f"the job {job.id} begins with weights as an earlier version of etude drew them",
            "plan again with this version, or run it with the version that planned it",
        )

    planned = {source: window.first_token for source, window in job.data.items()}
    config = trainer_config(
        job,
        folder,
        dataloader=replace(
            dataloader(job, inputs, root, {**planned, **positions}),
            passed_over=PassedOver(Timeline.of(job), rollbacks),
        ),
        start=_start(job, inputs),
        on_event=on_event,
        profiles=root / PROFILES / (job.stage or job.id),
    )
    config.rollbacks = rollbacks
    config.comm.save_traces_folder = traces(root)
    with build(config) as trainer:
        if job.evaluation:
            from .measures.evaluations import Evaluations

            trainer.evaluate_with(Evaluations(trainer, job, inputs, on_event))
        yield trainer


@contextmanager
def build(config: "Trainer.Config") -> Iterator["Trainer"]:
    """The trainer for a configuration.

    Raises:
        RunError: torchtitan rejects it.
    """
    try:
        trainer = config.build()
    except (ValueError, AssertionError, NotImplementedError) as error:
        # An assertion without a message is explained by its source line.
        reason = str(error) or extract_tb(error.__traceback__)[-1].line
        raise RunError(
            f"torchtitan rejects the job {config.job.id}: {reason}",
            "choose another placement or sequence length in the spec",
        ) from error
    with closing(trainer):
        yield trainer


def dataloader(
    job: TrainJob, inputs: Mapping[str, Path], root: Path, first_tokens: Mapping[str, int]
) -> "Loader.Config":
    """The loader of a job's batches; arguments as in `train`, with `positions` filled in."""
    from .loader import Loader
    from .records.rows import row_multiple

    folders = {source: input_of(inputs, f"data:{source}") for source in job.data}
    common: Any = {
        "timeline": Timeline.of(job),
        "first_tokens": first_tokens,
        "vocab": job.model.vocab,
    }
    if isinstance(job.objective, NextToken):
        streams = {
            source: Stream(Shards(path, "train", scattered=True), seed=job.seed, name=source)
            for source, path in folders.items()
        }
        return Loader.Config(streams=streams, **common)
    if isinstance(job.objective, Sft | Distill) and job.objective.counts == "sequences":
        return _packed(job, inputs, folders, root, common)
    common["multiple"] = row_multiple(job.resources)
    if isinstance(job.objective, Grpo):
        return _rollouts(job, inputs, folders, common)
    form = FORMS.get(type(job.objective), "preferences")
    common["orders"] = orders = {
        source: Shuffled.of(
            job, source, read_records(path, "rollouts" if source == job.stage else form, source)
        )
        for source, path in folders.items()
    }
    if isinstance(job.objective, Sft | Distill):
        return _dialogs(
            job, inputs, {name: of.records.count for name, of in orders.items()}, common
        )
    if isinstance(job.objective, Prm):
        from .records.solutions import SolutionLoader

        return SolutionLoader.Config(objective=job.objective, **common)
    return _compared(job, inputs, common)


def _packed(
    job: TrainJob, inputs: Mapping[str, Path], folders: Mapping[str, Path], root: Path, common: Any
) -> "Loader.Config":
    """The loader of sequences that are packed with dialogs."""
    from .records.rows import row_multiple

    common["packings"] = packings = {
        source: Packing.of(job, source, read_records(path, "dialogs", source), root / "cache")
        for source, path in folders.items()
    }
    of = job.resources
    # A compiled layer would be compiled again for every other length, the parts of a pipeline
    # exchange tensors of one shape, and context ranks cut rows into equal parts.
    free = of.device == "cpu" and of.pipeline == of.context == 1
    common["multiple"] = row_multiple(of) if free or isinstance(job.objective, Distill) else None
    return _dialogs(job, inputs, {name: of.records for name, of in packings.items()}, common)


def _dialogs(
    job: TrainJob, inputs: Mapping[str, Path], records: Mapping[str, int], common: Any
) -> "Loader.Config":
    """The loader of dialogs, with a teacher's probabilities if there is one.

    Args:
        records: of each source.
    """
    from .records.dialogs import CountedDialogs, DialogLoader
    from .records.distill import CountedDistill, DistillLoader, Taught

    assert isinstance(job.objective, Sft | Distill)
    packed = job.objective.counts == "sequences"
    common["every_token"] = job.objective.loss_on == "all"
    if isinstance(job.objective, Sft):
        return (DialogLoader if packed else CountedDialogs).Config(**common)
    top_k = job.objective.top_k
    common["taught"] = {
        source: Taught(input_of(inputs, f"teacher:{source}"), count, top_k)
        for source, count in records.items()
    }
    return (DistillLoader if packed else CountedDistill).Config(**common)


def _compared(job: TrainJob, inputs: Mapping[str, Path], common: Any) -> "Loader.Config":
    """The loader of preferences or rated answers, with what a reference has said of them."""
    from .records.preferences import PreferenceLoader
    from .records.ratings import RatingLoader

    objective = job.objective
    compares = isinstance(objective, Kto) or (isinstance(objective, Dpo) and objective.compares)
    common["references"] = {
        source: input_of(inputs, f"reference:{source}") / "reference.npy"
        for source in (job.data if compares else ())
    }
    if isinstance(objective, Kto):
        return RatingLoader.Config(objective=objective, **common)
    assert isinstance(objective, Reward | Dpo)
    return PreferenceLoader.Config(objective=objective, **common)


def _rollouts(
    job: TrainJob, inputs: Mapping[str, Path], folders: Mapping[str, Path], common: Any
) -> "Loader.Config":
    """The loader of a policy's own answers."""
    from .records.policy import RolloutLoader, Rollouts

    assert isinstance(job.objective, Grpo)
    rollouts = {}
    for source, path in folders.items():
        likelihoods = {
            name: inputs[f"{name}:{source}"] / LIKELIHOOD
            for name in ("old", "reference")
            if f"{name}:{source}" in inputs
        }
        records = read_records(path, "rollouts", source)
        masked = job.objective.mask_truncated
        rollouts[source] = Rollouts(records, path, likelihoods, masked=masked)
    return RolloutLoader.Config(objective=job.objective, rollouts=rollouts, **common)


def _start(job: TrainJob, inputs: Mapping[str, Path]) -> "Start | None":
    from .checkpoints.checkpoint import Start
    from .checkpoints.storage import weights_of

    if "model" not in inputs:
        return None
    model = inputs["model"]
    carry = job.optimizer_state == "carry"
    averaged = job.average is not None and job.average.from_step < job.first_step
    path = model / "state" if carry or averaged else weights_of(model)
    return Start(path, optimizer=carry, average=averaged, headless=scores(job.objective))
