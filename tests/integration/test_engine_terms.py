"""Terms beside the cross-entropy: their formula, their gradient, and what is reported."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from engine_jobs import lr, run, same, tensors, train_job
from test_engine_ranks import Run, Workplace
from torchtitan.components.loss import IGNORE_INDEX, ChunkedLossWrapper

from etude.compiler.plan.plan import NextToken, TrainJob
from etude.runtime.engine.objectives import LanguageLoss, z_loss

Z = 0.05
LAYOUTS: dict[str, dict[str, Any]] = {
    "sharded": {},
    "tensor": {"tensor_parallel_degree": 2},
    "pipeline": {"pipeline_parallel_degree": 2},
    # In a V, the loss is on the first rank.
    "v": {"pipeline_parallel_degree": 2, "pipeline_parallel_schedule": "ZBVZeroBubble"},
}


def job(coefficient: float, world_size: int = 1, steps: int = 1, **parallelism: Any) -> TrainJob:
    # So large a rate that the second step has other logits than the first.
    rates = [lr(0, steps, "hold", 1e-2, 1e-2)]
    made = train_job(
        steps=steps,
        schedule_lr=rates,
        world_size=world_size,
        torchtitan={"parallelism": parallelism},
    )
    return made.model_copy(update={"objective": NextToken(z_loss=coefficient)})


def rows() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits, labels of which some are ignored, and how many are not."""
    torch.manual_seed(3)
    logits = (torch.randn(2, 8, 11) * 3).requires_grad_()
    labels = torch.randint(0, 11, (2, 8))
    labels[0, :3] = labels[1, 7] = IGNORE_INDEX
    return logits, labels, (labels != IGNORE_INDEX).sum()


def test_z_loss_is_the_square_of_log_z_over_the_learned_tokens() -> None:
    logits, labels, _ = rows()
    expected = 0.0
    for b in range(2):
        for place in range(8):
            if labels[b, place] != IGNORE_INDEX:
                z = sum(math.exp(logit) for logit in logits[b, place].tolist())
                expected += math.log(z) ** 2
    assert z_loss(logits, labels).item() == pytest.approx(expected, rel=1e-5)


def test_its_gradient_is_that_of_the_formula() -> None:
    """∂ log² Z / ∂ logit = 2 · log Z · softmax; and nothing where the label is ignored."""
    logits, labels, _ = rows()
    z_loss(logits, labels).backward()
    log_z = torch.logsumexp(logits.detach(), -1, keepdim=True)
    expected = 2 * log_z * torch.softmax(logits.detach(), -1)
    expected[labels == IGNORE_INDEX] = 0
    torch.testing.assert_close(logits.grad, expected)


def test_the_loss_is_the_cross_entropy_and_the_term_times_its_coefficient() -> None:
    logits, labels, count = rows()
    loss = LanguageLoss.Config(global_vocab_size=11, terms={"z_loss": Z}).build()
    value, _ = loss(logits, labels, count)
    entropy = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORE_INDEX)
    log_z = torch.logsumexp(logits, -1)[labels != IGNORE_INDEX]
    torch.testing.assert_close(value, entropy + Z * log_z.square().mean())
    reported, tokens = loss.collect(None)
    assert tokens is None
    assert reported == {
        "loss": pytest.approx(entropy.item()),
        "z_loss": pytest.approx(log_z.square().mean().item()),
    }


def test_in_chunks_it_is_the_same_loss_with_the_same_gradients() -> None:
    """As on GPUs, where the logits of a whole batch never exist together."""
    torch.manual_seed(3)
    hidden = torch.randn(2, 8, 5, requires_grad=True)
    head = torch.nn.Linear(5, 11, bias=False)
    _, labels, count = rows()
    config = LanguageLoss.Config(global_vocab_size=11, terms={"z_loss": Z})
    whole, chunked = config.build(), ChunkedLossWrapper.Config(num_chunks=4, loss_fn=config).build()
    chunked.set_lm_head(head)

    def gradients(loss: torch.Tensor) -> list[Any]:
        hidden.grad = head.weight.grad = None
        loss.backward()
        return [loss.detach(), hidden.grad, head.weight.grad]

    at_once = gradients(whole(head(hidden), labels, count)[0])
    head.weight.grad = None
    loss, _ = chunked(hidden, labels, count)
    of_head = head.weight.grad
    hidden.grad = None
    loss.backward()
    for one, other in zip(at_once, [loss.detach(), hidden.grad, of_head], strict=True):
        torch.testing.assert_close(one, other)
    assert chunked.loss_fn.collect(None)[0] == pytest.approx(whole.collect(None)[0])


def test_a_job_reports_the_cross_entropy_and_the_term(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    (without,) = run(job(0.0), inputs, tmp_path / "without")
    (event,) = run(job(Z), inputs, tmp_path / "with")
    assert "z_loss" not in without
    # The weights are the same before the first step.
    assert event["loss"] == pytest.approx(without["loss"], rel=1e-6)
    # The cross-entropy is log Z − the label's logit, which is about 0 before training.
    assert math.sqrt(event["z_loss"]) == pytest.approx(event["loss"], abs=0.5)
    assert event["grad_norm"] != pytest.approx(without["grad_norm"], rel=1e-3)


def test_a_coefficient_of_zero_changes_no_bit(inputs: dict[str, Path], tmp_path: Path) -> None:
    for name, made in {"zero": job(0.0, steps=2), "none": train_job(steps=2)}.items():
        rates = job(0.0, steps=2).schedule
        run(made.model_copy(update={"schedule": rates}), inputs, tmp_path / name)
    one, other = (tmp_path / name / "result" / "state" for name in ("zero", "none"))
    assert same(one, other)


def test_two_ranks_compute_what_one_does_in_every_layout(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    # A pipeline draws other weights than one rank, so that all begin with the same.
    run(train_job(steps=1), inputs, tmp_path / "begun")
    place = Workplace(inputs, tmp_path)
    runs = [Run(job(Z, 2, 2, **LAYOUTS[name]), name, model="begun") for name in LAYOUTS]
    assert place.run(*runs) == 0
    begun = {**inputs, "model": place.result("begun")}
    one = run(job(Z, 1, 2), begun, tmp_path / "one")
    ours = tensors(tmp_path / "one" / "result" / "state")
    for name in LAYOUTS:
        for mine, theirs in zip(one, place.events(name), strict=True):
            assert mine.keys() == theirs.keys() - {"max_loss"}
            for figure in ("loss", "z_loss", "grad_norm"):
                assert mine[figure] == pytest.approx(theirs[figure], rel=1e-4), (name, figure)
        theirs = tensors(place.result(name) / "state")
        for key, tensor in ours.items():
            if key.endswith(".exp_avg"):
                torch.testing.assert_close(tensor, theirs[key], rtol=1e-3, atol=1e-5, msg=key)
