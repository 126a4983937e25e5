"""Jobs whose models cannot generate where the plan puts them, and machines that would do."""

from collections.abc import Iterator
from typing import NamedTuple

from ...spec.quantity import counted
from ..costs.generation import generation
from ..costs.hardware import GPUS, gpu
from ..values import Architecture, Generation
from .measures import SuiteMeasure
from .plan import Plan, WritingJob

USUAL_NODE = 8
"""GPUs per node when suggesting other GPUs."""
MORE_NODES = 1024
"""The most nodes tried for a model that does not fit."""


class Misfit(NamedTuple):
    """A job that cannot run.

    Attributes:
        code: of the finding.
        attribute: the attribute of the job's stage that it is about.
    """

    job: WritingJob
    code: str
    message: str
    help: str
    attribute: str


def misfits(plan: Plan) -> Iterator[Misfit]:
    """The jobs of a plan that cannot run, once per stage and reason."""
    jobs = {job.key: job for job in plan.jobs}
    told = set()
    for job in plan.jobs:
        if not isinstance(job, WritingJob) or plan.aside(job):
            continue
        key = job.inputs.get("export.0", job.inputs.get("model"))
        model = getattr(jobs.get(key or ""), "model", None)
        for found in _of(job, model) if isinstance(model, Architecture) else ():
            if (job.stage, found.code) not in told:
                told.add((job.stage, found.code))
                yield found


def _of(job: WritingJob, model: Architecture) -> Iterator[Misfit]:
    of = job.generation
    if of is not None and not of.fits:
        assert job.resources
        yield Misfit(
            job,
            "E561",
            f"{_named(model)} does not fit where {job.id} writes with it: {_sizes(of)}",
            f"it fits on {_what_fits(model, job.resources.device, of)}",
            "cluster",
        )
        return
    measures = [getattr(job, "measure", None), *getattr(job, "measures", ())]
    suites = [each for each in measures if isinstance(each, SuiteMeasure)]
    if suites and job.resources is not None and job.resources.pipeline > 1:
        yield Misfit(
            job,
            "E562",
            f"{_named(model)} needs {counted(job.resources.pipeline, 'nodes')}, and over several "
            f"vLLM gives no log-likelihoods, which suites such as `{suites[0].name}` are scored by",
            "leave `suites` out, or use GPUs of which a node holds the model: "
            + _what_fits(model, job.resources.device, of, nodes=1),
            "suites",
        )


def _named(model: Architecture) -> str:
    return f"{model.family} {model.size or ''}".strip()


def _sizes(of: Generation) -> str:
    """The sizes that do not fit, in GB per GPU."""
    weights, work, cache = (of.memory[part] / 1e9 for part in ("weights", "work", "sequence"))
    gpus = f"{of.tensor} GPUs" if of.pipeline == 1 else f"{of.pipeline} nodes × {of.tensor} GPUs"
    return (
        f"on {gpus} each has {weights:.1f} GB of weights, {work:.1f} of activations and "
        f"{cache:.1f} of cache for {counted(of.context, 'tokens')}, and room for "
        f"{of.share * of.gpu_memory / 1e9:.1f}"
    )


def _what_fits(
    model: Architecture, device: str, of: Generation | None, nodes: int | None = None
) -> str:
    """Machines on which it fits: more of the same nodes, or nodes with other GPUs.

    Args:
        nodes: the most nodes; None: as many of the same GPUs as needed.
    """
    assert of
    known = gpu(device)
    found = []
    if nodes is None and known:
        more = generation(
            model,
            known,
            per_node=of.tensor,
            nodes=MORE_NODES,
            context=of.context,
            draws=None,
        )
        if more.fits:
            found.append(f"{counted(more.pipeline, 'nodes')} × {more.tensor} × {known.name}")
    for other in sorted(GPUS.values(), key=lambda each: each.memory):
        one = generation(model, other, per_node=USUAL_NODE, nodes=1, context=of.context, draws=None)
        if one.fits:
            found.append(f"1 node × {one.tensor} × {other.name}")
            break
    return " or ".join(found) or "no GPU that is known here"
