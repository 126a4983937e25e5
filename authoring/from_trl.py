"""Converts the YAML of TRL's commands (`trl sft --config`) to a spec: one stage."""

from collections.abc import Mapping
from fractions import Fraction

from . import writing as w
from .config import Config
from .draft import LION, Draft, Options, adafactor, lion, optimizer
from .tree import ConfigError
from .trl_adapter import adapter
from .trl_data import datasets, dialog
from .trl_objectives import objective, turns
from .trl_settings import ARGUMENTS, COMMANDS, IRRELEVANT, OWN, UNLESS

_SHAPES = ("linear", "cosine", "cosine_with_min_lr", "constant", "constant_with_warmup")
_FUSED = ("adamw_torch", "adamw_torch_fused", "adamw_hf", "adamw_anyprecision", "adamw_8bit")
_FUSED += ("adamw_bnb_8bit", "paged_adamw_32bit", "paged_adamw_8bit", "adamw_torch_8bit")
_TRACKERS = ("wandb", "mlflow", "trackio", "tensorboard")


def is_trl(config: Config) -> bool:
    """Whether the configuration has the settings of one of TRL's commands."""
    data = "dataset_name" in config.root or "datasets" in config.root
    return "model_name_or_path" in config.root and data and bool(trainers(config))


def trainers(config: Config) -> list[str]:
    """The commands of TRL that know every setting that not all of them have."""
    shared = {name for name in config.root if any(name in own for own in OWN.values())}
    losses = {*(config.values("loss_type") or [])}
    return [each.name for each in COMMANDS if shared <= each.own and losses <= each.losses]


def fits(kind: str, config: Config) -> bool:
    """Whether the configuration can be one of `trl KIND`."""
    return is_trl(config) and kind in trainers(config)


def draft(config: Config, options: Options, title: str, command: str | None = None) -> Draft:
    """The spec of a configuration of TRL.

    Args:
        command: "sft", "dpo", …; None: the first that knows all settings.

    Raises: ConfigError: a value is of the wrong kind, or it trains on an objective that etude
        lacks.
    """
    made = Draft(config, options)
    known = trainers(config)
    if command is None and len(known) > 1:
        others = ", ".join(f"--from trl-{each}" for each in known[1:])
        config.assumed("command", f"it is for `trl {known[0]}`; for another, import with {others}")
    command = command or known[0]
    texts = command == "sft" and config.has("dataset_text_field")
    kind = "train" if texts else command
    start = _start(config, made)
    of = next(each for each in COMMANDS if each.name == command)
    unit = "seqs" if texts or (kind == "sft" and config.flag("packing")) else of.unit
    shares = datasets(config, made, kind, unit)
    spoken = dialog(config, made) if kind != "train" else None
    rewards = turns(config, made) if kind == "grpo" else []
    made.cluster(options.gpus)
    name = made.name("pretrain" if kind == "train" else kind, "stage")
    made.add(
        w.block(
            f"stage {name}: {kind}",
            ("from", start),
            _length(config, made, kind),
            _seq_len(config, made, kind),
            _batch(config, made, kind, unit),
            *_rates(config, made, Fraction(of.rate)),
            ("data", w.mixture(shares)),
            ("dialog", spoken) if spoken else None,
            *objective(config, kind),
            *rewards,
            _optimizer(config, made),
            ("clip", w.real(_clip(config))) if _clip(config) else None,
            _precision(config),
            adapter(config),
            ("recompute", "full") if config.flag("gradient_checkpointing", default=True) else None,
            *_checkpoints(config),
            _evaluations(config, shares),
        )
    )
    tracking = _tracking(config)
    _left(config)
    seed = ("seed", str(config.whole("seed", default=42, least=0)))
    made.header(title, title, seed, ("tracking", tracking) if tracking else None)
    return made


def _start(config: Config, made: Draft) -> str:
    """What the stage continues from: the user's own stage, or published weights."""
    model, revision = config.text("model_name_or_path"), config.text("model_revision")
    if base := made.options.base:
        config.irrelevant({"model_revision": ""})
        config.assumed("model_name_or_path", f"replaced by the result of `{base.stage}`")
        return base.stage
    made.tokenizer(model)
    return made.weights(model, None if revision == "main" else revision)


def _length(config: Config, made: Draft, kind: str) -> w.Line:
    steps = config.number("max_steps", default=Fraction(-1))
    if steps > 0:
        config.irrelevant({"num_train_epochs": "`max_steps` decides"})
        return "steps", w.plain(config.whole("max_steps"))
    epochs = w.real(config.number("num_train_epochs", default=Fraction(3)))
    if kind == "grpo":
        reason = f"TRL reads all prompts {epochs} times; write their number times that by `batch`"
        return made.open("steps", reason)
    return "epochs", epochs


def _seq_len(config: Config, made: Draft, kind: str) -> w.Line:
    """The longest record; of a policy, TRL limits the answers alone."""
    if kind == "grpo":
        reason = "TRL limits no prompts; write the tokens of the longest prompt and `max_tokens`"
        return made.open("seq_len", reason)
    return "seq_len", w.count(config.whole("max_length", default=1024, least=2))


def _batch(config: Config, made: Draft, kind: str, unit: str) -> w.Line:
    """The records of a step on all GPUs; of a policy, TRL counts answers."""
    micro = config.whole("per_device_train_batch_size", default=8, least=1)
    own = micro * config.whole("gradient_accumulation_steps", default=1, least=1)
    gpus = made.options.gpus
    if gpus is None:
        what = "answers" if kind == "grpo" else unit
        each = what if own != 1 else what.removesuffix("s")
        return made.open(
            "batch",
            f"each GPU takes {own} {each} a step; import with --gpus N, or write the product",
        )
    total = own * gpus
    if kind == "grpo":
        group = config.whole("num_generations", default=8, least=2)
        if total % group:
            raise ConfigError(
                f"a step of {total} answers has no whole groups of {group} (num_generations)",
                help=f"import with another --gpus: {own} answers on each GPU",
            )
        total //= group
    return "batch", f"{w.plain(total)} {unit if total != 1 else unit.removesuffix('s')}"


def _rates(config: Config, made: Draft, usual: Fraction) -> list[w.Line]:
    """The learning rate; open if its shape is one that the language lacks."""
    shape = config.text("lr_scheduler_type", default="linear")
    peak = config.number("learning_rate", default=usual)
    high, warmup = w.real(peak), _warmup(config)
    rising = [f"0 -> {high} for {warmup}"] if warmup and shape != "constant" else []
    arrow = "->" if rising else f"{high} ->"
    low = config.number("lr_scheduler_kwargs.min_lr", default=None)
    share = config.number("lr_scheduler_kwargs.min_lr_rate", default=None)
    end = low if low is not None else peak * (share or 0)
    if shape not in _SHAPES:
        segments = [*rising, high]
        reason = f"`{shape}` is not a schedule shape; its peak is {high}"
        return made.open_rates(segments, reason)
    if shape.startswith("constant"):
        return [("lr", w.schedule([*rising, high]))]
    if shape == "cosine":
        end = Fraction(0)
    falling = f"{arrow} {w.real(end)}" + (" cosine" if shape.startswith("cosine") else "")
    return [("lr", w.schedule([*rising, falling]))]


def _warmup(config: Config) -> str:
    """The length of the warm-up; a number of steps below 1 is a share, as in transformers 5."""
    steps = config.number("warmup_steps", default=Fraction(0))
    ratio = config.number("warmup_ratio", default=Fraction(0))
    if 0 < steps < 1:
        steps, ratio = Fraction(0), steps
    if steps < 0 or steps.denominator != 1:
        raise config.wrong("warmup_steps", "a whole number, or a share below 1")
    if steps:
        return w.in_steps(int(steps))
    return w.percent(ratio) if ratio else ""


def _optimizer(config: Config, made: Draft) -> w.Line:
    kind = config.text("optim", default="adamw_torch_fused")
    if kind == "adafactor":
        return adafactor(config)
    if LION.fullmatch(kind):
        if "8bit" in kind:
            config.assumed("optim", "Lion with its moment in fp32")
        return lion(config)
    if kind not in _FUSED:
        return made.open_optimizer(kind)
    if "8bit" in kind:
        config.assumed("optim", "AdamW with moments in fp32")
    return optimizer(
        (
            config.number("adam_beta1", default=Fraction("0.9")),
            config.number("adam_beta2", default=Fraction("0.999")),
        ),
        config.number("weight_decay", default=Fraction(0)),
        config.number("adam_epsilon", default=Fraction("1e-8")),
    )


def _clip(config: Config) -> Fraction:
    return config.number("max_grad_norm", default=Fraction(1))


def _precision(config: Config) -> w.Line:
    if config.flag("fp16"):
        config.lost("fp16", "bf16 or fp32; bf16 is used")
        return "precision", "bf16"
    if config.text("dtype", "torch_dtype") in ("bfloat16", "float16"):
        reason = "weights are trained in fp32, and computed with in bf16; TRL trains in this type"
        config.assumed("dtype" if config.has("dtype") else "torch_dtype", reason)
    return "precision", "bf16" if config.flag("bf16", default=True) else "fp32"


def _checkpoints(config: Config) -> list[w.Line]:
    """How often checkpoints are saved, and how many are kept."""
    lines: list[w.Line] = []
    strategy = config.text("save_strategy", default="steps")
    steps = config.number("save_steps", default=None)
    if strategy != "steps":
        config.irrelevant({"save_steps": f"not used with save_strategy {strategy}"})
    elif steps is not None and (steps.denominator != 1 or steps < 1):
        config.lost("save_steps", "checkpoints are made every N steps, not by a share of them")
    elif steps is not None:
        lines.append(f"checkpoint every {w.plain(int(steps))} steps")
    kept = config.whole("save_total_limit", default=None)
    if kept is not None:
        lines.append(f"keep last {w.plain(kept)}" if kept > 0 else "keep all")
    return lines


def _evaluations(config: Config, shares: Mapping[str, Fraction]) -> w.Line:
    """Losses during training, if the configuration counts steps between them."""
    strategy = config.text("eval_strategy", default="no")
    every = config.number("eval_steps", default=None)
    if strategy == "no":
        config.irrelevant({"eval_steps": "not used without eval_strategy"})
        return None
    if strategy != "steps" or (every is not None and (every.denominator != 1 or every < 1)):
        key = "eval_strategy" if strategy != "steps" else "eval_steps"
        config.lost(key, "evaluations come every so many steps: write `evaluate`")
        return None
    config.assumed("eval_strategy", "losses are of records that are held out, not of a test split")
    every = every or config.number("logging_steps", default=Fraction(10))
    parts = [f"every = {w.in_steps(int(every))}", f"loss = [{', '.join(shares)}]"]
    if config.flag("load_best_model_at_end") and len(shares) == 1:
        parts.append("keep = best")
    return "evaluate", f"{{ {', '.join(parts)} }}"


def _tracking(config: Config) -> str:
    """The trackers of `report_to` that the language has."""
    named = config.texts("report_to") or []
    known = [name for name in named if name in _TRACKERS]
    others = [name for name in named if name not in (*_TRACKERS, "none", "all")]
    if others or "all" in named:
        shown = ", ".join(others) or "all"
        config.lost("report_to", f"{shown}: trackers are {', '.join(_TRACKERS)}")
    return known[0] if len(known) == 1 else f"[{', '.join(known)}]" if known else ""


def _left(config: Config) -> None:
    """Classifies the settings that no block uses."""
    for path, (same, reason) in UNLESS.items():
        config.lost_unless(path, same, reason, "as in etude")
    config.irrelevant(IRRELEVANT | ARGUMENTS)
