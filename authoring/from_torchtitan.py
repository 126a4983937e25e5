"""Converts torchtitan's configurations to specs: job files in TOML, and the JSON that 0.3 saves."""

from fractions import Fraction
from typing import Any

from ..compiler.pipelines import DEFAULT, LESS_LAYERS, PIPELINES
from . import writing as w
from .config import Config
from .draft import NO_TOKENIZER, Draft, Options, is_local, optimizer, placement
from .torchtitan_models import model_shape
from .torchtitan_precision import precision, recompute
from .tree import ConfigError, Leaf

SCHEDULE = "parallelism.pipeline_parallel_schedule"
LESS = tuple(f"parallelism.{name}" for name in LESS_LAYERS.values())
LAYERS_PER_STAGE = "parallelism.pipeline_parallel_layers_per_stage"
_C4 = {"c4": "train", "c4_validation": "validation"}

_WRITTEN = "a run writes only to its folder"
_LOGGED = "logging has no settings"
_SPEED = "speed only"
_EVALUATED = "write `evaluate = { … }` in the stage"
IRRELEVANT = {
    "job": _WRITTEN,
    "dump_folder": _WRITTEN,
    "profiling": "profiling has no settings",
    "profiler": "profiling has no settings",
    "metrics": _LOGGED,
    "comm": "time limits are the engine's choice",
    "compile": _SPEED,
    "memory_estimation": "`etude plan` plans without a GPU",
    "optimizer.implementation": _SPEED,
    "optimizer.fused": _SPEED,
    "optimizer.foreach": _SPEED,
    "optimizer.early_step_in_backward": _SPEED,
    "model.print_after_conversion": _LOGGED,
    "model_spec.model": "follows from the shape",
    "tokenizer": "follows from its file",
    "loss.num_chunks": _SPEED,
    "loss.loss_fn": "the loss is the cross-entropy",
    "loss.global_vocab_size": "follows from the model",
    "dataloader.num_workers": "data loading has no settings",
    "dataloader.persistent_workers": "data loading has no settings",
    "dataloader.pin_memory": "data loading has no settings",
    "dataloader.prefetch_factor": "data loading has no settings",
    "training.dataloader": "data loading has no settings",
    "training.gc_freq": _SPEED,
    "training.gc_debug": _LOGGED,
    "training.disable_cuda_graphs": _SPEED,
    "training.mixed_precision_reduce": "gradients are summed in fp32",
    "training.enable_cpu_offload": "weights stay on the device; the results are the same",
    "parallelism.fsdp_reshard_after_forward": _SPEED,
    "parallelism.enable_fsdp_symm_mem": _SPEED,
    "parallelism.enable_sequence_parallel": "tensor parallelism is always with it",
    "parallelism.disable_loss_parallel": _SPEED,
    "parallelism.enable_async_tensor_parallel": _SPEED,
    "parallelism.enable_compiled_autograd": _SPEED,
    "parallelism.spmd_backend": "the engine's choice",
    "parallelism.module_fqns_per_model_part": "layers are divided evenly",
    **dict.fromkeys((*LESS, LAYERS_PER_STAGE, SCHEDULE), "there is no pipeline"),
    "parallelism.pipeline_parallel_schedule_csv": "the pipeline's schedule is the engine's choice",
    "parallelism.pipeline_parallel_split_points": "layers are divided evenly",
    "parallelism.pipeline_parallel_microbatch_size": "the engine cuts a pipeline's batch",
    "parallelism.context_parallel_load_balancer": _SPEED,
    "parallelism.context_parallel_rotate_method": _SPEED,
    "parallelism.context_parallel_ptrr_mask_key": _SPEED,
    "parallelism.expert_tensor_parallel_degree": "the engine's choice",
    "parallelism.expert_parallel_comm_backend": _SPEED,
    "parallelism.pipeline_parallel_expert_parallel_overlap": _SPEED,
    "checkpoint.folder": _WRITTEN,
    "checkpoint.async_mode": "checkpoints have no other settings",
    "checkpoint.last_save_model_only": "the result of a stage is always kept",
    "checkpoint.enable_first_step_checkpoint": "checkpoints have no other settings",
    "checkpoint.enable_ft_dataloader_checkpoints": "checkpoints have no settings",
    "checkpoint.create_seed_checkpoint": "initial weights follow from the seed",
    "checkpoint.initial_load_model_only": "concerns `initial_load_path`",
    "checkpoint.initial_load_in_hf": "concerns `initial_load_path`",
    "checkpoint.initial_load_in_hf_quantized": "concerns `initial_load_path`",
    "checkpoint.exclude_from_loading": "a resumed job continues with all its state",
    "checkpoint.load_step": "a resumed job continues where it stopped",
    "checkpoint.enable": "checkpoints are always made",
    "checkpoint.enable_checkpoint": "checkpoints are always made",
    "activation_checkpoint.selective_ac_option": "the engine's choice of what is kept",
    "activation_checkpoint.per_op_sac_force_recompute_mm_shapes_by_fqns": "the engine's choice",
    "activation_checkpoint.force_recompute_mm_shapes_by_fqns": "the engine's choice",
    "activation_checkpoint.early_stop": _SPEED,
    "activation_checkpoint.preserve_rng_state": "there is no dropout",
    "activation_checkpoint.determinism_check": _LOGGED,
    "activation_checkpoint.debug": _LOGGED,
    "activation_checkpoint.memory_budget": "concerns the mode `memory_budget`",
    "activation_checkpoint.visualize_memory_budget_pareto": _LOGGED,
    "fault_tolerance": "a run is resumed, not repaired while it runs",
    "debug.deterministic": "training is deterministic",
    "debug.deterministic_warn_only": "training is deterministic",
    "debug.print_config": _LOGGED,
    "debug.save_config_file": _LOGGED,
    "debug.spmd_typechecking": _LOGGED,
    "debug.moe_force_load_balance": "experts are chosen by the router",
    "debug.detect_anomaly": _LOGGED,
    "debug.enable_structured_logging": _LOGGED,
    "validation": _EVALUATED,
    "validator": _EVALUATED,
}


_EXPORTED = {"float32": "fp32", "bfloat16": "bf16"}
"""torchtitan's names of precisions → those of `export`."""
_SHAPES = {"linear": "", "cosine": " cosine", "sqrt": " sqrt"}


def is_torchtitan(config: Config) -> bool:
    """Whether the configuration has torchtitan's sections."""
    sections = ("training", "optimizer", "parallelism")
    named = "model_spec" in config.root or config.has("model.name", "model.flavor")
    return named and all(name in config.root for name in sections[:2])


def draft(config: Config, options: Options, title: str) -> Draft:
    """The spec of a torchtitan configuration.

    Raises: ConfigError: a value is of the wrong kind, or the model has an architecture that the
        engine cannot build.
    """
    made = Draft(config, options)
    family = config.text("model_spec.name", "model.name", default="llama3")
    shape = model_shape(config, family)
    published = _published(config, options)
    model = None if options.base else made.model(shape, published, family)
    if options.base:
        config.irrelevant({"model": f"the model is that of `{options.base.stage}`"})
    assets = config.text("hf_assets_path", "model.hf_assets_path", "model.tokenizer_path")
    if assets:
        made.tokenizer(assets)
    degrees, world = _degrees(config, options, mixed="experts" in shape)
    made.cluster(world)
    pipelined, interleave = _pipeline(config, degrees["pipeline"], shape["layers"])
    steps = config.whole("training.steps", default=10_000, least=1)
    local = config.whole("training.local_batch_size", "training.batch_size", default=8, least=1)
    length = config.whole("training.seq_len", default=2048, least=2)
    clip = config.number("training.max_norm", default=Fraction(1))
    made.add(
        w.block(
            f"stage {made.name('pretrain', 'stage')}: train",
            made.start(model),
            ("steps", w.plain(steps)),
            ("seq_len", w.count(length)),
            _batch(config, made, local, degrees["replicate"], world and degrees["shard"]),
            *_rates(config, made, steps),
            ("data", _data(config, made)),
            _optimizer(config, made),
            ("clip", w.real(clip)) if clip else None,
            precision(config, mixed="experts" in shape),
            recompute(config),
            placement(
                *pipelined,
                replicate=degrees["replicate"],
                tensor=degrees["tensor"],
                context=degrees["context"],
                pipeline=degrees["pipeline"],
                expert=degrees["expert"],
                interleave=interleave,
                micro_batch=local,
            ),
            None if assets or options.base else made.open("tokenizer", NO_TOKENIZER),
            *_checkpoints(config),
        )
    )
    _header(config, made, title)
    _lost(config, options)
    config.irrelevant(IRRELEVANT)
    return made


def _checkpoints(config: Config) -> list[w.Line]:
    """How often checkpoints are saved, which are kept, and the precision of the export."""
    interval = config.whole("checkpoint.interval", default=500, least=1)
    kept = config.whole("checkpoint.keep_latest_k", default=10, least=0)
    exports = config.flag("checkpoint.last_save_in_hf")
    dtype = config.text("checkpoint.export_dtype", default="float32")
    if not config.flag("checkpoint.enable", "checkpoint.enable_checkpoint"):
        return []
    lines: list[w.Line] = [f"checkpoint every {w.plain(interval)} steps"]
    if config.has("checkpoint.keep_latest_k"):
        lines.append(f"keep last {w.plain(kept)}" if kept else "keep all")
    if exports and dtype in _EXPORTED:
        lines.append(("export", _EXPORTED[dtype]))
    elif dtype != "float32":
        config.lost(
            "checkpoint.export_dtype",
            "exports are bf16 or fp32" if exports else "a result that is not exported stays fp32",
        )
    return lines


def _header(config: Config, made: Draft, title: str) -> None:
    seed = config.whole("debug.seed", "training.seed", default=None)
    if seed is None:
        config.assumed("seed", "torchtitan draws a new one each time; 0 is used")
    tracked = config.flag("metrics.enable_wandb")
    described = config.text("job.description", default=title)
    made.header(
        title, described, ("seed", str(seed or 0)), ("tracking", "wandb") if tracked else None
    )


def _pipeline(config: Config, pipeline: int, layers: Any) -> tuple[list[str], int | None]:
    """The schedule and the split of a pipeline, as placements say them, and its stages per rank: of
    schedules with several, as many as the layers that torchtitan gives make, by default two."""
    if pipeline == 1:
        return [], None
    split = tuple(config.whole(path, default=1, least=0) for path in LESS)
    shown = [f"{of} {less}" for of, less in zip(LESS_LAYERS, split, strict=True) if less != 1]
    named = config.text(SCHEDULE, default="1F1B")
    of = SCHEDULES.get(named.lower())
    if of is None:
        config.lost(SCHEDULE, "the pipeline runs 1F1B")
        return shown, None
    if of != DEFAULT:
        shown.insert(0, f"schedule {of}")
    if PIPELINES[of].titan.lower() == named.lower():
        return shown, None
    each = config.whole(LAYERS_PER_STAGE, default=None, least=1)
    interleave = 2 if each is None else -(-(layers + sum(split)) // each) // pipeline
    return shown, None if of != DEFAULT and interleave == 2 else interleave


SCHEDULES = {
    name.lower(): of
    for of, each in PIPELINES.items()
    for name in (each.titan, each.several)
    if name
}
"""torchtitan's schedules, in lower case → ours."""


def _batch(config: Config, made: Draft, local: int, replicate: int, shard: int | None) -> w.Line:
    """The global batch; open if it depends on an unknown number of GPUs."""
    batch = config.whole("training.global_batch_size", default=-1)
    if batch <= 0 and shard is None:
        reason = (
            f"each data-parallel rank takes {local} {'seq' if local == 1 else 'seqs'} a step; "
            "import with --gpus N, or write the product"
        )
        return made.open("batch", reason)
    return "batch", f"{w.plain(batch if batch > 0 else local * replicate * (shard or 1))} seqs"


def _degrees(config: Config, options: Options, *, mixed: bool) -> tuple[dict[str, int], int | None]:
    """The degrees of parallelism, and the number of ranks; `mixed`: there are experts."""

    def degree(new: str, *old: str) -> int:
        paths = (f"parallelism.{new}", f"training.{new}", f"experimental.{new}", *old)
        return config.whole(*paths, default=1)

    found = {
        "replicate": degree("data_parallel_replicate_degree"),
        "tensor": degree("tensor_parallel_degree"),
        "context": degree("context_parallel_degree"),
        "pipeline": degree("pipeline_parallel_degree"),
    }
    for name, value in found.items():
        if value < 1:
            raise ConfigError(f"the degree of {name} parallelism is {value}, and not at least 1")
    path = next(
        (
            p
            for p in (
                "parallelism.data_parallel_shard_degree",
                "training.data_parallel_shard_degree",
                "training.data_parallel_degree",
            )
            if config.has(p)
        ),
        "parallelism.data_parallel_shard_degree",
    )
    shard = config.whole(path, default=-1)
    expert = config.whole("parallelism.expert_parallel_degree", default=1)
    if expert > 1 and not mixed:
        config.lost("parallelism.expert_parallel_degree", "the model is dense")
        expert = 1
    others = 1
    for value in found.values():
        others *= value
    if shard < 1 and options.gpus:
        if options.gpus % others:
            raise ConfigError(
                f"{options.gpus} GPUs cannot be divided by {others}",
                help=f"the other degrees multiply to {others}",
            )
        shard = options.gpus // others
    elif shard < 1:
        return found | {"shard": 1, "expert": expert}, None
    if options.gpus and options.gpus != others * shard:
        raise ConfigError(f"--gpus {options.gpus}: the degrees multiply to {others * shard}")
    return found | {"shard": shard, "expert": expert}, others * shard


def _rates(config: Config, made: Draft, steps: int) -> list[w.Line]:
    """The learning rate; open if its decay has a shape that the language lacks."""
    kind = config.text("lr_scheduler.decay_type", "lr_scheduler.lr_decay_type", default="linear")
    segments = _segments(config, steps, kind)
    if kind in _SHAPES:
        return [("lr", w.schedule(segments))]
    reason = f"it decays by `{kind}`, which is not a ramp shape; linear is used, with a comment"
    return made.open_rates(segments, reason)


def _segments(config: Config, steps: int, kind: str) -> list[str]:
    """The learning rate by step: step i of an n-step warmup has (i + 1) / n of the peak."""
    peak = config.number("optimizer.lr", default=None)
    if peak is None:
        peak = config.number(f"{_group(config)}.lr", default=Fraction("8e-4"))
    total = config.whole("lr_scheduler.total_steps", default=steps, least=1)
    warmup = min(
        config.whole("lr_scheduler.warmup_steps", "training.warmup_steps", default=200, least=0),
        total,
    )
    ratio = config.number("lr_scheduler.decay_ratio", default=None)
    decay = total - warmup if ratio is None else min(round(total * ratio), total - warmup)
    shape = _SHAPES.get(kind, "")
    low = peak * config.number(
        "lr_scheduler.min_lr_factor", "lr_scheduler.lr_min", default=Fraction(0)
    )
    high = w.real(peak)
    if total < steps:
        config.assumed("lr_scheduler.total_steps", "after it the learning rate stays where it is")
    pieces: list[w.Piece] = []
    if warmup > 1:
        # The last step of the warmup reaches the peak, which is kept until the decay.
        pieces.append(w.Piece(total - decay, f"{w.real(peak / warmup)} -> {high}", warmup - 1))
    else:
        pieces.append(w.Piece(total - decay, high))
    if decay:
        arrow = "->" if total > decay else f"{high} ->"
        pieces.append(w.Piece(total, f"{arrow} {w.real(low)}{shape}", decay))
    pieces.append(w.Piece(steps, w.real(low) if decay else high))
    return w.timed(pieces, steps)


def _group(config: Config) -> str:
    """The settings of the one parameter group that 0.3 uses for all parameters."""
    groups = config.count("optimizer.param_groups")
    for number in range(1, groups):
        config.lost(f"optimizer.param_groups[{number}]", "all parameters are optimized alike")
    if groups:
        config.irrelevant(
            {
                "optimizer.param_groups[0].pattern": "all parameters are alike",
                "optimizer.optimizer_factory_kwargs_by_name": "not set",
            }
        )
    return "optimizer.param_groups[0].optimizer_kwargs"


def _optimizer(config: Config, made: Draft) -> w.Line:
    group = _group(config)
    kind = config.text(
        "optimizer.name", "optimizer.param_groups[0].optimizer_name", default="AdamW"
    )
    if kind not in ("AdamW", "Adam"):
        return made.open_optimizer(kind)
    leaf = config.node(f"{group}.betas")
    given: list[Any] = leaf.value if isinstance(leaf, Leaf) and isinstance(leaf.value, list) else []
    if len(given) == 2 and all(isinstance(beta, int | Fraction) for beta in given):
        betas = (Fraction(given[0]), Fraction(given[1]))
        config.carried(f"{group}.betas")
    else:
        betas = (
            config.number("optimizer.beta1", default=Fraction("0.9")),
            config.number("optimizer.beta2", default=Fraction("0.95")),
        )
    decay = config.number(
        "optimizer.weight_decay", f"{group}.weight_decay", default=Fraction("0.1")
    )
    eps = config.number("optimizer.eps", f"{group}.eps", default=Fraction("1e-8"))
    name, value = optimizer(betas, decay, eps)
    return name, value.replace("adamw", "adam", 1) if kind == "Adam" else value


def _data(config: Config, made: Draft) -> str:
    where = ("dataloader", "training")
    given = config.text(*(f"{section}.dataset" for section in where), default="c4_test")
    path = config.text(*(f"{section}.dataset_path" for section in where))
    name = made.name(given, "data")
    field: w.Line = None
    if path:
        source: w.Line = ("hub", w.quoted(path))
        made.config.assumed(
            "dataset",
            f"`{path}` is read as a Hub data set, or a folder next to the spec with one",
        )
    elif given in _C4:
        source = ("hub", w.quoted("allenai/c4"))
        field = ("config", w.quoted("en"))
    elif given == "c4_test":
        source = ("hub", w.quoted("tests/assets/c4_test"))
        made.config.assumed("dataset", "`c4_test` is the folder of torchtitan's own tests")
    else:
        source = made.open(
            "hub", f"`{given}` is one of torchtitan's own names; say where the data are"
        )
    split = _C4.get(given, "train")
    made.add(
        w.block(
            f"dataset {name}",
            source,
            field,
            ("split", w.quoted(split)) if split != "train" else None,
            made.size(name, "tokens", ""),
        )
    )
    config.lost_unless("dataloader.infinite", [True], "a source starts over after its end", "as is")
    return name


def _published(config: Config, options: Options) -> tuple[str, int] | None:
    """The folder of published weights that the model starts from, and their context length."""
    if options.base or not config.flag("checkpoint.initial_load_in_hf"):
        return None
    path = config.text("checkpoint.initial_load_path", "hf_assets_path", "model.hf_assets_path")
    if path is None or not is_local(path):
        return None
    length = config.whole("training.seq_len", default=2048, least=2)
    config.assumed(
        "context", f"the weights in {path} are assumed to be trained on sequences of this length"
    )
    return path, length


def _lost(config: Config, options: Options) -> None:
    if config.has("checkpoint.initial_load_path") and _published(config, options) is None:
        config.lost(
            "checkpoint.initial_load_path",
            "another program's checkpoint cannot be read"
            + ("" if options.base else ": the stage starts from new weights"),
        )
    for section in ("validation", "validator"):
        if config.flag(f"{section}.enable"):
            config.lost(f"{section}.enable", "write `evaluate = { … }` in the stage")
    config.lost_unless("debug.batch_invariant", [False], "no such mode", "off")
    for path in (
        "experimental.custom_import",
        "experimental.custom_args_module",
        "experimental.custom_model_path",
        "override.imports",
    ):
        config.lost_unless(path, ["", []], "a spec has no code", "not set")
    config.lost_unless("checkpoint.load_only", [False], "checkpoints are always made", "off")
