"""Model families: one module each, with a counterpart in `runtime/engine/families`."""

from . import decoder, deepseek_v2, deepseek_v3, gpt_oss, llama3, qwen3
from .family import Family

FAMILIES: dict[str, Family] = {
    "llama3": llama3.FAMILY,
    "qwen3": qwen3.FAMILY,
    "deepseek_v2": deepseek_v2.FAMILY,
    "deepseek_v3": deepseek_v3.FAMILY,
    "gpt_oss": gpt_oss.FAMILY,
    "decoder": decoder.FAMILY,
}
"""name → family, in the order in which they are listed."""
