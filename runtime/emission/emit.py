"""The plan's train jobs as configurations of torchtitan 0.3: Python text.

There is one function per job; torchtitan finds it by `--module MODULE --config FUNCTION`. A comment
beside the closest setting says what torchtitan cannot do. The data are the recipe's: etude's loader
reads them in a run folder, where `etude prepare` makes them. The code that builds the models is
copied from the engine's own modules.
"""

import json
import re
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Any

from ...compiler.as_written import counted
from ...compiler.families import FAMILIES
from ...compiler.plan.checkpoints import steps_between
from ...compiler.plan.plan import Plan, Sft, TrainJob, WeightsJob
from ...compiler.plan.summary import Tracker
from ...compiler.schedule.timeline import Timeline
from ...compiler.tensor_widths import shared_keys
from ...compiler.torchtitan.configuration import arguments
from ...compiler.torchtitan.quantization import SECTION, compiles
from ...compiler.torchtitan.told import ATTENTION, DISPATCHER
from ...compiler.values import LrPiece
from .copied import Import, builder, needed
from .departures import departures, left_out
from .loss import loss
from .metrics import metrics

HEAD = """# The train jobs of the recipe {recipe}, for torchtitan 0.3.
# Made by `etude plan --emit torchtitan`.
#
# Each function is a configuration; a job that continues from another loads its checkpoint. Gates,
# averages, evaluations and post-training by preferences are etude's, and not here. The data are
# those of a run of the recipe: `etude prepare SPEC` makes them and trains nothing.
#
# Save this as {file} and run, in its folder:"""
IMPORTS = {
    "etude.runtime.engine.emitted": ("RunData", "RunRates", "converted"),
    "etude.runtime.engine.loader": ("NoTokenizer",),
    "etude.runtime.engine.objectives": ("LanguageLoss",),
    "pathlib": ("Path",),
    "torchtitan.components.checkpoint": ("CheckpointManager",),
    "torchtitan.components.loss": ("ChunkedLossWrapper", "CrossEntropyLoss"),
    "torchtitan.components.metrics": ("MetricsProcessor",),
    "torchtitan.components.optimizer": (
        "OptimizersContainer",
        "ParamGroupConfig",
        "register_moe_load_balancing_hook",
    ),
    "torchtitan.components.quantization": (
        "Float8LinearConverter",
        "MXFP8GroupedExpertsConverter",
        "MXFP8LinearConverter",
        "NVFP4LinearConverter",
    ),
    "torchtitan.config": ("CompileConfig", "ParallelismConfig", "TrainingConfig"),
    "torchtitan.config.configs": ("CommConfig", "DebugConfig"),
    "torchtitan.distributed.activation_checkpoint": ("FullAC", "MemoryBudgetAC", "SelectiveAC"),
    "torchtitan.distributed.pipeline_parallel": ("pipeline_llm",),
    "torchtitan.models.deepseek_v3.mtp": ("MTPLoss",),
    "torchtitan.protocols.model_spec": ("ModelSpec",),
    "torchtitan.tools.profiler": ("Profiler",),
    "torchtitan.trainer": ("Trainer",),
}
"""Module → the names in it that the functions of jobs use."""
SECTIONS = {
    "training": "TrainingConfig",
    "parallelism": "ParallelismConfig",
    "compile": "CompileConfig",
    "debug": "DebugConfig",
    "comm": "CommConfig",
}
FIELDS = {
    "key": "by it the loader knows the job in the run folder",
    "id": "the function's name",
    "kind": "train",
    "stage": "in the name",
    "inputs": "data by the loader; the model as the checkpoint to begin with",
    "steps": "as many as read the same sequences in one batch",
    "tokens": "in the docstring",
    "extends": "said in a comment",
    "objective": "the loss, of what a comment says; preferences are left out with a reason",
    "model": "written out",
    "drawn": "torchtitan draws in its own way, as a comment says",
    "seed": "debug.seed",
    "seq_len": "training.seq_len",
    "first_step": "counted from in comments and schedules",
    "first_token": "where the loader begins",
    "segment": "in the name",
    "segments": "a job each",
    "sequences": "as many are read",
    "schedule": "rates and data as in the run; of batches the last, with a comment",
    "data": "by the loader",
    "optimizer_state": "whether it is loaded",
    "average": "said in a comment",
    "spikes": "said in a comment",
    "rollbacks": "with spikes",
    "qk_clip": "said in a comment",
    "evaluation": "left out, as a comment says",
    "choice": "jobs that have one are left out with a reason",
    "saving": "checkpoint.interval, by the estimated time where it is a time, and keep_latest_k",
    "profile": "profiler, counted in torchtitan's steps",
    "roundings": "figures of the plan",
    "resources": "the command, and parallelism",
    "cost": "figures of the plan",
    "torchtitan": "section by section",
}
"""Where each field of a job goes."""


def emit(plan: Plan, run: str | None = None) -> str:
    """A module with a function for each train job of the plan.

    Args:
        run: the run folder with the recipe's data, unless ETUDE_RUN names another. Default: that of
            `etude run` in the current folder.
    """
    jobs = [job for job in plan.jobs if isinstance(job, TrainJob)]
    return _module(plan, jobs, f"{plan.recipe}_jobs", run)


def emit_each(plan: Plan, run: str | None = None) -> dict[str, str]:
    """One module per train job, by file name; arguments as for `emit`."""
    jobs = [job for job in plan.jobs if isinstance(job, TrainJob)]
    return {f"{function(job)}.py": _module(plan, [job], function(job), run) for job in jobs}


def function(job: TrainJob) -> str:
    """The name of a job's function: `long_context.2+1` → `long_context_2_extended_1`."""
    return re.sub(r"\W", "_", job.id.replace("+", "_extended_"))


def _module(plan: Plan, jobs: list[TrainJob], name: str, run: str | None) -> str:
    written = [job for job in jobs if left_out(job) is None]
    lines = [HEAD.format(recipe=plan.recipe, file=f"{name}.py")]
    lines += [f"#   {_command(plan, job, name)}" for job in written]
    otherwise = [(job, departures(job)) for job in written]
    if any(said for _, said in otherwise):
        lines += ["#", "# Otherwise than in the recipe (the comments in the functions say more):"]
        lines += [f"#   {job.id}: {'; '.join(said)}" for job, said in otherwise if said]
    starts = {job.key: job for job in plan.jobs if isinstance(job, TrainJob | WeightsJob)}
    functions = []
    told: set[tuple[str | None, str]] = set()
    for job in jobs:
        reason = left_out(job)
        if reason and job.segments < TURNS:
            functions.append(f"\n\n# {job.id} is left out: {reason}.")
        elif reason and (job.stage, reason) not in told:
            told.add((job.stage, reason))
            functions.append(f"\n\n# All jobs of {job.stage} are left out: {reason}.")
        elif reason:
            continue
        else:
            before = starts.get(job.inputs.get("model", ""))
            functions += ["", "", *_job(job, before, tracking=plan.trackers)]
    if written:
        used = [name for name in FAMILIES if any(job.model.family == name for job in written)]
        imports = [Import(of, name, name) for of, names in IMPORTS.items() for name in names]
        before = needed("\n".join(functions), used, imports)
        lines.append(before.replace('"RUN FOLDER"', json.dumps(run or f"runs/{plan.recipe}")))
    return "\n".join([*lines, *functions]) + "\n"


def _command(plan: Plan, job: TrainJob, module: str) -> str:
    """The command that starts a job, on every machine, in the file's folder."""
    world = job.resources.world_size
    nodes = _nodes(plan, world)
    where = "--standalone"
    if nodes > 1:
        where = f"--nnodes {nodes} --rdzv-backend c10d --rdzv-endpoint $HEAD_NODE:29500"
    return (
        f"torchrun {where} --nproc-per-node {world // nodes} -m torchtitan.train "
        f"--module {module} --config {function(job)}"
    )


def _nodes(plan: Plan, world: int) -> int:
    """The number of machines of the recipe's cluster with this many ranks; 1 if no cluster has."""
    for name, values in plan.values.items():
        if name.startswith("cluster.") and "gpus" in values:
            nodes = int(values["nodes"].value.replace(",", "").replace("_", ""))
            if nodes * int(values["gpus"].value.partition(",")[0]) == world:
                return nodes
    return 1


TURNS = 4
"""Segments of a stage from which on what all of them lack is said once."""


def _job(
    job: TrainJob, before: TrainJob | WeightsJob | None, *, tracking: Sequence[Tracker]
) -> Iterator[str]:
    sections = job.torchtitan
    yield f"def {function(job)}() -> Trainer.Config:"
    length = f"{counted(job.steps, 'steps')}, {counted(job.tokens, 'tokens')}"
    yield f'    """Job {job.id}: {length}."""'
    if job.extends:
        yield f"    # Runs only where the gate {job.extends.gate} has failed."
    if job.evaluation:
        names = ", ".join(measure.name for measure in job.evaluation.measures)
        yield f"    # Left out: {names} on held-out data every {job.evaluation.every} steps."
    if job.resources.device == "cpu":
        yield "    # Etude runs this job on CPUs, with attention of its own: see torchtitan's flex,"
        yield "    # which trains on GPUs only."
    for line in FAMILIES[job.model.family].emitted_otherwise(job.model, job.resources):
        yield f"    # {line}"
    yield "    return Trainer.Config("
    yield "        model_spec=ModelSpec("
    yield f"            name={job.model.family!r},"
    yield f"            flavor={job.model.size or 'custom'!r},"
    made_by, experts = builder(job.model.family), job.model.experts
    built = [f"{made_by.build}("]
    for name, value in arguments(job.model, made_by.takes, job.seq_len).items():
        built.append(f"    {name}={value!r},")
    built.append(")")
    for way, asked in _ways(job):
        inner = (*built[:-1], f"{built[-1]},", f"{asked!r},")
        built = [f"{way}(", *(f"    {line}" for line in inner), ")"]
    first, *lines = _converted(built, sections) if SECTION in sections else built
    lines[-1] += ","
    yield f"            model={first}"
    yield from (f"            {line}" for line in lines)
    balanced = "register_moe_load_balancing_hook" if experts and experts.balance else None
    yield f"            parallelize_fn={made_by.parallelize},"
    yield "            pipelining_fn=pipeline_llm,"
    yield f"            post_optimizer_build_fn={balanced},"
    yield f"            state_dict_adapter={made_by.adapter},"
    yield "        ),"
    yield from loss(job)
    for name, kind in SECTIONS.items():
        values = dict(sections[name])
        if name == "training":
            yield from _indented(_batch(job))
            values["global_batch_size"] = job.schedule.batch[-1].sequences
            values["steps"] = _all_steps(job)
        yield from _call(f"{name}={kind}", values)
    yield from _optimizer(sections["optimizer"])
    yield from _indented(_rates(job))
    yield from _indented(_recompute(sections["activation_checkpoint"]))
    yield from _indented(_data(job))
    yield from _indented(_checkpoint(job, before))
    yield from _indented(metrics(tracking))
    yield from _indented(_profile(job))
    yield "    )"


def _ways(job: TrainJob) -> Iterator[tuple[str, str | int]]:
    """Functions of the engine's `parts` that change a model for a job, with what they are told."""
    if named := job.torchtitan.get(ATTENTION):
        yield "attending", named["backend"]
    if shared_keys(job.model, job.resources.tensor):
        yield "sharing", job.resources.tensor
    if named := job.torchtitan.get(DISPATCHER):
        yield "dispatching", named["backend"]


def _converted(model: list[str], sections: dict[str, Any]) -> Iterator[str]:
    """The model with its layers converted by torchtitan."""
    yield "converted("
    yield from (f"    {line}" for line in [*model[:-1], f"{model[-1]},"])
    for name, settings in sections[SECTION].items():
        yield f"    {name}.Config("
        yield f"        model_compile_enabled={compiles(sections)},"
        yield from (f"        {field}={value!r}," for field, value in settings.items())
        yield "    ),"
    yield ")"


def _profile(job: TrainJob) -> Iterator[str]:
    """torchtitan's profiler, for the steps of the recipe's profile."""
    asked = job.profile
    if asked is None:
        return
    begin = _steps(job, asked.from_step)
    active = max(_steps(job, asked.to_step) - begin, 1)
    warm_up = min(3, begin)
    if asked.ranks == "first":
        yield "# The recipe records rank 0 alone; torchtitan records all."
    yield "profiler=Profiler.Config("
    yield "    enable_profiling=True,"
    yield f"    profiler_skip_first={begin - warm_up},"
    yield f"    profiler_warmup={warm_up},"
    yield f"    profiler_active={active},"
    yield f"    profile_freq={warm_up + active},"
    yield "    profiler_repeat=1,"
    if asked.memory:
        yield f"    # A snapshot of memory after each {begin + active} steps."
        yield "    enable_memory_snapshot=True,"
        yield f"    memory_snapshot_freq={begin + active},"
    yield "),"


def _all_steps(job: TrainJob) -> int:
    return _steps(job, job.first_step + job.steps)


def _steps(job: TrainJob, step: int) -> int:
    """Steps of torchtitan, which has one batch size, until it has read what the job reads before
    `step` of its stage; rounded down to whole batches."""
    return Timeline.of(job).sequences_before(step) // job.schedule.batch[-1].sequences


def _indented(lines: Iterator[str]) -> Iterator[str]:
    return (f"        {line}" for line in lines)


def _call(target: str, values: dict[str, Any]) -> Iterator[str]:
    yield f"        {target}("
    for name, value in values.items():
        yield f"            {name}={value!r},"
    yield "        ),"


def _optimizer(values: dict[str, Any]) -> Iterator[str]:
    yield "        optimizer=OptimizersContainer.Config("
    yield f"            implementation={values['implementation']!r},"
    yield "            param_groups=["
    for group in values["param_groups"]:
        yield "                ParamGroupConfig("
        for name, value in group.items():
            yield f"                    {name}={value!r},"
        yield "                ),"
    yield "            ],"
    yield "        ),"


def _batch(job: TrainJob) -> Iterator[str]:
    pieces = job.schedule.batch
    if len(pieces) > 1:
        yield "# torchtitan has one batch, the last of these, and takes as many steps as read the"
        yield "# same sequences. In the recipe, by step of the stage:"
        yield from _pieces(
            f"{p.from_step} to {p.to_step}: {counted(p.sequences, 'sequences')}" for p in pieces
        )


def _rates(job: TrainJob) -> Iterator[str]:
    """torchtitan's closest schedule: linear warm-up, peak, one decay at the end."""
    pieces, first, last = job.schedule.lr, job.first_step, job.first_step + job.steps
    peak = max(max(piece.start, piece.end) for piece in pieces)
    warm, fall = pieces[0], pieces[-1]
    rises = warm.shape != "hold" and warm.end > warm.start
    falls = fall.shape != "hold" and fall.end < fall.start
    steps, batches = _all_steps(job), job.schedule.batch
    warmup = _steps(job, min(warm.to_step, last)) if rises else 0
    decay = steps - _steps(job, max(fall.from_step, first)) if falls else 0
    shape = fall.shape if falls and fall.shape in ("linear", "sqrt", "cosine") else "linear"
    yield "# The rate of every step is the recipe's, by step of the stage:"
    yield from _pieces(map(_piece, pieces))
    yield "# The other numbers are the closest that torchtitan's own LRSchedulersContainer has."
    yield "lr_scheduler=RunRates.Config("
    yield f"    run=str(RUN), job={job.id!r}, key={job.key!r},"
    yield f"    batch={batches[-1].sequences},"
    yield f"    warmup_steps={warmup},"
    yield f"    decay_ratio={decay / steps if steps else 0.0!r},"
    yield f"    decay_type={shape!r},"
    yield f"    min_lr_factor={(fall.end / peak if falls and peak else 1.0)!r},"
    yield "),"


def _piece(piece: LrPiece) -> str:
    steps = f"{piece.from_step} to {piece.to_step}"
    if piece.shape == "hold":
        return f"{steps}: {piece.start!r}"
    return (
        f"{steps}: {piece.start!r} to {piece.end!r}, {piece.shape}, over {piece.length} "
        f"{piece.clock} from {piece.origin}"
    )


def _recompute(values: dict[str, Any] | None) -> Iterator[str]:
    if not values:
        yield "activation_checkpoint=None,"
        return
    kinds = {"selective": "SelectiveAC", "full": "FullAC", "memory_budget": "MemoryBudgetAC"}
    rest = ", ".join(f"{name}={value!r}" for name, value in values.items() if name != "mode")
    yield f"activation_checkpoint={kinds[values['mode']]}.Config({rest}),"


def _data(job: TrainJob) -> Iterator[str]:
    yield "# The recipe reads, in weights by step of the stage:"
    yield from _pieces(
        f"{piece.from_step} to {piece.to_step}: "
        + ", ".join(f"{name} {weight}" for name, weight in piece.weights.items())
        for piece in job.schedule.mixture
    )
    if isinstance(job.objective, Sft):
        yield f"# The loss is on: {job.objective.loss_on}."
    yield "tokenizer=NoTokenizer(),"
    yield f"dataloader=RunData.Config(run=str(RUN), job={job.id!r}, key={job.key!r}),"
    if job.qk_clip is not None:
        yield f"# The recipe clips attention scores at {job.qk_clip:g} (QK-clip); torchtitan has no"
        yield "# such thing."
    if job.average and job.average.decay is not None:
        yield "# The recipe's result is the moving average of the weights with decay "
        yield f"# {job.average.decay:g}; torchtitan keeps none."
    elif job.average:
        yield f"# The recipe averages weights every {job.average.every} steps after step "
        yield f"# {job.average.from_step}; torchtitan does not."


def _checkpoint(job: TrainJob, before: TrainJob | WeightsJob | None) -> Iterator[str]:
    yield f'dump_folder=str(OUTPUTS / "{function(job)}"),'
    carried = job.optimizer_state == "carry"
    published = before if isinstance(before, WeightsJob) else None
    if published and "hub" in published.source:
        yield f"# Begins with {published.source['hub']}, revision {published.source['revision']},"
        yield f"# that has to lie in the folder {_folder(published)}."
    yield "checkpoint=CheckpointManager.Config("
    yield "    enable=True,"
    if job.saving.every is None:
        timed = "as estimated" if job.cost.seconds else "ten times, since no time is estimated"
        every = counted(Fraction(job.saving.seconds or 0), "seconds")
        yield f"    # The recipe saves every {every}: {timed}, in steps."
    yield f"    interval={steps_between(job)},"
    keep = job.saving.last
    if job.saving.marks:
        yield f"    # The recipe keeps those of every {job.saving.marks} steps too."
    if keep is not None and keep < 2:
        yield "    # torchtitan keeps two at the least."
    yield f"    keep_latest_k={0 if keep is None else max(keep, 2)},"
    yield "    last_save_model_only=False,"
    if published:
        yield f"    initial_load_path=str(Path({_folder(published)!r}).resolve()),"
        yield "    initial_load_in_hf=True,"
        yield "    initial_load_model_only=True,"
    elif "model" in job.inputs:
        assert not isinstance(before, WeightsJob)
        yield f"    initial_load_path={_begins(job, before)},"
        yield f"    initial_load_model_only={not carried},"
    if carried:
        # Each configuration counts steps and data from 0; RunRates allows for that itself.
        yield '    exclude_from_loading=["dataloader", "train_state"],'
    yield "),"


def _begins(job: TrainJob, before: TrainJob | None) -> str:
    """The checkpoint that a job starts from; the user fills it in if none of the jobs makes it."""
    if before and left_out(before) is None:
        return f'str(OUTPUTS / "{function(before)}/checkpoint/step-{_all_steps(before)}")'
    made = before.id if before else "an average, or the best of several"
    what = f"initial_load_path of {job.id}: a checkpoint of its first model ({made})"
    return f"fill_in({what!r})"


def _folder(published: WeightsJob) -> str:
    """The folder of published weights."""
    source = published.source
    return source.get("folder") or f"weights/{source['hub']}"


def _pieces(lines: Any) -> Iterator[str]:
    """Lines of a comment; long lists are cut in the middle."""
    shown = list(lines)
    if len(shown) > 20:
        shown = [*shown[:10], f"… {len(shown) - 20} more …", *shown[-10:]]
    return (f"#   {line}" for line in shown)
