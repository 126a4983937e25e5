"""Updates a local folder from the store before it is used."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from ..disk import write
from .objects import Object
from .remote import (
    JOURNAL,
    LAUNCH,
    LEASE,
    MANIFEST,
    MARKER,
    METADATA,
    SUMS,
    Remote,
    belongs_to_jobs,
    in_variant,
)
from .segments import SEGMENT, SUFFIX, files_in
from .unsent import complete, drop, send_parts, unsent

Tags = dict[str, list[str]]
"""Growing file → the tags of its segments that the local file has."""
_NONE = Object(0, "", 0.0)


def pull(remote: Remote) -> None:
    """Updates a working folder: journals, steps, events, logs and manifests.

    If the folder is ahead of the store, because the store could not be reached when the folder was
    last used, the folder stays as it is, and `catch_up` sends the difference. If another machine
    has continued since, the store wins. Results themselves are downloaded when a job needs them.

    Raises: StoreError.
    """
    remote.look()
    objects = remote.objects
    ahead = {}
    for name in [n for n in objects if n == in_variant(n) + JOURNAL]:
        ahead[in_variant(name)] = _take(remote, name, remote.bucket.read(name) or b"")
    for file, segments in files_in(objects).items():
        content = b"".join(remote.bucket.read(name) or b"" for name in segments)
        remote.took(file, content)
        _take(remote, file, content)
    plain = [name for name in objects if _is_plain(name)]
    remote.get_small(
        [n for n in plain if not ((remote.home / n).exists() and ahead.get(in_variant(n)))]
    )
    behind = not all(ahead.values())
    _manifests(remote, {}, remove=behind)


def catch_up(remote: Remote) -> None:
    """Sends finished results and checkpoints that the store lacks; removes those of which parts
    were on machines that are gone.

    Raises: Interrupted.
    """
    with remote.going():
        marks = unsent(remote)
        send_parts(remote, marks)
        drop(remote, complete(remote, marks))


def take_file(remote: Remote, path: Path) -> None:
    """Downloads a small file that belongs to no job, if the store has it.

    Raises: StoreError.
    """
    content = remote.bucket.read(remote.name(path))
    if content is not None:
        _write(path, content)


def take_results(remote: Remote) -> None:
    """Downloads the manifests of artifacts that other machines have made.

    Raises: StoreError.
    """
    before = dict(remote.objects)
    remote.look()
    _manifests(remote, before, remove=False)


def take_log(remote: Remote, path: Path) -> None:
    """Downloads the log of a rank, which this machine continues.

    Raises: StoreError.
    """
    name = remote.name(path)
    segments = sorted(remote.bucket.listed(f"{name}{SUFFIX}"))
    content = b"".join(remote.bucket.read(segment) or b"" for segment in segments)
    remote.took(name, content)
    _take(remote, name, content)


def renew_result(remote: Remote, key: str) -> None:
    """Makes the local manifest of an artifact that of the store, on another node than rank 0's. If
    it was another, the artifact was made again, and its local files go.

    Raises: StoreError.
    """
    name = f"artifacts/{key}/{MANIFEST}"
    path = remote.home / name
    remote.objects |= remote.bucket.listed(f"artifacts/{key}")
    content = remote.bucket.read(name)
    if content is None:
        return
    with remote.alone():
        if path.is_file() and path.read_bytes() == content:
            return
        shutil.rmtree(path.parent, ignore_errors=True)
        _write(path, content)


def view(remote: Remote, tags: Tags) -> None:
    """Updates a folder that only shows the content of the store.

    Args:
        tags: what the folder already has; updated in place.

    Raises: StoreError.
    """
    before = dict(remote.objects)
    remote.look()
    objects = remote.objects
    for file, segments in files_in(objects).items():
        _grow(remote, file, segments, tags)
    small = [n for n in objects if _is_plain(n) or n == in_variant(n) + JOURNAL or n == LEASE]
    changed = [n for n in small if objects[n] != before.get(n) or not (remote.home / n).exists()]
    remote.get_small(changed)
    if LEASE not in objects:
        (remote.home / LEASE).unlink(missing_ok=True)
    elif LEASE in changed:
        os.utime(remote.home / LEASE, (objects[LEASE].written, objects[LEASE].written))
    for path in (remote.home / LAUNCH, *remote.home.glob(f"variants/*/{LAUNCH}")):
        if remote.name(path) not in objects:
            path.unlink(missing_ok=True)
    _manifests(remote, before, remove=True)
    for name, about in objects.items():
        if name.startswith("work/") and name.endswith(f"/{SUMS}"):
            path = remote.home / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
            os.utime(path, (about.written, about.written))


def sums(remote: Remote, work: Path) -> None:
    """Downloads the files that say which of a job's checkpoints the store has.

    Raises: StoreError.
    """
    found = remote.bucket.listed(remote.name(work / "checkpoints"))
    remote.objects |= found
    for name in found:
        if name.endswith(f"/{SUMS}"):
            renew(remote, (remote.home / name).parent)


def renew(remote: Remote, checkpoint: Path) -> None:
    """Makes a local checkpoint the one of that name in the store, without its shards: since this
    machine wrote or fetched it, another may have written that step again.

    Raises: StoreError.
    """
    path = checkpoint / SUMS
    content = remote.bucket.read(remote.name(path))
    if content is None:
        return
    try:
        files = json.loads(content)["files"]
        metadata = files[METADATA]["sha256"]
    except (ValueError, KeyError, TypeError):  # damaged, as its reader finds
        files, metadata = {}, ""
    checkpoint.mkdir(parents=True, exist_ok=True)
    if _digest(path) != hashlib.sha256(content).hexdigest():
        for stale in checkpoint.iterdir():
            if stale.name not in files:
                stale.unlink(missing_ok=True)
    if _digest(checkpoint / METADATA) != metadata:
        (checkpoint / METADATA).unlink(missing_ok=True)
        remote.get_small([remote.name(checkpoint / METADATA)])
    _write(path, content)


def _digest(path: Path) -> str:
    """The SHA-256 checksum of a file; "" if it does not exist."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except FileNotFoundError:
        return ""


def _take(remote: Remote, name: str, content: bytes) -> bool:
    """Replaces a local file unless it continues `content`; returns whether it does."""
    path = remote.home / name
    try:
        if path.read_bytes().startswith(content):
            return True
    except FileNotFoundError:
        pass
    _write(path, content)
    return False


def _grow(remote: Remote, file: str, segments: list[str], tags: Tags) -> None:
    """Downloads the new part of a growing file."""
    path = remote.home / file
    path.parent.mkdir(parents=True, exist_ok=True)
    now = [remote.objects[name].tag for name in segments]
    had = tags.get(file, []) if path.exists() else []
    same = next((i for i, pair in enumerate(zip(now, had, strict=False)) if pair[0] != pair[1]), -1)
    first = min(len(now), len(had)) if same < 0 else same
    if first == len(now) == len(had):
        return
    with path.open("ab") as target:
        target.truncate(first * SEGMENT)
        for name in segments[first:]:
            target.write(remote.bucket.read(name) or b"")
    tags[file] = now
    written = max((remote.objects[name].written for name in segments), default=0.0)
    os.utime(path, (written, written))


def _manifests(remote: Remote, before: Mapping[str, Object], *, remove: bool) -> None:
    """Downloads the manifests of artifacts; can remove artifacts that the store lacks.

    Args:
        before: the objects at the last look; a manifest of another tag is compared with the local
            one. If it differs, the artifact was made again, and its local files go.
    """
    there = remote.keys()
    wanted = []
    for key in sorted(there):
        name = f"artifacts/{key}/{MANIFEST}"
        path = remote.home / name
        tag = remote.objects[name].tag
        if path.is_file():
            # The tag of an object on S3 is usually the MD5 checksum of its content.
            if tag == before.get(name, _NONE).tag or tag == _md5(path):
                continue
            if remote.bucket.read(name) == path.read_bytes():
                continue
            shutil.rmtree(path.parent)
        wanted.append(name)
    remote.get_small(wanted)
    here = {folder.name for folder in _folders(remote.home / "artifacts")}
    for key in here - there if remove else ():
        shutil.rmtree(remote.home / "artifacts" / key, ignore_errors=True)


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write(path, content)


def _md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


def _is_plain(name: str) -> bool:
    """Whether an object is a file stored as one object that belongs to no job."""
    own = name.removeprefix(in_variant(name))
    return not (
        belongs_to_jobs(name)
        or f"{SUFFIX}/" in name
        or own in (JOURNAL, LEASE, MARKER)
        or any(part.startswith(".") for part in own.split("/"))
    )


def _folders(folder: Path) -> Iterable[Path]:
    return [path for path in sorted(folder.iterdir()) if path.is_dir()] if folder.is_dir() else []
