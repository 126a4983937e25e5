"""Run folders, data, weights and exports in an object store: moto's S3, in a process of its own."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from etude_cli import COMMAND, etude, kill_when
from stored_runs import (
    JOBS,
    SHORT,
    asking,
    documents,
    has_checkpoint,
    logged_losses,
    model,
    steps,
    wait_for,
)
from stores import KEY, SECRET, Server, server

RUN = "s3://bucket/runs/small"


@pytest.fixture(scope="module")
def store() -> Iterator[Server]:
    with server() as found:
        found.put({f"data/{n}.jsonl": documents(n) for n in range(3)})
        yield found


@pytest.fixture(scope="module")
def undisturbed(store: Server, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of a run on this machine's disk, with data from the store."""
    folder = tmp_path_factory.mktemp("here")
    (folder / "small.etude").write_text(SHORT)
    done = etude("run", "small.etude", cwd=folder, env=asking(store, folder))
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "runs" / "small"


@pytest.mark.exhaustive
def test_killed_twice_on_machines_that_vanish_it_ends_with_the_same_bits(
    store: Server, undisturbed: Path, tmp_path: Path
) -> None:
    (tmp_path / "small.etude").write_text(SHORT)
    variables = asking(store, tmp_path)
    for step in (3, 12):
        reached = has_checkpoint(store, "runs/small", step)
        kill_when(reached, "run", "small.etude", "--folder", RUN, cwd=tmp_path, env=variables)
        shutil.rmtree(tmp_path / "cache")
    done = etude("run", "small.etude", "--folder", RUN, cwd=tmp_path, env=variables)
    assert done.returncode == 0, done.stdout + done.stderr
    once = (undisturbed / "models" / "anneal" / "model.safetensors").read_bytes()
    assert model(store, "runs/small", undisturbed) == once
    for job in JOBS:
        again = [step["loss"] for step in steps(store, "runs/small", job)]
        assert again == logged_losses(undisturbed, job)
    assert not store.names("runs/small/work/")
    assert "runs/small/lease.json" not in store.names("runs/small/")


@pytest.mark.exhaustive
def test_a_bucket_that_vanishes_ends_the_run_with_75_and_it_goes_on_when_it_is_back(
    store: Server, undisturbed: Path, tmp_path: Path
) -> None:
    (tmp_path / "small.etude").write_text(SHORT)
    variables = asking(store, tmp_path)
    store.client().create_bucket(Bucket="other")
    spec = ["run", "small.etude", "--folder", "s3://other/run"]
    with (tmp_path / "out").open("w") as out:
        process = subprocess.Popen(
            [*COMMAND, *spec], cwd=tmp_path, env=variables, stdout=out, stderr=subprocess.STDOUT
        )
        wait_for(lambda: list(tmp_path.glob("cache/**/work/*/checkpoints/step-6/checksums.json")))
        wait_for(lambda: store.removed("other"))
        assert process.wait(300) == 75
    said = (tmp_path / "out").read_text()
    assert "there is no bucket `other`" in said.replace("\n  ", " ")
    assert "Traceback" not in said
    store.client().create_bucket(Bucket="other")
    done = etude(*spec, cwd=tmp_path, env=variables)
    assert done.returncode == 0, done.stdout + done.stderr
    shutil.rmtree(tmp_path / "cache")
    done = etude(*spec, "--json", cwd=tmp_path, env=variables)
    assert {json.loads(line)["event"] for line in done.stdout.splitlines()} == {"kept"}
    exported = tmp_path / "exported"
    done = etude(
        "export", "s3://other/run", "anneal", "--to", exported, cwd=tmp_path, env=variables
    )
    assert done.returncode == 0, done.stdout + done.stderr
    once = (undisturbed / "models" / "anneal" / "model.safetensors").read_bytes()
    assert (exported / "model.safetensors").read_bytes() == once


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
    variables = asking(store, tmp_path)
    done = etude("run", "small.etude", "--folder", RUN, cwd=tmp_path, env=variables)
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
        shown = etude(*command, cwd=tmp_path, env=variables)
        assert shown.returncode == 0, (command, shown.stdout, shown.stderr)
        assert said in shown.stdout, (command, shown.stdout, shown.stderr)
    once = (undisturbed / "models" / "anneal" / "model.safetensors").read_bytes()
    assert store.read("model/model.safetensors") == once
    (tmp_path / "small.etude").write_text(SHORT.replace("steps = 4", "steps = 5"))
    planned = etude("run", "small.etude", "--folder", RUN, cwd=tmp_path, env=variables)
    assert planned.returncode == 0
    removed = etude("clean", RUN, "--yes", cwd=tmp_path, env=variables)
    assert "freed" in removed.stdout
    key = (undisturbed / "models" / "anneal").resolve().name
    assert not store.names(f"runs/small/artifacts/{key}/")
