"""Steps whose gradient is far larger than usual: not taken, the end of the run, or where it goes
back."""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_jobs import (
    Events,
    interrupted_and_resumed,
    rolling,
    run,
    same,
    same_weights,
    spoiled,
    tensors,
    train_job,
)

from etude.compiler.plan.plan import TrainJob
from etude.compiler.schedule.timeline import Timeline
from etude.compiler.values import Saving, Spikes
from etude.runtime.engine.trainer import Trainer
from etude.runtime.engine.updates.rollbacks import Rollback
from etude.runtime.engine.updates.spikes import LEAST
from etude.runtime.errors import Stopped

BAD = 20
"""The step with the spike."""
Disturb = Callable[[dict[int, float]], None]


def job(do: Any, every: int = 1, steps: int = 24) -> TrainJob:
    saving = Saving(every=every, seconds=None, last=None)
    made = train_job(steps=steps, saving=saving)
    return made.model_copy(update={"spikes": Spikes(do=do, above=10.0)})


@pytest.fixture
def disturb(monkeypatch: pytest.MonkeyPatch) -> Disturb:
    """Multiplies the gradients of steps, as broken data would, and the losses with them."""
    real = Trainer.forward_backward_step

    def use(factors: dict[int, float]) -> None:
        def disturbed(self: Trainer, **arguments: Any) -> torch.Tensor:
            loss = real(self, **arguments)
            factor = factors.get(self.job.first_step + self.step - 1, 1.0)
            for part in self.model_parts:
                for parameter in part.parameters():
                    if parameter.grad is not None:
                        parameter.grad.mul_(factor)
            return loss * factor

        monkeypatch.setattr(Trainer, "forward_backward_step", disturbed)

    return use


def test_a_spike_moves_no_weight_and_is_told(
    inputs: dict[str, Path], tmp_path: Path, disturb: Disturb
) -> None:
    disturb({BAD: 1000.0})
    events = run(job("skip"), inputs, tmp_path / "job")
    (told,) = [event for event in events if event["event"] == "spike"]
    assert (told["job"], told["step"]) == ("toy", BAD)
    assert told["grad_norm"] > 10 * told["usual"]
    assert f"step {BAD} of toy is not taken: the gradient norm is" in told["message"]
    steps = [event for event in events if event["event"] == "step"]
    assert [event["step"] for event in steps] == list(range(24))
    assert [event["step"] for event in steps if "spike" in event] == [BAD]
    assert steps[BAD]["spike"] == pytest.approx(told["grad_norm"] / told["usual"])
    saved = tmp_path / "job" / "result" / "checkpoints"
    assert same_weights(saved / f"step-{BAD}", saved / f"step-{BAD + 1}")
    assert not same_weights(saved / f"step-{BAD + 1}", saved / f"step-{BAD + 2}")


def test_resumed_it_decides_as_it_would_have(
    inputs: dict[str, Path], tmp_path: Path, disturb: Disturb
) -> None:
    """The norms before the checkpoint count: without them, nothing would be usual yet."""
    assert BAD - 15 < LEAST <= BAD
    disturb({BAD: 1000.0})
    skipping = job("skip", every=5)
    events = interrupted_and_resumed(
        skipping, inputs, tmp_path, lost=17, again=[*range(15, skipping.steps)]
    )
    assert [event["step"] for event in events if event["event"] == "spike"] == [BAD]


def test_before_anything_is_usual_only_what_is_not_finite_is_a_spike(
    inputs: dict[str, Path], tmp_path: Path, disturb: Disturb
) -> None:
    disturb({3: 1000.0, 5: math.nan})
    events = run(job("skip", steps=8), inputs, tmp_path / "job")
    (told,) = [event for event in events if event["event"] == "spike"]
    assert told["step"] == 5
    assert "grad_norm" not in told
    assert told["message"].endswith("the gradient is not finite")
    steps = [event for event in events if event["event"] == "step"]
    assert [event["step"] for event in steps] == [0, 1, 2, 3, 4, 6, 7]
    assert all(math.isfinite(event["loss"]) for event in steps)
    saved = tmp_path / "job" / "result" / "checkpoints"
    assert same_weights(saved / "step-5", saved / "step-6")


def test_a_run_that_stops_at_spikes_keeps_what_was_before(
    inputs: dict[str, Path], tmp_path: Path, disturb: Disturb
) -> None:
    disturb({BAD: 1000.0})
    events: Events = []
    said = rf"the gradient norm is .* times the usual .*, at step {BAD} of stage `toy`"
    with pytest.raises(Stopped, match=said) as stopped:
        run(job("stop"), inputs, tmp_path / "job", on_event=events.append)
    assert "look at the data of that step" in stopped.value.help
    assert [event["step"] for event in events] == list(range(BAD))
    disturb({})
    again = run(job("stop"), inputs, tmp_path / "job")
    assert [event["step"] for event in again] == list(range(BAD, 24))


def spoil(monkeypatch: pytest.MonkeyPatch, *steps: int) -> None:
    """Spoils the data that an undisturbed job reads at these steps."""
    monkeypatch.setattr(Trainer, "forward_backward_step", spoiled(rolling(), steps))


@pytest.fixture(scope="module")
def rolled_back(inputs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run whose data of step 20 are spoiled; with its events."""
    folder = tmp_path_factory.mktemp("rolled_back")
    with pytest.MonkeyPatch.context() as patch:
        spoil(patch, BAD)
        events = run(rolling(), inputs, folder / "job")
    (folder / "events.json").write_text(json.dumps(events))
    return folder


def test_a_rollback_goes_back_and_reads_later_data(
    inputs: dict[str, Path], rolled_back: Path, tmp_path: Path
) -> None:
    events = json.loads((rolled_back / "events.json").read_text())
    (told,) = [event for event in events if event["event"] == "rollback"]
    assert (told["number"], told["step"], told["to"]) == (1, BAD, 15)
    assert told["grad_norm"] > 10 * told["usual"]
    assert told["message"].endswith(
        "training goes back to step 15 and passes over the data since then"
    )
    steps = [event["step"] for event in events if event["event"] == "step"]
    assert steps == [*range(BAD), *range(15, 24)]
    # The same as two jobs, the second of which begins with the data after the spike.
    before = rolling(steps=15).model_copy(update={"spikes": None})
    run(before, inputs, tmp_path / "before")
    drawn = Timeline.of(rolling()).drawn_before(BAD + 1)
    tokens = {source: count * before.seq_len for source, count in drawn.items()}
    after = rolling(steps=9, first_step=15, first_tokens=tokens, optimizer_state="carry")
    run(
        after.model_copy(update={"spikes": None}),
        inputs | {"model": tmp_path / "before/result"},
        tmp_path / "after",
    )
    state, other = (
        {n: t for n, t in tensors(folder / "result/state").items() if not n.startswith("spikes.")}
        for folder in (rolled_back / "job", tmp_path / "after")
    )
    assert state.keys() == other.keys()
    assert all(torch.equal(state[name], other[name]) for name in state)
    read = [json.loads((f / "result/positions.json").read_text()) for f in (tmp_path / "after",)]
    assert json.loads((rolled_back / "job/result/positions.json").read_text()) == read[0]


@pytest.mark.parametrize("killed_at", ["rollback", 16, None])
def test_killed_in_or_after_a_rollback_it_ends_with_the_same_bits(
    killed_at: Any,
    inputs: dict[str, Path],
    rolled_back: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """None: not killed, but made again from its beginning, by a run that knows of the rollback."""
    spoil(monkeypatch, BAD)
    known: list[Rollback] = [Rollback(1, BAD, 15)] if killed_at is None else []
    gone_back = False

    def die(event: dict[str, Any]) -> None:
        nonlocal gone_back
        if event["event"] == killed_at or (gone_back and event.get("step") == killed_at):
            raise KeyboardInterrupt
        if event["event"] == "rollback":
            gone_back = True
            known.append(Rollback.of(event))

    if killed_at is not None:
        with pytest.raises(KeyboardInterrupt):
            run(rolling(), inputs, tmp_path / "job", on_event=die)
        assert bool(known) == (killed_at == 16)
    events = run(rolling(), inputs, tmp_path / "job", rollbacks=known)
    assert [e["step"] for e in events if e["event"] == "rollback"] == [BAD] * (not known)
    assert same(tmp_path / "job/result/state", rolled_back / "job/result/state")
    assert [f.name for f in (tmp_path / "job").iterdir()] == ["result"]


@pytest.mark.parametrize("how", ["gone", "damaged"])
def test_without_the_checkpoint_to_go_back_to_it_ends_with_the_same_bits(
    how: str,
    inputs: dict[str, Path],
    rolled_back: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It goes on from the one before, and reads what it has read up to there."""
    spoil(monkeypatch, BAD)
    events: Events = []

    def lose(event: dict[str, Any]) -> None:
        events.append(event)
        if event["event"] == "rollback":
            saved = tmp_path / "job" / "checkpoints" / f"step-{event['to']}"
            if how == "gone":
                shutil.rmtree(saved)
            else:
                (shard,) = saved.glob("*.distcp")
                shard.write_bytes(b"?" + shard.read_bytes()[1:])

    run(rolling(), inputs, tmp_path / "job", on_event=lose)
    back = events[[event["event"] for event in events].index("rollback") + 1 :]
    said = [event["message"] for event in back if event["event"] == "warning"]
    assert [one.endswith("; going from step 10 of the job") for one in said] == [True] * (
        how == "damaged"
    )
    assert [event["step"] for event in back if event["event"] == "step"] == [*range(10, 24)]
    assert same(tmp_path / "job/result/state", rolled_back / "job/result/state")


def test_it_goes_back_twice_in_a_row(
    inputs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first step after a rollback is a spike, too: the second goes further back."""
    last, steps = 25, 30
    spoil(monkeypatch, last, last + 1)
    events = run(rolling(steps), inputs, tmp_path / "job")
    told = [(e["number"], e["step"], e["to"]) for e in events if e["event"] == "rollback"]
    assert told == [(1, last, 20), (2, 20, 15)]
    taken = [event["step"] for event in events if event["event"] == "step"]
    assert taken == [*range(last), *range(15, steps)]
    # 26 steps of data and that of the second spike are behind; 15 more follow.
    read = json.loads((tmp_path / "job/result/positions.json").read_text())
    drawn = Timeline.of(rolling(steps)).drawn_before(steps)
    passed = {name: read[name] // 32 - drawn.get(name, 0) for name in read}
    assert sum(passed.values()) == 4 * (last + 2 - 15)


def test_a_job_goes_back_only_so_often(
    inputs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disturbed = spoiled(rolling(), range(24), math.inf)
    monkeypatch.setattr(Trainer, "forward_backward_step", disturbed)
    events: Events = []
    said = "the gradient is not finite, at step 0 of stage `toy`, and training has already gone"
    with pytest.raises(Stopped, match=f"{said} back 2 times") as stopped:
        run(rolling(at_most=2), inputs, tmp_path / "job", on_event=events.append)
    assert "raise `at_most` of `spikes`" in stopped.value.help
    assert [(e["number"], e["step"], e["to"]) for e in events] == [(1, 0, 0), (2, 0, 0)]
