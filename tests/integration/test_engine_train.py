"""One rank trains as the plan says, and says so; it resumes, and it hands over to the next job."""

import gzip
import json
import math
import pickle
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.distributed as dist
from engine_jobs import (
    Snapshots,
    architecture,
    interrupted,
    lr,
    run,
    same,
    tensors,
    train_job,
    weights,
)
from torch.distributed.tensor import DTensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from etude.compiler.plan.plan import Averaging, Cost, TrainJob
from etude.compiler.schedule.timeline import Timeline
from etude.compiler.values import Profile
from etude.runtime.engine import profiler
from etude.runtime.engine.loader import Loader
from etude.runtime.engine.train import make_trainer
from etude.runtime.engine.updates.polyak import Mean
from etude.runtime.errors import RunError


@pytest.fixture(scope="module")
def trained(inputs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a job of twelve steps."""
    folder = tmp_path_factory.mktemp("trained") / "job"
    run(train_job(steps=12), inputs, folder)
    return folder


def test_every_step_is_what_the_timeline_says(inputs: dict[str, Path], tmp_path: Path) -> None:
    job = train_job(
        first_step=100,
        first_token=5000,
        steps=20,
        seq_len=24,
        batch=[(100, 4), (107, 10), (113, 2)],
        schedule_lr=[
            lr(100, 105, "linear", 0.0, 3e-3),
            lr(105, 112, "hold", 3e-3, 3e-3),
            lr(112, 120, "cosine", 3e-3, 1e-5),
        ],
        mixture=[(100, {"web": 3, "code": 1}), (109, {"code": 1})],
    )
    timeline = Timeline.of(job)
    events = run(job, inputs, tmp_path / "job")
    assert [event["step"] for event in events] == list(range(100, 120))
    for event in events:
        step = event["step"]
        assert event["lr"] == timeline.lr(step)
        assert event["sequences"] == timeline.batch(step)
        assert event["seq_len"] == 24
        assert event["tokens"] == timeline.tokens_before(step + 1)
        assert event["mixture"] == timeline.mixture(step)
        drawn = timeline.drawn_before(step + 1)
        assert event["sources"] == {source: count * 24 for source, count in drawn.items()}
        assert math.isfinite(event["loss"])
        assert event["grad_norm"] > 0
        assert event["tokens_per_second"] > 0
    assert (events[0]["event"], events[0]["job"], events[0]["stage"]) == ("step", "toy", "toy")


def test_a_model_learns(inputs: dict[str, Path], tmp_path: Path) -> None:
    job = train_job(
        steps=60, batch=8, schedule_lr=[lr(0, 60, "hold", 5e-3, 5e-3)], checkpoint_every=100
    )
    events = run(job, inputs, tmp_path / "job")
    assert events[0]["loss"] > math.log(512)
    assert events[-1]["loss"] < 2.5


def test_nothing_is_printed_and_the_log_lies_in_the_folder(
    inputs: dict[str, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run(train_job(steps=1), inputs, tmp_path / "job")
    printed = capfd.readouterr()
    assert (printed.out, printed.err) == ("", "")
    assert "Building llama3" in (tmp_path / "logs" / "rank-0.log").read_text()


def test_a_finished_job_is_not_run_again(trained: Path, inputs: dict[str, Path]) -> None:
    assert run(train_job(steps=12), inputs, trained) == []


def test_a_job_resumes_where_its_last_finished_checkpoint_is(
    trained: Path, inputs: dict[str, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "job"
    interrupted(train_job(steps=12), inputs, folder, lost=8)
    unfinished = folder / "checkpoints" / "step-7"
    unfinished.mkdir()
    (unfinished / "__0_0.distcp").write_bytes(b"half of it")
    events = run(train_job(steps=12), inputs, folder)
    assert [event["step"] for event in events] == list(range(5, 12))
    assert same(folder / "result" / "state", trained / "result" / "state")


def test_a_job_makes_its_own_group_where_an_engine_that_wrote_has_ended_the_last(
    trained: Path, inputs: dict[str, Path], tmp_path: Path
) -> None:
    """vLLM ends the group of its process with itself, whoever has made it."""
    run(train_job(steps=1), inputs, tmp_path / "first")
    if dist.is_initialized():
        dist.destroy_process_group()
    run(train_job(steps=12), inputs, tmp_path / "again")
    assert same(tmp_path / "again" / "result" / "state", trained / "result" / "state")


def test_positions_say_where_each_source_goes_on(inputs: dict[str, Path], tmp_path: Path) -> None:
    job = train_job(steps=2, first_tokens={"web": 640, "code": 64})
    run(job, inputs, tmp_path / "planned")
    text = (tmp_path / "planned" / "result" / "positions.json").read_text()
    assert json.loads(text) == {"web": 640 + 6 * 32, "code": 64 + 2 * 32}
    run(job, inputs, tmp_path / "moved", positions={"web": 9999, "books": 5})
    text = (tmp_path / "moved" / "result" / "positions.json").read_text()
    assert json.loads(text) == {"web": 9999 + 6 * 32, "code": 64 + 2 * 32, "books": 5}


def test_the_data_begin_at_the_position_given(inputs: dict[str, Path], tmp_path: Path) -> None:
    later = train_job(steps=1, first_tokens={"web": 640})
    planned = run(later, inputs, tmp_path / "planned")
    moved = run(train_job(steps=1), inputs, tmp_path / "moved", positions={"web": 640})
    first = run(train_job(steps=1), inputs, tmp_path / "first")
    assert moved[0]["loss"] == planned[0]["loss"] != first[0]["loss"]


def test_the_next_segment_takes_over_weights_and_moments(
    trained: Path, inputs: dict[str, Path], tmp_path: Path
) -> None:
    """Sequence length, rope base, batch, weight decay and learning rate are the new segment's."""
    job = train_job(
        first_step=12,
        steps=3,
        seq_len=64,
        batch=2,
        model=architecture(rope_theta=500_000.0),
        schedule_lr=[lr(12, 15, "linear", 5e-4, 0.0)],
        optimizer_state="carry",
        weight_decay=0.3,
    )
    before = tensors(trained / "result" / "state")
    inputs = {**inputs, "model": trained / "result"}
    with make_trainer(job, inputs, tmp_path / "job", tmp_path, print, {}) as trainer:
        trainer.checkpointer.load()
        after = {f"optimizer.{k}": v for k, v in trainer.optimizers.state_dict().items()}
        after |= trainer.model_parts[0].state_dict()
        groups = [group for optimizer in trainer.optimizers for group in optimizer.param_groups]
    assert after.keys() == before.keys()
    for name, tensor in after.items():
        whole = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
        assert torch.equal(whole, before[name])
    assert before["optimizer.state.lm_head.weight.exp_avg"].any()
    assert [(group["lr"], group["weight_decay"]) for group in groups] == [(5e-4, 0.3)]

    events = run(job, inputs, tmp_path / "job")
    assert [(event["step"], event["seq_len"]) for event in events] == [(12, 64), (13, 64), (14, 64)]
    result = tensors(tmp_path / "job" / "result" / "state")
    assert result["optimizer.state.lm_head.weight.step"] == 15


def test_splitting_a_job_in_two_changes_nothing(
    trained: Path, inputs: dict[str, Path], tmp_path: Path
) -> None:
    run(train_job(steps=7), inputs, tmp_path / "first")
    positions = json.loads((tmp_path / "first" / "result" / "positions.json").read_text())
    rest = train_job(first_step=7, first_token=7 * 128, steps=5, optimizer_state="carry")
    run(
        rest,
        {**inputs, "model": tmp_path / "first" / "result"},
        tmp_path / "second",
        positions=positions,
    )
    one, two = (weights(folder / "result" / "state") for folder in (trained, tmp_path / "second"))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_fresh_optimizer_takes_the_weights_alone(
    trained: Path, inputs: dict[str, Path], tmp_path: Path
) -> None:
    job = train_job(steps=1, schedule_lr=[lr(0, 1, "hold", 0.0, 0.0)])
    run(job, {**inputs, "model": trained / "result"}, tmp_path / "job")
    before = weights(trained / "result" / "state")
    after = tensors(tmp_path / "job" / "result" / "state")
    for name, weight in before.items():
        assert torch.equal(after[name], weight)
        assert after[f"optimizer.state.{name}.step"] == 1


def test_the_polyak_mean_is_that_of_the_snapshots(inputs: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "job"
    snapshots = Snapshots(folder, {5, 7, 9})
    averaging = Averaging(every=2, from_step=3)
    job = train_job(steps=10, average=averaging, checkpoint_every=1)
    run(job, inputs, folder, on_event=snapshots)
    mean, last = weights(folder / "result" / "weights"), weights(folder / "result" / "state")
    assert len(snapshots.taken) == 3
    for name, expected in snapshots.mean().items():
        torch.testing.assert_close(mean[name], expected, rtol=1e-6, atol=1e-8)
    assert not torch.equal(mean["lm_head.weight"], last["lm_head.weight"])


@pytest.mark.parametrize(
    "averaging", [Averaging(every=2, from_step=3), Averaging(every=1, from_step=0, decay=0.8)]
)
def test_averaging_goes_on_in_the_next_segment(
    inputs: dict[str, Path], tmp_path: Path, averaging: Averaging
) -> None:
    run(train_job(steps=12, average=averaging), inputs, tmp_path / "whole")
    run(train_job(steps=6, average=averaging), inputs, tmp_path / "first")
    first = tmp_path / "first" / "result"
    rest = train_job(first_step=6, steps=6, average=averaging, optimizer_state="carry")
    positions = json.loads((first / "positions.json").read_text())
    run(rest, {**inputs, "model": first}, tmp_path / "second", positions=positions)
    whole, second = tmp_path / "whole" / "result", tmp_path / "second" / "result"
    assert same(whole / "weights", second / "weights")


def test_the_mean_is_what_the_next_stage_begins_with(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    run(train_job(steps=4, average=Averaging(every=1, from_step=1)), inputs, tmp_path / "first")
    first = tmp_path / "first" / "result"
    job = train_job(steps=1, schedule_lr=[lr(0, 1, "hold", 0.0, 0.0)])
    run(job, {**inputs, "model": first}, tmp_path / "second")
    mean, after = weights(first / "weights"), weights(tmp_path / "second" / "result" / "state")
    assert all(torch.equal(mean[name], after[name]) for name in mean)


def test_a_moving_average_is_torchs_and_a_loaded_one_goes_on() -> None:
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 2)
    theirs = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9))

    def ours() -> Mean:
        averaging = Averaging(every=1, from_step=0, decay=0.9)
        return Mean(averaging, lambda: model.state_dict().items())

    mean, weights = ours(), []
    for step in range(1, 7):
        if step == 4:
            saved = {"count": mean.count, "mean": {n: w.clone() for n, w in mean.mean.items()}}
            mean = ours()
            mean.load_state_dict(saved)
        with torch.no_grad():
            model.weight += torch.randn(2, 3)
        weights.append(model.weight.detach().clone())
        mean.update(step)
        theirs.update_parameters(model)
    assert torch.equal(mean.mean["weight"], dict(theirs.module.named_parameters())["weight"])
    expected = 0.9**5 * weights[0] + sum(0.1 * 0.9 ** (5 - n) * weights[n] for n in range(1, 6))
    torch.testing.assert_close(mean.mean["weight"], expected)


@pytest.mark.parametrize("mode", ["full", "selective"])
def test_recomputation_changes_nothing(inputs: dict[str, Path], tmp_path: Path, mode: str) -> None:
    for folder, section in ((tmp_path / "kept", None), (tmp_path / "recomputed", {"mode": mode})):
        job = train_job(
            steps=3,
            average=Averaging(every=1, from_step=0),
            torchtitan={"activation_checkpoint": section},
        )
        run(job, inputs, folder)
    for part in ("state", "weights"):
        kept, recomputed = (
            tensors(tmp_path / folder / "result" / part) for folder in ("kept", "recomputed")
        )
        assert kept.keys() == recomputed.keys()
        for name, tensor in kept.items():
            torch.testing.assert_close(recomputed[name], tensor)


def test_a_step_tells_where_its_time_went(inputs: dict[str, Path], tmp_path: Path) -> None:
    """Without a GPU there is neither MFU nor a peak of its memory."""
    cost = Cost(
        parameters=1,
        active_parameters=1,
        flops_per_token=6_000_000,
        attention_flops_per_token=1_000_000,
        flops=1,
    )
    job = train_job(steps=3).model_copy(update={"cost": cost})
    for event in run(job, inputs, tmp_path / "job"):
        assert event["tokens_per_second"] == pytest.approx(4 * 32 / event["seconds"])
        assert 0 <= event["data_seconds"] < event["seconds"]
        assert event["tflops"] == pytest.approx(7e6 * event["tokens_per_second"] / 1e12)
        assert 0 <= event["skipped"] < 4 * 32
        assert not event.keys() & {"mfu", "max_loss", "memory_active", "memory_reserved"}


def profiled(first: int, last: int, **job: Any) -> TrainJob:
    asked = Profile(from_step=first, to_step=last + 1)
    return train_job(**job).model_copy(update={"profile": asked})


def recorded(trace: Path) -> int:
    """The steps in a trace; each has its forward pass on the CPU."""
    with gzip.open(trace) as file:
        events = json.load(file)["traceEvents"]
    assert any(event.get("name") == "aten::mm" for event in events)
    return len({e["name"] for e in events if e.get("name", "").startswith("ProfilerStep")})


def test_exactly_the_steps_of_a_profile_are_recorded_and_no_weight_changes(
    trained: Path, inputs: dict[str, Path], tmp_path: Path
) -> None:
    told: list[dict[str, Any]] = []
    run(profiled(4, 6, steps=12), inputs, tmp_path / "job", on_event=told.append)
    (trace,) = (tmp_path / "profiles" / "toy").iterdir()
    assert trace.name == "rank-0-steps-4-6.trace.json.gz"
    assert recorded(trace) == 3
    assert [e["message"] for e in told if e["event"] == "note"] == [f"recorded {trace}"]
    assert same(tmp_path / "job" / "result" / "state", trained / "result" / "state")


def test_a_profile_counts_the_stages_steps_in_a_later_job_and_after_a_kill(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    """The job continues from its checkpoint within the profile, whose second part has its file."""
    job = profiled(104, 106, steps=8, first_step=100)
    interrupted(job, inputs, tmp_path / "job", lost=105)
    run(job, inputs, tmp_path / "job")
    traces = {path.name: recorded(path) for path in (tmp_path / "profiles" / "toy").iterdir()}
    assert traces == {
        "rank-0-steps-104-105.trace.json.gz": 2,
        "rank-0-steps-105-106.trace.json.gz": 2,
    }


def test_a_record_of_memory_begins_and_ends_with_the_profile(
    inputs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a stand-in for CUDA's allocator."""
    calls: list[str] = []

    def history(enabled: str | None = "all", **_: Any) -> None:
        calls.append("off" if enabled is None else "on")

    def snapshot() -> dict[str, list[str]]:
        return {"calls": list(calls)}

    def on_event(event: dict[str, Any]) -> None:
        if event["event"] == "step":
            calls.append(str(event["step"]))

    memory = SimpleNamespace(_record_memory_history=history, _snapshot=snapshot)
    device = SimpleNamespace(__name__="torch.cuda", memory=memory)
    monkeypatch.setattr(profiler.profiler, "device_module", device)
    job = profiled(2, 3, steps=5)
    assert job.profile
    asked = Profile(from_step=2, to_step=4, memory=True)
    job = job.model_copy(update={"profile": asked})
    run(job, inputs, tmp_path / "job", on_event=on_event)
    assert calls == ["0", "1", "on", "2", "3", "off", "4"]
    path = tmp_path / "profiles" / "toy" / "rank-0-steps-2-3.memory.pickle"
    assert pickle.loads(path.read_bytes()) == {"calls": ["0", "1", "on", "2", "3"]}


def test_a_loader_that_ends_too_early_is_no_finished_job(
    inputs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torchtitan's loop only logs it."""
    job = train_job(steps=6)
    read = Loader._batches

    def fewer(self: Loader, steps: range) -> Iterator[Any]:
        return read(self, steps[:3])

    monkeypatch.setattr(Loader, "_batches", fewer)
    with pytest.raises(RunError, match="end before its step 3"):
        run(job, inputs, tmp_path / "job")
    assert not (tmp_path / "job" / "result").exists()
