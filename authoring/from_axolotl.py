"""Converts axolotl's YAML to a spec: one stage of the kind train, sft, reward, dpo, kto or prm."""

import re
from collections.abc import Mapping
from fractions import Fraction

from . import writing as w
from .axolotl_data import datasets
from .axolotl_reasons import IRRELEVANT, OFF, PLUGINS, SPEED, UNLESS
from .config import Config
from .draft import LION, Draft, Options, adafactor, lion, optimizer, placement, template_in
from .tree import ConfigError, Leaf

_ADAMW = re.compile(r"(paged_)?adamw(_.*)?")
_RESTARTS = "cosine_with_restarts"
_SHAPES = (
    "cosine",
    "cosine_with_min_lr",
    _RESTARTS,
    "linear",
    "constant",
    "constant_with_warmup",
)
_COUNTED = {"train": "seqs", "sft": "dialogs", "kto": "ratings", "prm": "solutions"}
"""Kind of stage → what its batch counts; for all others, pairs."""
OF_PAIRS = ("dpo", "ipo", "simpo", "orpo")
"""Values of `rl` that learn from pairs; their defaults are TRL's."""
MOST_WARMUP = 100
"""Steps of the warmup that axolotl takes by itself, at most (axolotl, `core/builders/base.py`)."""
_QUANTIZED = re.compile(r".*(8bit|4bit|bnb|torchao).*")

LORA = ("lora", "qlora")
"""Kinds of adapters that the language has; of weights in 4 bits, it has the same in their own."""
_OF_LORA = ("lora_r", "lora_alpha", "lora_target_linear", "lora_target_modules", "peft_use_rslora")
_MODULES = {
    "attention": {"q_proj", "k_proj", "v_proj", "o_proj"},
    "feed_forward": {"gate_proj", "up_proj", "down_proj"},
}
"""Part of a model → transformers' names of its matrices."""


def is_axolotl(config: Config) -> bool:
    """Whether the configuration has axolotl's settings."""
    data = any(name in config.root for name in ("datasets", "pretraining_dataset"))
    return "base_model" in config.root and data


def draft(config: Config, options: Options, title: str) -> Draft:
    """The spec of an axolotl configuration.

    Raises: ConfigError: a value is of the wrong kind, or it trains on an objective that etude
        lacks.
    """
    made = Draft(config, options)
    kind = _kind(config)
    start = _start(config, made)
    packed = config.flag("sample_packing")
    unit = "seqs" if packed and kind == "sft" else _COUNTED.get(kind, "pairs")
    sources = datasets(config, made, kind, unit)
    dialog = _dialog(config, made) if kind != "train" and _speaks(config) else None
    degrees, ranks = _degrees(config, options)
    micro = config.whole("micro_batch_size", default=1, least=1)
    accumulation = config.whole("gradient_accumulation_steps", default=1, least=1)
    made.cluster(ranks * degrees["tensor"] * degrees["context"] if ranks else None)
    length = config.whole("sequence_len", default=2048 if kind != "train" else 512, least=2)
    made.add(
        w.block(
            f"stage {made.name(kind if kind != 'train' else 'pretrain', 'stage')}: {kind}",
            ("from", start),
            _length(config, kind),
            ("seq_len", w.count(length)),
            _batch(made, micro * accumulation, ranks, unit),
            *_rates(config, made),
            ("data", w.mixture(sources)),
            ("dialog", dialog) if dialog else None,
            *_objective(config, kind),
            _optimizer(config, made),
            ("clip", w.real(config.number("max_grad_norm", default=Fraction(1)) or Fraction(1))),
            _precision(config),
            _adapter(config),
            ("recompute", "full") if _on(config, "gradient_checkpointing") else None,
            placement(micro_batch=micro if unit == "seqs" else None, **degrees),
            *_checkpoints(config),
            _evaluations(config, sources),
        )
    )
    _left(config)
    tracked = config.text("wandb_project")
    if tracked:
        config.irrelevant({"wandb_project": "logged to W&B, in the project `etude`"})
    made.header(
        title,
        title,
        ("seed", str(config.whole("seed", default=42, least=0))),
        ("tracking", "wandb") if tracked else None,
    )
    return made


def _evaluations(config: Config, sources: Mapping[str, Fraction]) -> tuple[str, str] | None:
    """Losses during training, if the configuration counts steps between them."""
    if not config.number("val_set_size", default=Fraction(0)) or not config.has("eval_steps"):
        return None
    strategy, every = config.text("eval_strategy", default="steps"), config.number("eval_steps")
    if strategy != "steps":
        config.lost("eval_strategy", "evaluations come every so many steps")
        config.lost("eval_steps", f"not used with eval_strategy {strategy}")
        return None
    if every.denominator != 1 or every < 1:
        config.lost("eval_steps", "a share of the steps; write `every` in steps")
        return None
    parts = [f"every = {w.in_steps(int(every))}", f"loss = [{', '.join(sources)}]"]
    if len(sources) == 1:  # axolotl decides by the loss on all of them together
        if (patience := config.whole("early_stopping_patience", least=1)) is not None:
            parts.append(f"patience = {patience}")
        if patience is not None or config.flag("load_best_model_at_end"):
            # transformers stops only a run that goes back to its best checkpoint.
            config.carried("load_best_model_at_end")
            parts.append("keep = best")
    return "evaluate", f"{{ {', '.join(parts)} }}"


def _left(config: Config) -> None:
    """Classifies the settings that no block uses."""
    config.irrelevant({"special_tokens.pad_token": "padding is masked and has no token"})
    plugins = config.node("plugins")
    if (
        isinstance(plugins, Leaf)
        and isinstance(plugins.value, list)
        and all(plugin in PLUGINS for plugin in plugins.value)
    ):
        config.irrelevant({"plugins": "speed only"})
    for path, (same, reason) in UNLESS.items():
        config.lost_unless(path, same, reason, "off" if same in OFF else "as in etude")
    config.irrelevant(IRRELEVANT | dict.fromkeys(SPEED, "speed only"))


def _kind(config: Config) -> str:
    rl = config.text("rl")
    if rl and rl not in (*OF_PAIRS, "kto"):
        raise ConfigError(
            f"`rl: {rl}` is not converted",
            help=f"of `rl`, {', '.join(OF_PAIRS)} and kto are; etude's stage `grpo` is written by "
            "hand",
        )
    if rl:
        return "kto" if rl == "kto" else "dpo"
    if config.flag("process_reward_model"):
        return "prm"
    if config.flag("reward_model"):
        return "reward"
    if "pretraining_dataset" in config.root:
        return "train"
    kinds = {config.text(f"datasets[{n}].type") for n in range(config.count("datasets"))}
    return "train" if kinds == {"completion"} else "sft"


def _start(config: Config, made: Draft) -> str:
    """What the stage continues from: the user's own stage, or published weights."""
    model, base = config.text("base_model"), made.options.base
    tokenizer = config.text("tokenizer_config") or model
    revision = config.text("revision_of_model")
    if base:
        config.irrelevant({"base_model": "", "tokenizer_config": "", "revision_of_model": ""})
        config.assumed("base_model", f"replaced by the result of `{base.stage}`")
        return base.stage
    made.tokenizer(tokenizer)
    return made.weights(model, revision)


def _degrees(config: Config, options: Options) -> tuple[dict[str, int], int | None]:
    """The degrees of parallelism, and the number of data-parallel ranks; None if neither the
    configuration nor the user gives it."""
    tensor = config.whole("tensor_parallel_size", default=1, least=1)
    context = config.whole("context_parallel_size", "sequence_parallel_degree", default=1, least=1)
    replicate = config.whole("dp_replicate_size", default=1, least=1)
    shard = config.whole("dp_shard_size", default=0, least=0)
    model = tensor * context
    ranks = shard * replicate or None
    if options.gpus and ranks and options.gpus != ranks * model:
        raise ConfigError(
            f"--gpus {options.gpus}: the configuration's degrees multiply to {ranks * model}",
            help="remove --gpus, or change dp_shard_size in the configuration",
        )
    if options.gpus and options.gpus % (model * replicate):
        raise ConfigError(
            f"{options.gpus} GPUs cannot be divided by {model * replicate}",
            help="the configuration's degrees multiply to that",
        )
    if options.gpus:
        ranks = options.gpus // model
    return {"tensor": tensor, "context": context, "replicate": replicate}, ranks


def _batch(made: Draft, own: int, ranks: int | None, unit: str) -> w.Line:
    """The global batch; open if the number of ranks is unknown."""
    if ranks is None:
        each = unit if own != 1 else unit.removesuffix("s")
        reason = f"each GPU takes {own} {each} a step; import with --gpus N, or write the product"
        return made.open("batch", reason)
    return "batch", f"{w.plain(own * ranks)} {unit}"


def _length(config: Config, kind: str) -> w.Line:
    steps = config.whole("max_steps", default=0)
    if steps > 0:
        if config.has("num_epochs"):
            config.irrelevant({"num_epochs": "`max_steps` decides"})
        return "steps", w.plain(steps)
    epochs = config.number("num_epochs", default=Fraction(1))
    return "epochs", w.real(epochs)


def _rates(config: Config, made: Draft) -> list[w.Line]:
    """The learning rate; open if the configuration's is that of an adapter that the language lacks,
    or has a shape that it lacks. The schedule is then beside it, as a comment."""
    kind = config.text("lr_scheduler", default="cosine")
    segments = _segments(config, kind)
    adapter = config.text("adapter")
    if adapter and adapter not in LORA:
        reason = (
            f"the configuration has the rate of a {adapter} adapter, but here all weights are "
            "trained, usually at a tenth of it or less"
        )
    elif kind not in _SHAPES:
        reason = f"`{kind}` is not a schedule shape; its peak is {segments[-1]}"
    else:
        return [("lr", w.schedule(segments))]
    return made.open_rates(segments, reason)


def _adapter(config: Config) -> tuple[str, str] | None:
    """The adapter; None if there is none, or one that the language lacks."""
    kind = config.text("adapter")
    if kind not in LORA:
        if kind:
            config.lost("adapter", "all weights are trained: there are only LoRA's adapters")
        config.irrelevant(dict.fromkeys(_OF_LORA, "there is no LoRA"))
        return None
    rank = config.whole("lora_r", default=8, least=1)
    alpha = config.number("lora_alpha", default=Fraction(16))
    every = config.flag("lora_target_linear")
    named = config.texts("lora_target_modules") or []
    on = [part for part, of in _MODULES.items() if every or not of.isdisjoint(named)]
    on = on or ["attention"]
    wanted = set[str]().union(*(_MODULES[part] for part in on))
    if not every and set(named) != wanted:
        config.assumed("lora_target_modules", f"adapters beside all matrices of {', '.join(on)}")
    stable = ", over = sqrt_rank" if config.flag("peft_use_rslora") else ""
    settings = f"rank = {rank}, alpha = {w.real(alpha)}{stable}, on = [{', '.join(on)}]"
    return "adapter", f"lora {{ {settings} }}"


def _warmup(config: Config) -> str:
    """The length of the warmup; a number of steps below 1 is a share, as in transformers 5."""
    steps = config.number("warmup_steps", default=None)
    ratio = config.number("warmup_ratio", default=None)
    if steps is not None and 0 < steps < 1:
        steps, ratio = None, steps
    if steps is not None and (steps.denominator != 1 or steps < 0):
        raise config.wrong("warmup_steps", "a whole number, or a share below 1")
    if steps is None and ratio is None:
        steps, ratio = _usual_warmup(config)
    if steps:
        return w.in_steps(int(steps))
    return w.percent(ratio) if ratio and steps is None else ""


def _usual_warmup(config: Config) -> tuple[Fraction | None, Fraction | None]:
    """The steps, or the share, of a warmup that the configuration leaves to axolotl."""
    why = "without warm-up axolotl takes 3 %, at most 100 steps"
    steps = config.whole("max_steps", default=0)
    if steps > 0:
        config.assumed("warmup_steps", why)
        warmup = min(steps * 3 // 100, MOST_WARMUP)
        return Fraction(2 if warmup == 1 else warmup), None
    long = (
        f"if the stage has more than {MOST_WARMUP * 100 // 3:,} steps, write `{MOST_WARMUP} steps`"
    )
    config.assumed("warmup_ratio", f"{why}; {long}")
    return None, Fraction(3, 100)


def _segments(config: Config, kind: str) -> list[str]:
    """transformers' schedules: step i of an n-step warmup has i / n of the peak."""
    peak = config.number("learning_rate")
    if peak is None:
        raise ConfigError("`learning_rate` is missing")
    warmup = _warmup(config)
    high = w.real(peak)
    low = config.number("cosine_min_lr_ratio", default=Fraction(0)) * peak
    segments = [f"0 -> {high} for {warmup}"] if warmup else []
    arrow = "->" if segments else f"{high} ->"
    constant = config.number("cosine_constant_lr_ratio", default=None)
    if constant is not None:
        config.lost("cosine_constant_lr_ratio", "the cosine goes to the end of the stage")
    if kind in ("cosine", "cosine_with_min_lr"):
        return [*segments, f"{arrow} {w.real(low)} cosine"]
    if kind == "linear":
        return [*segments, f"{arrow} 0"]
    if kind == _RESTARTS:
        cycles = config.whole("lr_scheduler_kwargs.num_cycles", default=1, least=1)
        return [*segments, f"repeat {w.plain(cycles)} times {{ {high} -> 0 cosine }}"]
    return [high] if kind == "constant" else [*segments, high]


def _steps(config: Config) -> list[w.Line]:
    """What a process reward model learns of its steps; all data sets have one separator."""
    paths = [f"datasets[{number}]" for number in range(config.count("datasets"))]
    for path in paths:
        reason = "a record is cut after the last whole step that `seq_len` has room for"
        config.lost_unless(f"{path}.max_completion_length", [], reason, "no limit of its own")
    separators = {config.text(f"{path}.step_separator", default="\n") for path in paths}
    last = {config.flag(f"{path}.train_on_last_step_only") for path in paths}
    if len(separators) > 1 or len(last) > 1:
        raise ConfigError(
            "the data sets differ in `step_separator` or `train_on_last_step_only`",
            help="import them one by one: a stage has one separator and one loss",
        )
    separator = separators.pop() if separators else "\n"
    return [
        ("separator", w.quoted(separator)) if separator != "\n" else None,
        ("loss", "last") if True in last else None,
    ]


def _objective(config: Config, kind: str) -> list[w.Line]:
    if kind == "sft":
        return [("loss", "all")] if config.flag("train_on_inputs") else []
    config.irrelevant({"train_on_inputs": "concerns dialogs"})
    if kind == "kto":
        return _kto(config)
    if kind == "prm":
        return _steps(config)
    if kind == "reward":
        center = config.number("center_rewards_coefficient", default=Fraction(0))
        return [("center", w.real(center))] if center else []
    if kind != "dpo":
        return []
    rl = config.text("rl")
    also = ("orpo_alpha",) if rl == "orpo" else ()
    beta = config.number("rl_beta", "dpo_beta", "trl.beta", *also, default=Fraction(1, 10))
    if rl == "orpo":
        return [("objective", rl), ("beta", w.real(beta))]
    if rl == "simpo":
        gamma = config.number("simpo_gamma", default=Fraction(1, 2))
        nll = config.number("cpo_alpha", default=Fraction(1))
        lines = {"objective": rl, "beta": w.real(beta), "gamma": w.real(gamma), "nll": w.real(nll)}
        return [*lines.items()]
    nll = config.number("rpo_alpha", "trl.rpo_alpha", default=Fraction(0))
    smoothing = config.number("dpo_label_smoothing", default=Fraction(0))
    config.lost_unless(
        "dpo_loss_type", [["sigmoid"], "sigmoid"], "the loss is DPO's sigmoid", "DPO's own"
    )
    return [
        ("objective", rl) if rl == "ipo" else None,
        ("normalize", "true") if rl == "ipo" else None,
        ("beta", w.real(beta)),
        ("nll", w.real(nll)) if nll else None,
        ("label_smoothing", w.real(smoothing)) if smoothing else None,
    ]


def _kto(config: Config) -> list[w.Line]:
    """The settings of KTO; their defaults are etude's."""
    beta = config.number("rl_beta", "dpo_beta", "trl.beta", default=Fraction(1, 10))
    lines: list[w.Line] = [("beta", w.real(beta))]
    for part in ("desirable", "undesirable"):
        weight = config.number(f"kto_{part}_weight", default=Fraction(1)) or Fraction(1)
        lines.append((f"{part}_weight", w.real(weight)) if weight != 1 else None)
    return lines


def _optimizer(config: Config, made: Draft) -> w.Line:
    kind = config.text("optimizer", default="adamw_torch_fused")
    if kind == "adafactor":
        return adafactor(config)
    if LION.fullmatch(kind):
        if "8bit" in kind:
            config.assumed("optimizer", "Lion with its moment in fp32")
        return lion(config)
    if not _ADAMW.fullmatch(kind):
        return made.open_optimizer(kind)
    if _QUANTIZED.fullmatch(kind):
        config.assumed("optimizer", "AdamW with moments in fp32")
    return optimizer(
        (
            config.number("adam_beta1", default=Fraction("0.9")),
            config.number("adam_beta2", default=Fraction("0.999")),
        ),
        config.number("weight_decay", default=Fraction(0)),
        config.number("adam_epsilon", default=Fraction("1e-8")),
    )


def _precision(config: Config) -> w.Line:
    if _on(config, "fp8"):
        config.irrelevant({"bf16": "fp8 leaves the rest in it", "fp16": "as for bf16"})
        reason = "fp8 is scaled by rows, as in torchtitan; accelerate's by tensors as a whole"
        config.assumed("precision", reason)
        return "precision", "fp8"
    if _on(config, "fp16", "float16"):
        config.lost("fp16", "bf16 or fp32; bf16 is used")
    if _on(config, "bf16", "bfloat16", "fp16", "float16"):
        return "precision", "bf16"
    if config.flag("float32") or config.has("bf16"):
        return "precision", "fp32"
    return None


def _on(config: Config, *paths: str) -> bool:
    """Whether one of the settings is on: true, or a mode such as `auto` or `offload`."""
    given = [config.text(path, default="false") for path in paths]  # marks all of them as read
    return any(value not in ("false", "no") for value in given)


def _checkpoints(config: Config) -> list[w.Line]:
    """How often checkpoints are saved, and how many are kept."""
    lines: list[w.Line] = []
    steps = config.number("save_steps", default=None)
    if steps is not None and (steps.denominator != 1 or steps < 1):
        config.lost("save_steps", "checkpoints are made every N steps, not by a share of them")
    elif steps is not None:
        lines.append(f"checkpoint every {w.plain(int(steps))} steps")
    kept = config.whole("save_total_limit", default=None)
    if kept is not None:
        # Without a limit above 0, transformers keeps all.
        lines.append(f"keep last {w.plain(kept)}" if kept > 0 else "keep all")
    return lines


def _dialog(config: Config, made: Draft) -> str | None:
    """The chat protocol: a built-in one, a Jinja file, or that of the model's folder, if it is
    here."""
    kind = config.text("chat_template") or _of_type(config)
    inline = config.text("chat_template_jinja")
    system = config.text("default_system_message")
    more: w.Line = ("system", w.quoted(system)) if system else None
    if kind in ("llama3", "chatml"):
        name = made.name("chat", "chat")
        made.add(w.block(f"dialog {name}", ("protocol", kind), more))
        return name
    if inline and "\n" not in inline and inline.endswith((".jinja", ".jinja2", ".j2")):
        name = made.name("chat", "chat")
        made.add(w.block(f"dialog {name}", ("template", w.quoted(inline)), more))
        return name
    own = None
    if not (inline or made.options.base) and kind in (None, "", "tokenizer_default"):
        own = template_in(config.text("tokenizer_config") or config.text("base_model"))
    if own:
        name = made.name("chat", "chat")
        made.add(w.block(f"dialog {name}", ("template", w.quoted(own)), more))
        return name
    if inline:
        reason = "the template is in the configuration; save it to a file and name that"
        config.lost("chat_template_jinja", reason)
    elif kind and kind != "tokenizer_default":
        reason = f"{kind} is not built in, as llama3 and chatml are; name its Jinja file"
    else:
        reason = (
            "it comes from the tokenizer; name its Jinja file, the model's chat_template.jinja, "
            "or write `protocol`"
        )
    name = made.name("chat", "chat")
    opened = made.open("template", reason, key="chat_template")
    made.add(w.block(f"dialog {name}", opened, more))
    return name


def _of_type(config: Config) -> str | None:
    """The protocol named by the formats of all data sets: `chatml` for `chatml.intel`."""
    forms = {form.partition(".")[0] for form in _forms(config)}
    return forms.pop() if len(forms) == 1 and forms <= {"llama3", "chatml"} else None


def _forms(config: Config) -> list[str]:
    """The formats of all data sets; "" for one that the configuration describes itself."""
    paths = [f"datasets[{number}].type" for number in range(config.count("datasets"))]
    own = [path for path in paths if isinstance(config.node(path), dict)]
    return ["" if path in own else config.text(path, default="") for path in paths]


def _speaks(config: Config) -> bool:
    """Whether one of the data sets has messages, which need a template; the others have texts."""
    forms = _forms(config)
    written = [form for form in forms if not form.startswith(("alpaca", "completion"))]
    return bool(written) or config.has("chat_template")
