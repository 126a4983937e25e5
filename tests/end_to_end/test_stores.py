"""Run folders, data, weights and exports in an object store: moto's S3, in a process of its own."""

import json
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from etude_cli import COMMAND, environment, etude, kill_when
from stores import KEY, SECRET, Server, server

SHORT = """
recipe small { seed = 7 }
model tiny { family = llama3, layers = 2, dim = 32, heads = 4, kv_heads = 2, ffn = 64 }
tokenizer words { train = { on [docs], vocab 300 } }
dataset docs { files = "s3://bucket/data/*.jsonl", holdout = 5% }

stage pretrain: train {
  model = tiny, steps = 24, seq_len = 32, batch = 8 seqs, lr = 0 -> 3e-3 for 4 steps then 3e-3
  data = docs, checkpoint every 3 steps
}
stage anneal: train { steps = 4, lr = last -> 0 }
"""
JOBS = ("pretrain.1", "anneal.1")
RUN = "s3://bucket/runs/small"


@pytest.fixture(scope="module")
def store() -> Iterator[Server]:
    with server() as found:
        found.put({f"data/{n}.jsonl": _documents(n) for n in range(3)})
        yield found


def _documents(number: int) -> bytes:
    words = [f"{number} is less than {each}, and {each} is more" for each in range(40)]
    return "".join(json.dumps({"text": text}) + "\n" for text in words).encode()


@pytest.fixture(scope="module")
def undisturbed(store: Server, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of a run on this machine's disk, with data from the store."""
    folder = tmp_path_factory.mktemp("here")
    (folder / "small.etude").write_text(SHORT)
    done = etude("run", "small.etude", cwd=folder, env=_asking(store, folder))
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "runs" / "small"


def _asking(store: Server, folder: Path, **changes: str) -> dict[str, str]:
    own = {"ETUDE_STORE_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
    return {**environment(), **store.environment, **own, **changes}


def _steps(store: Server, run: str, job: str) -> list[dict]:
    names = sorted(store.names(f"{run}/metrics/{job}.jsonl.segments/"))
    text = b"".join(map(store.read, names))
    return [json.loads(line) for line in text.splitlines()]


def _model(store: Server, run: str, undisturbed: Path) -> bytes:
    """The weights in the store of the export that the undisturbed run has under this key."""
    key = (undisturbed / "models" / "anneal").resolve().name
    return store.read(f"{run}/artifacts/{key}/model.safetensors")


def _has_checkpoint(store: Server, run: str, step: int) -> Callable[[], bool]:
    """Whether a checkpoint of at least so many steps is whole in the store."""

    def look() -> bool:
        found = [n for n in store.names(f"{run}/work/") if n.endswith("/checksums.json")]
        return any(int(name.split("/")[-2].removeprefix("step-")) >= step for name in found)

    return look


@pytest.mark.exhaustive
def test_killed_twice_on_machines_that_vanish_it_ends_with_the_same_bits(
    store: Server, undisturbed: Path, tmp_path: Path
) -> None:
    (tmp_path / "small.etude").write_text(SHORT)
    asking = _asking(store, tmp_path)
    for step in (3, 12):
        reached = _has_checkpoint(store, "runs/small", step)
        kill_when(reached, "run", "small.etude", "--folder", RUN, cwd=tmp_path, env=asking)
        shutil.rmtree(tmp_path / "cache")
    done = etude("run", "small.etude", "--folder", RUN, cwd=tmp_path, env=asking)
    assert done.returncode == 0, done.stdout + done.stderr
    once = (undisturbed / "models" / "anneal" / "model.safetensors").read_bytes()
    assert _model(store, "runs/small", undisturbed) == once
    for job in JOBS:
        logged = (undisturbed / "metrics" / f"{job}.jsonl").read_text().splitlines()
        losses = [json.loads(line)["loss"] for line in logged]
        assert [step["loss"] for step in _steps(store, "runs/small", job)] == losses
    assert not store.names("runs/small/work/")
    assert "runs/small/lease.json" not in store.names("runs/small/")


@pytest.mark.exhaustive
def test_a_bucket_that_vanishes_ends_the_run_with_75_and_it_goes_on_when_it_is_back(
    store: Server, undisturbed: Path, tmp_path: Path
) -> None:
    (tmp_path / "small.etude").write_text(SHORT)
    asking = _asking(store, tmp_path)
    store.client().create_bucket(Bucket="other")
    spec = ["run", "small.etude", "--folder", "s3://other/run"]
    with (tmp_path / "out").open("w") as out:
        process = subprocess.Popen(
            [*COMMAND, *spec], cwd=tmp_path, env=asking, stdout=out, stderr=subprocess.STDOUT
        )
        _when(lambda: list(tmp_path.glob("cache/**/work/*/checkpoints/step-6/checksums.json")))
        _when(lambda: store.removed("other"))
        assert process.wait(300) == 75
    said = (tmp_path / "out").read_text()
    assert "there is no bucket `other`" in said.replace("\n  ", " ")
    assert "Traceback" not in said
    store.client().create_bucket(Bucket="other")
    done = etude(*spec, cwd=tmp_path, env=asking)
    assert done.returncode == 0, done.stdout + done.stderr
    shutil.rmtree(tmp_path / "cache")
    done = etude(*spec, "--json", cwd=tmp_path, env=asking)
    assert {json.loads(line)["event"] for line in done.stdout.splitlines()} == {"kept"}
    exported = tmp_path / "exported"
    done = etude("export", "s3://other/run", "anneal", "--to", exported, cwd=tmp_path, env=asking)
    assert done.returncode == 0, done.stdout + done.stderr
    once = (undisturbed / "models" / "anneal" / "model.safetensors").read_bytes()
    assert (exported / "model.safetensors").read_bytes() == once


def _when(holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + 300
    while not holds():
        assert time.monotonic() < deadline, "never got there"
        time.sleep(0.02)


@pytest.mark.exhaustive
def test_no_secret_is_anywhere(store: Server, undisturbed: Path) -> None:
    """After the runs above: in no object, local file or log."""
    texts = [store.read(name) for name in store.names()]
    texts += [path.read_bytes() for path in undisturbed.rglob("*") if path.is_file()]
    for text in texts:
        assert SECRET.encode() not in text
        assert KEY.encode() not in text


@pytest.mark.exhaustive
def test_commands_take_a_run_folder_in_a_store(
    store: Server, undisturbed: Path, tmp_path: Path
) -> None:
    (tmp_path / "small.etude").write_text(SHORT)
    asking = _asking(store, tmp_path)
    done = etude("run", "small.etude", "--folder", RUN, cwd=tmp_path, env=asking)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1].startswith(f"done: {RUN} has the results")
    for command, said in (
        (["status", RUN], "anneal.1"),
        (["status", RUN, "--watch"], "done"),
        (["report", RUN], "pretrain"),
        (["logs", RUN], "torchtitan"),
        (["clean", RUN], f"{RUN} has nothing to remove"),
        (["plan", "small.etude", "--against", RUN], "No difference"),
        (["cancel", RUN], f"nobody is at work in {RUN}"),
        (["export", RUN, "anneal", "--to", "s3://bucket/model"], "exported: s3://bucket/model"),
    ):
        shown = etude(*command, cwd=tmp_path, env=asking)
        assert shown.returncode == 0, (command, shown.stdout, shown.stderr)
        assert said in shown.stdout, (command, shown.stdout, shown.stderr)
    once = (undisturbed / "models" / "anneal" / "model.safetensors").read_bytes()
    assert store.read("model/model.safetensors") == once
    (tmp_path / "small.etude").write_text(SHORT.replace("steps = 4", "steps = 5"))
    planned = etude("run", "small.etude", "--folder", RUN, cwd=tmp_path, env=asking)
    assert planned.returncode == 0
    removed = etude("clean", RUN, "--yes", cwd=tmp_path, env=asking)
    assert "freed" in removed.stdout
    key = (undisturbed / "models" / "anneal").resolve().name
    assert not store.names(f"runs/small/artifacts/{key}/")
