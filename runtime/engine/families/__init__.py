"""Model families: architectures as torchtitan builds them and as transformers reads them.

A family is a module here and one of the same name in `compiler/families`, which lists them.
"""

from importlib import import_module
from typing import Any

from ....compiler.families import FAMILIES
from ....compiler.families.config_json import written
from ....compiler.values import Architecture
from ...errors import RunError
from .family import Family, Head


def model_spec(
    architecture: Architecture,
    device: str,
    seq_len: int,
    head: Head = "logits",
    *,
    further: bool = False,
) -> Any:
    """The architecture as torchtitan's `ModelSpec`.

    Args:
        device: "cpu", or the name of a GPU.
        seq_len: the longest sequence, in tokens.
        head: "score" gives one output in place of the vocabulary's; weights are then not tied.
        further: with the modules that predict further tokens, if the architecture has some.

    Raises:
        RunError: no such family.
    """
    model = architecture if further else architecture.main
    return _family(architecture.family).model_spec(model, device, seq_len, head)


def hf_config(architecture: Architecture, *, score: bool = False) -> dict[str, Any]:
    """The architecture as the `config.json` of a Hugging Face model, or, with `score`, of a
    classifier with one label.

    Raises:
        RunError: no such family.
    """
    _require(architecture.family)
    family = FAMILIES[architecture.family]
    config = written(architecture, family.yarn) | family.config_json(architecture)
    kind = "ForSequenceClassification" if score else "ForCausalLM"
    usual = config.pop("name") + kind
    return {
        "architectures": [config.pop("classes", {}).get(kind, usual)],
        **config,
        "tie_word_embeddings": architecture.tied and not score,
        **({"num_labels": 1} if score else {}),
    }


def _require(name: str) -> None:
    """Raises: RunError: no such family."""
    if name not in FAMILIES:
        raise RunError(
            f"there is no model family `{name}`", f"the families are: {', '.join(FAMILIES)}"
        )


def _family(name: str) -> Family:
    """The family's module in this package."""
    _require(name)
    return import_module(f".{name}", __name__).FAMILY
