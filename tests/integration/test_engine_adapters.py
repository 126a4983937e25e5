"""Adapters: only they move, they are merged into what the stage makes, and PEFT reads them."""

from pathlib import Path
from typing import Any

import pytest
import torch
from engine_jobs import (
    architecture,
    decoder,
    experts,
    latent,
    run,
    same,
    same_weights,
    tensors,
    train_job,
    weights,
)
from peft import PeftModel
from record_jobs import forward_job, make_records, record_job
from test_engine_ranks import LAYOUTS, Run, Workplace
from transformers import AutoModelForCausalLM

from etude.compiler.plan.plan import (
    Architecture,
    Averaging,
    Dpo,
    ExportJob,
    ReferenceJob,
    Reward,
    Sft,
    TrainJob,
)
from etude.compiler.torchtitan.adapters import adapters, targets
from etude.runtime.engine.adapters import is_adapter
from etude.runtime.engine.checkpoints.storage import HEAD
from etude.runtime.engine.families import model_spec
from etude.runtime.engine.measures.forward import reference
from etude.runtime.engine.weights.adapter_export import _rows, export_adapter
from etude.runtime.engine.weights.export import export
from etude.runtime.errors import RunError
from etude.spec.record import replace
from etude.spec.schema.recipe import Adapter

LORA = Adapter(name="lora", rank=4, alpha=12.0)
DPO = Dpo(beta=0.3, nll=0.2, label_smoothing=0.1, normalize=True, mask="none")
OBJECTIVES: dict[str, Any] = {"sft": Sft(), "reward": Reward(), "dpo": DPO}
FAMILIES = {
    "llama3": architecture(),
    "qwen3": architecture(family="qwen3", qk_norm=True),
    "deepseek_v3": architecture(
        family="deepseek_v3", latent=latent(), kv_heads=4, experts=experts(shared=1, dense=1)
    ),
    "deepseek_v2": architecture(
        family="deepseek_v2",
        latent=latent(),
        kv_heads=4,
        experts=experts(shared=2, normalized=False, dense=1, groups=2, groups_used=1),
    ),
    "olmo2": decoder(parts={"norms": "after", "qk_norm": "width"}),
    "starcoder2": decoder(
        parts={"norm": "layer", "activation": "gelu_tanh", "gated": False, "biases": "all"}
    ),
}


def tuning(
    steps: int = 6,
    world_size: int = 1,
    model: Architecture | None = None,
    on: tuple[str, ...] = LORA.on,
    **more: Any,
) -> TrainJob:
    """A job with adapters."""
    shape = model or architecture()
    parallelism = {"parallelism": more.pop("parallelism", {})}
    return train_job(
        steps=steps,
        world_size=world_size,
        model=shape,
        checkpoint_every=2,
        torchtitan={**adapters(replace(LORA, on=on), shape), **parallelism},
        **more,
    )


@pytest.fixture(scope="module")
def base(inputs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    run(train_job(steps=3), inputs, folder / "job")
    return folder / "job" / "result"


@pytest.fixture(scope="module")
def tuned(
    inputs: dict[str, Path], base: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[dict[str, Any]]]:
    folder = tmp_path_factory.mktemp("tuned")
    events = run(tuning(), {**inputs, "model": base}, folder / "job")
    return folder / "job" / "result", events


def test_only_adapters_move(base: Path, tuned: tuple[Path, Any]) -> None:
    before, after = weights(base / "state"), weights(tuned[0] / "state")
    frozen = {name for name in after if not is_adapter(name)}
    assert frozen == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in frozen)
    ups = [tensor for name, tensor in after.items() if name.endswith(".lora_b.weight")]
    assert len(ups) == 2 * 7  # queries, keys, values and output; three of the feed-forward layer
    assert all(up.abs().max() > 0 for up in ups)


def test_only_adapters_have_moments(tuned: tuple[Path, Any]) -> None:
    moments = [name for name in tensors(tuned[0] / "state") if "exp_avg" in name]
    assert len(moments) == 2 * 2 * 2 * 7
    assert all("lora_" in name for name in moments)


def test_the_result_is_the_sum_of_base_and_adapters(base: Path, tuned: tuple[Path, Any]) -> None:
    state, merged = weights(tuned[0] / "state"), weights(tuned[0] / "weights")
    before = weights(base / "state")
    assert merged.keys() == before.keys()
    changed = 0
    for name, weight in merged.items():
        expected, stem = before[name], name.removesuffix(".weight")
        if f"{stem}.lora_a.weight" in state:
            down, up = state[f"{stem}.lora_a.weight"], state[f"{stem}.lora_b.weight"]
            expected = expected + 12 / 4 * up @ down
            changed += 1
        torch.testing.assert_close(weight, expected, rtol=0, atol=1e-6)
    assert changed == 2 * 7


def test_the_first_loss_is_that_of_the_base(
    inputs: dict[str, Path], base: Path, tuned: tuple[Path, Any], tmp_path: Path
) -> None:
    whole = run(train_job(steps=1), {**inputs, "model": base}, tmp_path / "job")
    assert tuned[1][0]["loss"] == pytest.approx(whole[0]["loss"], abs=1e-6)


def test_the_next_stage_begins_with_the_sum(
    inputs: dict[str, Path], tuned: tuple[Path, Any], tmp_path: Path
) -> None:
    still = train_job(steps=1, schedule_lr=None, lr=0.0)
    zero = still.schedule.lr[0].__class__(
        **{**vars(still.schedule.lr[0]), "start": 0.0, "end": 0.0}
    )
    still = still.model_copy(update={"schedule": still.schedule.model_copy(update={"lr": [zero]})})
    run(still, {**inputs, "model": tuned[0]}, tmp_path / "job")
    after = weights(tmp_path / "job" / "result" / "state")
    merged = weights(tuned[0] / "weights")
    assert after.keys() == merged.keys()
    assert all(torch.equal(after[name], merged[name]) for name in merged)


def test_a_mean_is_of_the_sums(inputs: dict[str, Path], base: Path, tmp_path: Path) -> None:
    averaging = Averaging(every=1, from_step=2)
    roles = {**inputs, "model": base}
    run(tuning(4, average=averaging), roles, tmp_path / "mean")
    sums = []
    for steps in (3, 4):
        run(tuning(steps), roles, tmp_path / f"{steps}")
        sums.append(weights(tmp_path / f"{steps}" / "result" / "weights"))
    mean = weights(tmp_path / "mean" / "result" / "weights")
    for name, weight in mean.items():
        torch.testing.assert_close(weight, (sums[0][name] + sums[1][name]) / 2)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_planned_layers_have_adapters(family: str) -> None:
    from torchtitan.models.common import Linear

    from etude.runtime.engine.adapters import convert

    shape = FAMILIES[family]
    for on in (("attention",), ("feed_forward",), ("attention", "feed_forward")):
        adapter = Adapter(name="lora", rank=4, on=on)
        spec = model_spec(shape, "cpu", 32)
        before = [name for name, *_ in spec.model.traverse(Linear.Config)]
        model = convert(spec.model, adapters(adapter, shape)["adapter"], trains_head=False)
        has = {n for n, c, *_ in model.traverse(Linear.Config) if hasattr(c, "rank")}
        wanted = {
            name
            for name in before
            if (".attention." in name and "attention" in on and name[-2:] != "_a")
            or ((".feed_forward." in name or ".shared_experts." in name) and "feed_forward" in on)
        }
        assert has == wanted
        assert {name.rpartition(".")[2] for name in has} == set(targets(adapter, shape))


@pytest.mark.parametrize("family", FAMILIES)
def test_peft_reads_the_adapters(family: str, inputs: dict[str, Path], tmp_path: Path) -> None:
    """On the base, they give the logits of the exported sum."""
    shape = FAMILIES[family]
    run(train_job(steps=2, model=shape), inputs, tmp_path / "base")
    start = {**inputs, "model": tmp_path / "base" / "result"}
    on = ("attention",) if shape.experts else LORA.on
    job = tuning(4, model=shape, on=on)
    run(job, start, tmp_path / "tuned")
    for name in ("base", "tuned"):
        made = ExportJob(key=name, id=name, stage="toy", inputs={}, model=shape)
        roles = {"model": tmp_path / name / "result", "tokenizer": inputs["tokenizer"]}
        export(made, roles, tmp_path / f"{name}.hf")
    (tmp_path / "adapter").mkdir()
    export_adapter(job, tmp_path / "tuned" / "result", tmp_path / "adapter")
    tokens = torch.randint(256, (2, 24), generator=torch.Generator().manual_seed(0))

    def model(name: str) -> Any:
        return AutoModelForCausalLM.from_pretrained(tmp_path / f"{name}.hf" / "result").eval()

    with torch.no_grad():
        base, merged = model("base"), model("tuned")(tokens).logits
        plain = base(tokens).logits
        adapted = PeftModel.from_pretrained(base, tmp_path / "adapter")(tokens).logits
    assert (merged - plain).abs().max() > 1e-3
    torch.testing.assert_close(adapted, merged, rtol=1e-5, atol=1e-5)


def test_what_peft_would_read_otherwise_is_not_written(tmp_path: Path) -> None:
    job = tuning(model=FAMILIES["deepseek_v3"])
    with pytest.raises(RunError, match="beside its experts"):
        export_adapter(job, tmp_path, tmp_path)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_objective_trains_adapters(
    name: str, inputs: dict[str, Path], base: Path, tmp_path: Path
) -> None:
    """Its first loss is that of training all weights; a reward model's head is trained, too."""
    roles = {**inputs, **make_records(tmp_path), "model": base}
    scored = forward_job(ReferenceJob, "prefer", mask="none")
    reference(scored, roles, tmp_path / "said", root=tmp_path, on_event=lambda _: None)
    roles["reference:prefer"] = tmp_path / "said" / "result"
    of = adapters(LORA, architecture())
    whole = run(record_job(OBJECTIVES[name], steps=1), roles, tmp_path / "whole")
    adapted = run(record_job(OBJECTIVES[name], steps=3, torchtitan=of), roles, tmp_path / "adapted")
    assert adapted[0]["loss"] == pytest.approx(whole[0]["loss"], abs=1e-6)
    result = tmp_path / "adapted" / "result"
    before, after = weights(base / "state"), weights(result / "state")
    frozen = {each for each in after if not is_adapter(each) and each != HEAD}
    assert all(torch.equal(after[each], before[each]) for each in frozen)
    if name == "reward":
        assert after[HEAD].shape[0] == 1
        moments = [each for each in tensors(result / "state") if HEAD + ".exp_avg" in each]
        assert len(moments) == 2
    else:
        assert torch.equal(after[HEAD], before[HEAD])
    assert weights(result / "weights").keys() == before.keys()


@pytest.fixture(scope="module")
def two_ranks(
    inputs: dict[str, Path], base: Path, tmp_path_factory: pytest.TempPathFactory
) -> Workplace:
    """Two ranks have run the job, whole and killed, and in other layouts."""
    place = Workplace({**inputs, "model": base}, tmp_path_factory.mktemp("two_ranks"))
    assert place.run(Run(tuning(world_size=2), "killed", kill_at=4)) != 0
    others = [
        Run(tuning(world_size=2, parallelism=LAYOUTS[name]), name)
        for name in ("tensor", "pipeline")
    ]
    whole = [Run(tuning(world_size=2), name) for name in ("whole", "killed")]
    assert place.run(*whole, *others) == 0
    return place


def test_killed_and_resumed_it_ends_bit_for_bit_alike(two_ranks: Workplace) -> None:
    whole, killed = two_ranks.result("whole"), two_ranks.result("killed")
    assert same(killed / "state", whole / "state")
    assert same_weights(killed / "weights", whole / "weights")


@pytest.mark.parametrize("layout", ["whole", "tensor", "pipeline"])
def test_the_sum_does_not_depend_on_the_layout(
    layout: str, two_ranks: Workplace, tuned: tuple[Path, Any]
) -> None:
    one, two = weights(tuned[0] / "weights"), weights(two_ranks.result(layout) / "weights")
    assert one.keys() == two.keys()
    for name, weight in one.items():
        torch.testing.assert_close(two[name], weight, rtol=1e-3, atol=2e-5)


def test_adapters_of_a_part_of_a_matrix_cannot_be_exported_alone() -> None:
    of = decoder(parts={"rotary": 0.75})  # Phi-3's: queries, keys and values are one there
    spec = model_spec(of, "cpu", of.context)
    adapter: Any = spec.state_dict_adapter
    to_hf = adapter(spec.model, None).to_hf
    with pytest.raises(RunError, match="cannot follow"):
        _rows(to_hf, "layers.0.attention.qkv_linear.wq.weight", (64, 64))
    assert _rows(to_hf, "layers.0.attention.wo.weight", (64, 64))[0].endswith("o_proj.weight")
