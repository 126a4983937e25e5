"""A run that goes on with another number of ranks: the same batches, the same losses."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from batches import recorded, recording
from etude_cli import TINY as RAMP
from etude_cli import etude, kill_when, lines, metrics

TINY = RAMP.replace("8 seqs -> 16 seqs for 6 steps then", "8 seqs for 6 steps then")
"""Without a ramp of the batch, whose levels are whole micro-batches of all ranks."""
MIXED = TINY.replace(
    "family = llama3, layers = 2, dim = 32, heads = 4, kv_heads = 2, ffn = 64",
    "family = qwen3, layers = 2, dim = 32, heads = 4, kv_heads = 2, ffn = 64\n"
    "  experts = { count = 4, active = 2, ffn = 32, dense = 1, balance = 0.01 }",
)
"""With experts, and a routing bias that is moved by the load of all ranks."""
ALIGNED = """
recipe aligned { seed = 7 }
model tiny { family = llama3, layers = 2, dim = 32, heads = 4, kv_heads = 2, ffn = 64 }
tokenizer words { train = { on [docs], vocab 300 } }
dialog plain { protocol = chatml }
dataset docs   { sample = python_docs, documents = 60 docs, holdout = 5% }
dataset human  { sample = python_functions, kind = dialogs, long = drop }
dataset ranked { sample = python_functions, kind = preferences, long = drop }

stage pretrain: train {
  model = tiny, steps = 2, seq_len = 256, batch = 8 seqs, lr = 1e-3, data = docs
}
stage tune: sft {
  from = pretrain, data = human, steps = 12, lr = 1e-3
  checkpoint every 3 steps
}
stage prefer: dpo {
  from = tune, data = ranked, steps = 12, batch = 8 pairs, lr = 1e-4
  checkpoint every 3 steps
}
"""


def whole(folder: Path, text: str) -> tuple[Path, dict[Any, Any]]:
    """An undisturbed run of a spec on one rank, and its batches."""
    (folder / "spec.etude").write_text(text)
    batches = folder / "batches"
    done = etude(
        "run", "spec.etude", "--folder", "run", "--ranks", "1", cwd=folder, env=recording(batches)
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "run", recorded(batches)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[Any, Any]]:
    return whole(tmp_path_factory.mktemp("tiny"), TINY)


@pytest.fixture(scope="module")
def aligned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[Any, Any]]:
    return whole(tmp_path_factory.mktemp("aligned"), ALIGNED)


def has_lines(run: Path, job: str, count: int) -> bool:
    return lines(run, job) >= count


def move(folder: Path, text: str, *parts: tuple[str, int, list[str]]) -> list[dict[Any, Any]]:
    """Runs a spec in parts: all but the last are killed when a job has so many steps in its log.

    Args:
        parts: job, steps in its log, and what else is on the command line.

    Returns: the batches of each part.
    """
    (folder / "spec.etude").write_text(text)
    run, found = folder / "run", []
    for number, (job, steps, more) in enumerate(parts):
        command = ["run", "spec.etude", "--folder", "run", *more]
        batches = folder / f"batches{number}"
        env = recording(batches)
        if number < len(parts) - 1:
            kill_when(partial(has_lines, run, job, steps), *command, cwd=folder, env=env)
        else:
            done = etude(*command, cwd=folder, env=env)
            assert done.returncode == 0, done.stdout + done.stderr
        found.append(recorded(batches))
    return found


def assert_the_same(
    run: Path, parts: list[dict[Any, Any]], reference: tuple[Path, dict[Any, Any]], *jobs: str
) -> None:
    once, batches = reference
    for part in parts:
        assert part
        for step, rows in part.items():
            assert rows == batches[step], step
    assert set().union(*parts) == batches.keys()
    for job in jobs:
        again, before = metrics(run, job), metrics(once, job)
        assert [e["step"] for e in again] == [e["step"] for e in before]
        assert [e["loss"] for e in again] == pytest.approx([e["loss"] for e in before], rel=2e-5)


@pytest.mark.exhaustive
def test_a_stage_begun_on_two_ranks_goes_on_on_one_and_ends_on_two(
    tmp_path: Path, tiny: tuple[Path, dict[Any, Any]]
) -> None:
    two, one = ["--ranks", "2"], ["--ranks", "1"]
    parts = move(tmp_path, TINY, ("pretrain.2", 5, two), ("pretrain.2", 11, one), ("", 0, two))
    assert_the_same(tmp_path / "run", parts, tiny, "pretrain.1", "pretrain.2", "anneal.1")
    (manifest,) = (
        found
        for path in tmp_path.glob("run/artifacts/*/manifest.json")
        if (found := json.loads(path.read_bytes()))["job"] == "pretrain.2"
    )
    assert [start["ranks"] for start in manifest["ran"]] == [2, 1, 2]
    assert [start["layout"] for start in manifest["ran"]] == [{"shard": 2}, {}, {"shard": 2}]
    assert manifest["ran"][0]["from_step"] == 0 < manifest["ran"][1]["from_step"]
    # The second part begins with the third step's checkpoint, the third with one of the second.
    steps = [{step for _, length, step in part if length == 64 and step >= 8} for part in parts]
    assert min(steps[1]) in (11, 14)
    assert min(steps[2]) >= 17


@pytest.mark.exhaustive
def test_tuning_and_preferences_go_on_on_other_ranks(
    tmp_path: Path, aligned: tuple[Path, dict[Any, Any]]
) -> None:
    two, one = ["--ranks", "2"], ["--ranks", "1"]
    parts = move(
        tmp_path,
        ALIGNED,
        ("tune.1", 5, two),
        ("tune.1", 8, one),
        ("prefer.1", 5, two),
        ("prefer.1", 8, one),
        ("", 0, two),
    )
    assert_the_same(tmp_path / "run", parts, aligned, "tune.1", "prefer.1")


@pytest.mark.exhaustive
@pytest.mark.parametrize("placed", ["apart", "everywhere"])
def test_experts_go_on_on_other_ranks(placed: str, tmp_path: Path) -> None:
    """Those of two ranks are apart, each with half of them, or both ranks have all."""
    once = whole(tmp_path, MIXED)
    again = tmp_path / "again"
    again.mkdir()
    degree = "expert 2, " if placed == "apart" else ""
    two = ["--ranks", "2", "--set", f"pretrain.parallel={{ {degree}micro_batch 4 }}"]
    one = ["--ranks", "1"]
    parts = move(again, MIXED, ("pretrain.2", 5, two), ("pretrain.2", 11, one), ("", 0, two))
    assert_the_same(again / "run", parts, once, "pretrain.1", "pretrain.2", "anneal.1")
    (manifest,) = (
        found
        for path in again.glob("run/artifacts/*/manifest.json")
        if (found := json.loads(path.read_bytes()))["job"] == "pretrain.2"
    )
    assert [start["ranks"] for start in manifest["ran"]] == [2, 1, 2]
    expert = [start["layout"].get("expert") for start in manifest["ran"]]
    assert expert == ([2, None, 2] if placed == "apart" else [None, None, None])


@pytest.mark.exhaustive
@pytest.mark.parametrize("degree", ["tensor", "pipeline"])
def test_a_stage_goes_on_in_another_layout(
    degree: str, tmp_path: Path, tiny: tuple[Path, dict[Any, Any]]
) -> None:
    cut = ["--ranks", "2", "--set", f"pretrain.parallel={{ {degree} 2, micro_batch 4 }}"]
    one = ["--ranks", "1"]
    parts = move(tmp_path, TINY, ("pretrain.2", 5, one), ("pretrain.2", 11, cut), ("", 0, one))
    assert_the_same(tmp_path / "run", parts, tiny, "pretrain.1", "pretrain.2", "anneal.1")
