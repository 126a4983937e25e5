"""One rank or two, killed or not: the same batches, the same losses, the same weights."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_jobs import Events, lr, run, same, same_weights, spoiled, tensors, train_job, weights
from forking import shared

from etude.compiler.plan.plan import Averaging, TrainJob
from etude.compiler.schedule.timeline import Timeline
from etude.compiler.values import Spikes
from etude.runtime.data.order.stream import Stream
from etude.runtime.data.tokens.shards import Shards
from etude.runtime.engine.loader import Loader
from etude.runtime.engine.trainer import Trainer

WORKER = Path(__file__).with_name("engine_worker.py")
AVERAGING = Averaging(every=3, from_step=2)


LAYOUTS = {
    "replicated": {"data_parallel_replicate_degree": 2, "data_parallel_shard_degree": 1},
    "tensor": {"tensor_parallel_degree": 2},
    "pipeline": {"pipeline_parallel_degree": 2},
    "interleaved": {
        "pipeline_parallel_degree": 2,
        "pipeline_parallel_schedule": "Interleaved1F1B",
        "pipeline_parallel_layers_per_stage": 1,
    },
}


def job(world_size: int, steps: int = 14, **parallelism: int | str) -> TrainJob:
    return train_job(
        steps=steps,
        batch=[(0, 4), (8, 8)] if steps > 8 else 4,
        average=AVERAGING,
        checkpoint_every=4,
        world_size=world_size,
        torchtitan={"parallelism": parallelism},
    )


def spiking(world_size: int, do: Any, **parallelism: int) -> TrainJob:
    """A job that does this at spikes of the gradient."""
    made = train_job(
        steps=24,
        checkpoint_every=50,
        world_size=world_size,
        torchtitan={"parallelism": parallelism},
    )
    spikes = Spikes(do=do, above=10.0, back=5 if do == "rollback" else 0)
    return made.model_copy(update={"spikes": spikes, "rollbacks": 1})


def initial(job: TrainJob) -> TrainJob:
    """One step of a job at a rate of 0: its result has the weights that it began with."""
    schedule = job.schedule.model_copy(update={"lr": [lr(0, 1, "hold", 0.0, 0.0)]})
    return job.model_copy(update={"schedule": schedule, "average": None})


@dataclass
class Run:
    """A job, the folder in which it runs, and what happens to it.

    Attributes:
        spoil: steps whose data make gradients a thousand times as large.
    """

    job: TrainJob
    folder: str
    model: str | None = None
    kill_at: int | None = None
    spoil: tuple[int, ...] = ()


@dataclass
class Workplace:
    """Where worker processes run jobs, each in a folder of its own."""

    inputs: dict[str, Path]
    root: Path

    def result(self, folder: str) -> Path:
        return self.root / folder / "result"

    def events(self, folder: str) -> Events:
        return json.loads((self.root / f"{folder}.json").read_text())

    def run(self, *runs: Run, **variables: str) -> int:
        """Runs jobs one after the other, on as many ranks as they want, with variables in their
        environment; returns the exit status."""
        items = [
            {
                "job": run.job.model_dump(),
                "inputs": {
                    **{role: str(path) for role, path in self.inputs.items()},
                    **({"model": str(self.result(run.model))} if run.model else {}),
                },
                "folder": str(self.root / run.folder),
                "events": str(self.root / f"{run.folder}.json"),
                "kill_at": run.kill_at,
                "spoil": run.spoil,
            }
            for run in runs
        ]
        path = self.root / "runs.json"
        path.write_text(json.dumps({"root": str(self.root), "runs": items}))
        ranks = runs[0].job.resources.world_size
        done = shared().ranks(WORKER, str(path), count=ranks, cwd=self.root, **variables)
        print(done.err)
        return done.code


@pytest.fixture(scope="module")
def two_ranks(inputs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    """Two ranks have run `whole`, jobs that end after 5, 8 and 11 of its steps, and three steps in
    other layouts; `killed` was killed in its tenth step and then resumed. `initial LAYOUT` has the
    weights that a layout begins with."""
    place = Workplace(inputs, tmp_path_factory.mktemp("two_ranks"))
    assert place.run(Run(job(2), "killed", kill_at=9)) != 0
    assert (place.root / "killed" / "checkpoints" / "step-8" / ".metadata").is_file()
    begun = [Run(job(2, steps), f"{steps} steps") for steps in (5, 8, 11)]
    others = [Run(job(2, 3, **LAYOUTS[name]), name) for name in LAYOUTS]
    drawn = [
        Run(initial(job(2, 1, **layout)), f"initial {name}")
        for name, layout in {"sharded": {}, **LAYOUTS}.items()
    ]
    spiked = [Run(spiking(2, do), do, spoil=(20,)) for do in ("skip", "rollback")]
    staged = spiking(2, "rollback", pipeline_parallel_degree=2)
    spiked.append(Run(staged, "rollback of a pipeline", spoil=(20,)))
    assert (
        place.run(Run(job(2), "whole"), Run(job(2), "killed"), *begun, *others, *drawn, *spiked)
        == 0
    )
    return place


@pytest.fixture(scope="module")
def one_rank(
    inputs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Events]:
    """The result and the events of `whole` on one rank."""
    folder = tmp_path_factory.mktemp("one_rank") / "job"
    return folder / "result", run(job(1), inputs, folder)


def test_two_ranks_killed_and_resumed_end_bit_for_bit_alike(two_ranks: Workplace) -> None:
    assert [event["step"] for event in two_ranks.events("killed")] == list(range(8, 14))
    whole, killed = two_ranks.result("whole"), two_ranks.result("killed")
    assert same(whole / "state", killed / "state")
    assert same(whole / "weights", killed / "weights")


def test_one_rank_killed_and_resumed_ends_bit_for_bit_alike(
    inputs: dict[str, Path], one_rank: tuple[Path, Events], tmp_path: Path
) -> None:
    place = Workplace(inputs, tmp_path)
    assert place.run(Run(job(1), "job", kill_at=9)) == -9
    events = run(job(1), inputs, tmp_path / "job")
    assert [event["step"] for event in events] == list(range(8, 14))
    whole, killed = one_rank[0], place.result("job")
    assert same(whole / "state", killed / "state")
    assert same(whole / "weights", killed / "weights")


@pytest.mark.parametrize("folder", ["skip", "rollback", "rollback of a pipeline"])
def test_two_ranks_do_at_a_spike_what_one_does(
    folder: str,
    two_ranks: Workplace,
    inputs: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    do = folder.split()[0]
    disturbed = spoiled(spiking(1, do), (20,))
    monkeypatch.setattr(Trainer, "forward_backward_step", disturbed)
    alone = run(spiking(1, do), inputs, tmp_path / "job")
    together = two_ranks.events(folder)
    assert [(e["event"], e["step"], e.get("to")) for e in together] == [
        (e["event"], e["step"], e.get("to")) for e in alone
    ]
    assert len(together) == (25 if do == "skip" else 30)
    norms = [[e["grad_norm"] for e in events if e["step"] != 20] for events in (alone, together)]
    assert norms[0] == pytest.approx(norms[1], rel=1e-3)


@pytest.mark.exhaustive
def test_backward_in_a_thread_of_its_own_changes_nothing(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    """On a GPU autograd has its own threads, in which the mesh of tensor parallelism is not set."""
    place = Workplace(inputs, tmp_path)
    layout: dict[str, Any] = {
        "parallelism": {"tensor_parallel_degree": 2},
        "activation_checkpoint": {"mode": "full"},
    }
    recomputed = train_job(steps=3, batch=4, world_size=2, torchtitan=layout)
    assert place.run(Run(recomputed, "here")) == 0
    assert place.run(Run(recomputed, "elsewhere"), BACKWARD_ELSEWHERE="1") == 0
    assert same(place.result("here") / "state", place.result("elsewhere") / "state")


def test_the_events_do_not_depend_on_the_number_of_ranks(
    two_ranks: Workplace, one_rank: tuple[Path, Events]
) -> None:
    measured = {"tokens_per_second", "seconds", "data_seconds", "loss", "max_loss", "grad_norm"}
    for one, two in zip(one_rank[1], two_ranks.events("whole"), strict=True):
        assert {key: one[key] for key in one.keys() - measured} == {
            key: two[key] for key in two.keys() - measured
        }
        assert one["loss"] == pytest.approx(two["loss"], rel=1e-5)
        assert one["grad_norm"] == pytest.approx(two["grad_norm"], rel=1e-4)
        assert "max_loss" not in one
        assert two["max_loss"] > two["loss"]


def test_the_losses_do_not_depend_on_the_layout(
    two_ranks: Workplace, inputs: dict[str, Path], tmp_path: Path
) -> None:
    expected = [event["loss"] for event in run(job(1, 3), inputs, tmp_path / "job")]
    for layout in LAYOUTS:
        losses = [event["loss"] for event in two_ranks.events(layout)]
        assert losses == pytest.approx(expected, rel=1e-5), layout


def test_the_initial_weights_do_not_depend_on_the_layout(
    two_ranks: Workplace, inputs: dict[str, Path], tmp_path: Path
) -> None:
    run(initial(job(1, 1)), inputs, tmp_path / "job")
    drawn = tmp_path / "job" / "result" / "state"
    for layout in ("sharded", *LAYOUTS):
        assert same_weights(drawn, two_ranks.result(f"initial {layout}") / "state"), layout


def test_the_mean_on_two_ranks_is_that_of_the_snapshots(two_ranks: Workplace) -> None:
    """Every third step from the second on is in it: after steps 5, 8, 11 and 14."""
    results = [two_ranks.result(name) for name in ("5 steps", "8 steps", "11 steps", "whole")]
    snapshots = [weights(result / "state") for result in results]
    mean = tensors(results[-1] / "weights")
    assert mean.keys() == snapshots[0].keys()
    for name, tensor in mean.items():
        expected = torch.stack([snapshot[name] for snapshot in snapshots]).mean(0)
        torch.testing.assert_close(tensor, expected, rtol=1e-6, atol=1e-7)
        assert not torch.allclose(tensor, snapshots[-1][name], rtol=1e-6, atol=1e-7)


def test_one_rank_goes_on_where_two_ended(
    two_ranks: Workplace, inputs: dict[str, Path], tmp_path: Path
) -> None:
    roles = {**inputs, "model": two_ranks.result("whole")}
    segment = train_job(first_step=14, steps=1, optimizer_state="carry", average=AVERAGING)
    run(segment, roles, tmp_path / "job")
    after = tensors(tmp_path / "job" / "result" / "state")
    assert after["optimizer.state.norm.weight.step"] == 15


@pytest.mark.parametrize("ranks", [2, 4])
def test_the_global_batches_are_the_same_for_any_number_of_ranks(
    inputs: dict[str, Path], ranks: int
) -> None:
    timeline = Timeline.of(job(1))
    config = Loader.Config(
        timeline=timeline,
        streams={
            name: Stream(Shards(inputs[f"data:{name}"], "train"), seed=7, name=name)
            for name in ("web", "code")
        },
        first_tokens={"web": 100, "code": 0},
        vocab=512,
    )

    def digests(ranks: int, local_batch: int) -> list[str]:
        """The hash of inputs, labels and positions of each global batch."""
        loaders = [
            iter(Loader(config, dp_world_size=ranks, dp_rank=rank, local_batch_size=local_batch))
            for rank in range(ranks)
        ]
        found = []
        for step in range(14):
            digest = hashlib.sha256()
            for _ in range(timeline.batch(step) // (ranks * local_batch)):
                for batch, labels in map(next, loaders):
                    assert labels.shape == (local_batch, 32)
                    for i in range(local_batch):
                        row = torch.stack([batch["input"][i], batch["positions"][i], labels[i]])
                        digest.update(row.numpy().tobytes())
            found.append(digest.hexdigest())
        return found

    assert digests(ranks, 1) == digests(1, 4)
    assert len(set(digests(1, 4))) == 14


def test_a_loader_goes_on_where_its_state_says(inputs: dict[str, Path]) -> None:
    stream = Stream(Shards(inputs["data:web"], "train"), seed=7, name="web")
    config = Loader.Config(
        timeline=Timeline.of(train_job(steps=6, mixture=[(0, {"web": 1})])),
        streams={"web": stream},
        first_tokens={"web": 0},
        vocab=512,
    )
    first, second = (
        Loader(config, dp_world_size=1, dp_rank=0, local_batch_size=2) for _ in range(2)
    )
    batches = iter(first)
    for _ in range(2 * 3):
        next(batches)
    assert first.state_dict() == {"steps": 3}
    assert first.positions() == {"web": 3 * 4 * 32}
    second.load_state_dict(first.state_dict())
    (one, _), (two, _) = next(batches), next(iter(second))
    assert torch.equal(one["input"], two["input"])
