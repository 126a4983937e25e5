"""The plan's train jobs as configurations of torchtitan 0.3: text of Python, nothing is imported.

One function a job, which torchtitan finds by `--module FILE --config FUNCTION`. What torchtitan has
no setting for is said in comments beside the closest one that it has.
"""

import re
from collections.abc import Iterator
from typing import Any

from .plan import NextToken, Plan, Sft, TrainJob
from .values import Architecture, LrPiece

EMITTED = ("llama3",)
"""Families whose models are written out."""
SECTIONS = {
    "training": "TrainingConfig", "parallelism": "ParallelismConfig", "compile": "CompileConfig",
    "debug": "DebugConfig", "comm": "CommConfig",
}  # fmt: skip


def emit(plan: Plan) -> str:
    """A module with a function for each train job of the plan."""
    jobs = [job for job in plan.jobs if isinstance(job, TrainJob)]
    return _module(plan, jobs, jobs)


def emit_each(plan: Plan) -> dict[str, str]:
    """A module a train job, by the name of its file."""
    jobs = [job for job in plan.jobs if isinstance(job, TrainJob)]
    return {f"{function(job)}.py": _module(plan, [job], jobs) for job in jobs}


def function(job: TrainJob) -> str:
    """The name of a job's function: `long_context.2+1` → `long_context_2_extended_1`."""
    return re.sub(r"\W", "_", job.id.replace("+", "_extended_"))


def _module(plan: Plan, jobs: list[TrainJob], all_jobs: list[TrainJob]) -> str:
    written = [job for job in jobs if _left_out(job) is None]
    lines = [HEAD.format(recipe=plan.recipe)]
    for job in written[:1]:
        lines.append(
            f"#   NGPU={job.resources.world_size} torchrun … -m torchtitan.train "
            f"--module FILE --config {function(job)}"
        )
    if written:
        lines.append(IMPORTS)
    titles = {job.key: job for job in all_jobs}
    for job in jobs:
        reason = _left_out(job)
        if reason:
            lines.append(f"\n\n# {job.id} is left out: {reason}.")
        else:
            lines += ["", "", *_job(job, titles.get(job.inputs.get("model", "")))]
    return "\n".join(lines) + "\n"


def _left_out(job: TrainJob) -> str | None:
    """Why torchtitan alone cannot do a job."""
    if not isinstance(job.objective, NextToken | Sft):
        return f"torchtitan has no loss for the objective {job.objective.name}"
    if job.model.family not in EMITTED:
        return f"models of the family {job.model.family} are not written out"
    return None


def _job(job: TrainJob, before: TrainJob | None) -> Iterator[str]:
    sections = job.torchtitan
    yield f"def {function(job)}() -> Trainer.Config:"
    yield f'    """Job {job.id}: {job.steps:,} steps, {job.tokens:,} tokens."""'
    if job.extends:
        yield f"    # Runs only where the gate {job.extends.gate} has failed."
    if job.resources.device == "cpu":
        yield "    # Etude runs this job on CPUs, with attention of its own: see torchtitan's flex,"
        yield "    # which trains on GPUs only."
    yield "    return Trainer.Config("
    yield "        model_spec=ModelSpec("
    yield f"            name={job.model.family!r},"
    yield f"            flavor={job.model.size or 'custom'!r},"
    yield from _model(job.model, job.seq_len)
    yield "            parallelize_fn=parallelize_llama,"
    yield "            pipelining_fn=pipeline_llm,"
    yield "            post_optimizer_build_fn=None,"
    yield "            state_dict_adapter=Llama3StateDictAdapter,"
    yield "        ),"
    yield "        loss=ChunkedLossWrapper.Config("
    yield f"            loss_fn=CrossEntropyLoss.Config(global_vocab_size={job.model.vocab})"
    yield "        ),"
    for name, kind in SECTIONS.items():
        values = dict(sections[name])
        if name == "training":
            yield from _indented(_batch(job))
            values["global_batch_size"] = job.schedule.batch[-1].sequences
        yield from _call(f"{name}={kind}", values)
    yield from _optimizer(sections["optimizer"])
    yield from _indented(_rates(job))
    yield from _indented(_recompute(sections["activation_checkpoint"]))
    yield from _indented(_data(job))
    yield from _indented(_checkpoint(job, before))
    yield "    )"


def _model(model: Architecture, seq_len: int) -> Iterator[str]:
    names = ("layers", "dim", "heads", "kv_heads", "head_dim", "ffn", "vocab", "rope_theta",
             "rope_scaling", "tied", "norm_eps")  # fmt: skip
    yield "            model=llama3("
    for name in names:
        yield f"                {name}={getattr(model, name)!r},"
    yield f"                seq_len={seq_len},"
    yield "            ),"


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
        yield "# torchtitan has one batch: the last of these. In the recipe, by step of the stage:"
        yield from _pieces(f"{p.from_step} to {p.to_step}: {p.sequences} sequences" for p in pieces)


def _rates(job: TrainJob) -> Iterator[str]:
    """The closest schedule of torchtitan: linear warm-up, peak, one decay at the end."""
    pieces, first, last = job.schedule.lr, job.first_step, job.first_step + job.steps
    peak = max(max(piece.start, piece.end) for piece in pieces)
    warm, fall = pieces[0], pieces[-1]
    rises = warm.shape != "hold" and warm.end > warm.start
    falls = fall.shape != "hold" and fall.end < fall.start
    warmup = min(warm.to_step, last) - first if rises else 0
    decay = last - max(fall.from_step, first) if falls else 0
    shape = fall.shape if falls and fall.shape in ("linear", "sqrt", "cosine") else "linear"
    exact = len(pieces) == 1 and not rises and not falls
    if not exact:
        yield "# torchtitan warms up from 0, holds and decays once, in steps of this job. In the"
        yield "# recipe, by step of the stage:"
        yield from _pieces(map(_piece, pieces))
    yield "lr_scheduler=LRSchedulersContainer.Config("
    yield f"    warmup_steps={warmup},"
    yield f"    decay_ratio={decay / job.steps!r},"
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
    kind = {"selective": "SelectiveAC", "full": "FullAC"}[values["mode"]] if values else ""
    yield f"activation_checkpoint={f'{kind}.Config()' if kind else None},"


def _data(job: TrainJob) -> Iterator[str]:
    yield "# The recipe reads, in weights by step of the stage:"
    yield from _pieces(
        f"{piece.from_step} to {piece.to_step}: "
        + ", ".join(f"{name} {weight}" for name, weight in piece.weights.items())
        for piece in job.schedule.mixture
    )
    yield "# torchtitan reads one registered dataset, from its beginning: name it here."
    if isinstance(job.objective, Sft):
        yield "# The recipe learns from dialogs, the loss on: " + job.objective.loss_on + "."
    yield 'hf_assets_path="./assets/tokenizer",'
    yield 'dataloader=HuggingFaceTextDataLoader.Config(dataset="c4"),'
    if job.average:
        yield f"# The recipe averages weights every {job.average.every} steps after step "
        yield f"# {job.average.from_step}; torchtitan does not."


def _checkpoint(job: TrainJob, before: TrainJob | None) -> Iterator[str]:
    yield f'dump_folder=str(OUTPUTS / "{function(job)}"),'
    carried = job.optimizer_state == "carry"
    if "model" in job.inputs and before is None:
        yield "# Begins with a model that no train job makes (an average, or the best of some):"
        yield "# put its checkpoint here."
    yield "checkpoint=CheckpointManager.Config("
    yield "    enable=True,"
    yield f"    interval={job.checkpoint_every},"
    yield "    last_save_model_only=False,"
    if "model" in job.inputs:
        path = f"{function(before)}/checkpoint/step-{before.steps}" if before else "FILL_IN"
        yield f'    initial_load_path=str(OUTPUTS / "{path}"),'
        yield f"    initial_load_model_only={not carried},"
    if carried:
        # The counter of steps and the learning rate start anew with each configuration.
        yield '    exclude_from_loading=["lr_scheduler", "dataloader", "train_state"],'
    yield "),"


def _pieces(lines: Any) -> Iterator[str]:
    """Lines of a comment; long lists are cut in the middle."""
    shown = list(lines)
    if len(shown) > 20:
        shown = [*shown[:10], f"… {len(shown) - 20} more …", *shown[-10:]]
    return (f"#   {line}" for line in shown)


HEAD = """# The train jobs of the recipe {recipe}, for torchtitan 0.3.
# Made by `etude plan --emit torchtitan`.
#
# Each function is a configuration; jobs that go on from another load its checkpoint. Gates,
# averages, evaluations and post-training by preferences are etude's, and not here. Run one with"""

IMPORTS = '''
from functools import partial
from pathlib import Path

from torch import nn
from torchtitan.components.checkpoint import CheckpointManager
from torchtitan.components.loss import ChunkedLossWrapper, CrossEntropyLoss
from torchtitan.components.optimizer import (
    LRSchedulersContainer,
    OptimizersContainer,
    ParamGroupConfig,
)
from torchtitan.config import CompileConfig, ParallelismConfig, TrainingConfig
from torchtitan.config.configs import CommConfig, DebugConfig
from torchtitan.distributed.activation_checkpoint import FullAC, SelectiveAC
from torchtitan.distributed.pipeline_parallel import pipeline_llm
from torchtitan.hf_datasets.text_datasets import HuggingFaceTextDataLoader
from torchtitan.models.common import ComplexRoPE, Embedding, Linear, RMSNorm
from torchtitan.models.common.config_utils import (
    get_attention_config,
    make_ffn_config,
    make_gqa_config,
)
from torchtitan.models.common.param_init import depth_scaled_std, skip_param_init
from torchtitan.models.llama3 import Llama3Model, parallelize_llama
from torchtitan.models.llama3.model import Llama3TransformerBlock
from torchtitan.models.llama3.state_dict_adapter import Llama3StateDictAdapter
from torchtitan.protocols.model_spec import ModelSpec
from torchtitan.trainer import Trainer

OUTPUTS = Path("outputs").resolve()
"""Checkpoints; torchtitan wants the whole path."""


def llama3(
    *, layers, dim, heads, kv_heads, head_dim, ffn, vocab, rope_theta, rope_scaling, tied,
    norm_eps, seq_len,
) -> Llama3Model.Config:
    """Torchtitan's Llama 3 of any shape."""
    weight = {"weight": partial(nn.init.trunc_normal_, std=0.02)}
    head_std = dim**-0.5

    def norm() -> RMSNorm.Config:
        return RMSNorm.Config(
            normalized_shape=dim, eps=norm_eps, param_init={"weight": nn.init.ones_}
        )

    def block(layer: int) -> Llama3TransformerBlock.Config:
        scaled = {"weight": partial(nn.init.trunc_normal_, std=depth_scaled_std(0.02, layer))}
        return Llama3TransformerBlock.Config(
            attention_norm=norm(),
            ffn_norm=norm(),
            attention=make_gqa_config(
                dim=dim, n_heads=heads, n_kv_heads=kv_heads, head_dim=head_dim,
                wqkv_param_init=weight, wo_param_init=scaled,
                inner_attention=get_attention_config("flex"),
                rope=ComplexRoPE.Config(
                    dim=head_dim, max_seq_len=seq_len, theta=rope_theta, scaling=rope_scaling
                ),
            ),
            feed_forward=make_ffn_config(
                dim=dim, hidden_dim=ffn, w1_param_init=weight, w2w3_param_init=scaled
            ),
        )

    return Llama3Model.Config(
        dim=dim,
        vocab_size=vocab,
        enable_weight_tying=tied,
        tok_embeddings=Embedding.Config(
            num_embeddings=vocab,
            embedding_dim=dim,
            param_init={"weight": skip_param_init if tied else nn.init.normal_},
        ),
        norm=norm(),
        lm_head=Linear.Config(
            in_features=dim,
            out_features=vocab,
            param_init={
                "weight": partial(
                    nn.init.trunc_normal_, std=head_std, a=-3 * head_std, b=3 * head_std
                )
            },
        ),
        layers=[block(layer) for layer in range(layers)],
    )'''
