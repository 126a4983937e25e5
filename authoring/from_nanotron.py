"""Converts nanotron's YAML to a spec: one model, one schedule, data in stages."""

from fractions import Fraction

from ..compiler.families import FAMILIES
from ..compiler.resolve.shape_attributes import llama_scaling
from . import writing as w
from .config import Config, shorten
from .draft import NO_TOKENIZER, Draft, Options, attributes, optimizer, placement
from .tree import ConfigError

IRRELEVANT = {
    "checkpoints.checkpoints_path": "a run writes only to its folder",
    "checkpoints.checkpoints_path_is_shared_file_system": "the run folder is shared",
    "checkpoints.save_initial_state": "initial weights follow from the seed",
    "checkpoints.save_final_state": "the result of a stage is always kept",
    "checkpoints.load_lr_scheduler": "a resumed job continues with all its state",
    "checkpoints.load_optimizer": "a resumed job continues with all its state",
    "data_stages[].name": "for readers",
    "data_stages[].data.num_loading_workers": "data loading has no settings",
    "data_stages[].data.seed": "the recipe's seed orders the data",
    "data_stages[].data.dataset.dataset_overwrite_cache": "results are kept by content",
    "data_stages[].data.dataset.dataset_processing_num_proc_per_process": (
        "preparation has no settings"
    ),
    "data_stages[].data.dataset.return_positions": "documents never attend to each other",
    "data_stages[].data.dataset.token_size_in_bytes": "follows from the vocabulary",
    "data_stages[].data.dataset.vocab_size": "follows from the tokenizer",
    "data_stages[].data.dataset.shuffle_files": "documents are always shuffled, by the seed",
    "data_stages[].data.dataset.skip_in_stream": "a resumed job continues where it stopped",
    "data_stages[].data.dataset.use_old_brrr_dataloader": "data loading has no settings",
    "data_stages[].data.dataset.pad_samples_to_global_batch_size": "batches are always full",
    "general.benchmark_csv_path": "metrics are always recorded",
    "general.ignore_sanity_checks": "checks are always made",
    "general.project": "for readers",
    "lighteval": "evaluations are stages of kind `evaluate`",
    "logging": "logging has no settings",
    "metrics_logging": "logging has no settings",
    "profiler": "profiling has no settings",
    "s3_upload": "a run writes to its folder",
    "model.ddp_bucket_cap_mb": "speed only",
    "model.model_config._attn_implementation": "the attention kernel is the engine's choice",
    "model.model_config._fused_rms_norm": "speed only",
    "model.model_config._fused_rotary_emb": "speed only",
    "model.model_config._use_qkv_packed": "speed only",
    "model.model_config._use_doc_masking": "documents never attend to each other",
    "model.model_config.bos_token_id": "follows from the tokenizer",
    "model.model_config.eos_token_id": "follows from the tokenizer",
    "model.model_config.pad_token_id": "follows from the tokenizer",
    "model.model_config.is_llama_config": "says what the model is",
    "model.model_config.max_position_embeddings": "follows from `seq_len`",
    "model.model_config.pretraining_tp": "a note to transformers",
    "model.model_config.use_cache": "concerns generation",
    "model.model_config.initializer_range": "nanotron takes `init_method`",
    "model.model_config.rope_interleaved": "a layout of the same weights",
    "model.model_config.flex_attention_mask": "documents never attend to each other",
    "optimizer.accumulate_grad_in_fp32": "gradients are always summed in fp32",
    "optimizer.optimizer_factory.torch_adam_is_fused": "speed only",
    "parallelism.tp_mode": "tensor parallelism is always with sequence parallelism",
    "parallelism.tp_linear_async_communication": "speed only",
    "parallelism.tp_recompute_allgather": "speed only",
    "parallelism.moe_layer_recompute": "the model is dense",
    "tokenizer.tokenizer_max_length": "documents are cut into sequences",
    "tokens.limit_test_batches": "write `evaluate = { … }` in the stage",
    "tokens.limit_val_batches": "write `evaluate = { … }` in the stage",
    "tokens.val_check_interval": "write `evaluate = { … }` in the stage",
}
_RATES = "optimizer.learning_rate_scheduler"
_MODEL = "model.model_config"
Z_LOSS = Fraction(1, 10_000)
"""The default coefficient (PaLM, arXiv:2204.02311, §5)."""
_ADAM = "optimizer.optimizer_factory"
_KNOWN = frozenset(
    {
        "num_attention_heads",
        "num_hidden_layers",
        "hidden_size",
        "num_key_value_heads",
        "intermediate_size",
        "vocab_size",
        "rope_theta",
        "rope_scaling",
        "tie_word_embeddings",
        "rms_norm_eps",
        "z_loss_enabled",
        "z_loss_coefficient",
    }
)
"""Settings of a model that the spec has, or that concern the loss."""
_SHAPES = {"cosine": " cosine", "1-sqrt": " sqrt", "linear": ""}
_OFF = (None, False, "", [])


def is_nanotron(config: Config) -> bool:
    """Whether the configuration has nanotron's sections."""
    return all(name in config.root for name in ("model", "optimizer", "parallelism", "tokens"))


def draft(config: Config, options: Options, title: str) -> Draft:
    """The spec of a nanotron configuration.

    Raises: ConfigError: a required value is missing or of the wrong kind, or the model has an
        architecture that the engine cannot build.
    """
    made = Draft(config, options)
    steps = _required(config, "tokens.train_steps")
    micro = _required(config, "tokens.micro_batch_size")
    data_parallel = _required(config, "parallelism.dp")
    accumulation = config.whole("tokens.batch_accumulation_per_replica", default=1, least=1)
    tensor = config.whole("parallelism.tp", default=1, least=1)
    pipeline = config.whole("parallelism.pp", default=1, least=1)
    engine = config.text("parallelism.pp_engine", default="1f1b")
    context = config.whole("parallelism.context_parallel_size", default=1, least=1)
    expert = config.whole("parallelism.expert_parallel_size", default=1, least=1)
    model = None if options.base else _model(config, made)
    if options.base:
        config.irrelevant({_MODEL: f"the model is that of `{options.base.stage}`"})
    tokenizer = config.text("tokenizer.tokenizer_name_or_path")
    if tokenizer:
        made.tokenizer(tokenizer)
    made.cluster(data_parallel * tensor * pipeline * context)
    zero = config.whole("optimizer.zero_stage", default=0)
    if zero == 1 and data_parallel > 1:
        config.assumed("optimizer.zero_stage", "weights are sharded too, not only moments (FSDP2)")
    data, lengths = _data(config, made, steps)
    interval = config.whole("checkpoints.checkpoint_interval", least=1)
    made.add(
        w.block(
            f"stage {made.name('pretrain', 'stage')}: train",
            made.start(model),
            ("steps", w.plain(steps)),
            ("seq_len", lengths),
            ("batch", f"{w.plain(micro * accumulation * data_parallel)} seqs"),
            *_rates(config, made, steps),
            ("data", data),
            _optimizer(config, made),
            _clip(config),
            _precision(config),
            _z_loss(config),
            ("recompute", "full") if config.flag("parallelism.recompute_layer") else None,
            placement(
                *(["schedule gpipe"] if engine == "afab" else []),
                replicate=data_parallel if zero == 0 else None,
                tensor=tensor,
                context=context,
                pipeline=pipeline,
                expert=expert,
                micro_batch=micro,
            ),
            None if tokenizer or options.base else made.open("tokenizer", NO_TOKENIZER),
            f"checkpoint every {w.plain(interval)} steps" if interval else None,
        )
    )
    _lost(config, options)
    config.irrelevant(IRRELEVANT)
    _header(config, made, title)
    return made


def _header(config: Config, made: Draft, title: str) -> None:
    seed = config.whole("general.seed", default=0, least=0)
    project = config.text("general.project", default=title)
    run = config.text("general.run", default=title).replace("%date", "").replace("%jobid", "")
    made.header(
        w.name(run or title, otherwise="imported"),
        f"{project}: {run.strip('_ ')}",
        ("seed", str(seed)),
    )


def _check_kind(config: Config) -> None:
    """
    Raises: ConfigError: the model has no attention heads: it is a state-space model.
    """
    if config.node(f"{_MODEL}.ssm_cfg") is not None or config.flag(f"{_MODEL}.is_mamba_config"):
        raise ConfigError(
            "its model is a state-space model (Mamba), which etude cannot train",
            help=f"supported families: {', '.join(FAMILIES)}",
        )


def _required(config: Config, path: str) -> int:
    value = config.whole(path, least=1)
    if value is None:
        raise ConfigError(f"`{path}` is missing", help="it must be a whole number")
    return value


def _model(config: Config, made: Draft) -> str:
    """The model block; its family is open unless the configuration is a Llama's."""
    _check_kind(config)
    shape = _shape(config)
    others = _unlike_llama(config)
    if not others:
        return made.model(shape)
    name = made.name("imported", "model")
    reason = (
        f"its model is not a Llama ({', '.join(others)}), and not known to be of one of etude's "
        f"other families: {', '.join(f for f in FAMILIES if f != 'llama3')}"
    )
    made.add(w.block(f"model {name}", made.open("family", reason), *attributes(shape)))
    return name


def _unlike_llama(config: Config) -> list[str]:
    """Settings that make the model differ from Llama, or that are unknown here."""
    config.lost_unless(f"{_MODEL}.attention_bias", [False], "linear layers have no bias", "off")
    config.lost_unless(f"{_MODEL}.hidden_act", ["silu"], "feed-forward layers are SwiGLU", "SwiGLU")
    known = {*_KNOWN, *(path.rpartition(".")[2] for path in IRRELEVANT if path.startswith(_MODEL))}
    found = []
    for path, leaf in config.leaves.items():
        name, _, _ = path.removeprefix(f"{_MODEL}.").partition(".")
        if not path.startswith(f"{_MODEL}.") or name in known or leaf.value in _OFF:
            continue
        if name == "hidden_act" and leaf.value == "silu":
            continue
        config.lost(path, "the model is not a Llama")
        found.append(f"{path.removeprefix(_MODEL + '.')} = {shorten(leaf.value)}")
    return found


def _optimizer(config: Config, made: Draft) -> w.Line:
    """AdamW; older versions of nanotron have its settings in `optimizer`, not in the factory."""
    kind = config.text(f"{_ADAM}.name", default="adamW")
    if kind.lower() != "adamw":
        return made.open_optimizer(kind)

    def setting(name: str, default: str) -> Fraction:
        return config.number(f"{_ADAM}.{name}", f"optimizer.{name}", default=Fraction(default))

    return optimizer(
        (setting("adam_beta1", "0.9"), setting("adam_beta2", "0.95")),
        config.number("optimizer.weight_decay", default=Fraction(0)),
        setting("adam_eps", "1e-8"),
    )


def _shape(config: Config) -> dict[str, object]:
    heads = _required(config, f"{_MODEL}.num_attention_heads")
    return {
        "layers": _required(config, f"{_MODEL}.num_hidden_layers"),
        "dim": _required(config, f"{_MODEL}.hidden_size"),
        "heads": heads,
        "kv_heads": config.whole(f"{_MODEL}.num_key_value_heads", default=heads, least=1),
        "ffn": _required(config, f"{_MODEL}.intermediate_size"),
        "vocab": _vocab(config),
        "rope_theta": float(config.number(f"{_MODEL}.rope_theta", default=Fraction(10_000))),
        "rope_scaling": _scaling(config),
        "tied": config.flag(f"{_MODEL}.tie_word_embeddings"),
        "norm_eps": float(config.number(f"{_MODEL}.rms_norm_eps", default=Fraction("1e-6"))),
    }


def _vocab(config: Config) -> int:
    """Rows of the embedding: nanotron pads them, so that all tensor-parallel ranks have equally
    many."""
    vocab = _required(config, f"{_MODEL}.vocab_size")
    multiple = config.whole("parallelism.tp", default=1, least=1) * config.whole(
        "model.make_vocab_size_divisible_by", default=1, least=1
    )
    rows = -(-vocab // multiple) * multiple
    if rows != vocab:
        config.assumed(
            f"{_MODEL}.vocab_size",
            f"{rows} rows, not {vocab}: nanotron pads to a multiple of {multiple}",
        )
    return rows


def _scaling(config: Config) -> object:
    path = f"{_MODEL}.rope_scaling"
    if not isinstance(config.node(path), dict):
        return "none"
    kind = config.text(f"{path}.rope_type", f"{path}.type", default="llama3")
    factor = config.number(f"{path}.factor")
    if kind == "llama3" and factor is not None:
        return llama_scaling(
            factor,
            config.whole(f"{path}.original_max_position_embeddings", default=None),
            config.number(f"{path}.low_freq_factor"),
            config.number(f"{path}.high_freq_factor"),
        )
    config.lost(path, "frequencies are scaled as in Llama 3.1, or not at all; here not at all")
    return "none"


def _rates(config: Config, made: Draft, steps: int) -> list[w.Line]:
    """The learning rate; open if its decay has a shape that the language lacks."""
    style = config.text(f"{_RATES}.lr_decay_style", default="linear")
    segments = _segments(config, steps, style)
    if style in _SHAPES:
        return [("lr", w.schedule(segments))]
    reason = f"it decays by `{style}`, which is not a ramp shape; linear is used, with a comment"
    return made.open_rates(segments, reason)


def _segments(config: Config, steps: int, style: str) -> list[str]:
    """The learning rate by step, which nanotron counts from 0."""
    peak = config.number(f"{_RATES}.learning_rate")
    if peak is None:
        raise ConfigError(f"`{_RATES}.learning_rate` is missing")
    warmup = config.whole(f"{_RATES}.lr_warmup_steps", default=0, least=0)
    constant = config.text(f"{_RATES}.lr_warmup_style", default="linear") == "constant"
    low = config.number(f"{_RATES}.min_decay_lr", default=peak)
    start = config.whole(f"{_RATES}.lr_decay_starting_step", least=0)
    # By default, the decay takes the steps that warmup and `lr_decay_starting_step` leave: both
    # are subtracted, although the latter is counted from the beginning.
    length = config.whole(
        f"{_RATES}.lr_decay_steps", default=steps - warmup - (start or 0), least=0
    )
    begin = max(start if start is not None else warmup, warmup)
    if start is not None and start < warmup:
        config.lost(
            f"{_RATES}.lr_decay_starting_step",
            "the decay begins during the warm-up; it is moved to its end",
        )
    high, bottom = w.real(peak), w.real(low)
    pieces: list[w.Piece] = []
    if warmup and not constant:
        pieces.append(w.Piece(warmup, f"0 -> {high}", warmup))
    if begin > (warmup if not constant else 0):
        pieces.append(w.Piece(begin, high))
    shape = _SHAPES.get(style, "")
    if low != peak and length > 0:
        arrow = "->" if pieces else f"{high} ->"
        pieces.append(w.Piece(begin + length, f"{arrow} {bottom}{shape}", length))
        pieces.append(w.Piece(steps, bottom))
    else:
        pieces.append(w.Piece(steps, high if low == peak else bottom))
    return w.timed(pieces, steps)


def _data(config: Config, made: Draft, steps: int) -> tuple[str, str]:
    """The schedules of data and sequence length."""
    stages = config.count("data_stages")
    length = _required(config, "tokens.sequence_length")
    if not stages:
        return _no_data(made), w.count(length)
    starts, mixtures, lengths = [], [], []
    known: dict[tuple[str, ...], str] = {}
    for number in range(stages):
        path = f"data_stages[{number}]"
        starts.append(config.whole(f"{path}.start_training_step", default=1, least=1) - 1)
        mixtures.append(w.mixture(_sources(config, made, f"{path}.data.dataset", known)))
        lengths.append(w.count(config.whole(f"{path}.sequence_length", default=length, least=2)))
    if sorted(set(starts)) != starts or starts[0] != 0:
        raise ConfigError(
            "the data stages do not start at step 1 and follow one another",
            help="see `start_training_step`",
        )
    ends = [*starts[1:], steps]
    return _changing(mixtures, ends, steps), _changing(lengths, ends, steps)


def _changing(values: list[str], ends: list[int], steps: int) -> str:
    pieces: list[w.Piece] = []
    for value, end in zip(values, ends, strict=True):
        if pieces and pieces[-1].text == value:
            pieces.pop()
        pieces.append(w.Piece(end, value))
    return w.schedule(w.timed(pieces, steps))


def _sources(
    config: Config, made: Draft, path: str, known: dict[tuple[str, ...], str]
) -> dict[str, Fraction]:
    """The shares of a stage's sources; declares data sets that are new."""
    if config.node(f"{path}.dataset_folder") is not None:
        return _tokenized(config, made, path, known)
    if config.node(f"{path}.hf_dataset_or_datasets") is None:
        return {_no_data(made, known): Fraction(1)}
    weights = config.shares(f"{path}.hf_dataset_or_datasets")
    if weights is None:
        names = config.texts(f"{path}.hf_dataset_or_datasets") or []
        weights = dict.fromkeys(names, Fraction(1))
    splits = config.texts(f"{path}.hf_dataset_splits") or ["train"]
    version = config.text(f"{path}.hf_dataset_config_name")
    field = config.text(f"{path}.text_column_name", default="text")
    if config.flag(f"{path}.sft_dataloader", default=False):
        config.lost(f"{path}.sft_dataloader", "dialogs need a stage of kind `sft`")
    found: dict[str, Fraction] = {}
    for number, (hub, weight) in enumerate(weights.items()):
        split = splits[number] if len(splits) == len(weights) else splits[0]
        key = (hub, split, version or "", field)
        if key not in known:
            known[key] = made.name(hub.rpartition("/")[2], "data")
            made.add(
                w.block(
                    f"dataset {known[key]}",
                    ("hub", w.quoted(hub)),
                    ("config", w.quoted(version)) if version else None,
                    ("split", w.quoted(split)) if split != "train" else None,
                    ("fields", f"{{ text = {w.quoted(field)} }}") if field != "text" else None,
                    made.size(known[key], "tokens", ""),
                )
            )
        found[known[key]] = found.get(known[key], Fraction(0)) + weight
    return found


def _tokenized(
    config: Config, made: Draft, path: str, known: dict[tuple[str, ...], str]
) -> dict[str, Fraction]:
    weights = config.shares(f"{path}.dataset_folder")
    if weights is None:
        folders = config.texts(f"{path}.dataset_folder") or []
        given = config.node(f"{path}.dataset_weights")
        numbers = getattr(given, "value", None) or [1] * len(folders)
        config.carried(f"{path}.dataset_weights")
        if not isinstance(numbers, list) or len(numbers) != len(folders):
            raise config.wrong(f"{path}.dataset_weights", "one number for each folder")
        if not all(isinstance(n, int | Fraction) and n >= 0 for n in numbers):
            raise config.wrong(f"{path}.dataset_weights", "a list of numbers, 0 or more")
        weights = {
            folder: Fraction(number) for folder, number in zip(folders, numbers, strict=True)
        }
    found: dict[str, Fraction] = {}
    for folder, weight in weights.items():
        key = ("folder", folder)
        if key not in known:
            parts = [part for part in folder.split("/") if part not in ("", "tokenized", "tokens")]
            known[key] = made.name(parts[-1] if parts else "data", "data")
            made.add(
                w.block(
                    f"dataset {known[key]}",
                    ("tokenized", w.quoted(f"{folder.rstrip('/')}/**/*.ds")),
                    made.size(known[key], "tokens", ""),
                )
            )
        found[known[key]] = found.get(known[key], Fraction(0)) + weight
    config.carried(f"{path}.dataset_folder")
    read = config.text(f"{path}.tokenizer_name")
    if read:
        config.irrelevant({f"{path}.tokenizer_name": "the recipe's tokenizer is used"})
    return found


def _no_data(made: Draft, known: dict[tuple[str, ...], str] | None = None) -> str:
    """A data set whose source is left open."""
    known = {} if known is None else known
    if () not in known:
        known[()] = made.name("data", "data")
        opened = made.open("files", "the configuration has no data", key="data")
        made.add(w.block(f"dataset {known[()]}", opened))
    return known[()]


def _clip(config: Config) -> w.Line:
    clip = config.number("optimizer.clip_grad")
    if clip is None:
        config.assumed("optimizer.clip_grad", "gradients are always clipped, by default at norm 1")
        return None
    return "clip", w.real(clip)


def _precision(config: Config) -> w.Line:
    kind = config.text("model.dtype", default="bfloat16")
    if kind not in ("bfloat16", "float32"):
        config.lost("model.dtype", "bf16 or fp32; bf16 is used")
    return "precision", "fp32" if kind == "float32" else "bf16"


def _z_loss(config: Config) -> w.Line:
    if config.flag(f"{_MODEL}.z_loss_enabled"):
        return "z_loss", w.real(config.number(f"{_MODEL}.z_loss_coefficient", default=Z_LOSS))
    config.irrelevant({f"{_MODEL}.z_loss_coefficient": "off"})
    return None


def _lost(config: Config, options: Options) -> None:
    config.lost_unless("model.init_method.std", [], "torchtitan initializes the weights", "")
    config.lost_unless(
        "optimizer.weight_decay_exclude_named_params",
        [[]],
        "weight decay applies to all parameters, or with `decay = matrices` only to matrices",
        "nothing is left out",
    )
    started = "" if options.base else ": the stage starts from new weights (--after SPEC)"
    for path in ("checkpoints.resume_checkpoint_path", "model.init_method.path"):
        if config.has(path):
            config.lost(path, f"another program's checkpoint cannot be read{started}")
    for path in ("general.step", "general.consumed_train_samples"):
        config.lost_unless(path, [0], "the spec describes the whole training", "nothing done yet")
    for number in range(config.count("data_stages")):
        config.lost_unless(
            f"data_stages[{number}].data.dataset.dataset_max_tokens",
            [[]],
            "a data set has `documents` at most, not tokens",
            "no limit",
        )
    config.lost_unless(
        "tokenizer.tokenizer_revision", ["main"], "the newest revision is read", "the newest"
    )
