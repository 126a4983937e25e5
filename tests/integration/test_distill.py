"""A student learns a teacher's probabilities: all of them, or the likeliest and the rest."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from engine_jobs import architecture, interrupted_and_resumed
from record_jobs import Roles, forward_job, preference, record_job, transformers_model
from test_engine_records import check_against_transformers

from etude.compiler.plan.plan import Distill, TeacherJob
from etude.runtime.data.dialogs.encode import CONTENT, TERMINATION
from etude.runtime.data.records.shards import Record, Records, write_records
from etude.runtime.engine import heads
from etude.runtime.engine.measures.teaching import teach
from etude.runtime.engine.records.distill import Taught
from etude.runtime.errors import DataError


def taught(roles: Roles, folder: Path, **changes: Any) -> Roles:
    """The roles with what the other model says of the dialogs."""
    job = forward_job(TeacherJob, "chat", **changes)
    given = {**roles, "model": roles["other"]}
    teach(job, given, folder, root=folder.parent, on_event=lambda _: None)
    return {**roles, "teacher:chat": folder / "result"}


def learned_places(record: Record, every: bool) -> torch.Tensor:
    counts = np.isin(record.parts, (CONTENT, TERMINATION)) | every
    return torch.from_numpy(np.flatnonzero(counts[1:]))


def expected(
    student: Any, teacher: Any, records: list[Record], objective: Distill, *, every: bool
) -> torch.Tensor:
    """The divergence over the whole vocabulary, or over the likeliest tokens and the rest."""
    values = []
    for record in records:
        tokens, places = torch.from_numpy(record.tokens)[None], learned_places(record, every)
        q = (student(tokens).logits[0][places] / objective.temperature).softmax(-1)
        with torch.no_grad():
            p = (teacher(tokens).logits[0][places] / objective.temperature).softmax(-1)
        if objective.top_k < p.shape[1]:
            ids = p.topk(objective.top_k).indices
            p, q = (
                torch.cat([of.gather(1, ids), 1 - of.gather(1, ids).sum(1, keepdim=True)], 1)
                for of in (p, q)
            )
        m = (p + q) / 2
        values.append(
            {
                "forward_kl": (p * (p / q).log()).sum(1),
                "reverse_kl": (q * (q / p).log()).sum(1),
                "jsd": ((p * (p / m).log()).sum(1) + (q * (q / m).log()).sum(1)) / 2,
            }[objective.divergence]
        )
    return torch.cat(values).mean()


@pytest.mark.parametrize(
    ("objective", "every"),
    [
        (Distill(divergence="forward_kl", temperature=1.0, top_k=512), False),
        (Distill(divergence="forward_kl", temperature=0.5, top_k=400, loss_on="all"), True),
        (Distill(divergence="reverse_kl", temperature=0.5, top_k=400), False),
        (Distill(divergence="jsd", temperature=0.25, top_k=400, counts="dialogs"), False),
    ],
)
def test_distillation_is_the_divergence_from_the_teacher(
    roles: Roles,
    tmp_path: Path,
    objective: Distill,
    every: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(heads, "PIECE", 7)
    given = taught(
        roles,
        tmp_path / "teacher",
        temperature=objective.temperature,
        top_k=objective.top_k,
        every_token=every,
    )
    student, teacher = (
        transformers_model(roles[name] / "state", architecture()) for name in ("model", "other")
    )
    check_against_transformers(
        record_job(objective),
        given,
        tmp_path / "job",
        lambda records: expected(student, teacher, records, objective, every=every),
        student,
    )


def test_what_a_student_has_written_is_learned_like_dialogs(roles: Roles, tmp_path: Path) -> None:
    """The stage `toy` learns from its own answers alone, whose loss is at the answers' tokens."""
    rng = np.random.default_rng(5)
    written = [preference(rng, 1) for _ in range(24)]
    options: Any = {"holdout": Fraction(0), "seed": 0, "name": "toy"}
    write_records(written, tmp_path / "own", form="rollouts", vocab=512, **options)
    given = {**roles, "data:toy": tmp_path / "own"}
    job = forward_job(TeacherJob, "toy", form="rollouts", top_k=400)
    read = {**given, "model": roles["other"]}
    teach(job, read, tmp_path / "teacher", root=tmp_path, on_event=lambda _: None)
    given["teacher:toy"] = tmp_path / "teacher" / "result"
    student, teacher = (
        transformers_model(roles[name] / "state", architecture()) for name in ("model", "other")
    )
    objective = Distill(divergence="reverse_kl", temperature=1.0, top_k=400, counts="dialogs")
    check_against_transformers(
        record_job(objective, mixture=[(0, {"toy": 1})]),
        given,
        tmp_path / "job",
        lambda records: expected(student, teacher, records, objective, every=False),
        student,
    )


def test_a_teacher_keeps_its_likeliest_tokens_of_each_record(roles: Roles, tmp_path: Path) -> None:
    """Of the tokens that the student has, as if there were no others."""
    given = taught(roles, tmp_path / "teacher", temperature=2.0, top_k=3, vocab=100)
    records = Records(roles["data:chat"], "train")
    found = Taught(given["teacher:chat"], records.count, 3)
    model = transformers_model(roles["other"] / "state", architecture())
    for number in (0, 31, records.count - 1):
        record = records.record(number)
        with torch.no_grad():
            logits = model(torch.from_numpy(record.tokens)[None]).logits[0, :, :100]
        logs = (logits[learned_places(record, False)] / 2).log_softmax(-1)
        values, ids = logs.topk(3)
        logs_of, ids_of = np.split(found.of(number), 2, axis=1)
        np.testing.assert_allclose(logs_of, values.numpy(), rtol=1e-5)
        assert ids_of.tolist() == ids.tolist()
    with pytest.raises(DataError, match="does not match the dialogs"):
        Taught(given["teacher:chat"], records.count, 4)
    with pytest.raises(DataError, match="cannot be read"):
        Taught(tmp_path, records.count, 3)


def test_it_resumes_bit_for_bit_and_ends_nearer_to_the_teacher(
    roles: Roles, tmp_path: Path
) -> None:
    given = taught(roles, tmp_path / "teacher")
    objective = Distill(temperature=1.0, top_k=16)
    job = record_job(objective, steps=12, batch=8, checkpoint_every=6)
    events = interrupted_and_resumed(job, given, tmp_path, lost=8, again=[*range(6, 12)])
    assert events[-1]["loss"] < 0.9 * events[0]["loss"]
    assert 0 < events[0]["kept"] < 1
