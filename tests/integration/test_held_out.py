"""Losses and accuracies on held-out data: what transformers says of the same weights."""

import json
from collections.abc import Iterator
from fractions import Fraction
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from engine_jobs import architecture, run
from record_jobs import (
    ACCURACY,
    LOSSES,
    SEQ_LEN,
    Roles,
    held_out_job,
    make_records,
    record_job,
    responses_of,
    transformers_model,
)
from torch.nn.functional import cross_entropy

from etude.compiler.plan.measures import LossMeasure
from etude.compiler.plan.plan import Reward
from etude.runtime.data.dialogs.encode import CONTENT, TERMINATION
from etude.runtime.data.records.shards import Records
from etude.runtime.data.tokens.shards import Shards, write_shards
from etude.runtime.data.tokens.tokenizer import byte_level
from etude.runtime.engine.measures.forward import held_out
from etude.runtime.engine.measures.held_out import ranked
from etude.runtime.errors import DataError


@pytest.fixture(scope="module")
def given(roles: Roles, tmp_path_factory: pytest.TempPathFactory) -> Roles:
    """The inputs of jobs, with half of the records held out."""
    return {**roles, **make_records(tmp_path_factory.mktemp("held"), Fraction(1, 2))}


def scores(given: Roles, folder: Path, *measures: Any) -> dict[str, Any]:
    job = held_out_job(*measures)
    held_out(job, given, folder / "job", root=folder, on_event=lambda _: None)
    return json.loads((folder / "job" / "result" / "scores.json").read_text())


@torch.no_grad()
def summed(model: Any, tokens: np.ndarray, counts: np.ndarray) -> tuple[float, int]:
    """Cross-entropy of the tokens that count, added up, and how many they are."""
    logits = model(torch.from_numpy(tokens[None, :-1].astype(np.int64))).logits[0]
    labels = torch.from_numpy(np.where(counts[1:], tokens[1:], -100).astype(np.int64))
    return cross_entropy(logits, labels, reduction="sum").item(), int(counts[1:].sum())


def windows(folder: Path, length: int, limit: int) -> Iterator[np.ndarray]:
    shards, total = Shards(folder, "heldout"), 0
    for number in range(shards.documents):
        document = shards.document(number)
        for begin in range(0, len(document) - 1, length):
            yield document[begin : begin + length + 1]
            total += len(document[begin : begin + length + 1]) - 1
            if total >= limit:
                return


def test_losses_are_those_of_transformers(given: Roles, tmp_path: Path) -> None:
    found = scores(given, tmp_path, *LOSSES)
    model = transformers_model(given["model"] / "state", architecture())
    documents = {
        source: [
            summed(model, each, np.ones(len(each), bool))
            for each in windows(given[f"data:{source}"], 16, 150)
        ]
        for source in ("web", "code")
    }
    nats, tokens = np.sum([each for of in documents.values() for each in of], 0)
    assert found["documents"]["tokens"] == tokens > 300
    assert found["documents"]["score"] == pytest.approx(nats / tokens, abs=1e-5)
    for source, of in documents.items():
        mean = np.divide(*np.sum(of, 0))
        assert found["documents"]["sources"][source] == pytest.approx(mean, abs=1e-5)
    records = Records(given["data:chat"], "heldout")
    for name, learned in (("chats", [CONTENT, TERMINATION]), ("whole", range(5))):
        every = [records.record(number) for number in range(records.count)]
        sums = [summed(model, each.tokens, np.isin(each.parts, [*learned])) for each in every]
        nats, tokens = np.sum(sums, 0)
        assert found[name]["tokens"] == tokens
        assert found[name]["score"] == pytest.approx(nats / tokens, abs=1e-5)
    assert found["chats"]["tokens"] < found["whole"]["tokens"]


def test_accuracy_is_the_share_of_pairs_that_are_ranked_right(given: Roles, tmp_path: Path) -> None:
    run(record_job(Reward(), steps=2), given, tmp_path / "rm")
    result = tmp_path / "rm" / "result"
    found = scores({**given, "model": result}, tmp_path, ACCURACY)["accuracy"]
    model = transformers_model(result / "state", architecture(), score=True)
    model.config.pad_token_id = None
    records, margins = Records(given["data:prefer"], "heldout"), []
    for number in range(records.count):
        with torch.no_grad():
            rewards = [
                model(tokens[None]).logits.item()
                for tokens, _ in responses_of(records.record(number))
            ]
        margins += [better - worse for better, worse in combinations(rewards, 2)]
    assert found["pairs"] == len(margins) > 30
    assert found["score"] == np.mean([each > 0 for each in margins])
    assert 0.1 < found["score"] < 0.9
    assert found["margin"] == pytest.approx(np.mean(margins), abs=1e-5)
    assert found["sources"] == {"prefer": found["score"]}


def test_nothing_held_out_is_said(roles: Roles, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no dialogs out") as problem:
        scores(roles, tmp_path, LOSSES[1])
    assert "holdout = 5%" in (problem.value.help or "")
    with pytest.raises(DataError, match="no preferences out"):
        ranked(ACCURACY, held_out_job(ACCURACY), roles["data:prefer"], "prefer")


def test_no_documents_held_out_is_said(roles: Roles, tmp_path: Path) -> None:
    write_shards(["a cat"], byte_level(), tmp_path / "d", holdout=Fraction(0), seed=1, name="d")
    none = {**roles, "data:web": tmp_path / "d"}
    wanted = LossMeasure(name="loss", data=["web"], seq_len=SEQ_LEN, tokens=100)
    with pytest.raises(DataError, match="`web` holds no documents out"):
        scores(none, tmp_path, wanted)
