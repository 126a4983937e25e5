"""Policies learn from their answers what the papers' formulas say, one answer at a time."""

from collections.abc import Iterable
from fractions import Fraction
from math import exp
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from engine_jobs import architecture
from record_jobs import Roles, forward_job, record_job, responses_of, transformers_model
from test_engine_records import gradients_of, split_qkv, to_hf

from etude.compiler.plan.plan import Grpo, LikelihoodJob
from etude.runtime.data.dialogs.encode import CONTENT, OTHER
from etude.runtime.data.records.shards import (
    ADVANTAGES,
    LEARNED,
    REWARDS,
    Record,
    Records,
    write_records,
)
from etude.runtime.engine.measures.likelihood import likelihood
from etude.runtime.engine.records.policy import PolicyLoss
from etude.runtime.engine.train import make_trainer
from etude.runtime.errors import DataError

ANSWERS, BATCH, MOST = 24, 4, 20
OBJECTIVES = ("grpo", "dapo", "dr_grpo", "gspo", "rloo")


def grpo(name: str, kl: float = 0.0, **more: Any) -> Grpo:
    objective: Any = name
    return Grpo(objective=objective, clip_ratio=(0.1, 0.3), kl=kl, max_tokens=MOST, **more)


def answer(rng: np.random.Generator) -> Record:
    prompt, count = int(rng.integers(2, 12)), int(rng.integers(1, MOST))
    parts = np.array([OTHER] * prompt + [CONTENT] * count, np.uint8)
    return Record(rng.integers(0, 512, prompt + count), parts, (prompt, count))


@pytest.fixture(scope="module")
def rollouts(roles: Roles, tmp_path_factory: pytest.TempPathFactory) -> Roles:
    """Answers, and their likelihoods under another model."""
    folder, rng = tmp_path_factory.mktemp("rollouts"), np.random.default_rng(5)
    given = {"form": "rollouts", "vocab": 512, "holdout": Fraction(0), "seed": 0, "name": "rl"}
    write_records((answer(rng) for _ in range(ANSWERS)), folder / "rl", **given)
    for name in (ADVANTAGES, REWARDS):
        np.save(folder / "rl" / name, rng.normal(size=ANSWERS).astype(np.float32))
    found = {"data:rl": folder / "rl", "model": roles["model"]}
    job = forward_job(LikelihoodJob, "rl")
    asked = {"data:rl": folder / "rl", "model": roles["other"]}
    likelihood(job, asked, folder / "old", root=folder, on_event=lambda _: None)
    return found | dict.fromkeys(("old:rl", "reference:rl"), folder / "old" / "result")


def log_probabilities(model: Any, record: Record, temperature: float = 1.0) -> torch.Tensor:
    """Of each token of the answer."""
    ((tokens, parts),) = responses_of(record)
    logs = (model(tokens[None]).logits[0, :-1] / temperature).log_softmax(-1)
    return logs.gather(1, tokens[1:, None])[-len(parts) :, 0]


def test_likelihoods_are_those_of_transformers(roles: Roles, rollouts: Roles) -> None:
    records = Records(rollouts["data:rl"], "train")
    found = torch.from_numpy(np.load(rollouts["old:rl"] / "likelihood.npy"))
    model = transformers_model(roles["other"] / "state", architecture())
    with torch.no_grad():
        wanted = [log_probabilities(model, records.record(i)) for i in range(ANSWERS)]
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, torch.cat(wanted), rtol=1e-4, atol=1e-5)


def expected(
    logs: list[torch.Tensor],
    old: list[torch.Tensor],
    advantages: list[float],
    objective: Grpo,
) -> torch.Tensor:
    """The loss of a batch; the model that wrote the answers is the reference, too."""
    name, (low, high) = objective.objective, objective.clip_ratio
    losses: list[torch.Tensor] = []
    tokens = sum(map(len, logs))
    for now, before, advantage in zip(logs, old, advantages, strict=True):
        ratios = [(a - b).exp() for a, b in zip(now, before, strict=True)]
        if name == "gspo":
            ratios = [(now - before).mean().exp()] * len(now)
        if name == "rloo":
            ratios = [(now - before).sum().exp()]
        each = torch.stack(
            [-torch.min(r * advantage, r.clamp(1 - low, 1 + high) * advantage) for r in ratios]
        )
        d = before - now
        penalty = objective.kl * (d.exp() - d - 1)
        losses.append(
            {
                "grpo": lambda e, p: (e + p).mean() / len(logs),
                "gspo": lambda e, p: (e.mean() + p.mean()) / len(logs),
                "dapo": lambda e, p: (e + p).sum() / tokens,
                "dr_grpo": lambda e, p: (e + p).sum() / (MOST * len(logs)),
                "rloo": lambda e, p: (e.sum() + p.sum()) / len(logs),
            }[name](each, penalty)
        )
    return torch.stack(losses).sum()


@pytest.mark.parametrize("kl", [0.0, 0.2])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_loss_and_gradients_are_those_of_each_answer_alone(
    roles: Roles, rollouts: Roles, tmp_path: Path, name: str, kl: float
) -> None:
    given = {role: at for role, at in rollouts.items() if kl or role != "reference:rl"}
    compare(grpo(name, kl), roles, given, tmp_path, range(BATCH))


@pytest.mark.parametrize("name", ["grpo", "dapo"])
def test_masked_answers_count_nowhere_and_a_temperature_everywhere(
    roles: Roles, rollouts: Roles, tmp_path: Path, name: str
) -> None:
    learned = [0, 2, 3]
    np.save(rollouts["data:rl"] / LEARNED, np.isin(np.arange(ANSWERS), learned).astype("f4"))
    job = forward_job(LikelihoodJob, "rl", temperature=0.6)
    asked = {"data:rl": rollouts["data:rl"], "model": roles["other"]}
    likelihood(job, asked, tmp_path / "old", root=tmp_path, on_event=lambda _: None)
    given = rollouts | dict.fromkeys(("old:rl", "reference:rl"), tmp_path / "old" / "result")
    objective = grpo(name, 0.2, temperature=0.6, mask_truncated=True)
    compare(objective, roles, given, tmp_path, learned)


def test_a_batch_of_masked_answers_changes_nothing(
    roles: Roles, rollouts: Roles, tmp_path: Path
) -> None:
    np.save(rollouts["data:rl"] / LEARNED, np.zeros(ANSWERS, np.float32))
    objective = grpo("dapo", 0.2, mask_truncated=True)
    job = record_job(objective, mixture=[(0, {"rl": 1})])
    with make_trainer(job, rollouts, tmp_path / "job", tmp_path, lambda _: None, {}) as trainer:
        trainer.checkpoints.load()
        loss, found = gradients_of(trainer)
    assert loss == 0
    assert not any(grad.any() for grad in found.values())


def compare(
    objective: Grpo, roles: Roles, given: Roles, tmp_path: Path, learned: Iterable[int]
) -> None:
    """Compares loss and gradients of a batch with those of each learned answer alone."""
    records, temperature = Records(given["data:rl"], "train"), objective.temperature
    job = record_job(objective, mixture=[(0, {"rl": 1})])
    with make_trainer(job, given, tmp_path / "job", tmp_path, lambda _: None, {}) as trainer:
        trainer.checkpoints.load()
        loss, found = gradients_of(trainer)
    model = transformers_model(roles["model"] / "state", architecture())
    ends = np.cumsum([0, *records.branches[:, 1]])
    old = torch.from_numpy(np.load(given["old:rl"] / "likelihood.npy"))
    advantages = np.load(given["data:rl"] / ADVANTAGES).tolist()
    wanted = expected(
        [log_probabilities(model, records.record(i), temperature) for i in learned],
        [old[ends[i] : ends[i + 1]] for i in learned],
        [advantages[i] for i in learned],
        objective,
    )
    wanted.backward()
    assert loss == pytest.approx(wanted.item(), rel=1e-4, abs=1e-6)
    theirs = {name: p.grad for name, p in model.named_parameters()}
    ours = to_hf(split_qkv(found, job.model), job.model, False)
    assert any(grad.abs().max() > 1e-4 for grad in ours.values())
    for each, grad in ours.items():
        if each in theirs:
            torch.testing.assert_close(grad, theirs[each], rtol=1e-3, atol=1e-5)


def test_without_old_likelihoods_the_ratio_is_one_and_the_gradient_that_of_reinforce() -> None:
    counts, advantages = torch.tensor([2, 3]), torch.tensor([1.0, -2.0])
    cross_entropies = torch.tensor([0.5, 1.5, 0.2, 0.3, 0.4], requires_grad=True)
    loss = PolicyLoss(PolicyLoss.Config(objective=grpo("grpo")))
    rows = {"counts": counts, "advantages": advantages, "tokens": torch.tensor(5)}
    rewards = torch.tensor([1.0, 0.0])
    value, _ = loss(cross_entropies, torch.zeros(5), torch.tensor(2), rewards=rewards, **rows)
    value.backward()
    assert value.item() == pytest.approx(-(1.0 - 2.0) / 2)
    assert cross_entropies.grad is not None
    wanted = [1 / 2 / 2] * 2 + [-2 / 3 / 2] * 3  # A / |y| / answers; minus log π is given
    assert cross_entropies.grad.tolist() == pytest.approx(wanted)
    reported, tokens = loss.collect(None)
    assert reported == {
        "reward": 0.5,
        "policy_loss": pytest.approx(0.5),
        "divergence": 0.0,
        "clipped": 0.0,
        "ratio": 1.0,
    }
    assert tokens == 5


@pytest.mark.parametrize(
    ("advantage", "log_ratio", "moves"),
    [(1.0, 0.5, False), (1.0, -0.5, True), (-1.0, -0.5, False), (-1.0, 0.5, True)],
)
def test_a_token_beyond_the_clip_moves_only_back(
    advantage: float, log_ratio: float, moves: bool
) -> None:
    pred = torch.tensor([1.0], requires_grad=True)
    loss = PolicyLoss(PolicyLoss.Config(objective=grpo("dapo")))
    value, _ = loss(
        pred,
        torch.zeros(1),
        torch.tensor(1),
        counts=torch.tensor([1]),
        advantages=torch.tensor([advantage]),
        rewards=torch.tensor([1.0]),
        old=torch.tensor([-1.0 - log_ratio]),
        tokens=torch.tensor(1),
    )
    value.backward()
    assert pred.grad is not None
    assert bool(pred.grad.abs().item()) == moves
    if moves:
        assert value.item() == pytest.approx(-advantage * exp(log_ratio))


def test_likelihoods_of_other_answers_are_refused(rollouts: Roles, tmp_path: Path) -> None:
    np.save(tmp_path / "likelihood.npy", np.zeros(3, np.float32))
    job = record_job(grpo("grpo"), mixture=[(0, {"rl": 1})])
    given = {**rollouts, "old:rl": tmp_path}
    with (
        pytest.raises(DataError, match="does not match the answers"),
        make_trainer(job, given, tmp_path / "job", tmp_path, lambda _: None, {}),
    ):
        pass
