"""Nodes with local folders of their own of a run folder in a store."""

import json
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any, cast

import fsspec
import pytest
from run_folders import SPEC
from specs import plan as planned
from stores import Server, guarded, server

from etude.runtime.decision import End, Together
from etude.runtime.errors import RunError
from etude.runtime.jobs import WORK
from etude.runtime.preflight.nodes import Node, look, require_nodes
from etude.runtime.run_folder.lease import INHERITED
from etude.runtime.run_folder.store import Store
from etude.runtime.run_folder.variant_folders import folder_at
from etude.runtime.scheduler import follow
from etude.runtime.stores import remote as remote_module
from etude.runtime.stores.objects import PATIENCE
from etude.runtime.stores.places import CACHE
from etude.runtime.stores.pulling import catch_up, take_log
from etude.runtime.stores.remote import Remote
from etude.runtime.stores.unsent import Marks, complete, drop, send_parts, unsent

URL = "s3://bucket/run"


@pytest.fixture(scope="module")
def module_store() -> Iterator[Server]:
    with server() as found:
        yield found


@pytest.fixture
def store(module_store: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    """An empty bucket, and an environment in which etude finds it; patience is short."""
    for name, value in module_store.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv(PATIENCE, "0")
    monkeypatch.delenv(INHERITED, raising=False)
    # s3fs remembers the endpoint of another test's server.
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    for name in module_store.names():
        module_store.client().delete_object(Bucket="bucket", Key=name)
    return module_store


def on(node: str, folder: Path, monkeypatch: pytest.MonkeyPatch, *, apart: bool = False) -> Store:
    """The run folder as a process on a node sees it that has just begun."""
    monkeypatch.setenv(CACHE, str(folder / node))
    remote_module._known.clear()
    store = Store(folder_at(URL))
    remote_of(store).apart = apart
    return store


def remote_of(store: Store) -> Remote:
    assert store.remote
    return store.remote


def write(
    folder: Path, files: dict[str, bytes], mark: str = "", names: tuple[str, ...] = ()
) -> None:
    """Writes files, and the file that completes them, which names them and perhaps others."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)
    if mark:
        sums = {name: sha256(content).hexdigest() for name, content in files.items()}
        known = {name: {"bytes": 4, "sha256": sums.get(name, "")} for name in (*files, *names)}
        about = {"key": folder.name, "job": "job", "files": known}
        (folder / mark).write_text(json.dumps(about))


def together(*nodes: Store) -> Marks:
    """What nodes send of what the store lacks, the first being rank 0's; returns what is not
    complete."""
    marks: Marks = {}
    for node in nodes:
        marks |= unsent(remote_of(node))
    for node in nodes:
        send_parts(remote_of(node), marks)
    missing = complete(remote_of(nodes[0]), marks)
    for node in nodes:
        drop(remote_of(node), missing)
    return {mark: marks[mark] for mark in missing}


def test_parts_of_a_checkpoint_on_two_nodes_go_up_together(
    store: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    one = on("one", tmp_path, monkeypatch)
    saved = "work/k1/checkpoints/step-3"
    write(one.folder / saved, {"__0_a_0.distcp": b"1234"}, "checksums.json", ("__1_a_0.distcp",))
    two = on("two", tmp_path, monkeypatch, apart=True)
    write(two.folder / saved, {"__1_a_0.distcp": b"5678", "__1_b_0.distcp": b"9999"})
    assert not together(one, two)
    names = {name.removeprefix(f"run/{saved}/") for name in store.names()}
    assert names == {"__0_a_0.distcp", "__1_a_0.distcp", "checksums.json"}


def test_a_checkpoint_with_a_part_on_a_node_that_is_gone_goes(
    store: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    one = on("one", tmp_path, monkeypatch)
    saved = one.folder / "work/k1/checkpoints/step-3"
    write(saved, {"__0_a_0.distcp": b"1234"}, "checksums.json", ("__1_a_0.distcp",))
    catch_up(remote_of(one))
    assert not saved.exists()
    assert not [name for name in store.names() if name.endswith("checksums.json")]


def test_shards_of_a_result_that_another_node_has_written_go_up(
    store: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    one = on("one", tmp_path, monkeypatch)
    write(
        one.folder / "artifacts/k1", {"model": b"1234"}, "manifest.json", ("state/__1_a_0.distcp",)
    )
    two = on("two", tmp_path, monkeypatch, apart=True)
    write(two.folder / "work/k1/result.partial", {"state/__1_a_0.distcp": b"5678"})
    assert not together(one, two)
    assert store.read("run/artifacts/k1/state/__1_a_0.distcp") == b"5678"
    assert "run/artifacts/k1/manifest.json" in store.names()
    two.take_over("k1")
    assert (two.folder / "artifacts/k1/state/__1_a_0.distcp").read_bytes() == b"5678"
    two.make_room("")
    assert not list((two.folder / "work").iterdir())


def test_checkpoints_that_the_run_has_gone_beyond_do_not_go_up(
    store: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    one = on("one", tmp_path, monkeypatch)
    old = one.folder / "work/k1/checkpoints/step-3"
    write(old, {"__0_a_0.distcp": b"1234"}, "checksums.json")
    write(one.folder / "work/k2/checkpoints/step-3", {"__0_a_0.distcp": b"1234"}, "checksums.json")
    store.put({"run/work/k1/checkpoints/step-9/checksums.json": b"{}"})
    store.put({"run/artifacts/k2/manifest.json": b"{}"})
    assert unsent(remote_of(one)) == {}
    assert not old.exists()


def test_results_that_were_removed_from_the_store_do_not_come_back_from_another_node(
    store: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    store.put({"run/journal.jsonl": b'{"job": "later"}\n'})
    two = on("two", tmp_path, monkeypatch, apart=True)
    write(two.folder / "artifacts/k1", {"model": b"1234"}, "manifest.json")
    (two.folder / "journal.jsonl").write_text('{"job": "earlier"}\n')
    assert unsent(remote_of(two)) == {}
    assert not (two.folder / "artifacts/k1").exists()


def test_a_log_goes_on_on_another_node(
    store: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for node, line in (("one", "first\n"), ("two", "second\n")):
        here = on(node, tmp_path, monkeypatch, apart=True)
        path = here.log_of(1)
        take_log(remote_of(here), path)
        with path.open("a") as file:
            file.write(line)
        remote_of(here).send_log(path)
    assert store.read("run/logs/rank-1.log.segments/000000") == b"first\nsecond\n"


def asked(one: Store, others: list[Node]) -> None:
    """What rank 0 on a node finds, when others have found this."""

    def share(name: str, value: bytes | None) -> bytes:
        assert value
        return value

    require_nodes(one.folder, 0, {}, share, lambda name, value: [value, *map(Node.to_json, others)])


def test_a_node_sees_what_rank_0_has_written_into_the_store(
    store: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    one = on("one", tmp_path, monkeypatch)
    remote_of(one).bucket.write("sign", b"")
    two = on("two", tmp_path, monkeypatch)
    found = look(1, two.folder, [], "sign")
    assert not found.store
    assert remote_of(two).apart
    assert store.names() == ["run/sign"]
    (two.folder / "sign").touch()
    look(1, two.folder, [], "sign")
    assert not remote_of(two).apart, "rank 0 works in this folder, too"
    asked(one, [found])
    assert store.names() == ["run/sign"]


def test_a_node_that_asks_another_store_is_named(
    store: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    two = on("two", tmp_path, monkeypatch)
    found = look(1, two.folder, [], "sign")
    with pytest.raises(RunError) as problem:
        asked(on("one", tmp_path, monkeypatch), [found])
    assert "(rank 1) cannot use the run folder s3://bucket/run: " in problem.value.message
    assert "is not in the store that it asks" in problem.value.message
    assert "AWS_ENDPOINT_URL" in problem.value.help
    assert not store.names()


def test_a_node_that_may_not_write_is_named(
    store: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with guarded() as (other, keys):
        for name, value in {"AWS_ENDPOINT_URL": other.endpoint, **keys}.items():
            monkeypatch.setenv(name, value)
        fsspec.get_filesystem_class("s3").clear_instance_cache()
        two = on("two", tmp_path, monkeypatch)
        found = look(1, two.folder, [], "sign")
        assert "is not in the store" in found.store[0]
        monkeypatch.setattr(type(remote_of(two).bucket), "about", lambda bucket, name: name)
        found = look(1, two.folder, [], "sign")
    assert "cannot be written: access is denied" in found.store[0]
    fsspec.get_filesystem_class("s3").clear_instance_cache()


@pytest.mark.parametrize("apart", [True, False])
def test_what_nobody_reads_any_more_goes_from_a_node_with_a_folder_of_its_own(
    apart: bool, store: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Elsewhere rank 0 has removed it, or keeps it; in the store all stays as rank 0 leaves it."""
    two = on("two", tmp_path, monkeypatch, apart=apart)
    for key in ("spent", "read"):
        (two.folder / "artifacts" / key / "state").mkdir(parents=True)
        (two.folder / "artifacts" / key / "state" / "a.distcp").write_bytes(b"weights")
    store.put({"run/artifacts/spent/manifest.json": b"{}"})

    class Told:
        """Rank 0 has dropped an artifact before the next job of all ranks."""

        rank = 1
        said: Iterator[Together | End]

        def hear(self) -> Together | End:
            return next(self.said)

        def arrive(self) -> None:
            assert (two.folder / "artifacts" / "spent").exists() == (not apart)
            assert (two.folder / "artifacts" / "read" / "state" / "a.distcp").exists()

    plan = planned(SPEC)
    done: list[str] = []
    (job, *_) = plan.jobs
    work = WORK[type(job)]._replace(do=lambda task: done.append(task.key))
    monkeypatch.setitem(WORK, type(job), work)
    told = Told()
    told.said = iter([Together(job.id, "k", {}, {}, spent=["spent"]), End(None)])
    follow(plan, two, tmp_path, cast(Any, told))
    assert done == ["k"]
    assert store.names() == ["run/artifacts/spent/manifest.json"]
