"""The loader reads ahead: its state, its errors and its end are those of what it hands out."""

import threading
from pathlib import Path

import pytest
import torch
from engine_jobs import train_job
from torchtitan.tools import utils

from etude.compiler.schedule.timeline import Timeline
from etude.runtime.data.order.stream import Stream
from etude.runtime.data.tokens.shards import Shards
from etude.runtime.engine.loader import Loader
from etude.runtime.errors import DataError


def loader(inputs: dict[str, Path], *, vocab: int = 512, steps: int = 6) -> Loader:
    config = Loader.Config(
        timeline=Timeline.of(train_job(steps=steps, mixture=[(0, {"web": 1})])),
        streams={"web": Stream(Shards(inputs["data:web"], "train"), seed=7, name="web")},
        first_tokens={"web": 0},
        vocab=vocab,
    )
    return Loader(config, dp_world_size=1, dp_rank=0, local_batch_size=2)


def readers() -> int:
    return sum(each.name == "etude-reads-ahead" for each in threading.enumerate())


def test_a_job_has_its_steps_and_no_more(inputs: dict[str, Path]) -> None:
    made = loader(inputs)
    assert len(list(made)) == 6 * 2
    assert made.state_dict() == {"steps": 6}
    assert readers() == 0


def test_closing_ends_the_thread_and_keeps_the_state(inputs: dict[str, Path]) -> None:
    made = loader(inputs, steps=20)  # more than is read ahead: the thread has to wait
    batches = iter(made)
    for _ in range(5):
        next(batches)
    assert readers() == 1
    made.close()
    assert readers() == 0
    assert made.state_dict() == {"steps": 2}


def test_iterating_again_begins_with_the_state(inputs: dict[str, Path]) -> None:
    made = loader(inputs)
    batches = list(made)
    made.load_state_dict({"steps": 4})
    again = list(made)
    assert len(again) == 4
    for (one, _), (two, _) in zip(batches[8:], again, strict=True):
        assert torch.equal(one["input"], two["input"])


def test_an_error_reaches_the_thread_that_trains(inputs: dict[str, Path]) -> None:
    with pytest.raises(DataError, match="`web` has the token"):
        next(iter(loader(inputs, vocab=100)))
    assert readers() == 0


def test_on_a_gpu_batches_are_pinned_by_a_thread_of_that_gpu(
    inputs: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a GPU, what would be called is looked at."""
    seen: list[tuple[str, str]] = []

    class Gpu:
        def current_device(self) -> int:
            return 3

        def set_device(self, device: int) -> None:
            seen.append((f"device {device}", threading.current_thread().name))

    def pin(tensor: torch.Tensor) -> torch.Tensor:
        seen.append(("pinned", threading.current_thread().name))
        return tensor

    monkeypatch.setattr(utils, "device_type", "cuda")
    monkeypatch.setattr(utils, "device_module", Gpu())
    monkeypatch.setattr(torch.Tensor, "pin_memory", pin)
    assert len(list(loader(inputs))) == 12
    assert seen == [
        ("device 3", "etude-reads-ahead"),
        *[("pinned", "etude-reads-ahead")] * (12 * 3),
    ]
