"""What a TRL configuration learns: losses of preferences and rewards, and a policy's turns."""

from fractions import Fraction

from . import writing as w
from .config import Config
from .draft import Draft
from .tree import ConfigError

_PREFERENCES = {
    "sigmoid": ("dpo", ()),
    "sigmoid_norm": ("dpo", (("normalize", "true"),)),
    "ipo": ("ipo", (("normalize", "true"),)),
    "hinge": ("hinge", ()),
    "robust": ("robust", ()),
    "apo_zero": ("apo_zero", ()),
    "apo_down": ("apo_down", ()),
}
"""`loss_type` of DPO → the objective, and what else it means."""
_UNREAD = (
    "of these losses TRL reads it with `robust` alone; write `label_smoothing` into a stage of "
    "`dpo` or `ipo` to smooth there"
)
"""As `DPOTrainer._compute_loss` of TRL 1.16 has it."""
_POLICIES = ("grpo", "dapo", "dr_grpo")
_SCALES = {"true": "group", "false": "none"}
_FORMAT = "<think>(?!.*<think>)(.*?)</think>.*"
"""What `think_format_reward` asks of an answer (`trl/rewards/format_rewards.py`)."""


def objective(config: Config, kind: str) -> list[w.Line]:
    """The lines of a stage that say what it learns.

    Raises: ConfigError: it is a loss that etude lacks.
    """
    match kind:
        case "sft":
            return _sft(config)
        case "dpo":
            return _dpo(config)
        case "kto":
            return _kto(config)
        case "reward":
            return _reward(config)
        case "grpo":
            return _grpo(config)
        case "prm":
            return _prm(config)
        case _:
            return _texts(config)


def _sft(config: Config) -> list[w.Line]:
    loss = config.text("loss_type", default="nll")
    if loss not in ("nll", "chunked_nll"):
        raise ConfigError(f"`loss_type: {loss}` is not converted", help="nll is, of trl sft")
    completion = config.flag("completion_only_loss")
    if config.flag("assistant_only_loss") or completion:
        return []
    if not config.has("completion_only_loss"):
        config.assumed(
            "completion_only_loss",
            "every token of a dialog is learned, as TRL does with `messages`; of records with "
            "`prompt` and `completion` it learns the completion: remove `loss = all` for them",
        )
    return [("loss", "all")]


def _texts(config: Config) -> list[w.Line]:
    """Nothing: every token of a text is learned."""
    of_dialogs = ("assistant_only_loss", "completion_only_loss", "chat_template_path")
    config.irrelevant(dict.fromkeys(of_dialogs, "texts are no dialogs"))
    config.lost_unless(
        "packing", [True], "texts are packed into full rows, without padding", "as in etude"
    )
    return _sft(config)[:0]


def _dpo(config: Config) -> list[w.Line]:
    named = config.texts("loss_type") or ["sigmoid"]
    weights = config.texts("loss_weights") or ["1"] * len(named)
    shares = dict(zip(named, (Fraction(weight) for weight in weights), strict=False))
    nll = shares.pop("sft", Fraction(0))
    if len(shares) != 1 or next(iter(shares)) not in _PREFERENCES:
        raise ConfigError(
            f"`loss_type: {', '.join(named)}` is not converted",
            help=f"of trl dpo, {', '.join(_PREFERENCES)} are, alone or with sft",
        )
    ((loss, share),) = shares.items()
    ours, more = _PREFERENCES[loss]
    if nll and share != 1:
        reason = "the loss is divided by the weight of the preferences: a rate times that is equal"
        config.assumed("loss_weights", reason)
    smoothing = Fraction(0)
    if loss == "robust":
        smoothing = config.number("label_smoothing", default=smoothing)
    else:
        config.irrelevant({"label_smoothing": _UNREAD})
    return [
        ("objective", ours) if ours != "dpo" else None,
        *more,
        ("beta", w.real(config.number("beta", default=Fraction(1, 10)))),
        ("nll", w.real(nll / share)) if nll else None,
        ("label_smoothing", w.real(smoothing)) if smoothing else None,
    ]


def _kto(config: Config) -> list[w.Line]:
    loss = config.text("loss_type", default="kto")
    if loss != "kto":
        raise ConfigError(f"`loss_type: {loss}` is not converted", help="kto is, of trl kto")
    lines: list[w.Line] = [("beta", w.real(config.number("beta", default=Fraction(1, 10))))]
    for name in ("desirable_weight", "undesirable_weight"):
        weight = config.number(name, default=Fraction(1))
        lines.append((name, w.real(weight)) if weight != 1 else None)
    return lines


def _prm(config: Config) -> list[w.Line]:
    """What a process reward model learns of its steps."""
    for name in ("max_prompt_length", "max_completion_length"):
        reason = "a record is cut after the last whole step that `seq_len` has room for"
        config.lost_unless(name, [], reason, "no limit of its own")
    separator = config.text("step_separator", default="\n")
    last = config.flag("train_on_last_step_only")
    return [
        ("separator", w.quoted(separator)) if separator != "\n" else None,
        ("loss", "last") if last else None,
    ]


def _reward(config: Config) -> list[w.Line]:
    center = config.number("center_rewards_coefficient", default=Fraction(0))
    return [("center", w.real(center)) if center else None]


def _grpo(config: Config) -> list[w.Line]:
    loss = config.text("loss_type", default="dapo")
    level = config.text("importance_sampling_level", default="token")
    if loss not in _POLICIES or (level == "sequence" and loss != "grpo") or level not in _LEVELS:
        raise ConfigError(
            f"`loss_type: {loss}` with `importance_sampling_level: {level}` is not converted",
            help=f"of trl grpo, {', '.join(_POLICIES)} are, and grpo of sequences, which is gspo",
        )
    ours = "gspo" if level == "sequence" else loss
    scale: str = config.text("scale_rewards", default="group")
    low = config.number("epsilon", default=Fraction(1, 5))
    high = config.number("epsilon_high", default=low)
    kl = config.number("beta", default=Fraction(0))
    return [
        ("objective", ours) if ours != "grpo" else None,
        ("advantage", _SCALES.get(scale, scale)),
        ("clip_ratio", f"[{w.real(low)}, {w.real(high)}]"),
        ("kl", w.real(kl)) if kl else None,
        _renewed(config, kl),
        ("mask_truncated", "true") if config.flag("mask_truncated_completions") else None,
    ]


_LEVELS = ("token", "sequence")


def _renewed(config: Config, kl: Fraction) -> w.Line:
    """After how many steps the policy becomes the reference; a mixture of both is not in the
    language."""
    if not config.flag("sync_ref_model") or not kl:
        return None
    share = config.number("ref_model_mixup_alpha", default=Fraction("0.6"))
    every = config.whole("ref_model_sync_steps", default=512, least=1)
    if share != 1:
        config.lost("sync_ref_model", "the reference is replaced as a whole (reference_refresh)")
        return None
    return "reference_refresh", w.in_steps(every)


def turns(config: Config, made: Draft) -> list[w.Line]:
    """How a policy's answers are written and scored."""
    accumulated = config.whole("gradient_accumulation_steps", default=1, least=1)
    written = config.whole("steps_per_generation", default=accumulated, least=1)
    if config.has("generation_batch_size"):
        config.lost("generation_batch_size", "write `refresh`: steps that learn from one turn")
    if written % accumulated:
        config.lost("steps_per_generation", "answers are written for whole steps")
    if config.whole("num_iterations", default=1) != 1:
        config.lost("num_iterations", "each answer is learned from once")
    refresh = max(written // accumulated, 1)
    temperature = config.number("temperature", default=Fraction(1))
    return [
        ("group", str(config.whole("num_generations", default=8, least=2))),
        ("refresh", w.in_steps(refresh)) if refresh > 1 else None,
        ("max_tokens", w.count(config.whole("max_completion_length", default=512, least=1))),
        ("temperature", w.real(temperature)) if temperature != 1 else None,
        _reward_of(config, made),
    ]


def _reward_of(config: Config, made: Draft) -> w.Line:
    """The verifiers and reward models that score, with their weights; open if one is unknown."""
    judge = config.text("reward_model_name_or_path")
    named = config.texts("reward_funcs") or []
    weights = [Fraction(weight) for weight in config.texts("reward_weights") or []]
    weights += [Fraction(1)] * (len(named) + bool(judge) - len(weights))
    found: dict[str, Fraction] = {}
    unknown = []
    if judge:
        found[_judge(made, judge)] = weights[0]
    for function, weight in zip(named, weights[bool(judge) :], strict=False):
        settings = _VERIFIERS.get(function)
        if settings is None:
            unknown.append(function)
            continue
        name = made.name(function.removesuffix("_reward"), "right")
        made.add(w.block(f"verifier {name}", *settings))
        found[name] = weight
    if unknown or not found:
        what = ", ".join(unknown) or "none is named"
        known = ", ".join(f"`{name} {w.real(weight)}`" for name, weight in found.items())
        reason = f"reward functions: {what}; write verifiers for them"
        return made.open("reward", reason + (f", beside {known}" if known else ""))
    if list(found.values()) == [1]:
        return "reward", next(iter(found))
    return "reward", f"{{ {', '.join(f'{n} {w.real(weight)}' for n, weight in found.items())} }}"


_VERIFIERS: dict[str, list[w.Line]] = {
    "accuracy_reward": [("kind", "math")],
    "think_format_reward": [("kind", "format"), ("pattern", w.quoted(_FORMAT))],
}
"""TRL's reward functions → verifiers that give the same score."""


def _judge(made: Draft, place: str) -> str:
    """A published reward model; returns its name."""
    name = made.weights(place)
    made.blocks[-1] = made.blocks[-1].replace("{\n", "{\n  head = score\n", 1)
    return name
