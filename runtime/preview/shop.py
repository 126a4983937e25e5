"""Finds what a run has already made, and trains small tokenizers for a preview."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from tokenizers import Tokenizer

from ...compiler.plan.plan import DatasetJob, Plan, TokenizerJob
from ..data.reading import readers
from ..data.reading.bad_lines import BadLines
from ..data.reading.formats import Document
from ..data.tokens import tokenizer
from ..errors import RunError
from ..preparation import prepare
from ..run_folder.outcomes import results
from ..run_folder.store import Store
from ..scheduler import artifact_key

SMALL = 8_000_000
"""A tokenizer is trained here if its data have at most this many characters."""
ANY = 2**62
"""A limit for bad lines that is never reached."""


@dataclass(frozen=True)
class Made:
    """A tokenizer.

    Attributes:
        exact: whether it is the run's own; if not, a byte tokenizer replaces it.
        key: key of its artifact; None for a replacement.
        note: a note about it for the preview.
    """

    tokenizer: Tokenizer
    exact: bool
    key: str | None
    note: str = ""


class Shop:
    """Finds or makes what is needed to render sources.

    Args:
        root: the folder of the spec.
        folder: the run folder, which need not exist; nothing is written in it.
        scratch: an empty folder, for what is made.
    """

    def __init__(self, plan: Plan, root: Path, folder: Path, scratch: Path) -> None:
        self.plan = plan
        self.root = root
        self.folder = folder
        self.scratch = scratch
        self._store = Store(folder)
        self._made: dict[str, Made | RunError] = {}
        self._number = 0

    @cached_property
    def _results(self) -> Mapping[str, Path]:
        """Job → folder of its result in the run folder."""
        if not self._store.exists():
            return {}
        return results(self.plan, self._store)

    def room(self) -> Path:
        """A new empty folder."""
        self._number += 1
        made = self.scratch / str(self._number)
        made.mkdir()
        return made

    def result(self, key: str) -> Path | None:
        """The result of the plan's job with this key, if the run has made it."""
        job = next(job for job in self.plan.jobs if job.key == key)
        return self._results.get(job.id)

    def documents(self, job: DatasetJob, made: Made) -> Path | None:
        """The token shards of documents, if the run has made them from the current data."""
        if made.key is None:
            return None
        try:
            outside = prepare.job_fingerprint(job, self.root)
        except RunError:
            return None
        return self._store.fetch(artifact_key(job, {"tokenizer": made.key}, [outside]))

    def tokenizer(self, job: TokenizerJob) -> Made:
        """The run's tokenizer; a missing one is replaced if its training data are large.

        Raises: DataError, RunError: the tokenizer or its training data cannot be read.
        """
        if job.key not in self._made:
            try:
                self._made[job.key] = self._tokenizer(job)
            except RunError as problem:
                self._made[job.key] = problem
        made = self._made[job.key]
        if isinstance(made, RunError):
            raise made
        return made

    def _tokenizer(self, job: TokenizerJob) -> Made:
        key = artifact_key(job, {}, [prepare.job_fingerprint(job, self.root)])
        there = self._store.fetch(key)
        if there is not None:
            return Made(tokenizer.load(there / "tokenizer.json"), True, key)
        name = job.id.removeprefix("tokenizer.")
        trained = job.tokenizer["kind"] == "train"
        if not trained:
            return Made(self._make(job), True, key)
        if self._small(job):
            note = (
                f"the tokenizer `{name}` has been trained here, as the run will do it: "
                f"there is none in {self.folder} yet"
            )
            return Made(self._make(job), True, key, note)
        bytes_of = {n: v for n, v in job.tokenizer.items() if n in ("special", "dialogs")}
        stand_in = job.model_copy(update={"tokenizer": {"kind": "bytes", **bytes_of}})
        note = (
            f"the tokenizer `{name}` is not trained yet, so tokens cannot be counted: the text "
            f"is correct, but counts are in characters. {self.folder} will have the tokenizer "
            "once `etude run` has started"
        )
        return Made(self._make(stand_in), False, None, note)

    def _make(self, job: TokenizerJob) -> Tokenizer:
        """Makes a tokenizer as a run does, but accepts any number of bad lines."""
        datasets = {name: {**data, "bad_lines": ANY} for name, data in job.datasets.items()}
        folder = self.room()
        prepare.make_tokenizer(
            job.model_copy(update={"datasets": datasets}), folder, self.root, lambda event: None
        )
        return tokenizer.load(folder / "result" / "tokenizer.json")

    def _small(self, job: TokenizerJob) -> bool:
        """Whether a tokenizer's training data are small and local."""
        left = SMALL
        for data in job.datasets.values():
            if data["source"]["kind"] == "hub":
                return False
            for document in readers.read_documents(data["source"], BadLines(ANY), root=self.root):
                left -= len(document.text)
                if left < 0:
                    return False
        return True


def read_some(documents: Iterator[Document], characters: int) -> tuple[list[Document], bool]:
    """Documents with this many characters in all, or all there are; and whether these are all."""
    some: list[Document] = []
    for document in documents:
        if characters <= 0:
            return some, False
        some.append(document)
        characters -= len(document.text)
    return some, True
