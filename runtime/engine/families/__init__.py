"""Model families: architectures as torchtitan builds them and as transformers reads them."""

from typing import Any

from ....compiler.values import Architecture
from ...errors import RunError
from . import deepseek_v3, gpt_oss, llama3, qwen3
from .common import Family, Head

FAMILIES: dict[str, Family] = {
    "llama3": llama3.FAMILY,
    "qwen3": qwen3.FAMILY,
    "deepseek_v3": deepseek_v3.FAMILY,
    "gpt_oss": gpt_oss.FAMILY,
}


def model_spec(architecture: Architecture, device: str, seq_len: int, head: Head = "logits") -> Any:
    """The architecture as torchtitan's `ModelSpec`.

    Args:
        device: "cpu", or the name of a GPU.
        seq_len: the longest sequence, in tokens.
        head: with "score", there is one output in place of the vocabulary's, and weights are not
            tied.

    Raises:
        RunError: no such family.
    """
    return _family(architecture).model_spec(architecture, device, seq_len, head)


def hf_config(architecture: Architecture, *, score: bool = False) -> dict[str, Any]:
    """The architecture as the `config.json` of a Hugging Face model, or of a classifier with one
    label where it has a head of one output.

    Raises:
        RunError: no such family.
    """
    config = _family(architecture).hf_config(architecture)
    kind = "ForSequenceClassification" if score else "ForCausalLM"
    return {
        "architectures": [config.pop("name") + kind],
        **config,
        "tie_word_embeddings": architecture.tied and not score,
        **({"num_labels": 1} if score else {}),
    }


def _family(architecture: Architecture) -> Family:
    if architecture.family not in FAMILIES:
        raise RunError(
            f"the engine has no model family `{architecture.family}`",
            f"the families are: {', '.join(FAMILIES)}",
        )
    return FAMILIES[architecture.family]
