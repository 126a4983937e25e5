"""A run folder in a store with ranks on two nodes, each with a local folder of its own."""

import gzip
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from etude_cli import etude, kill_when
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
from stores import Server, server
from two_nodes import ended, free_port, kill, on_two_nodes, start_nodes

from etude.compiler.plan.plan_schema import read_plan

RUN = ("run", "small.etude", "--ranks", "2", "--folder", "s3://bucket/runs/small")


@pytest.fixture(scope="module")
def module_store() -> Iterator[Server]:
    with server() as found:
        found.put({f"data/{n}.jsonl": documents(n) for n in range(3)})
        yield found


@pytest.fixture
def store(module_store: Server) -> Server:
    """The bucket with the data and no run."""
    for name in module_store.names("runs/"):
        module_store.client().delete_object(Bucket="bucket", Key=name)
    return module_store


@pytest.fixture(scope="module")
def undisturbed(module_store: Server, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of a run on two ranks of this machine, on its disk."""
    folder = tmp_path_factory.mktemp("here")
    (folder / "small.etude").write_text(SHORT)
    variables = asking(module_store, folder)
    done = etude("run", "small.etude", "--ranks", "2", cwd=folder, env=variables)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "runs" / "small"


@pytest.fixture
def nodes(store: Server, tmp_path: Path) -> list[dict[str, str]]:
    """The environments of two nodes, and the spec in their common working folder."""
    (tmp_path / "small.etude").write_text(SHORT)
    return [asking(store, tmp_path / name) for name in ("one", "two")]


def is_done(store: Server, undisturbed: Path, *, figures: bool = True) -> None:
    """Asserts that the run in the store has the bits of the undisturbed one, and nothing else.

    Args:
        figures: whether it has the figures of all steps.
    """
    once = (undisturbed / "models" / "anneal" / "model.safetensors").read_bytes()
    assert model(store, "runs/small", undisturbed) == once
    for job in JOBS:
        losses = [step["loss"] for step in steps(store, "runs/small", job)]
        known = logged_losses(undisturbed, job)
        assert losses == (known if figures else known[-len(losses) :])
    assert not store.names("runs/small/work/")
    assert not store.names("runs/small/."), "signs of nodes"
    assert "runs/small/lease.json" not in store.names("runs/small/")


def logs_of(store: Server, rank: int) -> str:
    names = sorted(store.names(f"runs/small/logs/rank-{rank}.log.segments/"))
    return b"".join(map(store.read, names)).decode()


@pytest.mark.exhaustive  # on a busy machine, torchrun's own rendezvous may be what ends the node
def test_a_node_is_killed_and_the_next_start_ends_with_the_same_bits(
    store: Server, undisturbed: Path, nodes: list[dict[str, str]], tmp_path: Path
) -> None:
    running = start_nodes(tmp_path, *RUN, variables=nodes)
    wait_for(has_checkpoint(store, "runs/small", 6))
    kill(running[1])
    killed = ended(running)
    assert killed[0].returncode != 0, killed[0].stdout
    said = " ".join(killed[0].stderr.split())
    assert said.count("error: rank 1 on") + said.count("has lost rank 0") == 1, said
    # The other node is rank 0's now, so what each has on its disk is of another rank.
    again = on_two_nodes(tmp_path, *RUN, variables=nodes[::-1])
    assert [node.returncode for node in again] == [0, 0], [node.stderr for node in again]
    assert sum("done: s3://bucket/runs/small has" in node.stdout for node in again) == 1
    is_done(store, undisturbed)
    assert logs_of(store, 1).count("==== rank 1 on") == 2, "the logs of both starts are kept"
    for name in ("one", "two"):
        (local,) = (tmp_path / name / "cache" / "runs").iterdir()
        assert not list(local.glob("work/*/*")), "checkpoints of finished jobs take no space"


@pytest.mark.exhaustive
def test_a_run_goes_on_with_1_rank_and_with_2_again(
    store: Server, undisturbed: Path, nodes: list[dict[str, str]], tmp_path: Path
) -> None:
    running = start_nodes(tmp_path, *RUN, variables=nodes)
    wait_for(has_checkpoint(store, "runs/small", 6))
    for node in running:
        kill(node)
    ended(running)
    alone = [*RUN[:3], "1", *RUN[4:]]
    reached = has_checkpoint(store, "runs/small", 15)
    kill_when(reached, *alone, cwd=tmp_path, env=nodes[0])
    again = on_two_nodes(tmp_path, *RUN, variables=nodes)
    assert [node.returncode for node in again] == [0, 0], [node.stderr for node in again]
    for job in JOBS:
        losses = [step["loss"] for step in steps(store, "runs/small", job)]
        assert losses == pytest.approx(logged_losses(undisturbed, job), rel=1e-4)
    assert not store.names("runs/small/work/")


@pytest.mark.exhaustive
def test_a_bucket_that_vanishes_is_75_and_what_the_nodes_have_goes_up_when_it_is_back(
    store: Server, undisturbed: Path, nodes: list[dict[str, str]], tmp_path: Path
) -> None:
    running = start_nodes(tmp_path, *RUN, variables=nodes)
    wait_for(has_checkpoint(store, "runs/small", 6))
    store.vanish()
    stopped = ended(running)
    said = " ".join("".join(node.stderr for node in stopped).split())
    assert all(node.returncode != 0 for node in stopped), said
    assert said.count("there is no bucket `bucket`") == 1, said
    assert "exitcode : 75" in said
    store.client().create_bucket(Bucket="bucket")
    store.put({f"data/{n}.jsonl": documents(n) for n in range(3)})
    again = on_two_nodes(tmp_path, *RUN, variables=nodes[::-1])
    assert [node.returncode for node in again] == [0, 0], [node.stderr for node in again]
    begun = [
        line for node in again for line in node.stdout.splitlines() if "tokenizer.words" in line
    ]
    assert begun == ["tokenizer.words: already done"], "finished jobs are not done again"
    assert "pretrain.1: step 0 " not in "".join(node.stdout for node in again)
    # Of the steps before that checkpoint, only the disk of the node that was rank 0's has figures.
    is_done(store, undisturbed, figures=False)


@pytest.mark.exhaustive
def test_phases_that_pods_run_share_nothing_but_the_store(
    store: Server, undisturbed: Path, nodes: list[dict[str, str]], tmp_path: Path
) -> None:
    """As the manifests of `etude launch` start them, each pod with a new disk."""
    planned = etude("plan", "small.etude", "--ranks", "2", "-o", "plan.json", cwd=tmp_path)
    assert planned.returncode == 0, planned.stderr
    plan = (tmp_path / "plan.json").read_bytes()
    (tmp_path / "plan.json.gz").write_bytes(gzip.compress(plan))
    pods = 0
    for phase in read_plan(tmp_path / "plan.json").phases:
        port = str(free_port())
        running = []
        for number in range(phase.world_size):
            pods += 1
            meets = {"PET_NNODES": str(phase.world_size), "PET_NODE_RANK": str(number)}
            meets |= {"PET_MASTER_ADDR": "127.0.0.1", "PET_MASTER_PORT": port}
            command = [sys.executable, "-m", "etude.runtime.launchers.node"]
            command += ["s3://bucket/runs/small", str(tmp_path), "cpu", "--phase", phase.name]
            variables = {**nodes[0], **meets, "ETUDE_STORE_CACHE": str(tmp_path / str(pods))}
            running.append(
                subprocess.Popen(
                    [*command, "--plan", "plan.json.gz"],
                    cwd=tmp_path,
                    env=variables,
                    text=True,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                )
            )
        done = ended(running)
        assert [pod.returncode for pod in done] == [0] * len(done), [pod.stdout for pod in done]
    is_done(store, undisturbed)
    assert pods == 4
    names = store.names("runs/small/logs/")
    for rank in (0, 1):
        assert f"runs/small/logs/2-gang.rank-{rank}.log.segments/000000" in names


def test_a_node_with_another_store_is_named(
    store: Server, nodes: list[dict[str, str]], tmp_path: Path
) -> None:
    with server() as other:
        variables = [nodes[0], {**nodes[1], "AWS_ENDPOINT_URL": other.endpoint}]
        said = on_two_nodes(tmp_path, *RUN, variables=variables)
    assert all(node.returncode != 0 for node in said)
    text = " ".join("".join(node.stderr for node in said).split())
    assert text.count("cannot use the run folder s3://bucket/runs/small") == 1, text
    assert "give all nodes the same endpoint and credentials" in text
    assert not store.names("runs/small/artifacts/")
