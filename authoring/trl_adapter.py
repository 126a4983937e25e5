"""The adapter of a TRL configuration (`use_peft` and `lora_…`)."""

from fractions import Fraction

from . import writing as w
from .config import Config

MODULES = {
    "attention": {"q_proj", "k_proj", "v_proj", "o_proj"},
    "feed_forward": {"gate_proj", "up_proj", "down_proj"},
}
"""Part of a model → transformers' names of its matrices."""
_OF_LORA = ("lora_r", "lora_alpha", "lora_target_modules", "use_rslora", "lora_dropout", "use_dora")


def adapter(config: Config) -> w.Line:
    """LoRA's line; None without `use_peft`."""
    if not config.flag("use_peft"):
        config.irrelevant(dict.fromkeys(_OF_LORA, "not used without use_peft"))
        return None
    rank = config.whole("lora_r", default=16, least=1)
    alpha = config.number("lora_alpha", default=Fraction(32))
    named = config.texts("lora_target_modules")
    every = named == ["all-linear"]
    on = [part for part, of in MODULES.items() if every or not of.isdisjoint(named or [])]
    on = on or ["attention"]
    if named is None:
        config.assumed("lora_target_modules", "adapters beside all matrices of attention; PEFT's "
                       "default is queries and values in models such as Llama")  # fmt: skip
    elif not every and set(named) != set[str]().union(*(MODULES[part] for part in on)):
        config.assumed("lora_target_modules", f"adapters beside all matrices of {', '.join(on)}")
    if config.number("lora_dropout", default=Fraction("0.05")):
        config.assumed("lora_dropout", "adapters have no dropout; TRL's default is 0.05")
    if config.flag("use_dora"):
        config.lost("use_dora", "adapters are LoRA's")
    stable = ", over = sqrt_rank" if config.flag("use_rslora") else ""
    settings = f"rank = {rank}, alpha = {w.real(alpha)}{stable}, on = [{', '.join(on)}]"
    return "adapter", f"lora {{ {settings} }}"
