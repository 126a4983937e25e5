"""SFT, reward models and DPO learn from what they should, as other libraries compute it."""

from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from engine_jobs import architecture, lr, run, same, tensors, train_job, weights
from record_jobs import (
    SEQ_LEN,
    forward_job,
    make_records,
    record_job,
    to_hf,
    transformers_model,
)
from torch.distributed.tensor import DTensor
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from etude.compiler.plan import (
    Architecture,
    Dpo,
    ExportJob,
    Objective,
    ReferenceJob,
    Reward,
    ScoreJob,
    Sft,
    TrainJob,
)
from etude.compiler.timeline import Timeline
from etude.runtime.data.packing import Packing, Shuffled
from etude.runtime.data.record_shards import (
    CONTENT,
    FORMATTING,
    OTHER,
    TERMINATION,
    Record,
    Records,
    write_records,
)
from etude.runtime.data.shards import Shards
from etude.runtime.engine import forward, heads
from etude.runtime.engine.export import export
from etude.runtime.engine.forward import reference, score
from etude.runtime.engine.rows import collate, lay_out
from etude.runtime.engine.train import make_trainer
from etude.runtime.errors import DataError, RunError

Roles = dict[str, Path]
BATCH = 4


def dpo(**changes: Any) -> Dpo:
    values = {"beta": 0.3, "nll": 0.2, "label_smoothing": 0.0, "normalize": False, "mask": "none"}
    return Dpo(**{**values, **changes})


@pytest.fixture(scope="module")
def roles(inputs: Roles, tmp_path_factory: pytest.TempPathFactory) -> Roles:
    """The inputs of jobs that begin with a language model."""
    folder = tmp_path_factory.mktemp("records")
    run(train_job(steps=2), inputs, folder / "lm")
    other = train_job(steps=2, torchtitan={"debug": {"seed": 3}})
    run(other, inputs, folder / "other")
    made = make_records(folder)
    references = {}
    for mask in ("none", "formatting"):
        job = forward_job(ReferenceJob, "prefer", mask=mask)
        given = {**made, "model": folder / "other" / "result"}
        reference(job, given, folder / mask, root=folder, on_event=lambda _: None)
        references[mask] = folder / mask / "result"
    return {
        **inputs,
        **made,
        **references,
        "model": folder / "lm" / "result",
        "other": folder / "other" / "result",
    }


@contextmanager
def loaded(job: TrainJob, roles: Roles, folder: Path) -> Iterator[Any]:
    """The job's trainer with its weights loaded."""
    objective: Any = job.objective
    given = dict(roles)
    if objective.name == "dpo":
        given["reference:prefer"] = roles[objective.mask]
    with make_trainer(job, given, folder, folder.parent, lambda _: None, {}) as trainer:
        trainer.checkpoints.load()
        yield trainer


def gradients_of(trainer: Any) -> tuple[float, dict[str, torch.Tensor]]:
    """Loss and gradients of the first global batch, summed over its micro-batches."""
    batches = iter(trainer.loader)
    number = BATCH // trainer.config.training.local_batch_size
    micro_batches = [next(batches) for _ in range(number)]
    counted = sum((labels != -100).sum() for _, labels in micro_batches)
    loss = 0.0
    for batch, labels in micro_batches:
        loss += trainer.forward_backward_step(
            input_dict=batch, labels=labels, global_valid_tokens=counted
        ).item()
    found = {}
    for name, parameter in trainer.model_parts[0].named_parameters():
        assert parameter.grad is not None, name
        grad = parameter.grad
        found[name] = grad.full_tensor() if isinstance(grad, DTensor) else grad
    return loss, found


def loss_and_gradients(job: TrainJob, roles: Roles, folder: Path) -> tuple[float, Any]:
    with loaded(job, roles, folder) as trainer:
        return gradients_of(trainer)


def first_records(job: TrainJob, roles: Roles) -> list[Record]:
    """The records of the first batch, as the data modules alone say."""
    if job.objective.name == "sft":
        records = Records(roles["data:chat"], "train")
        packing = Packing(records, seed=job.seed, name="chat", seq_len=SEQ_LEN)
        return [each for row in range(BATCH) for each in packing.read(row)]
    records = Records(roles["data:prefer"], "train")
    order = Shuffled(records, seed=job.seed, name="prefer")
    return [records.record(order.index(i)) for i in range(BATCH)]


def responses_of(record: Record) -> list[tuple[torch.Tensor, np.ndarray]]:
    """Each response behind its prompt, (n,), and the parts of the response."""
    prompt, *lengths = record.branches
    begin, found = prompt, []
    for length in lengths:
        tokens = np.concatenate([record.tokens[:prompt], record.tokens[begin : begin + length]])
        found.append((torch.from_numpy(tokens), record.parts[begin : begin + length]))
        begin += length
    return found


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


def expected_reward(model: Any, records: list[Record]) -> torch.Tensor:
    losses = []
    for record in records:
        scores = [model(tokens[None]).logits[0, 0] for tokens, _ in responses_of(record)]
        for better in range(len(scores)):
            for worse in range(better + 1, len(scores)):
                losses.append(-F.logsigmoid(scores[better] - scores[worse]))
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
        (chosen, n), (rejected, m) = policies[0], policies[-1]
        a, b = (n, m) if objective.normalize else (1, 1)
        delta = (chosen - references[0][0]) / a - (rejected - references[-1][0]) / b
        loss = -(1 - objective.label_smoothing) * F.logsigmoid(objective.beta * delta)
        loss -= objective.label_smoothing * F.logsigmoid(-objective.beta * delta)
        losses.append(loss - objective.nll * chosen / n)
    return torch.stack(losses).mean()


def check_against_transformers(
    job: TrainJob, roles: Roles, folder: Path, expected: Any, model: Any
) -> None:
    """Loss and gradients equal those of `expected(records)` through `model`."""
    loss, found = loss_and_gradients(job, roles, folder)
    wanted = expected(first_records(job, roles))
    wanted.backward()
    assert loss == pytest.approx(wanted.item(), rel=1e-5)
    score = job.objective.name == "reward"
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
    from etude.runtime.engine.models import model_spec

    head = "score" if state["lm_head.weight"].shape[0] == 1 else "logits"
    module = model_spec(shape, "cpu", shape.context, head).model.build()
    for name, parameter in module.named_parameters():
        parameter.data.copy_(state[name])
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


@pytest.mark.parametrize("loss_on", ["assistant", "all"])
def test_sft_is_the_cross_entropy_of_each_dialog_alone(
    roles: Roles, tmp_path: Path, loss_on: Any
) -> None:
    model = transformers_model(roles["model"] / "state", architecture())
    check_against_transformers(
        record_job(Sft(loss_on=loss_on)),
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
    ],
)
def test_dpo_is_the_loss_of_its_paper(roles: Roles, tmp_path: Path, objective: Dpo) -> None:
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
    rows = [lay_out(each, range(3), "joint") for each in (record, other)]
    assert len(rows[0].tokens) == prompt + first + second + third
    with loaded(record_job(Reward()), roles, tmp_path / "job") as trainer:
        scores = []
        for row in rows:
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


def test_dpo_begins_at_its_reference(roles: Roles, tmp_path: Path) -> None:
    job = forward_job(ReferenceJob, "prefer")
    reference(job, roles, tmp_path / "reference", root=tmp_path, on_event=lambda _: None)
    given = {**roles, "reference:prefer": tmp_path / "reference" / "result"}
    (first, *_, last) = run(record_job(dpo(beta=0.1), steps=12), given, tmp_path / "job")
    for name in ("margin", "chosen_reward", "rejected_reward"):
        assert first[name] == pytest.approx(0, abs=1e-5)
    assert first["preference_loss"] == pytest.approx(np.log(2), rel=1e-5)
    assert first["loss"] == pytest.approx(first["preference_loss"] + 0.2 * first["nll"], rel=1e-6)
    assert last["margin"] == pytest.approx(last["chosen_reward"] - last["rejected_reward"])
    assert last["margin"] != first["margin"]


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


def test_a_forward_job_goes_on_with_the_chunk_that_was_begun(
    roles: Roles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Lost(Exception):
        pass

    monkeypatch.setattr(forward, "CHUNK", 16)
    job = forward_job(ReferenceJob, "prefer")

    def lose_power(event: dict[str, Any]) -> None:
        if event["done"] == 32:
            raise Lost

    folder = tmp_path / "killed"
    with pytest.raises(Lost):
        reference(job, roles, folder, root=tmp_path, on_event=lose_power)
    chunks = sorted((folder / "chunks").iterdir())
    assert len(chunks) == 2
    before = [path.stat().st_mtime_ns for path in chunks]
    (folder / "chunks" / "train-000000000032.npy").write_bytes(b"half of it")
    events: list[dict[str, Any]] = []

    def look(event: dict[str, Any]) -> None:
        events.append(event)
        assert [path.stat().st_mtime_ns for path in chunks] == before

    reference(job, roles, folder, root=tmp_path, on_event=look)
    assert [event["done"] for event in events] == [16, 32, 48, 60]
    assert not (folder / "chunks").exists()
    reference(job, roles, tmp_path / "whole", root=tmp_path, on_event=lambda _: None)
    one, two = (
        (path / "result" / "reference.npy").read_bytes() for path in (folder, tmp_path / "whole")
    )
    assert one == two


@pytest.mark.parametrize("objective", [Sft(), Reward(), dpo()])
def test_a_job_resumes_bit_for_bit(roles: Roles, tmp_path: Path, objective: Objective) -> None:
    class Lost(Exception):
        pass

    def lose_power(event: dict[str, Any]) -> None:
        if event["step"] == 4:
            raise Lost

    # Several epochs of the sixty records.
    job = record_job(objective, steps=6, batch=16, checkpoint_every=3)
    given = {**roles, "reference:prefer": roles["none"]}
    run(job, given, tmp_path / "whole")
    with pytest.raises(Lost):
        run(job, given, tmp_path / "killed", on_event=lose_power)
    events = run(job, given, tmp_path / "killed")
    assert [event["step"] for event in events] == list(range(3, 6))
    whole, killed = (tmp_path / name / "result" / "state" for name in ("whole", "killed"))
    assert same(whole, killed)


def test_a_reward_model_goes_on_with_its_own_head(roles: Roles, tmp_path: Path) -> None:
    run(record_job(Reward(), steps=3), roles, tmp_path / "first")
    first = tmp_path / "first" / "result"
    job = record_job(Reward(), steps=1, schedule_lr=[lr(0, 1, "hold", 0.0, 0.0)])
    run(job, {**roles, "model": first}, tmp_path / "second")
    before, after = weights(first / "state"), weights(tmp_path / "second" / "result" / "state")
    assert all(torch.equal(before[name], after[name]) for name in before)
    with pytest.raises(RunError, match="is that of a reward model"):
        run(record_job(Sft(), steps=1), {**roles, "model": first}, tmp_path / "sft")


def test_an_exported_reward_model_scores_as_the_engine_does(roles: Roles, tmp_path: Path) -> None:
    run(record_job(Reward()), roles, tmp_path / "job")
    result = tmp_path / "job" / "result"
    job = ExportJob(key="x", id="x", stage="toy", inputs={}, model=architecture(), head="score")
    export(job, {"model": result, "tokenizer": roles["tokenizer"]}, tmp_path / "export")
    exported = tmp_path / "export" / "result"
    loading: Any = AutoModelForSequenceClassification.from_pretrained(
        exported, output_loading_info=True
    )
    model, info = loading
    assert not any(info[problem] for problem in ("missing_keys", "unexpected_keys"))
    assert model.config.num_labels == 1
    tokenizer = AutoTokenizer.from_pretrained(exported)
    assert tokenizer.pad_token_id == model.config.pad_token_id
    record = Records(roles["data:prefer"], "train").record(1)
    row = lay_out(record, range(3), "joint")
    with loaded(record_job(Reward()), {**roles, "model": result}, tmp_path / "again") as trainer:
        batch = collate([row], 8, len(row.tokens))
        ours = trainer.say({**batch, "places": torch.tensor(row.ends)})
    # All of them in one batch, padded, where the last ends with the end-of-text token.
    texts = [tokens for tokens, _ in responses_of(record)]
    padded = torch.full((3, max(map(len, texts))), model.config.pad_token_id)
    mask = torch.zeros_like(padded)
    for i, tokens in enumerate(texts):
        padded[i, : len(tokens)] = tokens
        mask[i, : len(tokens)] = 1
    with torch.no_grad():
        theirs = model(padded, attention_mask=mask).logits[:, 0]
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    wrong = job.model_copy(update={"head": "tokens"})
    with pytest.raises(RunError, match="is that of a reward model"):
        export(wrong, {"model": result, "tokenizer": roles["tokenizer"]}, tmp_path / "wrong")


def test_an_export_has_the_chat_template(roles: Roles, tmp_path: Path) -> None:
    settings = {"header": "[{role}]", "end_of_turn": "<|end_of_text|>"}
    job = ExportJob(key="x", id="x", stage="toy", inputs={}, model=architecture(), dialog=settings)
    export(job, roles, tmp_path / "export", root=tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "export" / "result")
    text = tokenizer.apply_chat_template([{"role": "user", "content": "hi"}], tokenize=False)
    assert "hi" in text


def test_what_does_not_fit_is_named(roles: Roles, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has preferences, and the stage learns from dialogs"):
        run(record_job(Sft()), {**roles, "data:chat": roles["data:prefer"]}, tmp_path / "form")
    with pytest.raises(DataError, match=r"has .* tokens, and a row has 8"):
        run(record_job(Sft(), seq_len=8), roles, tmp_path / "long dialog")
    with pytest.raises(DataError, match="tokens, and the stage's sequences have 8"):
        run(record_job(Reward(), seq_len=8), roles, tmp_path / "long record")
    with pytest.raises(RunError, match="no input `reference:prefer`"):
        run(record_job(dpo()), roles, tmp_path / "reference")
    np.save(tmp_path / "reference.npy", np.zeros((3, 3), np.float32))
    with pytest.raises(DataError, match="is not that of the 60 records of `prefer`"):
        run(record_job(dpo()), {**roles, "reference:prefer": tmp_path}, tmp_path / "other")
    pipeline = record_job(dpo(), torchtitan={"parallelism": {"pipeline_parallel_degree": 2}})
    with pytest.raises(RunError, match="cannot have pipeline parallelism"):
        run(pipeline, {**roles, "reference:prefer": roles["none"]}, tmp_path / "pipeline")


def test_the_first_step_reads_the_first_batch(roles: Roles) -> None:
    """Rows follow one another from step to step and from segment to segment."""
    job = record_job(Sft())
    assert Timeline.of(job).sequence(0, 3) == ("chat", 3)
    assert Timeline.of(job).sequence(1, 0) == ("chat", 4)
