"""What `tracking = tensorboard` writes for TensorBoard."""

import json
from pathlib import Path
from typing import Any

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from etude.runtime.run_folder.boards import BOARDS, Boards
from etude.runtime.run_folder.recorder import Recorder


def step(job: str, step: int, loss: float) -> dict[str, Any]:
    return {
        "event": "step",
        "job": job,
        "stage": job.partition(".")[0],
        "step": step,
        "loss": loss,
        "lr": 1e-3,
        "sequences": 4,
        "seq_len": 16,
        "tokens": 64 * (step + 1),
        "mixture": {"web": 3, "code": 1},
        "sources": {"web": 48, "code": 16},
    }


def scalars(folder: Path, tag: str) -> list[tuple[int, float]]:
    found = EventAccumulator(str(folder))
    found.Reload()
    return [(each.step, each.value) for each in found.Scalars(tag)]


def test_every_stage_is_a_run_over_its_steps_and_repeated_steps_replace_others(
    tmp_path: Path,
) -> None:
    (tmp_path / "metrics").mkdir()
    recorder = Recorder(tmp_path, [Boards(tmp_path / BOARDS)])
    for number in range(4):
        recorder.step(step("first.1", number, 4.0 - number))
    recorder.close()
    resumed = Recorder(tmp_path, [Boards(tmp_path / BOARDS)])
    for number in range(2, 5):
        resumed.step(step("first.1", number, 10.0 + number))
    resumed.step(step("first.2", 5, 1.0))
    resumed.step(step("second.1", 0, 0.5))
    resumed.scores("exam", "exam", {"loss(web)": {"score": 2.5}})
    resumed.close()
    boards = tmp_path / "tensorboard"
    assert scalars(boards / "first", "loss") == [
        (0, 4.0),
        (1, 3.0),
        (2, 12.0),
        (3, 13.0),
        (4, 14.0),
        (5, 1.0),
    ]
    assert scalars(boards / "first", "share/web")[0] == (0, 0.75)
    assert scalars(boards / "first", "tokens")[-1] == (5, 384.0)
    assert scalars(boards / "second", "loss") == [(0, 0.5)]
    assert scalars(boards / "scores", "exam/loss(web)") == [(0, 2.5)]


def evaluated(job: str, step: int, loss: float) -> dict[str, Any]:
    scores = {
        "loss(web)": {"score": loss, "tokens": 10},
        "loss(ranked)": {"score": 0.7, "accuracy": 0.5, "margin": 0.1, "pairs": 4},
    }
    about = {"event": "evaluation", "job": job, "stage": job.partition(".")[0], "step": step}
    return {**about, "tokens": 64 * (step + 1), "scores": scores}


def test_evaluations_are_in_a_file_once_and_beside_the_steps_on_a_board(tmp_path: Path) -> None:
    """A resumed run repeats those after its checkpoint."""
    (tmp_path / "metrics").mkdir()
    recorder = Recorder(tmp_path, [Boards(tmp_path / BOARDS)])
    for number in range(4):
        recorder.step(step("first.1", number, 4.0))
        if number % 2:
            recorder.evaluation(evaluated("first.1", number, 4.0 - number))
    recorder.close()
    resumed = Recorder(tmp_path, [Boards(tmp_path / BOARDS)])
    resumed.step(step("first.1", 2, 4.0))
    path = tmp_path / "metrics" / "first.1.evaluations.jsonl"
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1]
    resumed.step(step("first.1", 3, 4.0))
    resumed.evaluation(evaluated("first.1", 3, 9.0))
    resumed.hand_over("first.1", tmp_path)
    resumed.step(step("second.1", 0, 4.0))
    resumed.close()
    found = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(each["step"], each["scores"]["loss(web)"]["score"]) for each in found] == [
        (1, 3.0),
        (3, 9.0),
    ]
    assert (tmp_path / "evaluations.jsonl").read_text() == path.read_text()
    assert not (tmp_path / "metrics" / "second.1.evaluations.jsonl").exists()
    boards = tmp_path / "tensorboard"
    assert scalars(boards / "first", "evaluation/loss(web)") == [(1, 3.0), (3, 9.0)]
    assert scalars(boards / "first", "evaluation/accuracy(ranked)") == [(1, 0.5), (3, 0.5)]
    by_tokens = scalars(boards / "first by tokens", "evaluation/loss(web)")
    assert by_tokens == [(128, 3.0), (256, 9.0)]
