"""Muon: its update, what learns by it, and that ranks and interruptions change nothing."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_jobs import (
    architecture,
    experts,
    interrupted_and_resumed,
    lr,
    run,
    same,
    tensors,
    train_job,
)
from forking import shared
from specs import HEAD, jobs, plan, stage
from test_engine_decay import names
from test_engine_ranks import Run, Workplace

from etude.compiler.families import FAMILIES
from etude.compiler.plan.plan import TrainJob
from etude.compiler.torchtitan.configuration import MUON
from etude.runtime.engine.updates.muon import ADJUSTED, Muon, orthogonal

STATE = "optimizer.state."
LAYOUTS: dict[str, dict[str, Any]] = {
    "tensor": {"tensor_parallel_degree": 2},
    "pipeline": {"pipeline_parallel_degree": 2},
}


def groups(settings: str = "", decay: str = "all") -> list[dict[str, Any]]:
    """The plan's groups of parameters."""
    written = f"muon {{ weight_decay = 0.1, decay = {decay}, {settings} }}"
    (job,) = jobs(plan(HEAD + stage(optimizer=written.replace(", }", " }"))))
    return job.torchtitan["optimizer"]["param_groups"]


def job(steps: int, world_size: int = 1, *, parallelism: Any = None, **fields: Any) -> TrainJob:
    sections = {
        "optimizer": {"implementation": "fused", "param_groups": groups()},
        "parallelism": parallelism or {},
    }
    end = fields.get("first_step", 0) + steps
    rates = [lr(0, end, "hold", 1e-2, 1e-2)]
    clip = fields.pop("clip", None)
    made = {"steps": steps, "world_size": world_size, "schedule_lr": rates, **fields}
    found = train_job(torchtitan=sections, checkpoint_every=4, **made)
    return found.model_copy(update={"qk_clip": clip})


def learns_by_muon(name: str, decay: str = "all") -> bool:
    first = next(g for g in groups(decay=decay) if re.search(g["pattern"], name))
    return first["optimizer_name"] == MUON


@pytest.mark.parametrize("adjust", ADJUSTED)
@pytest.mark.parametrize("nesterov", [True, False])
@pytest.mark.parametrize("shape", [(48, 16), (16, 48)])
def test_an_update_is_that_of_torch(shape: tuple[int, int], nesterov: bool, adjust: str) -> None:
    """torch.optim.Muon iterates in bf16."""
    torch.manual_seed(1)
    settings = {"lr": 0.1, "weight_decay": 0.2, "momentum": 0.9, "nesterov": nesterov}
    settings |= {"ns_steps": 5, "adjust_lr_fn": adjust}
    ours, theirs = (torch.nn.Parameter(torch.ones(shape)) for _ in range(2))
    one, two = Muon([{"params": [ours], **settings}]), torch.optim.Muon([theirs], **settings)
    for _ in range(3):
        ours.grad = torch.randn(shape)
        theirs.grad = ours.grad.clone()
        one.step()
        two.step()
    largest = (theirs - 1).abs().max().item()
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0.03 * largest)


def test_each_matrix_of_a_stack_is_made_orthogonal_by_itself() -> None:
    torch.manual_seed(2)
    stack = torch.randn(3, 8, 20)
    found = orthogonal(stack, steps=5)
    for each, matrix in zip(found, stack, strict=True):
        torch.testing.assert_close(each, orthogonal(matrix, steps=5))
        values = torch.linalg.svdvals(each)
        assert values.min() > 0.6
        assert values.max() < 1.3
        # The same singular vectors: their product with the matrix is symmetric.
        product = each @ matrix.mT
        torch.testing.assert_close(product, product.mT, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("decay", ["all", "matrices"])
@pytest.mark.parametrize("family", FAMILIES)
def test_matrices_of_layers_learn_by_muon_and_nothing_else(family: str, decay: str) -> None:
    for name, dimensions in names(family).items():
        expected = name.startswith("layers.") and dimensions >= 2 and "bias" not in name
        assert learns_by_muon(name, decay) == expected, name


def test_a_matrix_has_one_moment_and_everything_else_two(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    run(
        job(1, model=architecture(family="qwen3", qk_norm=True, experts=experts())),
        inputs,
        tmp_path / "job",
    )
    state = tensors(tmp_path / "job" / "result" / "state")
    found: dict[str, set[str]] = {}
    for key in state:
        if key.startswith(STATE):
            name, _, kind = key.removeprefix(STATE).rpartition(".")
            found.setdefault(name, set()).add(kind)
    assert any("inner_experts" in name for name in found)
    for name, kinds in found.items():
        adam = {"exp_avg", "exp_avg_sq", "step"}
        assert kinds == ({"momentum_buffer"} if learns_by_muon(name) else adam), name


def test_interrupted_and_resumed_it_ends_bit_for_bit_alike(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    whole = interrupted_and_resumed(job(8), inputs, tmp_path, lost=6, again=[4, 5, 6, 7])
    assert whole[-1]["loss"] < whole[0]["loss"]


def losses(events: Any) -> list[float]:
    return [event["loss"] for event in events]


def test_two_ranks_learn_the_same_and_go_on_with_the_same_bits(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    place = Workplace(inputs, tmp_path)
    read = {"web": 3 * 32, "code": 32}
    rest = job(
        2,
        2,
        first_step=1,
        first_token=128,
        first_tokens=read,
        optimizer_state="carry",
        clip=0.02,
    )
    begun = Run(job(3, 2, clip=0.02), "two"), Run(job(1, 2, clip=0.02), "one")
    assert place.run(*begun, Run(rest, "rest", "one")) == 0
    alone = run(job(3, clip=0.02), inputs, tmp_path / "alone")
    assert losses(place.events("two")) == pytest.approx(losses(alone), rel=1e-4)
    scores = [[event["max_score"] for event in of] for of in (alone, place.events("two"))]
    assert scores[1] == pytest.approx(scores[0], rel=1e-3)
    assert min(scores[0]) > 0.02  # every step is clipped
    assert same(place.result("two") / "state", place.result("rest") / "state")


@pytest.mark.exhaustive
def test_what_is_learned_does_not_depend_on_the_layout(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    place = Workplace(inputs, tmp_path)
    assert place.run(*(Run(job(3, 2, parallelism=of), name) for name, of in LAYOUTS.items())) == 0
    expected = losses(run(job(3), inputs, tmp_path / "alone"))
    for name in LAYOUTS:
        assert losses(place.events(name)) == pytest.approx(expected, rel=1e-4), name


@pytest.mark.exhaustive
def test_it_is_torchtitans_where_gpus_share_the_weights_in_a_pipeline_too(tmp_path: Path) -> None:
    """DistMuon iterates in bf16."""
    worker = Path(__file__).with_name("muon_worker.py")
    done = shared().ranks(worker, count=4, cwd=tmp_path)
    assert done.code == 0, done.err
    apart = {line.split()[0]: float(line.split()[1]) for line in done.out.splitlines()}
    assert len(apart) == 5
    assert all(each < 0.03 for each in apart.values()), apart
