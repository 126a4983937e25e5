"""Evaluations inside training: what they measure, that training does not notice them, and what
follows from them."""

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from engine_jobs import (
    Events,
    architecture,
    experts,
    interrupted,
    lr,
    run,
    same,
    same_weights,
    train_job,
)
from record_jobs import (
    ACCURACY,
    SEQ_LEN,
    Roles,
    dpo,
    forward_job,
    held_out_job,
    make_records,
    record_job,
)
from test_engine_ranks import Run, Workplace

from etude.compiler.plan.evaluations import Choice, Evaluation, role
from etude.compiler.plan.measures import LossMeasure
from etude.compiler.plan.plan import NextToken, ReferenceJob, Reward, Sft
from etude.compiler.torchtitan.adapters import adapters
from etude.runtime.engine.measures.forward import held_out, reference
from etude.runtime.errors import DataError
from etude.spec.schema.recipe import Adapter

CHATS = LossMeasure(name="loss(chat)", data=["chat"], seq_len=SEQ_LEN, tokens=400)
PAIRS = LossMeasure(name="loss(prefer)", data=["prefer"], seq_len=SEQ_LEN, tokens=10_000)
WEB = LossMeasure(name="loss(web)", data=["web"], seq_len=32, tokens=500)
EVERY = 3


def watching(job: Any, *measures: LossMeasure, every: int = EVERY, **choice: Any) -> Any:
    """The job with evaluations, of which the first decides if `choice` says what."""
    evaluation = Evaluation(every=every, times=0, measures=list(measures), reading=None)
    changes: dict[str, Any] = {"evaluation": evaluation}
    if choice:
        told = {"patience": None, "best": False, **choice}
        changes["choice"] = Choice(measure=measures[0], every=every, **told)
    return job.model_copy(update=changes)


def given(job: Any, roles: Roles, references: Roles | None = None) -> Roles:
    """The inputs of a job with those of its evaluations."""
    found = dict(roles)
    for measure in job.evaluation.measures:
        (source,) = measure.data
        found[role(measure, job.choice, "data")] = roles[f"data:{source}"]
        if references and source in references:
            found[role(measure, job.choice, "reference")] = references[source]
    return found


def evaluations(events: Events) -> Events:
    return [event for event in events if event["event"] == "evaluation"]


@pytest.fixture(scope="module")
def held(roles: Roles, tmp_path_factory: pytest.TempPathFactory) -> Roles:
    """The inputs of jobs, with half of the records held out."""
    return {**roles, **make_records(tmp_path_factory.mktemp("held"), Fraction(1, 2))}


def scored(roles: Roles, model: Path, folder: Path, measure: Any) -> dict[str, Any]:
    """What a job of its own measures of a model."""
    job = held_out_job(measure)
    inputs = {**roles, "model": model}
    held_out(job, inputs, folder / "heldout", root=folder, on_event=lambda _: None)
    found = json.loads((folder / "heldout" / "result" / "scores.json").read_text())
    return found[measure.name]


@pytest.mark.parametrize(
    "kind",
    [
        "train",
        "experts",
        *(pytest.param(kind, marks=pytest.mark.exhaustive) for kind in ("z_loss", "sft")),
        pytest.param("dpo on chats", marks=pytest.mark.exhaustive),
    ],
)
def test_a_loss_is_that_of_a_job_of_its_own_and_training_does_not_notice(
    held: Roles, tmp_path: Path, kind: str
) -> None:
    """After 7 steps, two of them evaluated on the way, and the last one."""
    measure, roles = WEB if kind in ("train", "z_loss", "experts") else CHATS, dict(held)
    if kind == "experts":
        roles.pop("model")
        # The bias by which routers balance experts moves with the tokens that they count.
        job = train_job(steps=7, model=architecture(family="qwen3", experts=experts(balance=1e-3)))
    elif measure is WEB:
        terms = NextToken(z_loss=0.01) if kind == "z_loss" else NextToken()
        job = train_job(steps=7).model_copy(update={"objective": terms})
    else:
        job = record_job(Sft() if kind == "sft" else dpo(), steps=7)
    if kind == "dpo on chats":
        roles["reference:prefer"] = _reference(held, tmp_path, "train")
    plain = run(job, roles, tmp_path / "plain")
    watched = watching(job, measure)
    events = run(watched, given(watched, roles), tmp_path / "watched")
    assert same_weights(tmp_path / "plain/result/state", tmp_path / "watched/result/state")
    assert _figures(plain) == _figures(events)
    found = evaluations(events)
    assert [event["step"] for event in found] == [2, 5, 6]
    assert [event["tokens"] for event in found] == [plain[n]["tokens"] for n in (2, 5, 6)]
    if kind == "experts":
        return  # jobs that only read are built for the model of `held_out_job`
    expected = scored(held, tmp_path / "watched" / "result", tmp_path, measure)
    last = found[-1]["scores"][measure.name]
    assert last["score"] == pytest.approx(expected["score"], rel=1e-5)
    assert last["tokens"] == expected["tokens"]
    assert len({event["scores"][measure.name]["score"] for event in found}) == 3


def _figures(events: Events) -> list[dict[str, Any]]:
    """What steps say that no clock has a part in."""
    clock = {"seconds", "data_seconds", "tokens_per_second", "tflops"}
    steps = [event for event in events if event["event"] == "step"]
    return [{name: of for name, of in event.items() if name not in clock} for event in steps]


def _reference(roles: Roles, folder: Path, split: Any) -> Path:
    job = forward_job(ReferenceJob, "prefer", split=split)
    given = {**roles, "model": roles["other"]}
    reference(job, given, folder / f"reference {split}", root=folder, on_event=lambda _: None)
    return folder / f"reference {split}" / "result"


def test_a_reward_model_is_measured_on_all_ordered_pairs(held: Roles, tmp_path: Path) -> None:
    job = watching(record_job(Reward(), steps=4), PAIRS)
    last = evaluations(run(job, given(job, held), tmp_path / "job"))[-1]["scores"][PAIRS.name]
    expected = scored(held, tmp_path / "job" / "result", tmp_path, ACCURACY)
    assert last["pairs"] == expected["pairs"] > 30
    assert last["accuracy"] == expected["score"]
    assert last["margin"] == pytest.approx(expected["margin"], rel=1e-4)
    assert 0 < last["score"] < 2


def test_dpo_is_measured_against_the_reference_of_the_held_out_pairs(
    held: Roles, tmp_path: Path
) -> None:
    """The log-probabilities of the policy are those that a reference job computes of it."""
    objective = dpo(nll=0.0)
    job = watching(record_job(objective, steps=4), PAIRS)
    theirs = _reference(held, tmp_path, "heldout")
    roles = {**held, "reference:prefer": _reference(held, tmp_path, "train")}
    events = run(job, given(job, roles, {"prefer": theirs}), tmp_path / "job")
    last = evaluations(events)[-1]["scores"][PAIRS.name]
    own = _reference({**held, "other": tmp_path / "job" / "result"}, tmp_path / "own", "heldout")
    ratio = np.load(own / "reference.npy") - np.load(theirs / "reference.npy")
    # Behind the best response come one or two others.
    worst = np.where(np.isnan(ratio[:, 2]), ratio[:, 1], ratio[:, 2])
    margin = torch.from_numpy(objective.beta * (ratio[:, 0] - worst)).double()
    assert last["pairs"] == len(margin)
    assert last["margin"] == pytest.approx(margin.mean().item(), rel=1e-3, abs=1e-5)
    assert last["accuracy"] == (margin > 0).double().mean().item()
    loss = -torch.nn.functional.logsigmoid(margin).mean().item()
    assert last["score"] == pytest.approx(loss, rel=1e-5)


# What follows from a loss

STEPS = 24
BEST = 8
BAD = 1.0
"""A rate at which every step makes it worse."""


def worsening(steps: int = STEPS, **choice: Any) -> Any:
    """A job whose loss falls for 8 steps and rises afterwards."""
    rates = [lr(0, BEST, "hold", 2e-3, 2e-3), lr(BEST, STEPS, "hold", BAD, BAD)]
    if steps <= BEST:
        rates = [lr(0, steps, "hold", 2e-3, 2e-3)]
    elif steps < STEPS:
        rates[1] = lr(BEST, steps, "hold", BAD, BAD)
    job = train_job(steps=steps, schedule_lr=rates, checkpoint_every=5)
    return watching(job, WEB, every=2, **choice) if choice else job


def positions(result: Path) -> dict[str, int]:
    return json.loads((result / "positions.json").read_text())


@pytest.fixture(scope="module")
def web(inputs: Roles) -> Roles:
    """The inputs of a job that begins with random weights, and of what it measures."""
    return given(worsening(patience=1), inputs)


def test_a_stage_ends_when_the_loss_no_longer_falls(web: Roles, tmp_path: Path) -> None:
    """The lowest loss is after 8 steps; those after 10, 12 and 14 are not lower."""
    events = run(worsening(patience=3), web, tmp_path / "job")
    found = evaluations(events)
    assert [event["step"] + 1 for event in found] == [2, 4, 6, 8, 10, 12, 14]
    assert [event["best"] for event in found] == [True] * 4 + [False] * 3
    assert [event["ends"] for event in found] == [False] * 6 + [True]
    assert _figures(events)[-1]["step"] == 13
    run(worsening(14), web, tmp_path / "shorter")
    assert same(tmp_path / "job/result/state", tmp_path / "shorter/result/state")
    assert positions(tmp_path / "job/result") == positions(tmp_path / "shorter/result")


@pytest.mark.parametrize("patience", [pytest.param(None, marks=pytest.mark.exhaustive), 3])
def test_the_best_checkpoint_is_the_result_as_if_the_stage_had_ended_there(
    web: Roles, tmp_path: Path, patience: int | None
) -> None:
    events = run(worsening(best=True, patience=patience), web, tmp_path / "job")
    assert _figures(events)[-1]["step"] + 1 == (STEPS if patience is None else 14)
    run(worsening(BEST), web, tmp_path / "shorter")
    assert same(tmp_path / "job/result/state", tmp_path / "shorter/result/state")
    assert positions(tmp_path / "job/result") == positions(tmp_path / "shorter/result")
    assert not (tmp_path / "job/checkpoints").exists()


def test_adapters_of_the_best_checkpoint_are_merged(inputs: Roles, tmp_path: Path) -> None:
    run(train_job(steps=20, schedule_lr=[lr(0, 20, "hold", 5e-3, 5e-3)]), inputs, tmp_path / "base")
    roles = {**inputs, "model": tmp_path / "base" / "result"}
    lora = adapters(Adapter(name="lora", rank=4), architecture())
    rates = [lr(0, 4, "hold", 1e-3, 1e-3), lr(4, 12, "hold", BAD, BAD)]
    job = train_job(steps=12, schedule_lr=rates, torchtitan=lora)
    job = watching(job, WEB, every=4, best=True)
    found = evaluations(run(job, given(job, roles), tmp_path / "job"))
    assert [event["best"] for event in found] == [True, False, False]
    run(train_job(steps=4, schedule_lr=rates[:1], torchtitan=lora), roles, tmp_path / "shorter")
    for part in ("state", "weights"):
        assert same(tmp_path / "job/result" / part, tmp_path / "shorter/result" / part)


def test_if_the_last_is_best_it_is_the_result(web: Roles, tmp_path: Path) -> None:
    run(watching(worsening(BEST), WEB, every=2, best=True), web, tmp_path / "job")
    run(worsening(BEST), web, tmp_path / "plain")
    assert same(tmp_path / "job/result/state", tmp_path / "plain/result/state")


@pytest.mark.parametrize(
    "cut",
    [
        pytest.param(9, marks=pytest.mark.exhaustive),
        17,
        pytest.param(23, marks=pytest.mark.exhaustive),
    ],
)
def test_cut_off_and_resumed_it_decides_the_same(web: Roles, tmp_path: Path, cut: int) -> None:
    """The best checkpoint, of step 8, outlives the newest two."""
    job, events = worsening(best=True, patience=9), list[dict[str, Any]]()

    def until(event: dict[str, Any]) -> None:
        if event["event"] == "step" and event["step"] == cut:
            raise Enough
        events.append(event)

    with pytest.raises(Enough):
        run(job, web, tmp_path / "job", on_event=until)
    assert (tmp_path / "job/checkpoints/step-8").is_dir()
    events += run(job, web, tmp_path / "job")
    run(job, web, tmp_path / "whole")
    assert same(tmp_path / "job/result/state", tmp_path / "whole/result/state")
    losses = {event["step"]: event["scores"] for event in evaluations(events)}
    assert len(losses) == STEPS // 2
    for event in evaluations(events):  # what is measured twice is equal
        assert losses[event["step"]] == event["scores"]


class Enough(Exception):
    """Ends a job in the middle."""


def test_evaluations_may_come_to_a_job_that_has_begun(inputs: Roles, tmp_path: Path) -> None:
    """They are not part of its key, so it goes on from a checkpoint that knows of none."""
    interrupted(train_job(steps=10), inputs, tmp_path / "job", lost=7)
    job = watching(train_job(steps=10), WEB)
    found = evaluations(run(job, given(job, inputs), tmp_path / "job"))
    assert [event["step"] for event in found] == [5, 8, 9]


def test_nothing_held_out_is_said_before_the_first_step(roles: Roles, tmp_path: Path) -> None:
    job, events = watching(record_job(Sft(), steps=2), CHATS), []
    with pytest.raises(DataError, match="holds no dialogs out"):
        run(job, given(job, roles), tmp_path / "job", on_event=events.append)
    assert not events


LAYOUTS = ("shard", "tensor", "pipeline")


def placed(layout: str) -> Any:
    """A job of four steps on two ranks."""
    mesh = {} if layout == "shard" else {f"{layout}_parallel_degree": 2}
    if layout == "pipeline":
        mesh |= {"pipeline_parallel_microbatch_size": 1}
    job = train_job(steps=4, world_size=2, torchtitan={"parallelism": mesh})
    if layout != "shard":
        degrees = {**vars(job.resources), "shard": 1, layout: 2}
        job = job.model_copy(update={"resources": type(job.resources)(**degrees)})
    return watching(job, WEB)


@pytest.fixture(scope="module")
def two_ranks(inputs: Roles, tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    place = Workplace(given(placed("shard"), inputs), tmp_path_factory.mktemp("two_ranks"))
    assert place.run(*(Run(placed(layout), layout) for layout in LAYOUTS)) == 0
    return place


@pytest.fixture(scope="module")
def one_rank(inputs: Roles, tmp_path_factory: pytest.TempPathFactory) -> Events:
    job = watching(train_job(steps=4), WEB)
    return evaluations(run(job, given(job, inputs), tmp_path_factory.mktemp("one_rank")))


@pytest.mark.exhaustive
@pytest.mark.parametrize("layout", LAYOUTS)
def test_two_ranks_measure_what_one_does(
    two_ranks: Workplace, one_rank: Events, layout: str
) -> None:
    found = evaluations(two_ranks.events(layout))
    assert [event["step"] for event in found] == [2, 3]
    for ours, theirs in zip(found, one_rank, strict=True):
        score, other = (event["scores"][WEB.name] for event in (ours, theirs))
        assert score["tokens"] == other["tokens"]
        assert score["score"] == pytest.approx(other["score"], rel=1e-5)
