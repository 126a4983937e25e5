"""Jobs on a GPU compute what they compute on the CPU in fp32.

Tolerances are of bf16, which has 8 bits: a loss near 6 is right within 1%, a gradient's norm within
5%. In fp32 a GPU adds in another order: 1e-4.
"""

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_jobs import Events, architecture, decoder, experts, latent, train_job, weights
from record_jobs import dpo, record_job
from test_engine_model import build, logits
from test_engine_ranks import Run, Workplace
from transformers import AutoModelForCausalLM

from etude.compiler.plan.plan import ExportJob, Sft, TrainJob
from etude.compiler.torchtitan.quantization import SECTION, quantization
from etude.runtime.engine.weights.export import export
from etude.runtime.preflight.kernels import DEEP_EP, kernels, there
from etude.spec.record import replace
from etude.spec.schema.recipe import Precision

ON_CPU = os.environ.get("ETUDE_GPU_TESTS") == "cpu"
CAPABILITY: tuple[int, int] = (
    torch.cuda.get_device_capability(0) if torch.cuda.is_available() else (0, 0)
)
NAMES = {8: "A100 80GB", 9: "H100 80GB", 10: "B200"}
GPU = "cpu" if ON_CPU else NAMES.get(CAPABILITY[0], "another")
BF16, FP32 = (0.01, 0.05), (1e-4, 1e-3)
"""How far a loss and a gradient's norm may be from the CPU's, relative."""
WIDE = architecture(
    layers=4, dim=1024, heads=8, kv_heads=2, head_dim=128, ffn=3584, vocab=512, rope_theta=500_000.0
)
"""Llama 3 8B's layers at a quarter of their width."""
SHAPES: dict[str, Any] = {
    "llama3": architecture(),
    "qwen3 moe": architecture(family="qwen3", qk_norm=True, experts=experts(balance=0.01)),
    "deepseek_v3": architecture(
        family="deepseek_v3", kv_heads=4, latent=latent(), experts=experts(shared=1, dense=1)
    ),
    "gpt_oss": architecture(
        family="gpt_oss", biased=True, sinks=True, window=16, experts=experts()
    ),
    "alibi": decoder(parts={"norm": "layer", "alibi": True}),
    "caps": decoder(window=16, parts={"attention_cap": 2.0, "logit_cap": 2.0, "window_skips": 2}),
}
STEPS = 3


def gpus(count: int) -> pytest.MarkDecorator:
    """NCCL gives two ranks of one GPU no group (it finds a "Duplicate GPU")."""
    found = count if ON_CPU else torch.cuda.device_count()
    return pytest.mark.skipif(found < count, reason=f"there are fewer than {count} GPUs")


def on_gpu(job: TrainJob, precision: str = "bfloat16", **titan: Any) -> TrainJob:
    """The same job on GPUs, with what a plan says for them: compiled, in bf16."""
    ranks = job.resources.world_size
    sections = {name: dict(of) if of else of for name, of in job.torchtitan.items()}
    if not ON_CPU:
        sections["training"]["mixed_precision_param"] = precision  # type: ignore[index]
        sections["compile"] = {"enable": True}
        sections["debug"] = {"deterministic": True}
    for name, fields in titan.items():
        sections[name] = {**(sections.get(name) or {}), **fields}
    placed = sections.get("parallelism") or {}
    degrees = {
        name: placed.get(f"{name}_parallel_degree", 1) for name in ("tensor", "context", "expert")
    }
    resources = replace(
        job.resources,
        device=GPU,
        shard=ranks // (degrees["tensor"] * degrees["context"]),
        **degrees,
    )
    return job.model_copy(update={"resources": resources, "torchtitan": sections})


@pytest.fixture
def place(inputs: dict[str, Path], tmp_path: Path) -> Workplace:
    return Workplace(inputs, tmp_path)


def ran(place: Workplace, job: TrainJob, name: str, **given: Any) -> Events:
    assert place.run(Run(job, name, **given)) == 0, f"see {place.root / 'logs'}"
    return place.events(name)


def compare(found: Events, wanted: Events, within: tuple[float, float]) -> None:
    assert len(found) == len(wanted) == STEPS
    loss, norm = within
    for one, other in zip(found, wanted, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=loss)
        assert one["grad_norm"] == pytest.approx(other["grad_norm"], rel=norm)


def check(place: Workplace, job: TrainJob, same: TrainJob, within: tuple[float, float]) -> None:
    """Both learn the same: `job` on one CPU, and `same` on GPUs."""
    compare(ran(place, same, "gpu"), ran(place, job, "cpu"), within)


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize(("precision", "within"), [("bfloat16", BF16), ("float32", FP32)])
def test_families(place: Workplace, name: str, precision: str, within: Any) -> None:
    job = train_job(steps=STEPS, seq_len=128, model=SHAPES[name])
    check(place, job, on_gpu(job, precision), within)


def test_layers_of_8b(place: Workplace) -> None:
    job = train_job(steps=STEPS, seq_len=256, batch=2, model=WIDE)
    check(place, job, on_gpu(job), BF16)


@gpus(2)
@pytest.mark.parametrize("mode", ["full", "selective"])
def test_tensor_parallelism_with_recomputation(place: Workplace, mode: str) -> None:
    job = train_job(steps=STEPS, seq_len=128)
    two = train_job(steps=STEPS, seq_len=128, world_size=2)
    tensor = {"tensor_parallel_degree": 2}
    check(place, job, on_gpu(two, parallelism=tensor, activation_checkpoint={"mode": mode}), BF16)


@gpus(2)
@pytest.mark.skipif(ON_CPU, reason="context parallelism is FlexAttention's")
def test_context_parallelism(place: Workplace) -> None:
    job = train_job(steps=STEPS, seq_len=512)
    two = train_job(steps=STEPS, seq_len=512, world_size=2)
    context = {"context_parallel_degree": 2, "context_parallel_load_balancer": "ptrr"}
    check(place, job, on_gpu(two, parallelism=context), BF16)


def preferring(world_size: int = 1) -> TrainJob:
    return record_job(dpo(objective="cpo"), steps=STEPS, world_size=world_size)


def test_preferences(place: Workplace) -> None:
    """Their rows share prompts, and have lengths of their own."""
    check(place, preferring(), on_gpu(preferring()), BF16)


@gpus(2)
def test_preferences_with_tensor_parallelism(place: Workplace) -> None:
    two = on_gpu(preferring(2), parallelism={"tensor_parallel_degree": 2})
    check(place, preferring(), two, BF16)


def test_packed_dialogs(place: Workplace) -> None:
    job = record_job(Sft(), steps=STEPS)
    check(place, job, on_gpu(job), BF16)


@pytest.mark.skipif(10 * CAPABILITY[0] + CAPABILITY[1] < 89, reason="fp8 needs Ada or Hopper")
def test_fp8(place: Workplace) -> None:
    """8 bits have 3 of a mantissa: the loss is right within 5%."""
    job = train_job(steps=STEPS, seq_len=128, model=WIDE)
    asked = quantization(Precision(kind="fp8"), WIDE, logits=True)
    sections: dict[str, Any] = {SECTION: asked}
    check(place, job, on_gpu(job, **sections), (0.05, 0.2))


@pytest.mark.skipif(ON_CPU, reason="CPUs have an attention of their own")
@pytest.mark.parametrize("backend", ["varlen", "flex_flash"])
def test_backends_of_attention(place: Workplace, backend: str) -> None:
    if backend == "flex_flash" and CAPABILITY < (9, 0):
        pytest.skip("flex_flash needs Hopper")
    module = kernels(backend, GPU)
    if module and not there(module):
        pytest.skip(f"{module} is not installed")
    job = train_job(steps=STEPS, seq_len=256, model=WIDE)
    same = on_gpu(job, attention={"backend": backend}, debug={"deterministic": False})
    check(place, job, same, BF16)


@gpus(2)
@pytest.mark.skipif(ON_CPU, reason="CPUs exchange tokens by collectives alone")
@pytest.mark.skipif(CAPABILITY < (9, 0), reason="these kernels need Hopper")
@pytest.mark.parametrize("dispatcher", ["deepep", "hybridep", "minimal_async_ep"])
def test_dispatchers_of_tokens(place: Workplace, dispatcher: str) -> None:
    if dispatcher != "minimal_async_ep" and not there(DEEP_EP):
        pytest.skip(f"{DEEP_EP} is not installed")
    model = SHAPES["qwen3 moe"]
    job = train_job(steps=STEPS, seq_len=128, model=model)
    two = train_job(steps=STEPS, seq_len=128, model=model, world_size=2)
    same = on_gpu(
        two,
        dispatcher={"backend": dispatcher},
        parallelism={"expert_parallel_degree": 2},
        activation_checkpoint={"mode": "full"},
    )
    check(place, job, same, BF16)


def test_cuda_graphs(place: Workplace) -> None:
    """Several micro-batches, so that the graph is recorded and replayed within a step."""
    job = train_job(steps=STEPS, seq_len=128, batch=8)
    check(place, job, on_gpu(job, training={"disable_cuda_graphs": ON_CPU}), BF16)


def test_killed_and_resumed_from_a_checkpoint_that_was_saved_beside_training(
    place: Workplace,
) -> None:
    job = on_gpu(train_job(steps=6, checkpoint_every=2, seq_len=128))
    whole = ran(place, job, "whole")
    assert place.run(Run(job, "killed", kill_at=4)) != 0
    rest = ran(place, job, "killed")
    assert [event["step"] for event in rest] == [4, 5]
    assert [event["loss"] for event in rest] == [event["loss"] for event in whole[4:]]


def test_what_is_exported_says_the_same_in_transformers(place: Workplace, tmp_path: Path) -> None:
    trained = train_job(steps=STEPS, seq_len=128, model=SHAPES["llama3"])
    ran(place, on_gpu(trained, "float32"), "trained")
    result = place.result("trained")
    job = ExportJob(key="x", id="x", stage="toy", inputs={}, model=trained.model)
    export(job, {"model": result, "tokenizer": place.inputs["tokenizer"]}, tmp_path / "export")
    theirs: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "export" / "result")
    tokens = torch.randint(512, (2, 64), generator=torch.Generator().manual_seed(0))
    ours = build(trained.model, weights(result / "state"))
    with torch.no_grad():
        expected = theirs(tokens).logits
    found = logits(ours, tokens, torch.arange(64).expand(2, -1))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
