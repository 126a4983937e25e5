"""A run folder in an object store: what goes up when, what is taken over, who has it."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from stores import KEY, SECRET, Server, guarded, impatient, server

from etude.runtime.errors import Interrupted, RunError
from etude.runtime.run_folder import lease as lease_module
from etude.runtime.run_folder.lease import INHERITED
from etude.runtime.run_folder.store import Store
from etude.runtime.stores import remote as remote_module
from etude.runtime.stores import segments
from etude.runtime.stores.objects import PATIENCE, Bucket, StoreError
from etude.runtime.stores.places import CACHE, working
from etude.runtime.stores.pulling import catch_up
from etude.runtime.stores.views import seen

URL = "s3://bucket/run"


@pytest.fixture(scope="module")
def module_store() -> Iterator[Server]:
    with server() as found:
        yield found


@pytest.fixture
def store(module_store: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Server:
    """An empty bucket, and an environment in which etude finds it; patience and beats are short."""
    for name, value in module_store.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv(CACHE, str(tmp_path / "one"))
    monkeypatch.setenv(PATIENCE, "0")
    for name in ("SLURM_JOB_ID", "SLURM_RESTART_COUNT", INHERITED):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(lease_module, "BEAT_SECONDS", 0.05)
    monkeypatch.setattr(lease_module, "DEAD_SECONDS", 1.0)
    # s3fs remembers the endpoint of another test's server.
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    for name in module_store.names():
        module_store.client().delete_object(Bucket="bucket", Key=name)
    return module_store


def opened(url: str = URL) -> Store:
    """The run folder, as a process that has just begun sees it."""
    remote_module._known.clear()
    store = Store(working(url).home)
    store.pull()
    store.create()
    return store


def on_another_machine(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Store:
    monkeypatch.setenv(CACHE, str(folder))
    return opened()


def make(store: Store, key: str, content: bytes = b"x" * 1000) -> None:
    """A job that is done, with its lines in the journal."""
    store.record("job", key, "started", {"plan": key})
    result = store.work(key) / "result"
    result.mkdir(parents=True)
    (result / "model").write_bytes(content)
    store.publish(key, result, "job")
    store.record("job", key, "finished", {"plan": key})


def test_what_one_machine_has_made_another_finds_and_fetches(
    store: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    make(opened(), "k1")
    there = on_another_machine(monkeypatch, tmp_path / "two")
    assert [event["event"] for event in there.events()] == ["started", "finished"]
    folder = there.artifact("k1")
    assert folder is not None
    assert not (folder / "model").exists(), "fetched before anybody needs it"
    assert there.fetch("k1") == folder
    assert (folder / "model").read_bytes() == b"x" * 1000


def test_an_artifact_whose_upload_was_cut_off_is_not_there(
    store: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    here = opened()
    put = Bucket.put

    def cut(bucket: Bucket, files: dict[str, Path]) -> None:
        if any(name.endswith("manifest.json") for name in files):
            raise KeyboardInterrupt
        put(bucket, files)

    monkeypatch.setattr(Bucket, "put", cut)
    with pytest.raises(KeyboardInterrupt):
        make(here, "k1")
    monkeypatch.setattr(Bucket, "put", put)
    assert "run/artifacts/k1/model" in store.names("run/")
    assert on_another_machine(monkeypatch, tmp_path / "two").artifact("k1") is None


@pytest.mark.parametrize("how", ["cut off", "changed"])
def test_an_object_that_is_not_what_was_written_is_refused(
    store: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, how: str
) -> None:
    make(opened(), "k1")
    store.put({"run/artifacts/k1/model": b"x" * 10 if how == "cut off" else b"y" * 1000})
    there = on_another_machine(monkeypatch, tmp_path / "two")
    with pytest.raises(RunError) as problem:
        there.fetch("k1")
    assert "s3://bucket/run/artifacts/k1" in problem.value.message + problem.value.help
    assert "damaged" in problem.value.message
    assert "remove" in problem.value.help
    assert not list((there.folder / "artifacts" / "k1").glob("model*"))


def test_a_bucket_that_vanishes_ends_a_run_with_75_and_nothing_is_lost(
    store: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    here = opened()
    make(here, "k1")
    store.empty()
    with pytest.raises(Interrupted) as problem:
        make(here, "k2")
    assert problem.value.exit_code == 75
    assert "there is no bucket `bucket`" in problem.value.message
    assert "nothing is lost" in problem.value.help
    store.client().create_bucket(Bucket="bucket")
    again = opened()
    with again.lease():
        make(again, "k3")
    there = on_another_machine(monkeypatch, tmp_path / "two")
    assert there.fetch("k1")
    assert there.fetch("k3")
    assert [e["key"] for e in there.events()] == ["k1", "k1", "k2", "k3", "k3"]


def test_a_result_that_the_store_never_got_goes_up_when_it_is_back(
    store: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    here = opened()
    make(here, "k1")
    store.empty()
    result = here.work("k2") / "result"
    result.mkdir(parents=True)
    (result / "model").write_bytes(b"z")
    with pytest.raises(Interrupted):
        here.publish("k2", result, "job")
    store.client().create_bucket(Bucket="bucket")
    again = opened()
    with again.lease():
        pass
    assert on_another_machine(monkeypatch, tmp_path / "two").fetch("k2")


def test_where_another_machine_went_on_the_store_is_right(
    store: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    make(opened(), "k1")
    there = on_another_machine(monkeypatch, tmp_path / "two")
    make(there, "k2")
    monkeypatch.setenv(CACHE, str(tmp_path / "one"))
    back = opened()
    assert [e["key"] for e in back.events()] == ["k1", "k1", "k2", "k2"]
    assert back.artifact("k2")


def test_an_artifact_that_another_machine_has_made_again_is_fetched_again(
    store: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    make(opened(), "k1", b"one" * 100)
    there = on_another_machine(monkeypatch, tmp_path / "two")
    assert there.remote
    there.remote.bucket.remove(store_names(store, "run/artifacts/k1/"))
    there.pull()
    make(there, "k1", b"two" * 100)
    monkeypatch.setenv(CACHE, str(tmp_path / "one"))
    back = opened()
    folder = back.fetch("k1")
    assert folder
    assert (folder / "model").read_bytes() == b"two" * 100


def store_names(store: Server, prefix: str) -> list[str]:
    return [name.removeprefix("run/") for name in store.names(prefix)]


def test_what_an_earlier_start_left_of_a_result_goes_from_the_store(store: Server) -> None:
    store.put({"run/artifacts/k1/state/__0_other_0.distcp": b"half"})
    make(opened(), "k1")
    assert store_names(store, "run/artifacts/") == [
        "artifacts/k1/manifest.json",
        "artifacts/k1/model",
    ]


def test_files_that_grow_go_up_in_segments(
    store: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(segments, "SEGMENT", 100)
    here = opened()
    remote = here.remote
    assert remote
    for number in range(12):
        here.tell({"event": "note", "message": f"the note number {number}"})
        remote.send(metrics=False, rest=True)
    names = store.names("run/events.jsonl.segments/")
    assert len(names) == -(-here.events_path.stat().st_size // 100) > 5
    assert b"".join(map(store.read, names)) == here.events_path.read_bytes()
    there = on_another_machine(monkeypatch, tmp_path / "two")
    assert there.events_path.read_bytes() == here.events_path.read_bytes()
    there.tell({"event": "note", "message": "another"})
    assert there.remote
    written = []
    monkeypatch.setattr(Bucket, "write", lambda bucket, name, content: written.append(name))
    there.remote.send(metrics=False, rest=True)
    assert written[0] == "events.jsonl.segments/" + names[-1].rpartition("/")[2]


def test_steps_that_are_taken_back_are_taken_back_in_the_store(
    store: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(segments, "SEGMENT", 10)
    here = opened()
    steps = here.folder / "metrics" / "train.jsonl"
    assert here.remote
    for text in ("0123456789" * 5, "0123456789" * 2 + "abcdefgh", "0123456789" * 3 + "z"):
        steps.write_text(text)
        here.remote.send(metrics=True, rest=False)
        names = store.names("run/metrics/train.jsonl.segments/")
        assert b"".join(map(store.read, names)).decode() == text


def test_two_runs_do_not_share_a_folder(
    store: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    here = opened()
    with here.lease():
        there = on_another_machine(monkeypatch, tmp_path / "two")
        with pytest.raises(RunError) as problem, there.lease():
            pass
        assert f"another run is using s3://bucket/run: process {os.getpid()}" in (
            problem.value.message
        )
        here.require_lease()
    with there.lease():
        there.require_lease()


def test_a_dead_owner_of_another_host_is_succeeded_once(
    store: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    here = opened()
    with here.lease():
        owner = json.loads(store.read("run/lease.json"))
    store.put({"run/lease.json": json.dumps(owner | {"host": "gone", "token": "old"}).encode()})
    waited: list[str] = []
    with here.lease(waited.append):
        assert len(waited) == 1
        now = json.loads(store.read("run/lease.json"))
        assert now["host"] != "gone"
        bucket = Bucket(URL)
        assert not bucket.replace("lease.json", b"{}", "the tag of the dead one")
        assert not bucket.create("lease.json", b"{}")


def test_a_run_whose_lease_was_taken_learns_of_it(store: Server) -> None:
    here = opened()
    with here.lease() as lease:
        owner = json.loads(store.read("run/lease.json"))
        taken = owner | {"host": "other", "token": "theirs"}
        store.put({"run/lease.json": json.dumps(taken).encode()})
        lease._ended.wait(0.3)
        lease._write()
        with pytest.raises(Interrupted, match="another run has taken s3://bucket/run"):
            here.require_lease()
    assert json.loads(store.read("run/lease.json"))["token"] == "theirs"


@pytest.mark.parametrize(
    ("url", "changes", "said", "help"),
    [
        ("s3://bucket/r", {"AWS_ACCESS_KEY_ID": None}, "no credentials", "AWS_ACCESS_KEY_ID"),
        ("s3://none/r", {}, "there is no bucket `none`", "make the bucket"),
        (
            "s3://bucket/r",
            {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"},
            "the store at http://127.0.0.1:9 does not answer",
            "endpoint",
        ),
        ("s3://AKIA:pass@bucket/r", {}, "`s3://…@bucket/r`", "remove it"),
        ("s3n://bucket/r", {}, "is not a URL of an object store", "s3://bucket/folder"),
    ],
)
def test_a_store_that_cannot_be_used_is_one_message(
    store: Server,
    monkeypatch: pytest.MonkeyPatch,
    url: str,
    changes: dict[str, str | None],
    said: str,
    help: str,
) -> None:
    for name, value in changes.items():
        monkeypatch.setenv(name, value) if value else monkeypatch.delenv(name)
    impatient(monkeypatch)
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    with pytest.raises(RunError) as problem:
        opened(url)
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    assert said in problem.value.message
    assert help in problem.value.help
    assert problem.value.exit_code == 1
    assert "pass" not in problem.value.message.replace("password", "")


def test_without_the_package_the_message_says_what_to_install(
    store: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(url: str, **_: object) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr("etude.runtime.stores.objects.opened", missing)
    with pytest.raises(StoreError) as problem:
        opened()
    assert "it needs the package s3fs, which is not installed" in problem.value.message
    assert problem.value.help == "pip install 'etude[s3]'"


def test_a_view_shows_what_the_store_has_and_keeps_up(store: Server) -> None:
    here = opened()
    (here.folder / "plan.json").write_text("{}")
    with here.lease():
        make(here, "k1")
        shown = Store(seen(URL))
        assert shown.folder != here.folder
        assert [e["key"] for e in shown.events()] == ["k1", "k1"]
        assert (shown.folder / "lease.json").is_file()
        make(here, "k2")
    shown = Store(seen(URL))
    assert [e["key"] for e in shown.events()] == ["k1", "k1", "k2", "k2"]
    assert not (shown.folder / "lease.json").exists()
    assert shown.name == URL


def test_no_secret_is_in_the_store_or_the_local_folder(store: Server, tmp_path: Path) -> None:
    here = opened()
    with here.lease():
        make(here, "k1")
        here.tell({"event": "note", "message": "something"})
    texts = [store.read(name) for name in store.names()]
    texts += [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert len(texts) > 8
    for text in texts:
        assert SECRET.encode() not in text
        assert KEY.encode() not in text


def test_a_checkpoint_that_only_the_local_folder_has_goes_up(store: Server) -> None:
    here = opened()
    saved = here.work("k1") / "checkpoints" / "step-3"
    saved.mkdir(parents=True)
    for name in ("__0_0.distcp", ".metadata"):
        (saved / name).write_bytes(b"12")
    files = {name: {"bytes": 2} for name in ("__0_0.distcp", ".metadata")}
    (saved / "checksums.json").write_text(json.dumps({"files": files}))
    assert here.remote
    catch_up(here.remote)
    assert len(store.names("run/work/k1/checkpoints/step-3/")) == 3
    (saved.parent / "step-6").mkdir()
    (saved.parent / "step-6" / "checksums.json").write_text('{"files": ')
    catch_up(here.remote)
    assert not (saved.parent / "step-6").exists(), "damaged, so the one before it counts"


@pytest.fixture(scope="module")
def reader() -> Iterator[tuple[Server, dict[str, str]]]:
    with guarded() as found:
        yield found


def test_wrong_credentials_are_one_message(
    store: Server, reader: tuple[Server, dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", reader[0].endpoint)
    with pytest.raises(StoreError) as problem:
        opened()
    assert problem.value.why.kind == "credentials"
    assert "the credentials are wrong" in problem.value.message
    assert "AWS_ACCESS_KEY_ID" in problem.value.help
    assert KEY not in problem.value.message


def test_who_may_not_write_learns_it_before_the_first_job(
    store: Server, reader: tuple[Server, dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", reader[0].endpoint)
    for name, value in reader[1].items():
        monkeypatch.setenv(name, value)
    here = opened()
    with pytest.raises(StoreError) as problem, here.lease():
        pytest.fail("the run has begun")
    assert problem.value.exit_code == 1
    assert problem.value.why.kind == "refused"
    assert "s3://bucket/run/lease.json cannot be written: access is denied" in (
        problem.value.message
    )
    assert not (here.folder / "lease.json").exists()


def test_of_an_artifact_that_nobody_reads_any_more_a_record_stays(
    store: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    here = opened()
    make(here, "k1")
    there = on_another_machine(monkeypatch, tmp_path / "two")
    assert there.fetch("k1")
    monkeypatch.setenv(CACHE, str(tmp_path / "one"))
    here = opened()
    assert not here.is_spent("k1")
    here.spend("k1", keep=())
    assert here.is_spent("k1")
    own = [name for name in store.names("run/") if "/artifacts/" in name]
    assert own == ["run/artifacts/k1/manifest.json"]
    there = on_another_machine(monkeypatch, tmp_path / "two")
    folder = there.fetch("k1")
    assert there.is_spent("k1")
    assert folder is not None
    assert not (folder / "model").exists()
