"""A model that is written into an object store: whole, or not there."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from stores import Server, server

from etude.runtime import model_export
from etude.runtime.errors import RunError
from etude.runtime.stores.objects import Bucket

URL = "s3://bucket/model"
NOTHING: Any = None


@pytest.fixture(scope="module")
def module_store() -> Iterator[Server]:
    with server() as found:
        yield found


@pytest.fixture
def store(
    module_store: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Server]:
    """The server, for a model of two files that was made in this process."""
    for name, value in module_store.environment.items():
        monkeypatch.setenv(name, value)
    # s3fs remembers the endpoint of another test's server.
    fsspec.get_filesystem_class("s3").clear_instance_cache()

    def made(plan: Any, store: Any, stage: str, to: Path, root: Path, dtype: str) -> Path:
        to.mkdir()
        (to / "config.json").write_text("{}")
        (to / "model.safetensors").write_bytes(b"weights")
        return to

    monkeypatch.setattr(model_export, "export_stage", made)
    yield module_store
    for name in module_store.names():
        module_store.client().delete_object(Bucket="bucket", Key=name)


def export(to: str = URL) -> str:
    return model_export.export_to_store(NOTHING, NOTHING, "sft", to, Path(), "")


def test_nothing_but_the_model_is_there(store: Server) -> None:
    assert export() == URL
    assert store.names() == ["model/config.json", "model/model.safetensors"]
    with pytest.raises(RunError, match="s3://bucket/model already exists"):
        export()


def test_while_it_is_written_nobody_takes_it_for_a_model(
    store: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[str]] = []
    put = Bucket.put

    def watched(self: Bucket, files: Any) -> None:
        seen.append(store.names())
        put(self, files)

    monkeypatch.setattr(Bucket, "put", watched)
    export()
    assert seen == [
        ["model/.etude-unfinished"],
        ["model/.etude-unfinished", "model/model.safetensors"],
    ]


@pytest.mark.parametrize("problem", [KeyboardInterrupt(), RunError("no room", "make room")])
def test_what_is_cut_off_leaves_nothing_and_can_be_done_again(
    problem: BaseException, store: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = Bucket.put

    def cut_off(self: Bucket, files: Any) -> None:
        put(self, files)
        raise problem

    with monkeypatch.context() as broken:
        broken.setattr(Bucket, "put", cut_off)
        with pytest.raises(type(problem)):
            export()
    assert store.names() == []
    assert export() == URL


def test_one_that_a_killed_process_has_left_is_named(store: Server) -> None:
    store.put({"model/.etude-unfinished": b"", "model/model.safetensors": b"wei"})
    with pytest.raises(RunError, match="an unfinished export") as raised:
        export()
    assert "remove what is there" in raised.value.help
    assert "model/model.safetensors" in store.names(), "it may be somebody else's"
