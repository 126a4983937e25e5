"""Which parameters decay, and by how much."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_jobs import lr, run, tensors, train_job
from specs import HEAD, jobs, plan, stage
from torch import nn
from torchtitan.components.optimizer import ParamGroupConfig

from etude.compiler.families import FAMILIES
from etude.compiler.families.architectures import published
from etude.compiler.torchtitan.configuration import NO_MATRICES
from etude.runtime.engine.families import Head, model_spec
from etude.runtime.engine.updates.optimizer import Optimizers
from etude.spec.record import replace

RATE, DECAY = 1e-2, 0.5
STATE = "optimizer.state."


def names(family: str, head: Head = "logits") -> dict[str, int]:
    """Parameters of the smallest published size, of two layers → how many dimensions they have."""
    size = next(iter(FAMILIES[family].sizes))
    shape = replace(published(family, size).knowing(64), layers=2)
    with torch.device("meta"):
        built = model_spec(shape, "cpu", 64, head).model.build()
    return {name: each.ndim for name, each in built.named_parameters()}


def decays(name: str) -> bool:
    return re.search(NO_MATRICES, name) is None


@pytest.mark.parametrize("head", ["logits", "tokens", "score"])
@pytest.mark.parametrize("family", FAMILIES)
def test_matrices_decay_and_nothing_else(family: str, head: Head) -> None:
    """Those of experts have three dimensions, and their biases two."""
    for name, dimensions in names(family, head).items():
        table = name == "tok_embeddings.weight"
        bias = "bias" in name
        assert decays(name) == (dimensions >= 2 and not table and not bias), name


def kinds(family: str, head: Head = "logits") -> tuple[set[str], set[str]]:
    """What decays, and what does not, of the last layer and outside of layers."""
    last = {
        name.removeprefix("layers.1.").removesuffix(".weight")
        for name in names(family, head)
        if not name.startswith("layers.0.")
    }
    full = {name: decays(name + ".weight") for name in last}
    return {n for n in last if full[n]}, {n for n in last if not full[n]}


def test_of_llama3() -> None:
    decaying, kept = kinds("llama3")
    assert decaying >= {f"attention.{n}" for n in ("wo", "qkv_linear.wq", "qkv_linear.wk")}
    assert decaying >= {f"feed_forward.w{n}" for n in (1, 2, 3)}
    assert kept == {"attention_norm", "ffn_norm", "norm", "tok_embeddings"}


def test_of_qwen3_with_norms_of_queries_and_keys() -> None:
    kept = kinds("qwen3")[1]
    qk = {"attention.q_norm", "attention.k_norm"}
    assert kept == {"attention_norm", "ffn_norm", "norm", "tok_embeddings", *qk}


def test_of_deepseek_v3_with_latents_and_experts() -> None:
    decaying, kept = kinds("deepseek_v3")
    assert {"attention.wkv_a", "attention.wkv_b", "moe.router.gate"} <= decaying
    assert {"moe.routed_experts.inner_experts.w1_EFD"} <= decaying
    assert {"attention.kv_norm", "attention_norm", "ffn_norm", "norm", "tok_embeddings"} <= kept
    assert all("norm" in name or name == "tok_embeddings" for name in kept)


def test_the_head_of_a_reward_model_decays() -> None:
    assert "lm_head" in kinds("llama3", "score")[0]


def groups(kind: str, weight_decay: float) -> list[dict[str, Any]]:
    """The plan's groups for `decay = matrices`."""
    settings = f"{kind} {{ weight_decay = {weight_decay}, decay = matrices }}"
    (job,) = jobs(plan(HEAD + stage(optimizer=settings)))
    return job.torchtitan["optimizer"]["param_groups"]


def trained(kind: str, decay: float, rate: float, inputs: dict[str, Path], folder: Path) -> Any:
    sections = {"implementation": "fused", "param_groups": groups(kind, decay)}
    made = train_job(
        steps=1,
        schedule_lr=[lr(0, 1, "hold", rate, rate)],
        torchtitan={"optimizer": sections},
    )
    run(made, inputs, folder)
    return tensors(folder / "result" / "state")


@pytest.mark.parametrize("kind", ["adamw", "adam"])
def test_a_step_is_that_of_the_formula(kind: str, inputs: dict[str, Path], tmp_path: Path) -> None:
    """AdamW takes rate · decay · weight off a weight (Loshchilov, Hutter, arXiv:1711.05101,
    Algorithm 2); Adam adds decay · weight to its gradient, a tenth of which is the first moment."""
    begun = trained(kind, 0.0, 0.0, inputs, tmp_path / "begun")
    plain = trained(kind, 0.0, RATE, inputs, tmp_path / "plain")
    decayed = trained(kind, DECAY, RATE, inputs, tmp_path / "decayed")
    weights = [name for name in begun if not name.startswith(STATE) and begun[name].ndim]
    seen = {True: 0, False: 0}
    for name in weights:
        if f"{STATE}{name}.exp_avg" not in begun:
            continue
        of = decays(name)
        seen[of] += 1
        share = begun[name] * DECAY * of
        if kind == "adamw":
            moved = plain[name] - decayed[name]
            torch.testing.assert_close(moved, RATE * share, rtol=1e-3, atol=1e-6, msg=name)
        else:
            key = f"{STATE}{name}.exp_avg"
            moved = decayed[key] - plain[key]
            torch.testing.assert_close(moved, 0.1 * share, rtol=1e-3, atol=1e-6, msg=name)
    assert seen == {True: 15, False: 6}


def test_a_part_of_a_pipeline_that_has_no_matrix_is_taken() -> None:
    part = nn.ModuleDict({"tok_embeddings": nn.Embedding(4, 2)})
    given = [ParamGroupConfig(**group) for group in groups("adamw", 0.1)]
    made, patterns = Optimizers._build_param_groups(part, given, {})
    assert patterns == {"AdamW": [NO_MATRICES]}
    assert [group["param_names"] for group in made["AdamW"]] == [["tok_embeddings.weight"]]
