"""Parts of preparing whose run folder is in a store, each on a machine of its own."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from stores import Server, server

from etude.cli.main import main
from etude.runtime.data.reading import stretches
from etude.runtime.preparation import units
from etude.runtime.stores import remote as remote_module
from etude.runtime.stores.objects import PATIENCE, Bucket
from etude.runtime.stores.places import CACHE

SPEC = """recipe parts { seed = 3 }
tokenizer words { train = { on [web], vocab 300 } }
dataset web { files = "s3://bucket/web/*.jsonl", holdout = 10%, bad_lines = 3 }
model tiny { layers = 2, dim = 64, heads = 4, ffn = 128 }
stage pretrain: train {
  model = tiny, steps = 10, seq_len = 16, batch = 4 seqs, lr = 1e-3, data = web
}
"""
URL = "s3://bucket/run"


@pytest.fixture(scope="module")
def module_store() -> Iterator[Server]:
    with server() as found:
        found.put({f"web/{number}.jsonl": documents(number) for number in range(7)})
        yield found


def documents(number: int) -> bytes:
    lines = [json.dumps({"text": f"{number} {i} " + "word " * (i % 9)}) for i in range(40)]
    if number == 1:
        lines[5] = "no JSON"
    return "\n".join(lines).encode() + b"\n"


@pytest.fixture
def store(module_store: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Server:
    """A bucket with the data and no run; files of any size are units, and patience is short."""
    for name, value in module_store.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv(PATIENCE, "0")
    monkeypatch.setattr(stretches, "SMALL", 0)
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    for name in module_store.names("run/"):
        module_store.client().delete_object(Bucket="bucket", Key=name)
    (tmp_path / "spec.etude").write_text(SPEC)
    return module_store


def prepare(
    machine: str, folder: Path, monkeypatch: pytest.MonkeyPatch, *part: str, to: str = URL
) -> int:
    """`etude prepare` on a machine with a local folder of its own; the exit code."""
    monkeypatch.setenv(CACHE, str(folder / machine))
    remote_module._known.clear()
    given = ["--part", *part] if part else []
    return main(["prepare", str(folder / "spec.etude"), "--folder", to, *given])


@pytest.fixture
def whole(store: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """The files of results that one process makes, on this machine's disk."""
    assert prepare("here", tmp_path, monkeypatch, to=str(tmp_path / "whole")) == 0
    artifacts = tmp_path / "whole" / "artifacts"
    return {
        path.relative_to(artifacts).as_posix(): path.read_bytes()
        for path in artifacts.rglob("*")
        if path.is_file()
    }


def stored(store: Server) -> dict[str, bytes]:
    """The files of results in the store."""
    prefix = "run/artifacts/"
    return {name.removeprefix(prefix): store.read(name) for name in store.names(prefix)}


def made_units(store: Server) -> list[int]:
    """The numbers of the units in the store that are complete."""
    names = [name for name in store.names("run/work/") if name.endswith("/unit.json")]
    return sorted(int(name.split("/")[-2]) for name in names)


def test_parts_on_machines_of_their_own_give_the_bytes_of_one(
    store: Server, whole: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in ("2", "1"):
        assert prepare(f"part {number}", tmp_path, monkeypatch, number, "of", "2") == 0
    assert made_units(store) == [*range(7)]
    made: list[int] = []
    plain = units._make
    monkeypatch.setattr(units, "_make", lambda *a: (made.append(a[2]), plain(*a))[1])
    assert prepare("joins", tmp_path, monkeypatch) == 0
    assert made == [], "the machine that joins the parts has made none again"
    assert stored(store) == whole
    assert not store.names("run/work/")


def test_a_part_goes_on_on_another_machine(
    store: Server, whole: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []
    plain = units._make

    def make(*given: object) -> object:
        if len(made) == 2:
            raise KeyboardInterrupt
        made.append(given[2])  # type: ignore[arg-type]
        return plain(*given)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(units, "_make", make)
        assert prepare("one", tmp_path, patched, "1", "of", "2") == 130
    assert made_units(store) == made == [0, 2]
    shutil.rmtree(tmp_path / "one")
    monkeypatch.setattr(units, "_make", lambda *a: (made.append(a[2]), plain(*a))[1])
    assert prepare("two", tmp_path, monkeypatch, "1", "of", "2") == 0
    assert made == [0, 2, 4, 6]
    assert prepare("joins", tmp_path, monkeypatch) == 0
    assert stored(store) == whole


def test_a_store_that_is_gone_ends_a_part_with_75_and_what_it_has_goes_up_later(
    store: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    plain = Bucket.put

    def put(bucket: Bucket, files: dict[str, Path]) -> None:
        if any("/units/000002/" in name for name in files):
            bucket = Bucket("s3://none/run")
        plain(bucket, files)

    with monkeypatch.context() as patched:
        patched.setattr(Bucket, "put", put)
        assert prepare("one", tmp_path, patched, "1", "of", "2") == 75
    said = capsys.readouterr().err
    assert said.count("error: ") == 1
    assert "there is no bucket `none`" in " ".join(said.split())
    assert made_units(store) == [0]
    monkeypatch.setattr(units, "_make", lambda task, folder, number, *more: made.append(number))
    made: list[int] = []
    prepare("one", tmp_path, monkeypatch, "1", "of", "2")
    assert made == [4, 6]
    assert made_units(store) == [0, 2]


@pytest.mark.exhaustive
def test_a_unit_that_is_damaged_in_the_store_is_refused(
    store: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    assert prepare("one", tmp_path, monkeypatch, "1", "of", "1") == 0
    (name,) = [n for n in store.names("run/work/") if n.endswith("/000003/tokens")]
    store.put({name: b"?" + store.read(name)[1:]})
    assert prepare("joins", tmp_path, monkeypatch) == 1
    said = " ".join(capsys.readouterr().err.split())
    assert f"s3://bucket/{name} is not what was written" in said
    unit = name.removesuffix("/tokens")
    assert f"remove s3://bucket/{unit}" in said
    for each in store.names(unit):
        store.client().delete_object(Bucket="bucket", Key=each)
    assert prepare("joins", tmp_path, monkeypatch) == 0
