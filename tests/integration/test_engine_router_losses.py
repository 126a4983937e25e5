"""Losses of routers: their formulas, their gradients in every layout, and what is reported."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from engine_jobs import (
    architecture,
    experts,
    latent,
    lr,
    run,
    same,
    tensors,
    train_job,
)
from test_engine_ranks import Run, Workplace
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

from etude.compiler.plan.plan import Architecture, TrainJob
from etude.compiler.values import ROUTER_LOSSES
from etude.runtime.engine.families.parts import mixture
from etude.runtime.engine.updates.router_losses import learn
from etude.spec.record import replace

ROWS, LENGTH, DIM, COUNT, ACTIVE = 3, 16, 8, 6, 2
SEQUENCE, BATCH, Z = ROUTER_LOSSES
SOFTMAX = architecture(
    family="qwen3", qk_norm=True, layers=2, experts=experts(balance=0.0), kv_heads=4
)
SIGMOID = architecture(
    family="deepseek_v3",
    kv_heads=4,
    head_dim=24,
    latent=latent(),
    layers=2,
    experts=experts(shared=1, score="sigmoid", groups=4, groups_used=2, balance=0.01),
)


def router(score: str = "softmax", **settings: Any) -> Any:
    """A router that learns, with a coefficient of 1 per token for each loss that is `on`."""

    def drawn(weight: torch.Tensor) -> None:
        nn.init.normal_(weight, std=1.0)

    values = vars(experts(count=COUNT, active=ACTIVE, score=score, ffn=8, **settings))
    made: Any = mixture(DIM, drawn, drawn, drawn, drawn, **values)
    learn(made)
    torch.manual_seed(7)
    found: Any = made.router.build()
    drawn(found.gate.weight)
    found.in_row = found.in_batch = ()
    found.seen = torch.zeros(3 + 2 * COUNT, dtype=torch.float64)
    found.before, found.latest = torch.zeros(2, COUNT)
    return found


def hidden(rows: int = ROWS) -> torch.Tensor:
    generator = torch.Generator().manual_seed(5)
    return torch.randn(rows, LENGTH, DIM, generator=generator, requires_grad=True)


def gradients(
    of: Any, x: torch.Tensor, *on: str, bias: torch.Tensor | None = None, call: Any = None
) -> torch.Tensor:
    """What the losses add to the gradient of the gate, with their coefficients 1 / tokens."""
    found = []
    for weight in (0.0, 1.0):
        of.zero_grad()
        of.on = tuple(name in on for name in ROUTER_LOSSES)
        of.weights = torch.full((3,), weight / x.shape[0] / x.shape[1])
        kept, _, _ = (of if call is None else call)(x, bias)
        (kept * torch.arange(kept.numel()).view_as(kept)).sum().backward()
        found.append(of.gate.weight.grad)
    return found[1] - found[0]


def balance(scores: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    """Σ f P of T tokens, with loops: scores (T, E) that add up to 1, and (T, K) numbers."""
    tokens, count = scores.shape
    total = torch.zeros(())
    for expert in range(count):
        times = sum(int(expert in of) for of in chosen.tolist())
        f = count / (chosen.shape[1] * tokens) * times
        total = total + f * scores[:, expert].sum() / tokens
    return total


def expected(of: Any, loss: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> Any:
    """The gradient of the gate by a loss of logits, (B, L, E), and the loss."""
    weight = of.gate.weight.detach().clone().requires_grad_()
    value = loss(F.linear(x.detach(), weight))
    (grad,) = torch.autograd.grad(value, weight)
    return grad, value.detach()


def test_the_balance_of_a_sequence_is_that_of_the_formula_in_every_row() -> None:
    of, x = router(), hidden()

    def loss(logits: torch.Tensor) -> torch.Tensor:
        scores = logits.softmax(-1)
        rows = [balance(row, row.topk(ACTIVE).indices) for row in scores]
        return torch.stack(rows).mean()

    found = gradients(of, x, SEQUENCE)
    grad, value = expected(of, loss, x)
    torch.testing.assert_close(found, grad, rtol=1e-3, atol=1e-4)
    # Twice with this loss, since it was measured with and without a coefficient.
    assert of.seen[1] / of.seen[0] == pytest.approx(float(value), rel=1e-5)


def test_scores_of_a_sigmoid_are_divided_by_their_sum_and_count_without_bias_and_groups() -> None:
    of, x = router("sigmoid", groups=3, groups_used=1), hidden()
    bias = torch.tensor([5.0, 5.0, 0.0, 0.0, 0.0, 0.0])

    def loss(logits: torch.Tensor) -> torch.Tensor:
        scores = logits.sigmoid()
        rows = [
            balance(row / row.sum(-1, keepdim=True), row.topk(ACTIVE).indices) for row in scores
        ]
        return torch.stack(rows).mean()

    found = gradients(of, x, SEQUENCE, bias=bias)
    assert {*of(x, bias)[1].unique().tolist()} == {0, 1}
    torch.testing.assert_close(found, expected(of, loss, x)[0], rtol=1e-3, atol=1e-3)


def test_a_softmax_counts_the_experts_that_groups_leave() -> None:
    of, x = router(groups=3, groups_used=1), hidden()
    chosen = of(x)[1]

    def loss(logits: torch.Tensor) -> torch.Tensor:
        return torch.stack(
            [balance(*of) for of in zip(logits.softmax(-1), chosen, strict=True)]
        ).mean()

    torch.testing.assert_close(
        gradients(of, x, SEQUENCE), expected(of, loss, x)[0], rtol=1e-3, atol=1e-4
    )


def test_the_balance_of_a_batch_is_that_of_transformers_up_to_the_experts_of_a_token() -> None:
    of, x = router(), hidden()

    def loss(logits: torch.Tensor) -> Any:
        return load_balancing_loss_func((logits.flatten(0, 1),), COUNT, ACTIVE) / ACTIVE

    grad, value = expected(of, loss, x)
    torch.testing.assert_close(gradients(of, x, BATCH), grad, rtol=1e-3, atol=1e-4)
    load = of.latest * COUNT / of.latest.sum()
    probabilities = of(x)[2].mean((0, 1))
    assert (load * probabilities).sum().item() == pytest.approx(float(value), rel=1e-5)


def test_the_choices_of_earlier_micro_batches_count_for_later_ones() -> None:
    of, x = router(), hidden()
    of.before = torch.tensor([100.0, 0.0, 0.0, 0.0, 0.0, 4.0])
    now = torch.bincount(of(x)[1].flatten(), minlength=COUNT)
    load = (of.before + now) * COUNT / (of.before + now).sum()

    def loss(logits: torch.Tensor) -> torch.Tensor:
        return (logits.softmax(-1).mean((0, 1)) * load).sum()

    torch.testing.assert_close(
        gradients(of, x, BATCH), expected(of, loss, x)[0], rtol=1e-3, atol=1e-3
    )


def test_the_loss_of_logits_is_the_mean_square_of_log_z() -> None:
    of, x = router("sigmoid"), hidden()
    grad, value = expected(of, lambda logits: logits.logsumexp(-1).square().mean(), x)
    torch.testing.assert_close(gradients(of, x, Z), grad, rtol=1e-3, atol=1e-3)
    assert of.seen[2] / of.seen[0] == pytest.approx(float(value), rel=1e-5)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("recomputed", [False, True])
def test_a_router_that_is_compiled_or_recomputed_learns_the_same(
    *, compiled: bool, recomputed: bool
) -> None:
    of, x = router(), hidden()
    eager = gradients(of, x, *ROUTER_LOSSES)
    means = of.seen / of.seen[0]
    of.seen.zero_()
    call: Any = checkpoint_wrapper(of) if recomputed else of
    if compiled:
        call = torch.compile(call, backend="aot_eager", fullgraph=True)
    # As torchtitan sets it before it compiles (0.3, `apply_compile`).
    with torch._dynamo.config.patch(skip_fwd_side_effects_in_bwd_under_checkpoint=True):
        found = gradients(of, x, *ROUTER_LOSSES, call=call)
    torch.testing.assert_close(found, eager, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(of.seen / of.seen[0], means)


def test_without_gradients_nothing_is_counted() -> None:
    of = router()
    of.on, of.weights = (True, True, True), torch.ones(3)
    with torch.no_grad():
        of(hidden())
    assert of.seen.abs().sum() == of.latest.abs().sum() == 0


def job(
    world_size: int = 1,
    *,
    steps: int = 2,
    model: Architecture = SIGMOID,
    expert: int = 1,
    recompute: str = "",
    micro: int = 2,
    coefficients: dict[str, float] | None = None,
    **parallelism: Any,
) -> TrainJob:
    """A job whose losses of routers are large enough to be seen."""
    sections: dict[str, Any] = {"parallelism": {"expert_parallel_degree": expert, **parallelism}}
    if recompute:
        sections["activation_checkpoint"] = {"mode": recompute}
    made = train_job(
        steps=steps,
        schedule_lr=[lr(0, steps, "hold", 1e-2, 1e-2)],
        world_size=world_size,
        model=model,
        torchtitan=sections,
    )
    made.torchtitan["training"]["local_batch_size"] = micro
    given = {SEQUENCE: 0.5, Z: 0.1} if coefficients is None else coefficients
    pieces = {name: [lr(0, steps, "hold", value, value)] for name, value in given.items()}
    return made.model_copy(
        update={
            "schedule": made.schedule.model_copy(update=pieces),
            "resources": replace(made.resources, expert=expert),
        }
    )


def moments(folder: Path) -> dict[str, torch.Tensor]:
    found = tensors(folder / "result" / "state")
    return {name: tensor for name, tensor in found.items() if name.endswith(".exp_avg")}


def test_a_job_reports_the_cross_entropy_and_the_losses(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    (without,) = run(job(steps=1, coefficients={}), inputs, tmp_path / "without")
    of: dict[str, float] = dict.fromkeys(ROUTER_LOSSES, 0.5)
    (event,) = run(job(steps=1, coefficients=of), inputs, tmp_path / "with")
    assert not {*ROUTER_LOSSES} & without.keys()
    assert event["loss"] == pytest.approx(without["loss"], rel=1e-6)
    # Fresh routers give all experts about the same scores, and log² Z is that of 8 logits.
    assert 1 <= event[BATCH] <= event[SEQUENCE] + 1e-6 < 1.5
    assert event[Z] == pytest.approx(torch.tensor(8.0).log().item() ** 2, rel=0.1)
    assert event["grad_norm"] != pytest.approx(without["grad_norm"], rel=1e-3)


def test_without_a_layer_of_experts_there_is_no_loss(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    dense = replace(SOFTMAX, experts=experts(dense=2))
    (event,) = run(job(steps=1, model=dense), inputs, tmp_path / "job")
    assert event[SEQUENCE] == event[Z] == 0


def test_a_loss_of_balance_balances(inputs: dict[str, Path], tmp_path: Path) -> None:
    model = replace(SOFTMAX, layers=1)
    for name in (SEQUENCE, BATCH):
        found = run(job(steps=30, model=model, coefficients={name: 1.0}), inputs, tmp_path / name)
        first, last = (sum(event[name] for event in part) for part in (found[:5], found[-5:]))
        assert last < first, name


def test_recomputing_layers_and_smaller_micro_batches_change_nothing(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    plain = run(job(), inputs, tmp_path / "plain")
    again = run(job(recompute="full"), inputs, tmp_path / "full")
    small = run(job(micro=1), inputs, tmp_path / "small")
    assert same(tmp_path / "plain" / "result" / "state", tmp_path / "full" / "result" / "state")
    for one, other, third in zip(plain, again, small, strict=True):
        for name in (SEQUENCE, Z, "grad_norm"):
            assert one[name] == pytest.approx(other[name], rel=1e-6)
            assert one[name] == pytest.approx(third[name], rel=1e-5)


def test_a_coefficient_follows_its_schedule(inputs: dict[str, Path], tmp_path: Path) -> None:
    made = job(coefficients={SEQUENCE: 0.5})
    pieces = [lr(0, 1, "hold", 0.5, 0.5), lr(1, 2, "hold", 0.0, 0.0)]
    ends = made.model_copy(update={"schedule": made.schedule.model_copy(update={SEQUENCE: pieces})})
    never = job(coefficients={})
    norms = [
        [event["grad_norm"] for event in run(of, inputs, tmp_path / name)]
        for name, of in {"with": made, "ends": ends, "never": never}.items()
    ]
    assert norms[0][0] == norms[1][0] != norms[2][0]
    assert norms[0][1] != norms[1][1]


LAYOUTS: dict[str, dict[str, Any]] = {
    "sharded": {},
    "apart": {"expert": 2},
    "tensor": {"tensor_parallel_degree": 2},
    "pipeline": {"pipeline_parallel_degree": 2},
    "v": {"pipeline_parallel_degree": 2, "pipeline_parallel_schedule": "ZBVZeroBubble"},
}


@pytest.mark.parametrize(
    "model",
    [pytest.param(SOFTMAX, marks=pytest.mark.exhaustive), SIGMOID],
    ids=["softmax", "sigmoid"],
)
def test_two_ranks_compute_what_one_does_in_every_layout(
    model: Architecture, inputs: dict[str, Path], tmp_path: Path
) -> None:
    # A pipeline draws other weights than one rank, so that all begin with the same. A V has four
    # stages.
    model = replace(model, layers=4)
    run(train_job(steps=1, model=model), inputs, tmp_path / "begun")
    place = Workplace(inputs, tmp_path)
    runs = {
        name: Run(job(2, model=model, **of), name, model="begun") for name, of in LAYOUTS.items()
    }
    apart = runs.pop("apart")
    assert place.run(apart) == 0
    assert place.run(*runs.values()) == 0
    begun = {**inputs, "model": place.result("begun")}
    one = run(job(model=model), begun, tmp_path / "one")
    ours = moments(tmp_path / "one")
    for name in LAYOUTS:
        for mine, theirs in zip(one, place.events(name), strict=True):
            for figure in ("loss", SEQUENCE, Z, "grad_norm"):
                assert mine[figure] == pytest.approx(theirs[figure], rel=1e-4), (name, figure)
        theirs = moments(tmp_path / name)
        for key, tensor in ours.items():
            torch.testing.assert_close(tensor, theirs[key], rtol=1e-3, atol=1e-5, msg=key)


def test_a_batch_is_that_of_all_ranks(inputs: dict[str, Path], tmp_path: Path) -> None:
    """Two ranks with all their rows at once are as one with all of them."""
    run(train_job(steps=1, model=SOFTMAX), inputs, tmp_path / "begun")
    place = Workplace(inputs, tmp_path)
    begun = {**inputs, "model": place.result("begun")}
    of: dict[str, Any] = {"model": SOFTMAX, "coefficients": {BATCH: 0.5}}
    one = run(job(micro=4, **of), begun, tmp_path / "one")
    assert place.run(Run(job(2, micro=2, **of), "two", model="begun")) == 0
    for mine, theirs in zip(one, place.events("two"), strict=True):
        for figure in ("loss", BATCH, "grad_norm"):
            assert mine[figure] == pytest.approx(theirs[figure], rel=1e-4), figure
    alone = run(job(micro=1, **of), begun, tmp_path / "small")
    # With fewer rows at a time, the load is that of the micro-batches so far: another gradient.
    assert alone[0][BATCH] == pytest.approx(one[0][BATCH], rel=1e-4)
    assert alone[0]["grad_norm"] != one[0]["grad_norm"]
