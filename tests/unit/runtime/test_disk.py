"""Files that are there as a whole or not at all, and what is said if the disk takes none."""

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from etude.runtime import disk as module
from etude.runtime.disk import disk, link, move, write, write_by
from etude.runtime.errors import Stopped
from etude.runtime.run_folder.store import Store


@pytest.fixture
def order(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What reaches the disk, in order: names of files and folders, and renames."""
    found: list[str] = []
    fsync, replace = os.fsync, os.replace

    def name(file: int) -> str:
        return Path(os.readlink(f"/proc/self/fd/{file}")).name.partition(".partial")[0][:7]

    def synced(file: int) -> None:
        found.append(name(file))
        fsync(file)

    def renamed(source: Path, target: Path) -> None:
        found.append(f"-> {Path(target).name}")
        replace(source, target)

    monkeypatch.setattr(module.os, "fsync", synced)
    monkeypatch.setattr(module.os, "replace", renamed)
    return found


def test_the_content_of_a_file_is_on_the_disk_before_its_name_and_then_the_name(
    order: list[str], tmp_path: Path
) -> None:
    write(tmp_path / "a.txt", "text")
    assert order == [".a.txt.", "-> a.txt", tmp_path.name[:7]]


def test_all_that_a_folder_holds_is_on_the_disk_before_its_name(
    order: list[str], tmp_path: Path
) -> None:
    made = tmp_path / "made"
    (made / "in").mkdir(parents=True)
    (made / "one").touch()
    (made / "in" / "two").touch()
    move(made, tmp_path / "result")
    assert set(order[:4]) == {"one", "two", "in", "made"}
    assert order[4:] == ["-> result", tmp_path.name[:7]]


@pytest.mark.parametrize("make", [write, lambda path, data: write_by(path, _broken)])
def test_a_file_that_cannot_be_written_stays_what_it_was(
    make: Callable[[Path, str], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.txt"
    write(path, "before")
    monkeypatch.setattr(module.os, "fsync", _full)
    with pytest.raises(OSError, match=r"a\.txt"):
        make(path, "after")
    assert path.read_text() == "before"
    assert os.listdir(tmp_path) == ["a.txt"]


def _full(file: int) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _broken(file: object) -> None:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def test_a_link_is_replaced_at_once(order: list[str], tmp_path: Path) -> None:
    link(Path("one"), tmp_path / "name")
    link(Path("two"), tmp_path / "name")
    assert os.readlink(tmp_path / "name") == "two"
    assert order == ["-> name", "-> name"]


def test_a_file_system_without_fsync_of_folders_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(file: int) -> None:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    monkeypatch.setattr(module.os, "fsync", unknown)
    move(tmp_path / write_one(tmp_path), tmp_path / "other")
    assert (tmp_path / "other").read_text() == "text"


def write_one(folder: Path) -> str:
    (folder / "one").write_text("text")
    return "one"


@pytest.mark.parametrize(
    ("problem", "said", "help"),
    [
        (
            OSError(errno.ENOSPC, "x", "f.bin"),
            "f.bin cannot be written: the disk is full (",
            "free",
        ),
        (OSError(errno.EDQUOT, "x"), "/w/file cannot be written: the quota", "free some space"),
        (OSError(errno.EFBIG, "x"), "a limit of the system", "free some space"),
        (OSError(errno.EROFS, "x"), "read-only file system", "make it writable for this user"),
        (OSError(errno.EACCES, "x"), "permission denied", "make it writable for this user"),
        (OSError(errno.EIO, "x"), "input/output error", "look after the disk"),
        (OSError(errno.ESTALE, "x"), "stale file handle", "look after the disk"),
        (OSError("8192 requested and 4096 written"), "only a part of it", "free some space"),
        (Exception("I/O error: No space left on device (os error 28)"), "is full", "free some"),
    ],
)
def test_what_the_disk_refuses_is_said_with_the_file_the_reason_and_what_to_do(
    problem: Exception, said: str, help: str
) -> None:
    with pytest.raises(Stopped) as stopped, disk(Path("/w/file")):
        raise problem
    assert said in stopped.value.message
    assert stopped.value.help.startswith(help)
    assert "everything finished so far is kept" in stopped.value.help


def test_a_file_that_numpy_cannot_write_whole_is_named(tmp_path: Path) -> None:
    def cut_off(file: object) -> None:
        raise OSError("8192 requested and 4096 written")

    with pytest.raises(Stopped) as stopped, disk(tmp_path):
        write_by(tmp_path / "a.npy", cut_off)
    said = f"{tmp_path / 'a.npy'} cannot be written: only a part of it was written"
    assert stopped.value.message.startswith(said)


def test_other_errors_are_left_alone() -> None:
    with pytest.raises(ValueError, match="mine"), disk(Path("/w/file")):
        raise ValueError("mine")


def test_a_result_does_not_hold_what_a_killed_process_has_not_finished(tmp_path: Path) -> None:
    store = Store(tmp_path)
    (tmp_path / "artifacts").mkdir()
    result = tmp_path / "work" / "key" / "result"
    (result / "below").mkdir(parents=True)
    write(result / "model.bin", "whole")
    write(result / ".hidden", "whole")
    for left in (".manifest.json.18668.41c1f21b.partial", "below/.x.1.2.partial"):
        (result / left).write_text("{")
    made = store.publish("key", result, "job")
    manifest = json.loads((made / "manifest.json").read_bytes())
    assert sorted(manifest["files"]) == [".hidden", "model.bin"]
    found = sorted(path.name for path in made.rglob("*") if path.is_file())
    assert found == [".hidden", "manifest.json", "model.bin"]
