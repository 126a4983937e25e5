"""KTO learns from rated answers what its paper says, whatever shares a row or a micro-batch."""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from engine_jobs import architecture
from record_jobs import SEQ_LEN, Roles, forward_job, loaded, record_job, transformers_model
from test_engine_records import (
    check_against_transformers,
    log_probabilities,
    loss_and_gradients,
    unpacked,
)

from etude.compiler.plan.plan import Kto, ReferenceJob
from etude.runtime.data.dialogs.encode import CONTENT, OTHER
from etude.runtime.data.order.packing import Shuffled
from etude.runtime.data.records.shards import Record, Records, write_records
from etude.runtime.engine.measures.forward import reference
from etude.runtime.engine.records import loader as record_loader
from etude.runtime.engine.records.ratings import MISMATCHED, mismatched
from etude.runtime.errors import DataError


def kto(**changes: Any) -> Kto:
    values = {"beta": 0.3, "desirable_weight": 1.0, "undesirable_weight": 1.5, "mask": "none"}
    return Kto(**{**values, **changes})


def other_answers(roles: Roles, seed: int, count: int) -> list[Record]:
    """The prompts of the first batch, each with the answer to another, built by hand."""
    records = Records(roles["data:rated"], "train")
    order = Shuffled(records, seed=seed, name="rated")
    found = []
    for ordinal in range(count):
        number = order.index(ordinal)
        one, two = records.record(number), records.record((number + 30) % 60)
        (prompt, _), (begin, answer) = one.branches, two.branches
        found.append(
            Record(
                np.concatenate([one.tokens[:prompt], two.tokens[begin:]]),
                np.concatenate([one.parts[:prompt], two.parts[begin:]]),
                (prompt, answer),
            )
        )
    return found


def expected_kto(
    policy: Any, old: Any, records: list[Record], others: list[Record], objective: Kto
) -> tuple[torch.Tensor, float]:
    """The loss of arXiv:2402.01306, eq. 7 and 8, one answer at a time, and the divergence."""

    def ratio(record: Record) -> torch.Tensor:
        ((new, _),) = log_probabilities(policy, record, objective.mask)
        with torch.no_grad():
            ((before, _),) = log_probabilities(old, record, objective.mask)
        return new - before

    with torch.no_grad():
        divergence = max(sum(ratio(each).item() for each in others) / len(others), 0.0)
    losses = []
    for record in records:
        gain = ratio(record) - divergence
        weight = objective.desirable_weight if record.good else objective.undesirable_weight
        value = torch.sigmoid(objective.beta * (gain if record.good else -gain))
        losses.append(weight - weight * value)
    return torch.stack(losses).mean(), divergence


@pytest.mark.parametrize("mask", ["none", "formatting"])
def test_kto_is_the_loss_of_its_paper(roles: Roles, tmp_path: Path, mask: Any) -> None:
    """In one of two directions the estimate of the divergence is above 0, in the other it is cut
    off at 0."""
    objective = kto(mask=mask)
    job = record_job(objective)
    others = other_answers(roles, job.seed, 4)
    found = []
    for policy, old in (("model", "other"), ("other", "model")):
        folder = tmp_path / policy
        given = {**roles, "model": roles[old]}
        made = forward_job(ReferenceJob, "rated", mask=mask, form="ratings")
        reference(made, given, folder / "near", root=folder, on_event=lambda _: None)
        begun = {**roles, "model": roles[policy], "reference:rated": folder / "near" / "result"}
        learned, near = (
            transformers_model(roles[name] / "state", architecture()) for name in (policy, old)
        )

        def expected(records: list[Record], learned: Any = learned, near: Any = near) -> Any:
            loss, divergence = expected_kto(learned, near, records, others, objective)
            found.append(divergence)
            return loss

        check_against_transformers(job, begun, folder / "job", expected, learned)
    assert sorted(value > 0 for value in found) == [False, True]


def test_answers_that_share_a_row_have_the_gradients_of_rows_of_their_own(
    roles: Roles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = record_job(kto(), seq_len=2 * SEQ_LEN)
    packed, ours = loss_and_gradients(job, roles, tmp_path / "packed")
    with loaded(job, roles, tmp_path / "rows") as trainer:
        assert trainer.loader.micro_batches(0) == 1
    monkeypatch.setattr(record_loader, "balanced_rows", unpacked)
    with loaded(job, roles, tmp_path / "rows of their own") as trainer:
        assert trainer.loader.micro_batches(0) == 2
    single, theirs = loss_and_gradients(job, roles, tmp_path / "single")
    assert packed == pytest.approx(single, rel=1e-5)
    for name, grad in ours.items():
        torch.testing.assert_close(grad, theirs[name], rtol=1e-5, atol=1e-6)


def test_the_answer_to_another_prompt_is_cut_to_the_sequence(roles: Roles, tmp_path: Path) -> None:
    """A long prompt leaves room for one token of a long answer, which formatting does not count."""
    asked, said = np.full(SEQ_LEN - 1, OTHER, np.uint8), np.full(40, CONTENT, np.uint8)
    long = Record(
        np.arange(SEQ_LEN), np.append(asked, np.uint8(CONTENT)), (SEQ_LEN - 1, 1), good=True
    )
    header = np.concatenate([np.full(3, OTHER, np.uint8), said])
    short = Record(np.arange(43) + 100, header, (2, 41), good=False)
    options: Any = {"holdout": Fraction(0), "seed": 1, "name": "rated"}
    write_records([long, short], tmp_path / "data", form="ratings", vocab=512, **options)
    made = Records(tmp_path / "data", "train")
    found = mismatched(made, 0, SEQ_LEN)
    assert found.branches == (SEQ_LEN - 1, 1)
    assert found.tokens.tolist() == [*range(SEQ_LEN - 1), 102]
    given = {**roles, "data:rated": tmp_path / "data"}
    job = forward_job(ReferenceJob, "rated", mask="formatting", form="ratings")
    reference(job, given, tmp_path / "near", root=tmp_path, on_event=lambda _: None)
    values = np.load(tmp_path / "near" / "result" / "reference.npy")
    assert np.isnan(values[:, MISMATCHED]).tolist() == [True, False]
    given["reference:rated"] = tmp_path / "near" / "result"
    loss, _ = loss_and_gradients(record_job(kto(mask="formatting")), given, tmp_path / "job")
    assert np.isfinite(loss)


def test_ratings_are_read_as_they_were_written(tmp_path: Path) -> None:
    record = Record(np.arange(5), np.full(5, CONTENT, np.uint8), (2, 3), good=True)
    options: Any = {"holdout": Fraction(0), "seed": 1, "name": "rated", "vocab": 9}
    write_records([record, replace(record, good=False)], tmp_path, form="ratings", **options)
    records = Records(tmp_path, "train")
    assert [records.record(i).good for i in range(2)] == records.good.tolist() == [True, False]
    with pytest.raises(ValueError, match="rated in a data set of ratings"):
        write_records([record], tmp_path / "other", form="rollouts", **options)
    np.save(tmp_path / "train-good.npy", np.ones(3, bool))
    with pytest.raises(DataError, match="does not have 2 records"):
        Records(tmp_path, "train")
