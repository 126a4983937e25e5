"""Jobs on dialogs and preferences: continuing after a kill, exports, what does not fit."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from engine_jobs import architecture, interrupted_and_resumed, lr, run, weights
from record_jobs import (
    Roles,
    dpo,
    forward_job,
    loaded,
    record_job,
    responses_of,
)
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from etude.compiler.plan.plan import ExportJob, Kto, Objective, ReferenceJob, Reward, Sft
from etude.compiler.schedule.timeline import Timeline
from etude.runtime.data.dialogs.encode import CONTENT, OTHER, TERMINATION
from etude.runtime.data.records.shards import Record, Records, write_records
from etude.runtime.engine.measures import walk
from etude.runtime.engine.measures.forward import reference
from etude.runtime.engine.records.rows import collate, lay_out
from etude.runtime.engine.weights.export import export
from etude.runtime.errors import DataError, RunError


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


def test_a_forward_job_goes_on_with_the_chunk_that_was_begun(
    roles: Roles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Lost(Exception):
        pass

    monkeypatch.setattr(walk, "CHUNK", 16)
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


KTO = Kto(beta=0.1, desirable_weight=1, undesirable_weight=1, mask="none")


@pytest.mark.parametrize("objective", [Sft(), Reward(), dpo(), KTO])
def test_a_job_resumes_bit_for_bit(roles: Roles, tmp_path: Path, objective: Objective) -> None:
    # Several epochs of the sixty records.
    job = record_job(objective, steps=6, batch=16, checkpoint_every=3)
    given = {**roles, "reference:prefer": roles["none"], "reference:rated": roles["rated none"]}
    interrupted_and_resumed(job, given, tmp_path, lost=4, again=[3, 4, 5])


def test_a_reward_model_goes_on_with_its_own_head(roles: Roles, tmp_path: Path) -> None:
    run(record_job(Reward(), steps=3), roles, tmp_path / "first")
    first = tmp_path / "first" / "result"
    job = record_job(Reward(), steps=1, schedule_lr=[lr(0, 1, "hold", 0.0, 0.0)])
    run(job, {**roles, "model": first}, tmp_path / "second")
    before, after = weights(first / "state"), weights(tmp_path / "second" / "result" / "state")
    assert all(torch.equal(before[name], after[name]) for name in before)
    with pytest.raises(RunError, match="belongs to a reward model"):
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
    with pytest.raises(RunError, match="belongs to a reward model"):
        export(wrong, {"model": result, "tokenizer": roles["tokenizer"]}, tmp_path / "wrong")


def test_an_export_has_the_chat_template(roles: Roles, tmp_path: Path) -> None:
    settings = {"header": "[{role}]", "end_of_turn": "<|end_of_text|>"}
    job = ExportJob(key="x", id="x", stage="toy", inputs={}, model=architecture(), dialog=settings)
    export(job, roles, tmp_path / "export", root=tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "export" / "result")
    text = tokenizer.apply_chat_template([{"role": "user", "content": "hi"}], tokenize=False)
    assert "hi" in text


def test_what_does_not_fit_is_named(roles: Roles, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has preferences, but the stage learns from dialogs"):
        run(record_job(Sft()), {**roles, "data:chat": roles["data:prefer"]}, tmp_path / "form")
    with pytest.raises(DataError, match=r"has .* tokens, but a row has 8"):
        run(record_job(Sft(), seq_len=8), roles, tmp_path / "long dialog")
    with pytest.raises(DataError, match="tokens, but the stage's sequences have 8"):
        run(record_job(Reward(), seq_len=8), roles, tmp_path / "long record")
    with pytest.raises(RunError, match="no input `reference:prefer`"):
        run(record_job(dpo()), roles, tmp_path / "reference")
    np.save(tmp_path / "reference.npy", np.zeros((3, 3), np.float32))
    with pytest.raises(DataError, match="does not match the 60 records of `prefer`"):
        run(record_job(dpo()), {**roles, "reference:prefer": tmp_path}, tmp_path / "other")
    pipeline = record_job(dpo(), torchtitan={"parallelism": {"pipeline_parallel_degree": 2}})
    with pytest.raises(RunError, match="cannot use pipeline parallelism"):
        run(pipeline, {**roles, "reference:prefer": roles["none"]}, tmp_path / "pipeline")


def test_what_teaches_nothing_is_named_and_no_matter_of_rates(roles: Roles, tmp_path: Path) -> None:
    """Data sets of an older etude may hold such records: newer ones refuse them."""
    options: Any = {"vocab": 512, "holdout": Fraction(0), "seed": 1}
    asked = Record(np.arange(9), np.full(9, OTHER, np.uint8))
    write_records([asked], tmp_path / "chat", form="dialogs", name="chat", **options)
    with pytest.raises(
        DataError, match="record 0 of the data set `chat` has no token to learn"
    ) as error:
        run(record_job(Sft()), {**roles, "data:chat": tmp_path / "chat"}, tmp_path / "sft")
    assert "rate" not in error.value.help

    parts = np.array([OTHER, OTHER, CONTENT, TERMINATION, CONTENT, TERMINATION], np.uint8)
    pair = Record(np.array([1, 2, 3, 4, 3, 5]), parts, (2, 2, 2))
    write_records([pair], tmp_path / "pair", form="preferences", name="prefer", **options)
    given = {"data:prefer": tmp_path / "pair", "model": roles["other"]}
    folder = {"root": tmp_path, "on_event": lambda _: None}
    reference(forward_job(ReferenceJob, "prefer"), given, tmp_path / "none", **folder)
    job = forward_job(ReferenceJob, "prefer", mask="formatting")
    with pytest.raises(DataError, match="record 0 of the data set `prefer` differ only in tokens"):
        reference(job, given, tmp_path / "formatting", **folder)


def test_the_first_step_reads_the_first_batch(roles: Roles) -> None:
    """Rows follow one another from step to step and from segment to segment."""
    job = record_job(Sft())
    assert Timeline.of(job).sequence(0, 3) == ("chat", 3)
    assert Timeline.of(job).sequence(1, 0) == ("chat", 4)
