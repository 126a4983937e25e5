"""What torchtitan alone cannot do of a plan's jobs, or does otherwise."""

from ...compiler.plan.objectives import makes_logits
from ...compiler.plan.plan import NextToken, Sft, TrainJob
from ...compiler.torchtitan.adapters import SECTION as ADAPTER
from ...compiler.torchtitan.configuration import MUON, optimizers
from ...compiler.values import ADAFACTOR, LION, ROUTER_LOSSES
from .loss import changes, lacks, of_modules


def left_out(job: TrainJob) -> str | None:
    """Why torchtitan alone cannot run a job."""
    if ADAPTER in job.torchtitan:
        return (
            "torchtitan trains adapters, but does not merge them into the weights of the next job"
        )
    if job.choice:
        return (
            "torchtitan does not end a job when the loss on held-out data no longer falls, nor go "
            "back to the best checkpoint"
        )
    learns = optimizers(job.torchtitan)
    if MUON in learns:
        return "torchtitan's Muon wants the place of every matrix, which etude gives it at run time"
    if ADAFACTOR in learns:
        return "torchtitan has no Adafactor, and torch's takes no weights that FSDP shards"
    if LION in learns:
        return "torchtitan has no Lion, and takes no optimizers of other packages"
    if not isinstance(job.objective, NextToken | Sft):
        return f"torchtitan has no loss for the objective {job.objective.name}"
    if not makes_logits(job.objective):
        return "torchtitan's batches count rows of one length, and not dialogs"
    return lacks(job)


def departures(job: TrainJob) -> list[str]:
    """How torchtitan's version of a job differs from the recipe, for the top of the file."""
    batches = job.schedule.batch
    routers = {*ROUTER_LOSSES} & job.schedule.settings.keys()
    changing = [
        name
        for name, pieces in job.schedule.settings.items()
        if name not in routers and (name != "mtp_loss" or changes(pieces))
    ]
    said = {
        f"one batch, of {batches[-1].sequences} sequences": len(batches) > 1,
        f"one {' and one '.join(changing)}, the largest": bool(changing),
        "no losses of routers": bool(routers),
        **of_modules(job),
        "no average of the weights": job.average is not None,
        "takes steps with spikes of the gradient": job.spikes is not None,
        "runs without asking a gate": job.extends is not None,
        "attention for GPUs": job.resources.device == "cpu",
        "reads where the plan says, also after a gate that failed": job.first_step > 0,
        "initial weights as torchtitan draws them": job.drawn is not None,
    }
    return [what for what, holds in said.items() if holds]
