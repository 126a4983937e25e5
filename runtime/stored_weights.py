"""Published weights in object stores: their fingerprint, and local copies."""

import hashlib
import os
import shutil
from pathlib import Path

from .disk import move
from .errors import DataError
from .stores.objects import Bucket, Object
from .stores.places import local_folder


class StoredWeights:
    """The files of published weights below a URL.

    Raises: RunError: the store cannot be reached, or has nothing there.
    """

    def __init__(self, url: str) -> None:
        self.bucket = Bucket(url)
        found = self.bucket.listed()
        self.files: dict[str, Object] = {n: o for n, o in found.items() if "/" not in n}
        if not found:
            raise DataError(
                f"there is nothing below {self.bucket.url}",
                "name a folder with config.json and *.safetensors in the model's `weights`",
            )

    def piece(self, name: str, start: int, length: int) -> bytes:
        """A range of bytes of a file."""
        return self.bucket.read(name, start, start + length) or b""

    def local(self, wanted: set[str]) -> Path:
        """A local folder with files of the weights, complete or absent; downloads each content only
        once.

        Raises: RunError: the store cannot be reached.
        """
        names = sorted(name for name in wanted if name in self.files)
        tags = "\n".join(f"{name} {self.files[name]}" for name in names)
        place = local_folder(self.bucket.url, "weights")
        folder = place / hashlib.sha256(tags.encode()).hexdigest()[:16]
        if folder.is_dir():
            return folder
        partial = place / f".{folder.name}.{os.getpid()}"
        shutil.rmtree(partial, ignore_errors=True)
        try:
            partial.mkdir(parents=True)
            self.bucket.get({name: partial / name for name in names})
            if not folder.is_dir():
                move(partial, folder)
        except OSError as problem:
            raise DataError(
                f"the weights {self.bucket.url} cannot be copied to {place}: {problem.strerror}",
                "make room there, or say another place: ETUDE_STORE_CACHE=/scratch/stores",
            ) from None
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        return folder
