"""torchtitan converts the layers that a plan says, and those compute what they should.

The kernels need GPUs. Here the checks of the device are told that there is one, so that everything
up to the kernels is torchtitan's own; and fp8 is emulated on the CPU by torchao.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from engine_jobs import architecture, experts, latent, train_job
from torchtitan.components.dataloader import BaseDataLoader
from torchtitan.components.quantization import Float8LinearConverter
from torchtitan.distributed.activation_checkpoint import MemoryBudgetAC
from torchtitan.models.common import Linear
from torchtitan.models.common.moe import GroupedExperts

from etude.compiler.plan.plan import Architecture, TrainJob
from etude.compiler.torchtitan.quantization import quantization
from etude.runtime.engine.config import trainer_config
from etude.runtime.engine.families import model_spec
from etude.runtime.errors import RunError
from etude.spec.schema.precision import Precision

pytest.importorskip("torchao")
MODELS = {
    "llama3": architecture(dim=256, heads=4, kv_heads=2, head_dim=64, ffn=512, layers=3),
    "tied": architecture(dim=256, heads=2, kv_heads=2, head_dim=128, ffn=512, tied=True),
    "qwen3": architecture(
        family="qwen3", dim=256, heads=2, kv_heads=1, head_dim=128, experts=experts(ffn=128)
    ),
    "deepseek_v3": architecture(
        family="deepseek_v3",
        dim=256,
        ffn=512,
        layers=3,
        latent=latent(queries=128, keys=128, plain=64, rotary=128, values=64),
        experts=experts(ffn=128, shared=1, dense=1),
    ),
    "gpt_oss": architecture(
        family="gpt_oss",
        dim=256,
        heads=2,
        kv_heads=1,
        head_dim=128,
        biased=True,
        sinks=True,
        experts=experts(ffn=128),
    ),
}
OUTPUT = "attention.wo"
"""torchtitan has a class of its own for it where there are biases."""


@pytest.fixture
def on_gpus(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """torchtitan finds a Blackwell GPU."""
    import torch._inductor.config as inductor

    for name in ("float8", "mx", "nvfp4"):
        module = sys.modules[f"torchtitan.components.quantization.{name}"]
        monkeypatch.setattr(module, "has_cuda_capability", lambda *_: True)
    yield
    inductor.emulate_precision_casts = False


def job(model: Architecture, precision: Precision, **changes: Any) -> TrainJob:
    """A job on a GPU."""
    sections = {
        "training": {"local_batch_size": 2, "mixed_precision_param": "bfloat16"},
        "compile": {"enable": True},
    }
    made = train_job(steps=1, model=model, torchtitan={**sections, **changes})
    low = quantization(precision, model, logits=True)
    resources = type(made.resources)(**{**vars(made.resources), "device": "B200"})
    return made.model_copy(
        update={
            "resources": resources,
            "torchtitan": {**made.torchtitan, **({"quantization": low} if low else {})},
        }
    )


def configured(of: TrainJob) -> Any:
    return trainer_config(
        of,
        Path("unused"),
        dataloader=cast(Any, BaseDataLoader.Config()),
        start=None,
        on_event=lambda _: None,
    )


def classes(model: Any, kind: Any = Linear) -> dict[str, str]:
    """Layer → the class that it is built as."""
    return {name: type(of)._owner.__name__ for name, of, _, _ in model.traverse(kind.Config)}


def expected(precision: Precision, model: Architecture) -> set[str]:
    """The linear layers of a model that are to be converted, by what they are."""
    found = set()
    for name in classes(model_spec(model, "B200", 64).model):
        part = (
            "output"
            if name == "lm_head"
            else "router"
            if ".router." in name
            else "shared_experts"
            if ".shared_experts." in name
            else "feed_forward"
            if ".feed_forward." in name
            else "attention"
        )
        layer = int(name.split(".")[1]) if "layers" in name else -1
        inside = precision.bf16_first <= layer < model.layers - precision.bf16_last
        special = model.biased and OUTPUT in name
        if part not in precision.except_ and (inside or part == "output") and not special:
            found.add(name)
    return found


@pytest.mark.usefixtures("on_gpus")
@pytest.mark.parametrize("kind", ["fp8", "mxfp8", "nvfp4"])
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("changes", [{}, {"except_": ("router",)}, {"bf16_last": 1}])
def test_torchtitan_converts_the_layers_that_are_planned(
    kind: str, name: str, changes: dict[str, Any]
) -> None:
    model = MODELS[name]
    if kind == "mxfp8" and "bf16_last" in changes:
        changes = {**changes, "except_": ("experts", "output", "router")}
    precision = Precision(kind=kind, **changes)
    planned = configured(job(model, precision)).model_spec.model
    class_name = {"fp8": "Float8Linear", "mxfp8": "MXFP8Linear", "nvfp4": "NVFP4Linear"}[kind]
    found = {layer for layer, of in classes(planned).items() if of == class_name}
    assert found == expected(precision, model)
    own = set(classes(planned, GroupedExperts).values())
    if kind == "mxfp8" and "experts" not in precision.except_ and own:
        assert all(of.startswith("MXFP8") for of in own)
    else:
        assert not any(of.startswith(("MXFP8", "Float8")) for of in own)


@pytest.mark.usefixtures("on_gpus")
def test_the_model_with_converted_layers_has_the_same_weights_by_name() -> None:
    for kind in ("fp8", "mxfp8", "nvfp4"):
        model = MODELS["deepseek_v3"]
        with torch.device("meta"):
            low = configured(job(model, Precision(kind=kind))).model_spec.model.build()
            wide = configured(job(model, Precision())).model_spec.model.build()
        shapes = [{n: w.shape for n, w in of.named_parameters()} for of in (low, wide)]
        assert shapes[0] == shapes[1]
        assert {type(w.data) for w in low.parameters()} == {torch.Tensor}


@pytest.mark.usefixtures("on_gpus")
def test_a_job_in_bf16_after_one_in_fp8_is_as_in_a_process_of_its_own() -> None:
    import torch._functorch.config as functorch
    import torch._inductor.config as inductor

    budget = {"activation_checkpoint": {"mode": "memory_budget", "memory_budget": 0.6}}
    config = configured(job(MODELS["llama3"], Precision(kind="fp8"), **budget))
    assert isinstance(config.activation_checkpoint, MemoryBudgetAC.Config)
    config.activation_checkpoint.build().apply(torch.nn.Module())
    assert inductor.emulate_precision_casts
    assert functorch.activation_memory_budget == 0.6
    configured(job(MODELS["llama3"], Precision()))
    assert not inductor.emulate_precision_casts
    assert functorch.activation_memory_budget == 1.0


def test_a_budget_without_compilation_is_refused() -> None:
    sections = {
        "activation_checkpoint": {"mode": "memory_budget", "memory_budget": 0.6},
        "compile": {"enable": False},
    }
    with pytest.raises(RunError, match="torchtitan rejects"):
        configured(job(MODELS["llama3"], Precision(), **sections))


def test_a_machine_without_the_gpu_is_told_so() -> None:
    with pytest.raises(RunError, match="Float8LinearConverter"):
        configured(job(MODELS["llama3"], Precision(kind="fp8")))


def test_a_machine_without_torchao_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    module = sys.modules["torchtitan.components.quantization.float8"]
    monkeypatch.setattr(module, "Float8Linear", None)
    with pytest.raises(RunError, match="torchao") as found:
        configured(job(MODELS["llama3"], Precision(kind="fp8")))
    assert "etude[fp8]" in found.value.help


def test_emulated_fp8_has_nearly_the_loss_and_the_gradients_of_fp32() -> None:
    model = MODELS["llama3"]
    tokens = torch.randint(model.vocab, (2, 33), generator=torch.Generator().manual_seed(0))
    positions = torch.arange(32).expand(2, 32)

    def step(low: bool) -> tuple[torch.Tensor, torch.Tensor]:
        config: Any = model_spec(model, "cpu", 64).model
        if low:
            settings = quantization(Precision(kind="fp8"), model, logits=True)
            names = settings["Float8LinearConverter"]["filter_fqns"]
            config = (
                Float8LinearConverter.Config(filter_fqns=names, emulate=True)
                .build()
                .convert(config)
            )
            assert classes(config)["layers.0.attention.wo"] == "Float8Linear"
        made = config.build()
        torch.manual_seed(1)
        made.init_weights(buffer_device=torch.device("cpu"))
        from etude.runtime.engine.attention.documents import by_window, document_mask

        masks = by_window(document_mask(positions), positions, 0)
        logits = made(tokens[:, :-1], positions=positions, attention_masks=masks)
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
        loss.backward()
        gradient = torch.cat([w.grad.flatten() for w in made.parameters() if w.grad is not None])
        return loss.detach(), gradient

    (wide, of_wide), (low, of_low) = step(False), step(True)
    assert wide != low
    assert torch.isclose(wide, low, rtol=0.01)
    assert torch.nn.functional.cosine_similarity(of_wide, of_low, dim=0) > 0.98
