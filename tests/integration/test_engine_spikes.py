"""Steps whose gradient is far larger than usual: not taken, or the end of the run."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_jobs import Events, run, same, same_weights, train_job

from etude.compiler.plan.plan import TrainJob
from etude.compiler.values import Saving, Spikes
from etude.runtime.engine.spikes import LEAST
from etude.runtime.engine.trainer import Trainer
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
    run(job("skip", every=5), inputs, tmp_path / "undisturbed")

    def die(event: dict[str, Any]) -> None:
        if event.get("step") == 17:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(job("skip", every=5), inputs, tmp_path / "job", on_event=die)
    events = run(job("skip", every=5), inputs, tmp_path / "job")
    assert [event["step"] for event in events if event["event"] == "spike"] == [BAD]
    assert min(event["step"] for event in events) == 15
    assert same(tmp_path / "job/result/state", tmp_path / "undisturbed/result/state")


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
