"""Adafactor: its update, what it keeps, and that ranks and interruptions change nothing."""

import warnings
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
from test_engine_ranks import Run, Workplace

from etude.compiler.plan.plan import TrainJob
from etude.runtime.engine.updates.adafactor import Adafactor

STATE = "optimizer.state."
SHAPES = [(12, 5), (3, 4, 6), (9,), (1, 7)]
SETTINGS: dict[str, Any] = {"lr": 0.02, "weight_decay": 0.0, "beta2_decay": 0.8, "d": 1.0}
SETTINGS |= {"eps1": 1e-15, "eps2": 1e-3, "scale_parameter": True}


def groups(settings: str = "") -> list[dict[str, Any]]:
    """The plan's groups of parameters."""
    (job,) = jobs(plan(HEAD + stage(optimizer=f"adafactor {{ {settings} }}")))
    return job.torchtitan["optimizer"]["param_groups"]


def job(steps: int, world_size: int = 1, *, parallelism: Any = None, **fields: Any) -> TrainJob:
    sections = {
        "optimizer": {"implementation": "fused", "param_groups": groups("weight_decay = 0.01")},
        "parallelism": parallelism or {},
    }
    end = fields.get("first_step", 0) + steps
    rates = [lr(0, end, "hold", 2e-2, 2e-2)]
    made = {"steps": steps, "world_size": world_size, "schedule_lr": rates, **fields}
    return train_job(torchtitan=sections, checkpoint_every=4, **made)


def steps_of(shape: tuple[int, ...], scale: float, *optimizers: Any) -> list[torch.Tensor]:
    """The weights after four steps by each optimizer, from the same weights and gradients."""
    torch.manual_seed(1)
    begun, gradients = torch.randn(shape), [scale * torch.randn(shape) for _ in range(4)]
    found = []
    for make in optimizers:
        param = torch.nn.Parameter(begun.clone())
        optimizer = make(param)
        for gradient in gradients:
            param.grad = gradient.clone()
            optimizer.step()
        found.append(param.detach())
    return found


def ours(**changes: Any) -> Any:
    return lambda param: Adafactor([{"params": [param], **SETTINGS, **changes}])


def of_transformers(**changes: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from transformers.optimization import Adafactor as Theirs

    given = {"lr": 0.02, "relative_step": False, **changes}
    return lambda param: Theirs([param], **given)


@pytest.mark.parametrize("gradients", [1.0, 1e-6])
@pytest.mark.parametrize("shape", SHAPES)
def test_an_update_is_that_of_the_paper(shape: tuple[int, ...], gradients: float) -> None:
    """Which transformers has; there decay is relative to the size of a parameter, too."""
    one, two = steps_of(shape, gradients, ours(), of_transformers(scale_parameter=True))
    torch.testing.assert_close(one, two, rtol=0, atol=1e-6)
    settings = {"weight_decay": 0.1, "scale_parameter": False}
    one, two = steps_of(shape, gradients, ours(**settings), of_transformers(**settings))
    torch.testing.assert_close(one, two, rtol=0, atol=1e-6)


def test_other_settings_are_those_of_the_paper() -> None:
    theirs = {"decay_rate": -0.5, "clip_threshold": 0.7, "eps": (1e-30, 2.0)}
    one, two = steps_of(
        (12, 5),
        1.0,
        ours(beta2_decay=0.5, d=0.7, eps2=2.0),
        of_transformers(scale_parameter=True, **theirs),
    )
    torch.testing.assert_close(one, two, rtol=0, atol=1e-6)
    (usual,) = steps_of((12, 5), 1.0, ours())
    assert (usual - one).abs().max() > 1e-2


@pytest.mark.parametrize("shape", SHAPES)
def test_an_update_is_that_of_torch(shape: tuple[int, ...]) -> None:
    def of_torch(param: torch.nn.Parameter) -> Any:
        return torch.optim.Adafactor([param], lr=0.02, weight_decay=0.1, eps=(1e-15, 1e-3))

    one, two = steps_of(shape, 1.0, ours(weight_decay=0.1), of_torch)
    torch.testing.assert_close(one, two, rtol=0, atol=1e-6)


def test_what_no_gradient_reaches_stays_as_it_is() -> None:
    """Rows of an embedding whose tokens have not occurred."""
    param = torch.nn.Parameter(torch.ones(4, 3))
    optimizer = ours()(param)
    for _ in range(2):
        param.grad = torch.zeros(4, 3)
        param.grad[1] = torch.tensor([1.0, 2.0, 3.0])
        optimizer.step()
    assert torch.equal(param[0], torch.ones(3))
    assert torch.isfinite(param).all()
    assert (param[1] < 1).all()


def test_ranks_that_share_a_parameter_update_it_as_one_would(tmp_path: Path) -> None:
    worker = Path(__file__).with_name("adafactor_worker.py")
    done = shared().ranks(worker, count=4, cwd=tmp_path)
    assert done.code == 0, done.err
    apart = dict(line.split(": ") for line in done.out.splitlines() if ": " in line)
    assert len(apart) == 7
    assert all(float(each) < 1e-6 for each in apart.values()), apart


def test_a_matrix_has_a_number_for_each_row_and_column(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    model = architecture(family="qwen3", qk_norm=True, experts=experts())
    run(job(1, model=model), inputs, tmp_path / "job")
    state = tensors(tmp_path / "job" / "result" / "state")
    of = {key.removeprefix(STATE): value for key, value in state.items() if STATE in key}
    name = "layers.0.attention.qkv_linear.wq.weight"
    assert of[f"{name}.row_var"].shape == (64, 1)
    assert of[f"{name}.col_var"].shape == (1, 64)
    stacks = [key for key in of if "inner_experts" in key and key.endswith("row_var")]
    assert {of[key].shape[0] for key in stacks} == {8}
    assert {of[key].shape[-1] for key in stacks} == {1}
    norms = [key for key in of if "norm" in key and not key.endswith("step")]
    assert {key.rpartition(".")[2] for key in norms} == {"variance"}
    assert sum(value.numel() for value in of.values()) < 0.2 * sum(
        value.numel() for key, value in state.items() if STATE not in key
    )


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
    carried = {"first_tokens": read, "optimizer_state": "carry"}
    rest = job(2, 2, first_step=1, first_token=128, **carried)
    begun = Run(job(3, 2), "two"), Run(job(1, 2), "one")
    assert place.run(*begun, Run(rest, "rest", "one")) == 0
    alone = run(job(3), inputs, tmp_path / "alone")
    assert losses(place.events("two")) == pytest.approx(losses(alone), rel=1e-5)
    one, two = (tensors(of / "result" / "state") for of in (tmp_path / "alone", place.root / "two"))
    for name, value in one.items():
        if torch.is_tensor(value) and value.is_floating_point():
            torch.testing.assert_close(two[name], value, rtol=1e-3, atol=1e-5, msg=name)
    assert same(place.result("two") / "state", place.result("rest") / "state")


@pytest.mark.exhaustive
@pytest.mark.parametrize("degree", ["tensor", "pipeline"])
def test_what_is_learned_does_not_depend_on_the_layout(
    inputs: dict[str, Path], tmp_path: Path, degree: str
) -> None:
    place = Workplace(inputs, tmp_path)
    made = job(3, 2, parallelism={f"{degree}_parallel_degree": 2})
    assert place.run(Run(made, degree)) == 0
    expected = losses(run(job(3), inputs, tmp_path / "alone"))
    assert losses(place.events(degree)) == pytest.approx(expected, rel=1e-4)
