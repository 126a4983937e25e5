"""Losses and their gradients are those of TRL 1.16 on the same batch.

Both sides get the same model, a table of logits in fp64, the same tokens, and the same reference;
TRL's side is the code of its trainers, from log-probabilities or logits to the loss. Where a
definition differs, the test has the setting of etude that is TRL's, or a batch on which they agree;
docs/post_training.md, "The same in TRL", lists these.

TRL 1.16 has nothing to compare with:
- `prm`: it has no PRMTrainer any more. test_solutions.py has the formula that it had.
- `reward` with `objective = plackett_luce` and with `margin = scale`.
- `dpo` with `length_penalty`, and with `label_smoothing` beside `dpo` and `ipo`: `label_smoothing`
  of TRL's DPO is read by its robust and exo_pair alone. `cpo` here and there has it.
- `sft`: TRL leaves its loss to transformers, which test_engine_records.py compares with.
"""

from collections import defaultdict
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from trl_trainers import PAD, VOCAB, Bigrams, Tokens, drawn, padded, trainer, trl

from etude.compiler.plan.plan import Distill, Dpo, Grpo, Kto, Reward
from etude.runtime.engine.objectives import DpoLoss, RecordLoss
from etude.runtime.engine.records.distill import DistillLoss
from etude.runtime.engine.records.policy import PolicyLoss
from etude.runtime.engine.records.ratings import KtoLoss, RatingLoader
from etude.runtime.engine.records.rewards import RewardLoss, compared
from etude.runtime.sampling.rollouts import advantages

pytestmark = pytest.mark.exhaustive

EXACT = 1e-9
"""Relative difference in fp64."""
SINGLE = 1e-5
"""The same where TRL computes in fp32."""
PROMPTS, CHOSEN, REJECTED = drawn(1, (3, 1, 5)), drawn(2, (4, 6, 2)), drawn(3, (5, 1, 3))


def called(loss: RecordLoss, pred: torch.Tensor, items: int, rows: Any) -> torch.Tensor:
    value, _ = loss(pred, torch.empty(0), torch.tensor(items), tokens=torch.tensor(0), **rows)
    return value


def check(
    ours: torch.Tensor, theirs: torch.Tensor, of: torch.Tensor, *, rel: float = EXACT
) -> None:
    """The same value, and the same gradient with respect to `of`."""
    assert ours.item() == pytest.approx(theirs.item(), rel=rel)
    (our_grad,) = torch.autograd.grad(ours, of, retain_graph=True)
    (their_grad,) = torch.autograd.grad(theirs, of)
    assert our_grad.norm() > 0
    torch.testing.assert_close(
        our_grad, their_grad, rtol=rel, atol=rel * their_grad.abs().max().item()
    )


def preferences(**given: Any) -> Dpo:
    usual = {"beta": 0.3, "nll": 0.0, "label_smoothing": 0.0, "normalize": False, "mask": "none"}
    return Dpo.model_validate(usual | given)


def interleaved(chosen: Tokens, rejected: Tokens) -> Tokens:
    return [each for pair in zip(chosen, rejected, strict=True) for each in pair]


def our_preferences(
    objective: Dpo, policy: Bigrams, old: Bigrams, chosen: Tokens, prompts: Tokens = PROMPTS
) -> tuple[torch.Tensor, Mapping[str, float]]:
    """etude's loss of the records, and what it reports."""
    rejected = REJECTED
    twice, both = interleaved(prompts, prompts), interleaved(chosen, rejected)
    rows = {"counts": torch.tensor([len(each) for each in both])}
    if objective.compares:
        rows["reference"] = old.log_probabilities(twice, both).view(-1, 2)
    loss = cast(DpoLoss, DpoLoss.Config(objective=objective).build())
    value = called(loss, policy.cross_entropies(twice, both), len(prompts), rows)
    return value, loss.collect(None)[0]


def trl_dpo(
    policy: Bigrams, old: Bigrams, chosen: Tokens, losses: Mapping[str, float], smoothing: float
) -> tuple[torch.Tensor, Any]:
    found = trainer(
        "trainer.dpo_trainer.DPOTrainer",
        policy,
        ld_alpha=None,
        f_divergence_type="reverse_kl",
        loss_types=list(losses),
        loss_weights=list(losses.values()),
        label_smoothing=smoothing,
        use_weighting=False,
        beta=0.3,
    )
    inputs = {
        **padded(PROMPTS * 2, chosen + REJECTED),
        "ref_chosen_logps": old.log_probabilities(PROMPTS, chosen),
        "ref_rejected_logps": old.log_probabilities(PROMPTS, REJECTED),
    }
    return found._compute_loss(policy, inputs, return_outputs=False), found._metrics["train"]


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ({"sigmoid": 1.0}, {}),
        ({"sigmoid_norm": 1.0}, {"normalize": True}),
        ({"hinge": 1.0}, {"objective": "hinge"}),
        ({"ipo": 1.0}, {"objective": "ipo", "normalize": True}),
        ({"robust": 1.0}, {"objective": "robust", "label_smoothing": 0.1}),
        ({"apo_zero": 1.0}, {"objective": "apo_zero"}),
        ({"apo_down": 1.0}, {"objective": "apo_down"}),
    ],
    ids=str,
)
def test_losses_of_preferences(theirs: dict[str, float], ours: dict[str, Any]) -> None:
    policy, old = Bigrams(1), Bigrams(2)
    objective = preferences(**ours)
    value, told = our_preferences(objective, policy, old, CHOSEN)
    other, metrics = trl_dpo(policy, old, CHOSEN, theirs, objective.label_smoothing)
    check(value, other, policy.table)
    if not objective.normalize:  # TRL reports rewards of sums whatever the loss is of
        assert told["accuracy"] == pytest.approx(metrics["rewards/accuracies"][0])
        assert told["chosen_reward"] == pytest.approx(metrics["rewards/chosen"][0])
        assert told["rejected_reward"] == pytest.approx(metrics["rewards/rejected"][0])
        assert told["margin"] == pytest.approx(metrics["rewards/margins"][0])


def test_the_likelihood_of_chosen_responses() -> None:
    """TRL's is the mean over the tokens of the batch, here over records: the same where chosen
    responses are equally long."""
    policy, old = Bigrams(1), Bigrams(2)
    equal = drawn(4, (4, 4, 4))
    ours, _ = our_preferences(preferences(nll=0.2), policy, old, equal)
    theirs, _ = trl_dpo(policy, old, equal, {"sigmoid": 1.0, "sft": 0.2}, 0.0)
    check(ours, theirs, policy.table)
    ours, _ = our_preferences(preferences(nll=0.2), policy, old, CHOSEN)
    theirs, _ = trl_dpo(policy, old, CHOSEN, {"sigmoid": 1.0, "sft": 0.2}, 0.0)
    assert ours.item() != pytest.approx(theirs.item(), rel=1e-3)


def trl_pairs(kind: str, policy: Bigrams, chosen: Tokens, prompts: Tokens, **more: Any) -> Any:
    """The loss of CPO's or ORPO's trainer, which compute log-probabilities of logits."""
    found = trainer(
        f"experimental.{kind}.{kind}_trainer.{kind.upper()}Trainer",
        policy,
        is_encoder_decoder=False,
        pad_token_id=PAD,
        padding_value=PAD,
        **more,
    )
    batch = {}
    for name, answers in (("chosen", chosen), ("rejected", REJECTED)):
        rows = padded(prompts, answers)
        counted = rows.pop("completion_mask")
        batch |= {f"{name}_{key}": value for key, value in rows.items()}
        batch[f"{name}_labels"] = rows["input_ids"].masked_fill(counted == 0, -100)
    loss, _ = found.get_batch_loss_metrics(policy, batch)
    return loss


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ({"loss_type": "sigmoid"}, {"objective": "cpo"}),
        ({"loss_type": "sigmoid", "label_smoothing": 0.1}, {"objective": "cpo"}),
        (
            {"loss_type": "simpo", "simpo_gamma": 0.5},
            {"objective": "simpo", "gamma": 0.5, "normalize": True},
        ),
    ],
    ids=str,
)
@pytest.mark.parametrize("nll", [0.0, 1.0])
def test_losses_without_a_reference(
    theirs: dict[str, Any], ours: dict[str, Any], nll: float
) -> None:
    """Chosen responses are equally long where they have a cross-entropy, see above."""
    policy = Bigrams(1)
    chosen = drawn(4, (4, 4, 4)) if nll else CHOSEN
    settings = {"label_smoothing": 0.0, "alpha": 0.0, "simpo_gamma": 0.0, **theirs}
    other = trl_pairs("cpo", policy, chosen, PROMPTS, beta=0.3, cpo_alpha=nll, **settings)
    objective = preferences(nll=nll, label_smoothing=settings["label_smoothing"], **ours)
    value, _ = our_preferences(objective, policy, policy, chosen)
    check(value, other, policy.table)


def test_orpo() -> None:
    """TRL's cross-entropy is also that of the prompt, whose first token nothing predicts: with
    prompts of one token it is that of the response."""
    policy, chosen = Bigrams(1), drawn(4, (4, 4, 4))
    objective = preferences(objective="orpo", normalize=True, nll=1.0)
    for prompts, same in ((drawn(5, (1, 1, 1)), True), (PROMPTS, False)):
        theirs = trl_pairs("orpo", policy, chosen, prompts, beta=0.3)
        ours, _ = our_preferences(objective, policy, policy, chosen, prompts)
        if same:
            check(ours, theirs, policy.table, rel=SINGLE)
        else:
            assert ours.item() != pytest.approx(theirs.item(), rel=1e-3)


class Mismatched(RatingLoader):
    """Prompts with answers of others, as somebody has paired them."""

    def __init__(self, batch: dict[str, Any]) -> None:
        self._paired = batch

    def mismatched(self, step: int) -> Any:
        yield self._paired, torch.empty(0)


@pytest.mark.parametrize(("seeds", "away"), [((1, 2), False), ((2, 1), True)])
def test_kto(seeds: tuple[int, int], away: bool) -> None:
    """Answers of others are those of the previous row, as TRL takes them; once the estimate of the
    divergence is above zero, and once it is cut off there."""
    policy, old = (Bigrams(seed) for seed in seeds)
    good = torch.tensor([True, False, True])
    others = [CHOSEN[-1], *CHOSEN[:-1]]
    found = trainer(
        "trainer.kto_trainer.KTOTrainer",
        policy,
        calculate_KL=True,
        loss_type="kto",
        beta=0.3,
        desirable_weight=1.25,
        undesirable_weight=0.75,
    )
    theirs = found._compute_loss(
        policy,
        {
            **padded(PROMPTS, CHOSEN),
            **{f"KL_{key}": value for key, value in padded(PROMPTS, others).items()},
            "label": good,
            "ref_logps": old.log_probabilities(PROMPTS, CHOSEN),
            "ref_KL_logps": old.log_probabilities(PROMPTS, others),
        },
        return_outputs=False,
    )
    objective = Kto(beta=0.3, desirable_weight=1.25, undesirable_weight=0.75, mask="none")
    loss = cast(KtoLoss, KtoLoss.Config(objective=objective).build())
    batch = {
        "counts": torch.tensor([len(each) for each in others]),
        "reference": old.log_probabilities(PROMPTS, others),
    }
    asked = SimpleNamespace(
        loader=Mismatched(batch),
        device=torch.device("cpu"),
        batch_mesh=None,
        say=lambda _: policy.cross_entropies(PROMPTS, others).detach(),
    )
    loss.begin(cast(Any, asked), 0)
    rows = {
        "counts": torch.tensor([len(each) for each in CHOSEN]),
        "reference": old.log_probabilities(PROMPTS, CHOSEN),
        "good": good,
    }
    ours = called(loss, policy.cross_entropies(PROMPTS, CHOSEN), len(CHOSEN), rows)
    check(ours, theirs, policy.table)
    told, metrics = loss.collect(None)[0], found._metrics["train"]
    assert told["divergence"] == pytest.approx(metrics["kl"][0])
    assert told["desirable_reward"] == pytest.approx(metrics["rewards/chosen"][0])
    assert told["undesirable_reward"] == pytest.approx(metrics["rewards/rejected"][0])
    assert (told["divergence"] > 0) == away


@pytest.mark.parametrize("center", [0.0, 0.01])
@pytest.mark.parametrize("margin", ["none", "subtract"])
def test_reward_models(center: float, margin: Any) -> None:
    generator = torch.Generator().manual_seed(1)
    scores = torch.randn(4, 2, dtype=torch.float64, generator=generator).requires_grad_()
    margins = torch.rand(4, dtype=torch.float64, generator=generator)
    found = trainer(
        "trainer.reward_trainer.RewardTrainer",
        SimpleNamespace(training=True),
        args=SimpleNamespace(center_rewards_coefficient=center or None),
    )
    inputs = {"attention_mask": torch.ones(8, 3)}
    if margin == "subtract":
        inputs["margin"] = margins
    theirs = found.compute_loss(lambda **_: SimpleNamespace(logits=scores.T.reshape(-1, 1)), inputs)
    objective = Reward(center=center, margin=margin)
    rows, count = compared(objective, [2] * 4)
    loss = cast(RewardLoss, RewardLoss.Config(objective=objective).build())
    ours = called(loss, scores.view(-1), count, rows | {"margins": margins})
    check(ours, theirs, scores)
    told, metrics = loss.collect(None)[0], found._metrics["train"]
    assert told["accuracy"] == pytest.approx(metrics["accuracy"][0])
    assert told["margin"] == pytest.approx(metrics["margin"][0])


@pytest.mark.parametrize("temperature", [1.0, 2.0])
@pytest.mark.parametrize(
    ("divergence", "beta"), [("forward_kl", 0), ("reverse_kl", 1), ("jsd", 0.5)]
)
def test_distillation(divergence: Any, beta: float, temperature: float) -> None:
    """With all tokens but one known, the one that etude has for all others is the last one, and
    the divergences are those of whole vocabularies."""
    student, teacher = Bigrams(1), Bigrams(2)
    rows = padded(PROMPTS, CHOSEN)
    labels = rows["input_ids"].masked_fill(rows["completion_mask"] == 0, -100)
    of_student, of_teacher = (m(rows["input_ids"]).logits[:, :-1] for m in (student, teacher))
    theirs = trl("experimental.gkd.gkd_trainer.GKDTrainer").generalized_jsd_loss(
        of_student, of_teacher.detach(), labels[:, 1:], beta, temperature
    )
    counted = labels[:, 1:] != -100
    logs = (of_teacher.detach()[counted] / temperature).log_softmax(-1)
    taught, targets = logs.topk(VOCAB - 1)
    said = (of_student[counted] / temperature).log_softmax(-1).gather(1, targets)
    objective = Distill(divergence=divergence, temperature=temperature, top_k=VOCAB - 1)
    loss = cast(DistillLoss, DistillLoss.Config(objective=objective).build())
    check(called(loss, said, len(said), {"teacher": taught}), theirs, student.table)


GROUP, LONGEST = 3, 8
ASKED = [prompt for prompt in drawn(6, (2, 4)) for _ in range(GROUP)]
ANSWERS = drawn(7, (3, LONGEST, 1, 5, 2, 6))
REWARDS = np.array([1.0, 0.0, 0.5, 0.25, 1.0, -1.0])


def trl_policy(name: str, wrote: Bigrams, old: Bigrams, now: Bigrams, **more: Any) -> Any:
    """Rollouts as `wrote` has written them go through TRL's scoring, and then through its loss,
    when the policy is `now`: the loss, the advantages, and the metrics."""
    weights = torch.ones(1, dtype=torch.float64)
    kind = "GRPO" if name == "grpo" else "RLOO"
    found = trainer(
        f"trainer.{name}_trainer.{kind}Trainer",
        wrote,
        ref_model=old,
        args=SimpleNamespace(
            per_device_train_batch_size=len(ANSWERS),
            gradient_accumulation_steps=1,
            gradient_checkpointing_kwargs=None,
            steps_per_generation=1,
            report_to=[],
            use_bias_correction_kl=False,
            delta=None,
        ),
        num_iterations=2,
        current_gradient_accumulation_steps=1,
        environment_factories=None,
        environments=None,
        tools=None,
        pad_to_multiple_of=None,
        _tokenizer=SimpleNamespace(pad_token_id=PAD),
        mask_truncated_completions=False,
        use_vllm=False,
        num_generations=GROUP,
        reward_weights=weights,
        reward_func_names=["right"],
        reward_funcs=[None],
        reward_clip_range=None,
        normalize_advantages=False,
        multi_objective_aggregation="sum_then_normalize",
        off_policy_mask_threshold=None,
        top_entropy_quantile=1.0,
        max_completion_length=LONGEST,
        log_multimodal=False,
        _entropy_bonus_enabled=False,
        _pending_extra_logs={},
        _pending_metrics={},
        _logs=defaultdict(list, rewards=defaultdict(list)),
        **more,
    )
    texts = [""] * len(ANSWERS)
    found._generate = lambda _: (
        (ASKED, ANSWERS, None, texts, None, {}, None, None)
        if name == "grpo"
        else (ASKED, ANSWERS, texts)
    )
    found._calculate_rewards = lambda *_: torch.tensor(REWARDS)[:, None]
    inputs = found._generate_and_score_completions([{"prompt": ""}] * len(ANSWERS))
    found.model = now
    return found._compute_loss(now, inputs), inputs["advantages"], found._metrics["train"]


def our_policy(
    objective: Grpo, wrote: Bigrams, old: Bigrams, now: Bigrams, advantage: np.ndarray
) -> tuple[torch.Tensor, Mapping[str, float]]:
    rows = {
        "counts": torch.tensor([len(each) for each in ANSWERS]),
        "advantages": torch.tensor(advantage),
        "rewards": torch.tensor(REWARDS),
        "old": -wrote.cross_entropies(ASKED, ANSWERS).detach(),
    }
    if objective.kl:
        rows["reference"] = -old.cross_entropies(ASKED, ANSWERS).detach()
    loss = cast(PolicyLoss, PolicyLoss.Config(objective=objective).build())
    per_token = objective.objective == "dapo"
    items = int(rows["counts"].sum()) if per_token else len(ANSWERS)
    value = called(loss, now.cross_entropies(ASKED, ANSWERS), items, rows)
    return value, loss.collect(None)[0]


def moved(model: Bigrams, by: float) -> Bigrams:
    """A policy after a few steps: some ratios are beyond the clip on either side, others not."""
    found = Bigrams(8)
    with torch.no_grad():
        found.table.mul_(by).add_(model.table)
    return found


@pytest.mark.parametrize("kl", [0.0, 0.04])
@pytest.mark.parametrize(
    ("objective", "scale", "theirs"),
    [
        ("grpo", "group", {"loss_type": "grpo"}),
        ("grpo", "batch", {"loss_type": "grpo"}),
        ("dapo", "group", {"loss_type": "dapo"}),
        ("dr_grpo", "none", {"loss_type": "dr_grpo"}),
        ("gspo", "group", {"loss_type": "grpo", "importance_sampling_level": "sequence"}),
    ],
    ids=str,
)
def test_policy_gradients_on_the_same_rollouts(
    objective: Any, scale: str, theirs: dict[str, str], kl: float
) -> None:
    wrote, old = Bigrams(1), Bigrams(2)
    now = moved(wrote, 0.3)
    # A mean over an answer varies less than a token.
    low, high = (0.01, 0.02) if objective == "gspo" else (0.2, 0.28)
    settings = {"importance_sampling_level": "token", **theirs}
    other, advantage, metrics = trl_policy(
        "grpo",
        wrote,
        old,
        now,
        beta=kl,
        epsilon_low=low,
        epsilon_high=high,
        scale_rewards=scale,
        **settings,
    )
    computed = advantages(REWARDS, GROUP, "mean", scale)
    rel = SINGLE if scale == "batch" else EXACT
    np.testing.assert_allclose(computed, advantage, rtol=rel)
    ours = Grpo(objective=objective, clip_ratio=(low, high), kl=kl, max_tokens=LONGEST)
    value, told = our_policy(ours, wrote, old, now, computed)
    check(value, other, now.table, rel=rel)
    assert told["clipped"] > 0
    assert metrics["clip_ratio/region_mean"][0] > 0


def test_rloo_on_the_same_rollouts() -> None:
    """Without a penalty: TRL takes it out of the reward, here it is added to the loss."""
    wrote = Bigrams(1)
    now = moved(wrote, 0.3)
    other, advantage, metrics = trl_policy(
        "rloo", wrote, wrote, now, beta=0.0, epsilon_low=0.2, epsilon_high=0.2
    )
    computed = advantages(REWARDS, GROUP, "others", "none")
    np.testing.assert_allclose(computed, advantage, rtol=EXACT)
    objective = Grpo(objective="rloo", clip_ratio=(0.2, 0.2), kl=0.0, max_tokens=LONGEST)
    value, told = our_policy(objective, wrote, wrote, now, computed)
    check(value, other, now.table)
    assert 0 < told["clipped"] < 1
    assert told["clipped"] == pytest.approx(metrics["clip_ratio/region_mean"][0])
