"""What a machine has of a run that the store lacks: it goes up before the next job.

A store that did not answer, or was gone for a while, may lack checkpoints and results that are
complete on the disks of the nodes that made them. The file that completes one, its *mark*, is on
rank 0's node, and names the files of all nodes. Each node sends those that it has, and the mark
follows once all are there.
"""

import json
import shutil
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from .remote import JOURNAL, MANIFEST, SHARDS, SUMS, Remote, in_variant

Marks = dict[str, str]
"""The object of a mark → its content."""


def unsent(remote: Remote) -> Marks:
    """The marks that this machine has and the store lacks; removes checkpoints that the store has
    gone beyond, and results that it has no more.

    Raises: StoreError.
    """
    remote.look()
    done = remote.keys()
    found = {}
    behind = remote.apart and _is_behind(remote)
    for path in sorted((remote.home / "artifacts").glob(f"*/{MANIFEST}")):
        if path.parent.name in done:
            continue
        if behind:
            shutil.rmtree(path.parent, ignore_errors=True)
        elif content := _read(remote.name(path), path):
            found[remote.name(path)] = content
    for path in sorted((remote.home / "work").glob(f"*/checkpoints/step-*/{SUMS}")):
        if remote.name(path) in remote.objects:
            continue
        key = path.parts[-4]
        content = _read(remote.name(path), path)
        if key in done or _step(path.parent.name) < _newest(remote, key) or content is None:
            shutil.rmtree(path.parent, ignore_errors=True)
        else:
            found[remote.name(path)] = content
    return found


def send_parts(remote: Remote, marks: Mapping[str, str]) -> None:
    """Sends the files that marks name, as far as they are here and the store lacks them.

    Raises: StoreError.
    """
    for mark, content in marks.items():
        files = {}
        there = remote.bucket.listed(mark.rpartition("/")[0])
        for name, size in _files(mark, content).items():
            if (name not in there or there[name].size != size) and (path := _here(remote, name)):
                files[name] = path
        remote.put_as(files)


def complete(remote: Remote, marks: Mapping[str, str]) -> list[str]:
    """Sends the marks whose files the store has all of; returns the others.

    Raises: StoreError.
    """
    missing = []
    for mark, content in marks.items():
        there = remote.bucket.listed(mark.rpartition("/")[0])
        remote.objects |= there
        wanted = _files(mark, content).items()
        if all(name in there and there[name].size == size for name, size in wanted):
            remote.write(mark, content.encode())
            if mark.endswith(f"/{MANIFEST}"):
                remote.remove_later(f"work/{mark.split('/')[1]}/")
        else:
            missing.append(mark)
    return missing


def drop(remote: Remote, marks: Collection[str]) -> None:
    """Removes, on this machine, what cannot be completed: parts were on machines that are gone."""
    for mark in marks:
        shutil.rmtree((remote.home / mark).parent, ignore_errors=True)


def _is_behind(remote: Remote) -> bool:
    """Whether the run has gone on since this machine was rank 0's."""
    for name in [n for n in remote.objects if n == in_variant(n) + JOURNAL]:
        try:
            own = (remote.home / name).read_bytes()
        except FileNotFoundError:
            return True
        if not own.startswith(remote.bucket.read(name) or b""):
            return True
    return False


def _read(mark: str, path: Path) -> str | None:
    """The content of a mark on the disk; None if it is damaged, which its reader reports."""
    try:
        content = path.read_text()
        _files(mark, content)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return content


def _files(mark: str, content: str) -> dict[str, int]:
    """The objects that a mark names → their sizes in bytes."""
    folder = mark.rpartition("/")[0]
    return {
        f"{folder}/{name}": int(entry["bytes"])
        for name, entry in json.loads(content)["files"].items()
    }


def _here(remote: Remote, name: str) -> Path | None:
    """The local file for an object, if there is one. On other nodes than rank 0's, the shards of a
    result stay where its job has written them; their names are like no others."""
    path = remote.home / name
    if path.is_file():
        return path
    key = name.split("/")[1]
    if not name.endswith(SHARDS):
        return None
    return next((remote.home / "work" / key).rglob(path.name), None)


def _newest(remote: Remote, key: str) -> int:
    """The step of the newest complete checkpoint of a job in the store; -1: there is none."""
    return max(map(_step, _steps(remote, f"work/{key}/checkpoints/")), default=-1)


def _steps(remote: Remote, prefix: str) -> Iterator[str]:
    for name in remote.objects:
        if name.startswith(prefix) and name.endswith(f"/{SUMS}"):
            yield name.split("/")[-2]


def _step(folder: str) -> int:
    number = folder.removeprefix("step-")
    return int(number) if number.isdecimal() else -1
