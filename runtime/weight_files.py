"""Files of published weights: where they are, and whether they have changed. No torch."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..compiler.files.urls import in_store
from .errors import DataError
from .stored_weights import StoredWeights

CONFIG = "config.json"
WHOLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
PLACES = 17
PIECE = 65_536
"""A fingerprint reads a file's size and `PLACES` pieces of `PIECE` bytes."""


def find(source: Mapping[str, str], root: Path) -> Path:
    """The folder of published weights: a repository's in the local cache, downloaded if needed; for
    a store, a copy.

    Raises: DataError, RunError: the folder does not exist, or the Hub or store does not provide it.
    """
    if "hub" in source:
        return _snapshot(source["hub"], source["revision"])
    if in_store(source["folder"]):
        stored = StoredWeights(source["folder"])
        return stored.local(
            {n for n in stored.files if n in (CONFIG, INDEX) or n.endswith(".safetensors")}
        )
    folder = root / source["folder"]
    if not folder.is_dir():
        raise DataError(
            f"there is no folder {folder} with weights",
            "name a folder with config.json and *.safetensors in the model's `weights`",
        )
    return folder


def files(folder: Path) -> dict[str, str] | None:
    """Tensor → its file, according to the index; None if one file has all tensors.

    Raises: DataError: the folder has neither an index nor the one file, or the index cannot be
        read, or it names a missing file.
    """
    if (folder / WHOLE).is_file() and not (folder / INDEX).is_file():
        return None
    if not (folder / INDEX).is_file():
        others = [p.name for p in sorted(folder.glob("*.bin")) + sorted(folder.glob("*.pth"))]
        raise DataError(
            f"{folder} has no {WHOLE} and no {INDEX}" + (f", but {others[0]}" if others else ""),
            "weights must be safetensors: convert others with transformers, "
            "`AutoModelForCausalLM.from_pretrained(…).save_pretrained(…)`",
        )
    places = read_json(folder / INDEX).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise DataError(f"{folder / INDEX} has no weight_map", "download the index again")
    for tensor, file in places.items():
        if not isinstance(file, str) or not (folder / file).is_file():
            raise DataError(
                f"{folder} lacks the file {file} with the tensor {tensor}",
                "download it: the index names it",
            )
    return places


def require_whole(folder: Path) -> None:
    """Checks that all files of weights exist and have the sizes that their headers say.

    Raises: DataError: a file is missing, truncated, or not a safetensors file.
    """
    names = files(folder) or {"": WHOLE}
    for name in sorted(set(names.values())):
        path = folder / name
        try:
            with path.open("rb") as file:
                size = path.stat().st_size
                begin = _LENGTH + int.from_bytes(file.read(_LENGTH), "little")
                header = json.loads(file.read(begin - _LENGTH)) if begin <= size else None
            if header is None:
                raise ValueError("it ends inside its header")
            ends = (of["data_offsets"][1] for key, of in header.items() if key != "__metadata__")
            said = begin + max(ends, default=0)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as problem:
            raise DataError(f"{path} is not a safetensors file: {problem}", _AGAIN) from None
        if size != said:
            raise DataError(f"{path} has {size:,} bytes, but its header says {said:,}", _AGAIN)


_LENGTH = 8
"""Bytes in which a safetensors file stores the length of its header."""
_AGAIN = "download it again"


def read_json(path: Path) -> dict[str, Any]:
    """Raises: DataError: the file cannot be read, or is not an object."""
    try:
        found = json.loads(path.read_bytes())
    except OSError as problem:
        reason = (problem.strerror or str(problem)).lower()
        raise DataError(
            f"{path} cannot be read: {reason}", "download the weights with all their files"
        ) from None
    except ValueError as problem:
        raise DataError(f"{path} is not JSON: {problem}", "download the file again") from None
    if not isinstance(found, dict):
        raise DataError(f"{path} is not a JSON object", "download the file again")
    return found


def fingerprint(source: Mapping[str, str], root: Path) -> str:
    """A digest of the weights: configuration, index, and the size and some pieces of each file.

    It makes a job whose weights have changed another job, and so every job that depends on it.

    Raises: DataError: there are no weights.
    """
    if "folder" in source and in_store(source["folder"]):
        return _stored_fingerprint(StoredWeights(source["folder"]))
    folder = find(source, root)
    places = files(folder)
    digest = hashlib.sha256()
    try:
        for name in (CONFIG, INDEX) if places else (CONFIG,):
            digest.update((folder / name).read_bytes())
        for name in sorted(set(places.values())) if places else [WHOLE]:
            with (folder / name).open("rb") as file:
                size = file.seek(0, 2)
                digest.update(f"{name} {size}".encode())
                for place in range(PLACES):
                    file.seek(max(size - PIECE, 0) * place // (PLACES - 1))
                    digest.update(file.read(PIECE))
    except OSError as problem:
        reason = (problem.strerror or str(problem)).lower()
        raise DataError(
            f"the weights {problem.filename or folder} cannot be read: {reason}",
            "make sure that the files exist and that you may read them, then run again",
        ) from None
    return digest.hexdigest()


def _stored_fingerprint(stored: StoredWeights) -> str:
    """The digest that the same files would have in a folder; downloads only the pieces it needs."""
    folder = stored.local({CONFIG, INDEX})
    names = [WHOLE]
    read = [CONFIG]
    if WHOLE not in stored.files or INDEX in stored.files:
        if INDEX not in stored.files:
            raise DataError(
                f"{stored.bucket.url} has no {WHOLE} and no {INDEX}",
                "weights are read from safetensors: convert others with transformers",
            )
        read.append(INDEX)
        places = read_json(folder / INDEX).get("weight_map")
        if not isinstance(places, dict) or not places:
            raise DataError(f"{stored.bucket.url}/{INDEX} has no weight_map", "upload it again")
        names = sorted(set(places.values()))
    digest = hashlib.sha256()
    for name in [*read, *names]:
        if name not in stored.files:
            raise DataError(f"{stored.bucket.url} lacks the file {name}", "upload it")
    for name in read:
        digest.update((folder / name).read_bytes())
    for name in names:
        size = stored.files[name].size
        digest.update(f"{name} {size}".encode())
        for place in range(PLACES):
            start = max(size - PIECE, 0) * place // (PLACES - 1)
            digest.update(stored.piece(name, start, PIECE))
    return digest.hexdigest()


def _snapshot(repo: str, revision: str) -> Path:
    """Raises: DataError: no network, no such repository or revision, no access."""
    import huggingface_hub

    wanted: Any = {"revision": revision, "allow_patterns": [CONFIG, "*.safetensors", INDEX]}
    # The library lets any network exception through.
    try:
        folder = Path(huggingface_hub.snapshot_download(repo, local_files_only=True, **wanted))
        if (folder / CONFIG).is_file() and _there(folder):
            return folder
    except Exception:
        pass
    try:
        return Path(huggingface_hub.snapshot_download(repo, **wanted))
    except Exception as error:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise DataError(
            f"the weights {repo}, revision {revision}, cannot be loaded from the Hub: {reason}",
            "check the names and whether they need `hf auth login`; or download them on a "
            f"machine with a network (`hf download {repo}`) and name the folder in the model's "
            "`weights`",
        ) from error


def _there(folder: Path) -> bool:
    try:
        files(folder)
    except DataError:
        return False
    return True
