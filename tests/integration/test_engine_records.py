"""SFT, reward models and DPO learn from what they should, as other libraries compute it."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from engine_jobs import architecture, run, tensors, train_job
from record_jobs import (
    SEQ_LEN,
    Roles,
    dpo,
    forward_job,
    loaded,
    record_job,
    responses_of,
    to_hf,
    transformers_model,
)
from torch.distributed.tensor import DTensor

from etude.compiler.plan.objectives import scores
from etude.compiler.plan.plan import Architecture, Dpo, Reward, ScoreJob, Sft, TrainJob
from etude.runtime.data.dialogs.encode import CONTENT, FORMATTING, OTHER, TERMINATION
from etude.runtime.data.order.packing import Packing, Shuffled
from etude.runtime.data.records.shards import Record, Records, write_records
from etude.runtime.data.tokens.shards import Shards
from etude.runtime.engine import heads
from etude.runtime.engine.measures.forward import score
from etude.runtime.engine.objectives import reported
from etude.runtime.engine.records import loader as record_loader
from etude.runtime.engine.records import rows
from etude.runtime.engine.records.rows import collate, lay_out

BATCH = 4


def gradients_of(trainer: Any) -> tuple[float, dict[str, torch.Tensor]]:
    """Loss and gradients of the first global batch, summed over its micro-batches."""
    if loss := reported(trainer.loss_fn):
        loss.begin(trainer, 0)
    batches = iter(trainer.loader)
    micro_batches = [next(batches) for _ in range(trainer.loader.micro_batches(0))]
    counted = sum((labels != -100).sum() for _, labels in micro_batches)
    total = 0.0
    for batch, labels in micro_batches:
        total += trainer.forward_backward_step(
            input_dict=batch, labels=labels, global_valid_tokens=counted
        ).item()
    found = {}
    for name, parameter in trainer.model_parts[0].named_parameters():
        assert parameter.grad is not None, name
        grad = parameter.grad
        found[name] = grad.full_tensor() if isinstance(grad, DTensor) else grad
    return total, found


def loss_and_gradients(job: TrainJob, roles: Roles, folder: Path) -> tuple[float, Any]:
    with loaded(job, roles, folder) as trainer:
        return gradients_of(trainer)


def first_records(job: TrainJob, roles: Roles) -> list[Record]:
    """The records of the first batch, as the data modules alone say."""
    if getattr(job.objective, "counts", "") == "sequences":
        records = Records(roles["data:chat"], "train")
        packing = Packing(records, seed=job.seed, name="chat", seq_len=SEQ_LEN)
        return [each for row in range(BATCH) for each in packing.read(row)]
    (source,) = job.data
    records = Records(roles[f"data:{source}"], "train")
    order = Shuffled(records, seed=job.seed, name=source)
    return [records.record(order.index(i)) for i in range(BATCH)]


def expected_sft(model: Any, records: list[Record], every: bool) -> torch.Tensor:
    """One dialog at a time."""
    losses, count = [], 0
    for record in records:
        tokens = torch.from_numpy(record.tokens)[None]
        labels = tokens.clone()
        if not every:
            masked = ~np.isin(record.parts, (CONTENT, TERMINATION))
            labels[0, torch.from_numpy(masked)] = -100
        logits = model(tokens).logits[0, :-1]
        losses.append(F.cross_entropy(logits, labels[0, 1:], reduction="sum"))
        count += int((labels[0, 1:] != -100).sum())
    return torch.stack(losses).sum() / count


def expected_reward(
    model: Any, records: list[Record], objective: Reward | None = None
) -> torch.Tensor:
    """The formulas of the papers, one pair or one record at a time."""
    of, losses = objective or Reward(), []
    for record in records:
        scores = [model(tokens[None]).logits[0, 0] for tokens, _ in responses_of(record)]
        if of.objective == "plackett_luce":
            places = [
                score.exp() / sum(s.exp() for s in scores[i:]) for i, score in enumerate(scores)
            ]
            losses.append(-torch.stack(places).log().sum())
            continue
        for better in range(len(scores)):
            for worse in range(better + 1, len(scores)):
                delta = scores[better] - scores[worse]
                margin = record.margin or 0.0
                loss = -torch.log(torch.sigmoid(delta - margin * (of.margin == "subtract")))
                loss = loss * (margin if of.margin == "scale" else 1)
                losses.append(loss + of.center * (scores[better] + scores[worse]) ** 2)
    return torch.stack(losses).mean()


def log_probabilities(model: Any, record: Record, mask: str) -> list[tuple[torch.Tensor, int]]:
    """Of each response, the sum over the tokens that count, and their number."""
    found = []
    for tokens, parts in responses_of(record):
        logs = model(tokens[None]).logits[0, :-1].log_softmax(-1)
        each = logs.gather(1, tokens[1:, None])[-len(parts) :, 0]
        chosen = torch.from_numpy(parts == CONTENT if mask == "formatting" else parts >= 0)
        found.append((each[chosen].sum(), int(chosen.sum())))
    return found


def expected_dpo(policy: Any, old: Any, records: list[Record], objective: Dpo) -> torch.Tensor:
    losses = []
    for record in records:
        policies = log_probabilities(policy, record, objective.mask)
        with torch.no_grad():
            references = log_probabilities(old, record, objective.mask)
        chosen, rejected = (
            (log - (near if objective.compares else 0)) / (count if objective.normalize else 1)
            for (log, count), (near, _) in ((policies[i], references[i]) for i in (0, -1))
        )
        nll = -policies[0][0] / policies[0][1]
        longer = objective.length_penalty * (policies[0][1] - policies[-1][1])
        longer /= objective.beta  # which multiplies the difference
        found = expected_preference(chosen + longer, rejected, objective)
        losses.append(found + objective.nll * nll)
    return torch.stack(losses).mean()


def expected_preference(chosen: Any, rejected: Any, objective: Dpo) -> torch.Tensor:
    """The formulas of the papers, of log-probabilities or their differences to a reference's."""
    beta, wrong = objective.beta, objective.label_smoothing

    def sigmoid(value: Any) -> torch.Tensor:
        return 1 / (1 + torch.exp(-value))

    def both(loss: Any) -> torch.Tensor:
        return (1 - wrong) * loss(chosen - rejected) + wrong * loss(rejected - chosen)

    def odds(log: Any) -> torch.Tensor:
        return torch.exp(log) / (1 - torch.exp(log))

    match objective.objective:
        case "dpo" | "cpo":
            return both(lambda delta: -torch.log(sigmoid(beta * delta)))
        case "ipo":
            return both(lambda delta: (delta - 1 / (2 * beta)) ** 2)
        case "robust":
            right = -torch.log(sigmoid(beta * (chosen - rejected)))
            swapped = -torch.log(sigmoid(beta * (rejected - chosen)))
            return ((1 - wrong) * right - wrong * swapped) / (1 - 2 * wrong)
        case "hinge":
            return torch.clamp(1 - beta * (chosen - rejected), min=0)
        case "apo_zero":
            return 1 - sigmoid(beta * chosen) + sigmoid(beta * rejected)
        case "apo_down":
            return sigmoid(beta * chosen) + 1 - sigmoid(beta * (chosen - rejected))
        case "simpo":
            return -torch.log(sigmoid(beta * chosen - beta * rejected - objective.gamma))
        case "orpo":
            return -beta * torch.log(sigmoid(torch.log(odds(chosen) / odds(rejected))))
    raise AssertionError(objective.objective)


def check_against_transformers(
    job: TrainJob, roles: Roles, folder: Path, expected: Any, model: Any
) -> None:
    """Loss and gradients equal those of `expected(records)` through `model`."""
    loss, found = loss_and_gradients(job, roles, folder)
    wanted = expected(first_records(job, roles))
    wanted.backward()
    assert loss == pytest.approx(wanted.item(), rel=1e-5)
    score = scores(job.objective)
    theirs = {name: p.grad for name, p in model.named_parameters()}
    qkv = split_qkv(found, job.model)
    ours = to_hf(qkv, job.model, score)
    assert any(grad.abs().max() > 1e-3 for grad in ours.values())
    for name, grad in ours.items():
        if name in theirs:
            torch.testing.assert_close(grad, theirs[name], rtol=1e-4, atol=1e-5)
    assert theirs.keys() <= ours.keys()


def split_qkv(state: dict[str, torch.Tensor], shape: Architecture) -> dict[str, torch.Tensor]:
    """Fused q, k and v as the checkpoints have them."""
    from etude.runtime.engine.families import model_spec

    head = "score" if state["lm_head.weight"].shape[0] == 1 else "logits"
    module = model_spec(shape, "cpu", shape.context, head).model.build()
    for name, parameter in module.named_parameters():
        parameter.data.copy_(state[name])
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


@pytest.mark.parametrize("counts", ["sequences", "dialogs"])
@pytest.mark.parametrize("loss_on", ["assistant", "all"])
def test_sft_is_the_cross_entropy_of_each_dialog_alone(
    roles: Roles, tmp_path: Path, loss_on: Any, counts: Any
) -> None:
    """Whether a batch counts the rows that dialogs are packed into, or the dialogs."""
    model = transformers_model(roles["model"] / "state", architecture())
    check_against_transformers(
        record_job(Sft(loss_on=loss_on, counts=counts)),
        roles,
        tmp_path / "job",
        lambda records: expected_sft(model, records, loss_on == "all"),
        model,
    )


@pytest.mark.parametrize("layout", ["joint", "pairs"])
@pytest.mark.parametrize("tied", [False, True])
def test_reward_is_the_bradley_terry_loss(
    roles: Roles, tmp_path: Path, layout: Any, tied: bool
) -> None:
    """The model begins with a language model's weights and a head of its own."""
    shape = architecture(tied=tied)
    if tied:
        run(train_job(steps=1, model=shape), roles_without_model(roles), tmp_path / "lm")
        roles = {**roles, "model": tmp_path / "lm" / "result"}
    job = record_job(Reward(layout=layout), model=shape)
    with loaded(job, roles, tmp_path / "begun") as trainer:
        trainer.save_result(tmp_path / "begun" / "result")
    begun = tensors(tmp_path / "begun" / "result" / "state")
    start = tensors(roles["model"] / "state")
    assert torch.equal(begun["tok_embeddings.weight"], start["tok_embeddings.weight"])
    assert begun["lm_head.weight"].shape == (1, shape.dim)
    model = transformers_model(tmp_path / "begun" / "result" / "state", shape, score=True)
    model.config.pad_token_id = 511
    check_against_transformers(
        job,
        roles,
        tmp_path / "job",
        lambda records: expected_reward(model, records),
        model,
    )


def roles_without_model(roles: Roles) -> Roles:
    return {name: path for name, path in roles.items() if name != "model"}


@pytest.mark.parametrize(
    "objective",
    [
        dpo(),
        dpo(layout="pairs", mask="formatting", label_smoothing=0.1),
        dpo(mask="formatting", normalize=True, beta=2.0, nll=0.0),
        dpo(objective="ipo", beta=2.0, nll=0.0),
        dpo(objective="ipo", beta=2.0, normalize=True, label_smoothing=0.1),
        dpo(length_penalty=0.05, label_smoothing=0.1, mask="formatting"),
        dpo(objective="robust", label_smoothing=0.1),
        dpo(objective="hinge"),
        dpo(objective="apo_zero", nll=0.0),
        dpo(objective="apo_down", mask="formatting"),
        dpo(objective="simpo", beta=2.0, gamma=1.0, normalize=True, nll=0.0),
        dpo(objective="cpo", label_smoothing=0.1, nll=1.0),
        dpo(objective="orpo", beta=0.5, normalize=True, nll=1.0, mask="formatting"),
    ],
)
def test_a_loss_of_preferences_is_that_of_its_paper(
    roles: Roles, tmp_path: Path, objective: Dpo
) -> None:
    policy = transformers_model(roles["model"] / "state", architecture())
    old = transformers_model(roles["other"] / "state", architecture())
    check_against_transformers(
        record_job(objective),
        roles,
        tmp_path / "job",
        lambda records: expected_dpo(policy, old, records, objective),
        policy,
    )


@pytest.mark.parametrize("objective", [Reward(), dpo()])
def test_both_layouts_give_the_same_gradients(
    roles: Roles, tmp_path: Path, objective: Reward | Dpo
) -> None:
    (joint, ours), (pairs, theirs) = (
        loss_and_gradients(
            record_job(objective.model_copy(update={"layout": layout})), roles, tmp_path / layout
        )
        for layout in ("joint", "pairs")
    )
    assert joint == pytest.approx(pairs, rel=1e-5)
    for name, grad in ours.items():
        torch.testing.assert_close(grad, theirs[name], rtol=1e-5, atol=1e-6)


def test_rows_of_dialogs_are_as_long_as_the_fullest_beside_them(
    roles: Roles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dialogs of 40 and of 52 tokens, of which a row has room for one."""
    lengths = [40, 52] * 30
    made = [
        Record(np.full(length, 7 + number), np.full(length, CONTENT, np.uint8))
        for number, length in enumerate(lengths)
    ]
    options: Any = {"holdout": Fraction(0), "seed": 1, "name": "chat"}
    write_records(made, tmp_path / "data", form="dialogs", vocab=512, **options)
    given = {**roles, "data:chat": tmp_path / "data"}
    job = record_job(Sft())
    wanted = sorted((len(each.tokens) for each in first_records(job, given)), reverse=True)
    with loaded(job, given, tmp_path / "job") as trainer:
        batches = iter(trainer.loader)
        read = [next(batches) for _ in range(BATCH // 2)]
    assert [batch["input"].shape[1] for batch, _ in read] == [
        -(-length // 8) * 8 for length in wanted[::2]
    ]
    found = [int((labels[row] != -100).sum()) + 1 for _, labels in read for row in range(2)]
    assert found == wanted
    short, _ = loss_and_gradients(job, given, tmp_path / "short")
    monkeypatch.setattr(rows, "row_multiple", lambda _: SEQ_LEN)
    whole, _ = loss_and_gradients(job, given, tmp_path / "whole")
    assert short == pytest.approx(whole, rel=1e-6)


def unpacked(lengths: list[int], *, ranks: int, rows: int, room: int) -> list[list[list[int]]]:
    """`micro_batches` with a row for each record."""
    order = sorted(range(len(lengths)), key=lambda item: (-lengths[item], item))
    own = [[item] for item in order]
    return [own[first : first + ranks * rows] for first in range(0, len(own), ranks * rows)]


@pytest.mark.parametrize("layout", ["joint", "pairs"])
@pytest.mark.parametrize("objective", [Reward(), dpo(mask="formatting")])
def test_preferences_that_share_a_row_have_the_gradients_of_rows_of_their_own(
    roles: Roles,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    objective: Reward | Dpo,
    layout: Any,
) -> None:
    job = record_job(objective.model_copy(update={"layout": layout}), seq_len=2 * SEQ_LEN)
    packed, ours = loss_and_gradients(job, roles, tmp_path / "packed")
    with loaded(job, roles, tmp_path / "rows") as trainer:
        batch, _ = next(iter(trainer.loader))
        assert len(batch["input"]) < BATCH
        assert trainer.loader.micro_batches(0) == 1
    monkeypatch.setattr(record_loader, "balanced_rows", unpacked)
    single, theirs = loss_and_gradients(job, roles, tmp_path / "single")
    assert packed == pytest.approx(single, rel=1e-5)
    for name, grad in ours.items():
        torch.testing.assert_close(grad, theirs[name], rtol=1e-5, atol=1e-6)


def test_logits_made_piece_by_piece_change_nothing(
    roles: Roles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, ours = loss_and_gradients(record_job(dpo()), roles, tmp_path / "whole")
    monkeypatch.setattr(heads, "PIECE", 7)
    pieces, theirs = loss_and_gradients(record_job(dpo()), roles, tmp_path / "pieces")
    assert whole == pytest.approx(pieces, rel=1e-6)
    for name, grad in ours.items():
        torch.testing.assert_close(grad, theirs[name], rtol=1e-5, atol=1e-6)


def test_a_response_does_not_see_another(roles: Roles, tmp_path: Path) -> None:
    record = Records(roles["data:prefer"], "train").record(1)
    prompt, first, second, third = record.branches
    changed = record.tokens.copy()
    changed[prompt + first : prompt + first + second] += 1
    changed %= 512
    other = Record(changed, record.parts, record.branches)
    both = [lay_out(each, range(3), "joint") for each in (record, other)]
    assert len(both[0].tokens) == prompt + first + second + third
    with loaded(record_job(Reward()), roles, tmp_path / "job") as trainer:
        scores = []
        for row in both:
            batch = collate([row], 8, len(row.tokens))
            scores.append(trainer.say({**batch, "places": torch.tensor(row.ends)}))
    assert scores[0][0] == scores[1][0]
    assert scores[0][1] != scores[1][1]
    assert scores[0][2] == scores[1][2]


def rewritten(records: Records, folder: Path, change: Any) -> Path:
    """Records with `change(record)` in place of each."""
    made = [change(records.record(i)) for i in range(records.count)]
    options: Any = {"holdout": Fraction(0), "seed": 1, "name": "rewritten"}
    write_records(made, folder, form=records.form, vocab=512, **options)
    return folder


def test_the_label_of_a_masked_token_of_a_dialog_changes_no_loss(
    roles: Roles, tmp_path: Path
) -> None:
    """The last token of a dialog is a label only: nothing is predicted from it."""

    def losses(part: int) -> list[float]:
        found = []
        for token in (1, 2):
            folder = tmp_path / f"{part} {token}"
            path = rewritten(
                Records(roles["data:chat"], "train"),
                folder / "data",
                lambda record, token=token: Record(
                    np.append(record.tokens, token), np.append(record.parts, np.uint8(part))
                ),
            )
            given = {**roles, "data:chat": path}
            found.append(loss_and_gradients(record_job(Sft()), given, folder / "job")[0])
        return found

    for part in (OTHER, FORMATTING):
        one, other = losses(part)
        assert one == other
    one, other = losses(TERMINATION)
    assert one != other


def test_the_label_of_a_masked_token_of_a_response_changes_no_loss(
    roles: Roles, tmp_path: Path
) -> None:
    """What ends a response is a label only."""

    def ended_otherwise(record: Record) -> Record:
        tokens = record.tokens.copy()
        tokens[record.parts == TERMINATION] = (tokens[record.parts == TERMINATION] + 1) % 512
        return Record(tokens, record.parts, record.branches)

    path = rewritten(Records(roles["data:prefer"], "train"), tmp_path / "data", ended_otherwise)
    for mask, equal in (("formatting", True), ("none", False)):
        job = record_job(dpo(mask=mask))
        before, _ = loss_and_gradients(job, roles, tmp_path / "before")
        after, _ = loss_and_gradients(job, {**roles, "data:prefer": path}, tmp_path / "after")
        assert (before == after) == equal


def test_the_class_of_a_masked_token_changes_no_loss(roles: Roles, tmp_path: Path) -> None:
    """OTHER or FORMATTING: neither is learned."""
    losses = []
    for name, part in (("other", OTHER), ("formatting", FORMATTING)):
        path = rewritten(
            Records(roles["data:chat"], "train"),
            tmp_path / name,
            lambda record, part=part: Record(
                record.tokens,
                np.where(record.parts == CONTENT, CONTENT, part).astype(np.uint8),
            ),
        )
        given = {**roles, "data:chat": path}
        losses.append(loss_and_gradients(record_job(Sft()), given, tmp_path / f"{name} job")[0])
    assert losses[0] == losses[1]


def test_the_reference_is_the_log_probability_of_each_response(roles: Roles) -> None:
    model = transformers_model(roles["other"] / "state", architecture())
    records = Records(roles["data:prefer"], "train")
    for mask in ("none", "formatting"):
        found = np.load(roles[mask] / "reference.npy")
        assert found.shape == (records.count, 3)
        assert found.dtype == np.float32
        for i in range(0, records.count, 7):
            record = records.record(i)
            with torch.no_grad():
                expected = [value.item() for value, _ in log_probabilities(model, record, mask)]
            given = len(record.branches) - 1
            assert found[i, :given].tolist() == pytest.approx(expected, rel=1e-5)
            assert np.isnan(found[i, given:]).all()


@pytest.mark.parametrize("seq_len", [SEQ_LEN, 24])
def test_scores_are_mean_cross_entropies(roles: Roles, tmp_path: Path, seq_len: int) -> None:
    job = forward_job(ScoreJob, "web", seq_len=seq_len)
    score(job, roles, tmp_path / "score", root=tmp_path, on_event=lambda _: None)
    model = transformers_model(roles["model"] / "state", architecture())
    for split in ("train", "heldout"):
        shards = Shards(roles["data:web"], split)
        found = np.load(tmp_path / "score" / "result" / f"{split}.npy")
        assert found.shape == (shards.documents,)
        for i in range(0, shards.documents, 60):
            tokens = torch.from_numpy(shards.document(i).astype(np.int64))
            total = 0.0
            for begin in range(0, len(tokens) - 1, seq_len):
                piece = tokens[begin : begin + seq_len + 1]
                with torch.no_grad():
                    logits = model(piece[None, :-1]).logits[0]
                total += F.cross_entropy(logits, piece[1:], reduction="sum").item()
            assert found[i] == pytest.approx(total / (len(tokens) - 1), rel=1e-5)
