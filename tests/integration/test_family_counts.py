"""Published sizes of every family: what torchtitan counts, and what it builds itself."""

from importlib import import_module

import pytest
import torch
from engine_jobs import WORDS  # noqa: F401 (chooses the CPU before torchtitan is imported)

from etude.compiler.families import FAMILIES
from etude.compiler.families.architectures import (
    attention_flops_per_token,
    flops_per_token,
    parameters,
    published,
)
from etude.runtime.engine.families import model_spec
from etude.spec.record import replace

SIZES = [(family, size) for family, of in FAMILIES.items() for size in of.sizes]
FLAVORS = {
    ("llama3", "1B"): "1B",
    ("llama3", "3B"): "3B",
    ("llama3", "8B"): "8B",
    ("llama3", "70B"): "70B",
    ("llama3", "405B"): "405B",
    ("deepseek_v2", "16B-A2.4B"): "16B",
    ("deepseek_v2", "236B"): "236B",
    ("deepseek_v3", "671B"): "671B",
    ("deepseek_v3", "16B-A3B"): "moonlight-16B-A3B",
    ("gpt_oss", "20B"): "20b",
    ("gpt_oss", "120B"): "120b",
} | {("qwen3", size): size for size in FAMILIES["qwen3"].sizes}
MODULES = {
    ("deepseek_v2", "16B-A2.4B"): "deepseek_v3",
    ("deepseek_v2", "236B"): "deepseek_v3",
    ("deepseek_v3", "16B-A3B"): "kimi_k2_7",
}
LENGTH = 4096


@pytest.mark.parametrize(("family", "size"), SIZES)
def test_parameters_and_flops_are_those_that_torchtitan_counts(family: str, size: str) -> None:
    shape = published(family, size).knowing(LENGTH)
    config = model_spec(shape, "cpu", LENGTH).model
    with torch.device("meta"):
        count, flops = config.get_nparams_and_flops(config.build(), LENGTH)
    assert count == parameters(shape)
    # Where embeddings are a table of their own, torchtitan leaves them out; and it counts the
    # scores of keys in the future and beyond the window.
    table = 0 if shape.tied else 6 * shape.vocab * shape.dim
    scores = 2 * attention_flops_per_token(replace(shape, window=0), LENGTH)
    assert flops == flops_per_token(shape) - table + scores


@pytest.mark.parametrize(("family", "size"), FLAVORS)
def test_published_sizes_are_those_that_torchtitan_has(family: str, size: str) -> None:
    shape = published(family, size).knowing(LENGTH)
    module = import_module(f"torchtitan.models.{MODULES.get((family, size), family)}")
    theirs = module.model_registry(FLAVORS[family, size], attn_backend="flex").model
    ours = model_spec(shape, "gpu", LENGTH).model
    with torch.device("meta"):
        one, other = (
            {n: t.shape for n, t in of.build().state_dict().items() if "expert_bias" not in n}
            for of in (theirs, ours)
        )
    assert one == other
    windows = [
        [getattr(layer.attention, "sliding_window_size", None) for layer in of.layers]
        for of in (theirs, ours)
    ]
    assert windows[0] == windows[1]
