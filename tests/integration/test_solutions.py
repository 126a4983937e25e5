"""Process reward models learn which steps are right, and score answers by their steps."""

import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from engine_jobs import architecture
from record_jobs import (
    Roles,
    forward_job,
    held_out_job,
    loaded,
    record_job,
    solution,
    transformers_model,
)
from test_engine_records import check_against_transformers, loss_and_gradients, unpacked

from etude.compiler.plan.measures import AccuracyMeasure, LossMeasure
from etude.compiler.plan.plan import JudgeJob, Prm
from etude.compiler.plan.plan import StepScores as Steps
from etude.runtime.data.dialogs.encode import CONTENT
from etude.runtime.data.records.shards import Record, Records, write_records
from etude.runtime.engine.measures.forward import held_out, judge
from etude.runtime.engine.measures.measuring import measuring
from etude.runtime.engine.records import loader as record_loader
from etude.runtime.engine.records.solutions import score_of, step_losses
from etude.runtime.errors import DataError

PRM = Prm()


@pytest.fixture(scope="module")
def begun(roles: Roles, tmp_path_factory: pytest.TempPathFactory) -> tuple[Roles, Any]:
    """A process reward model that has not learned yet, also as transformers has it."""
    folder = tmp_path_factory.mktemp("prm")
    with loaded(record_job(PRM), roles, folder / "job") as trainer:
        trainer.save_result(folder / "result")
    model = transformers_model(folder / "result" / "state", architecture(), score=True)
    return {**roles, "model": folder / "result"}, model


def scores_of(model: Any, record: Record) -> torch.Tensor:
    """What the head says at the last token of each step: shape (steps,)."""
    ends = torch.tensor(np.cumsum(record.branches)[1:] - 1)
    hidden = model.model(torch.from_numpy(record.tokens)[None]).last_hidden_state[0]
    return model.score(hidden[ends])[:, 0]


def expected(model: Any, records: list[Record], objective: Prm) -> torch.Tensor:
    """TRL's loss, one answer at a time: the cross-entropy of two logits for each label."""
    losses = []
    for record in records:
        z, right = scores_of(model, record), torch.tensor(record.labels)
        if objective.loss_on == "last":
            z, right = z[-1:], right[-1:]
        logits = torch.stack([torch.zeros_like(z), z], 1)
        losses.append(F.cross_entropy(logits, right.long(), reduction="none"))
    return torch.cat(losses).mean()


@pytest.mark.parametrize("loss_on", ["all", "last"])
def test_the_loss_is_the_cross_entropy_of_the_labels(
    roles: Roles, begun: tuple[Roles, Any], tmp_path: Path, loss_on: Any
) -> None:
    _, model = begun
    model.zero_grad()
    objective = Prm(loss_on=loss_on)
    check_against_transformers(
        record_job(objective),
        roles,
        tmp_path / "job",
        lambda records: expected(model, records, objective),
        model,
    )


def test_answers_that_share_a_row_have_the_gradients_of_rows_of_their_own(
    roles: Roles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = record_job(PRM)
    packed, ours = loss_and_gradients(job, roles, tmp_path / "packed")
    monkeypatch.setattr(record_loader, "balanced_rows", unpacked)
    single, theirs = loss_and_gradients(job, roles, tmp_path / "single")
    assert packed == pytest.approx(single, rel=1e-5)
    for name, grad in ours.items():
        torch.testing.assert_close(grad, theirs[name], rtol=1e-5, atol=1e-6)


def test_very_sure_scores_have_finite_losses() -> None:
    scores, right = torch.tensor([80.0, -80.0, 80.0]), torch.tensor([True, False, False])
    assert step_losses(scores, right).tolist() == pytest.approx([0.0, 0.0, 80.0])


class Answers:
    """Records as a judge reads them; the last one is too long."""

    def __init__(self, records: list[Record]) -> None:
        self.records = records
        self.count = len(records)

    def read(self, number: int, /) -> tuple[np.ndarray, list[int]]:
        record = self.records[number]
        return record.tokens, (np.cumsum(record.branches)[1:] - 1).tolist()


@pytest.mark.parametrize("combine", ["product", "minimum", "last"])
def test_the_score_of_an_answer_is_made_of_those_of_its_steps(
    begun: tuple[Roles, Any], tmp_path: Path, combine: Any
) -> None:
    given, model = begun
    rng = np.random.default_rng(7)
    records = [solution(rng, 1 + number % 4) for number in range(9)]
    long = replace(records[0], tokens=np.arange(99), branches=(9, 90))
    steps = Steps(separator="\n", combine=combine)
    job = forward_job(JudgeJob, None, dialog={}, by_step=steps)
    judge(
        job,
        Answers([*records, long]),
        given,
        tmp_path,
        root=tmp_path,
        on_event=lambda _: None,
    )
    found = np.load(tmp_path / "result" / "scores.npy")
    assert np.isnan(found).tolist() == [False] * 9 + [True]
    for record, score in zip(records, found, strict=False):
        with torch.no_grad():
            right = scores_of(model, record).double().sigmoid()
        wanted = {"product": right.prod(), "minimum": right.min(), "last": right[-1]}[combine]
        assert score == pytest.approx(wanted.item(), rel=1e-5)


def test_hundreds_of_steps_have_a_product() -> None:
    assert score_of(np.full(400, 3.0), "product") == pytest.approx((1 + np.exp(-3)) ** -400)
    assert score_of(np.full(2000, -3.0), "product") == 0.0
    assert score_of(np.array([900.0, -900.0]), "minimum") == 0.0


def test_accuracy_and_loss_on_held_out_answers(begun: tuple[Roles, Any], tmp_path: Path) -> None:
    """Of the stage that evaluates, and of the evaluation inside training."""
    given, model = begun
    rng = np.random.default_rng(8)
    records = [solution(rng, 1 + number % 3) for number in range(12)]
    options: Any = {"holdout": Fraction(1), "seed": 1, "name": "checked"}
    write_records(records, tmp_path / "data", form="solutions", vocab=512, **options)
    given = {**given, "data:checked": tmp_path / "data"}
    with torch.no_grad():
        z = torch.cat([scores_of(model, record) for record in records])
    right = torch.tensor([label for record in records for label in record.labels])
    said = (z > 0) == right
    measure = AccuracyMeasure(name="accuracy", data=["checked"], of="solutions")
    held_out(
        held_out_job(measure), given, tmp_path / "held", root=tmp_path, on_event=lambda _: None
    )
    found = json.loads((tmp_path / "held" / "result" / "scores.json").read_text())["accuracy"]
    assert found["score"] == pytest.approx(said.double().mean().item())
    assert found["right"] == pytest.approx(right.double().mean().item())
    assert found["right_accuracy"] == pytest.approx(said[right].double().mean().item())
    assert found["wrong_accuracy"] == pytest.approx(said[~right].double().mean().item())
    assert found["steps"] == len(z)
    loss = LossMeasure(name="loss(checked)", data=["checked"], seq_len=64, tokens=10_000)
    with loaded(record_job(PRM), begun[0], tmp_path / "job") as t:
        measured = measuring(t, record_job(PRM), loss, given["data:checked"], None)()
    assert measured["score"] == pytest.approx(step_losses(z, right).mean().item(), rel=1e-5)
    assert (measured["accuracy"], measured["steps"]) == (found["score"], found["steps"])


def test_solutions_are_read_as_they_were_written(tmp_path: Path) -> None:
    parts = np.full(6, CONTENT, np.uint8)
    one = Record(np.arange(6), parts, (2, 3, 1), labels=(True, False))
    two = Record(np.arange(6), parts, (2, 4), labels=(False,))
    options: Any = {"holdout": Fraction(0), "seed": 1, "name": "checked", "vocab": 9}
    write_records([one, two], tmp_path, form="solutions", **options)
    records = Records(tmp_path, "train")
    assert [records.record(i).labels for i in range(2)] == [(True, False), (False,)]
    assert records.step_labels().tolist() == [True, False, False]
    with pytest.raises(ValueError, match="each step has a label"):
        write_records([replace(one, labels=(True,))], tmp_path / "x", form="solutions", **options)
    np.save(tmp_path / "train-labels.npy", np.ones((2, 3), bool))
    with pytest.raises(DataError, match="does not have 2 records"):
        Records(tmp_path, "train")
