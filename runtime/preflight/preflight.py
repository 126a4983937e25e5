"""Checks what a run needs before its first job: packages, files, records, templates, space.

It reports everything that is missing at once, and writes nothing before. Finished jobs need nothing
any more. No torch, and no network except for things that are on it.
"""

import importlib.util
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from ...compiler.files.store_errors import missing_package
from ...compiler.files.urls import in_store, shown
from ...compiler.files.weights_folder import digest
from ...compiler.plan.fitting import misfits
from ...compiler.plan.measures import SuiteMeasure, VerifiedMeasure
from ...compiler.plan.plan import (
    BestJob,
    DatasetJob,
    DrawJob,
    EvaluateJob,
    GateJob,
    Plan,
    RolloutJob,
    SampleJob,
    TokenizerJob,
    TrainJob,
    WeightsJob,
)
from ...compiler.torchtitan.configuration import optimizers
from ...compiler.torchtitan.quantization import SECTION
from ...compiler.values import LION, Resources
from .. import stopping, verification, weight_files
from ..asked import require_before
from ..data.dialogs import dialog
from ..data.reading import readers
from ..data.reading.bad_lines import BadLines
from ..data.tokens import fim, token_files, tokenizer
from ..errors import DataError, Interrupted, RunError
from ..jobs import WORK
from ..preparation import awaited, prepare, token_units
from ..preparation.prepare_records import RecordMaker
from ..run_folder.outcomes import outcomes
from ..run_folder.recorder import OnEvent
from ..run_folder.store import Store
from .disk_space import require_room
from .kernels import require_attention, require_dispatcher
from .trackers import require_tracker


class Unready(RunError):
    """A run is not ready to start.

    Attributes:
        problems: all problems, at least one.
    """

    def __init__(self, problems: list[RunError]) -> None:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        super().__init__(problems[0].message + more, problems[0].help)
        self.problems = problems


def require_all(
    plan: Plan,
    store: Store,
    root: Path,
    on_event: OnEvent,
    *,
    prepare: bool = False,
    elsewhere: bool = False,
    disk: bool = True,
) -> None:
    """Checks everything that the remaining jobs will need.

    Args:
        root: the spec's folder, which relative paths start from.
        prepare: whether only data are made.
        elsewhere: whether results are in a place that cannot be read from here.
        disk: whether the run works on this machine's disk.

    Raises:
        Unready: something is missing.
        Interrupted: the run was asked to stop.
    """
    look = _Preflight(plan, store, root)
    problems = list(look.problems(prepare=prepare, elsewhere=elsewhere))
    if disk and not prepare:
        problems += require_room(plan, store, on_event)
    found = {(problem.message, problem.help): problem for problem in problems}
    if found:
        raise Unready(list(found.values()))


class _Preflight:
    def __init__(self, plan: Plan, store: Store, root: Path) -> None:
        self.plan = plan
        self.store = store
        self.root = root
        self.jobs = {job.key: job for job in plan.jobs}
        self.made: dict[str, Tokenizer | None] = {}
        found = outcomes(plan, store) if store.exists() else {}
        self.done = {name: each.key for name, each in found.items() if each.state == "finished"}
        """Finished job → the key of its artifact."""

    def problems(self, *, prepare: bool, elsewhere: bool) -> Iterator[RunError]:
        for tracker in self.plan.trackers if not prepare else ():
            look = partial(require_tracker, tracker.kind, self.store.folder)
            yield from self._each(look, "the recipe")
        if not (prepare or elsewhere):
            yield from self._each(lambda: require_before(self.plan, self.store), "")
        yield from self._files()
        if not prepare:
            yield from (RunError(each.message, each.help) for each in misfits(self.plan))
        for job in self.plan.jobs:
            if self.plan.aside(job):
                continue
            looks = LOOKS.get(type(job))
            data = WORK[type(job)].prepares
            if looks and (data or not (prepare or job.id in self.done)):
                yield from self._each(lambda job=job, looks=looks: looks(self, job), self._who(job))

    def _files(self) -> Iterator[RunError]:
        """Files beside the spec that the plan was made of, and that are others now."""
        read = [job.id for job in self.plan.jobs if isinstance(job, WeightsJob)]
        if read and all(name in self.done for name in read):
            return
        for path, sha in self.plan.files.items():
            found = digest(self.root / path)
            if found != sha:
                what = "is not there any more" if found is None else "has changed since"
                yield RunError(
                    f"the plan was made of other files: {path} {what}",
                    "run the spec, or plan it again, to take the files as they are now; or put "
                    "back the file of the plan",
                )

    def _each(self, look: Callable[[], None], who: str) -> Iterator[RunError]:
        try:
            look()
        except RunError as problem:
            if stopping.asked() and isinstance(problem, Interrupted):
                raise  # nothing is missing
            yield RunError(f"{who}: {problem.message}" if who else problem.message, problem.help)

    def _who(self, job: Any) -> str:
        """The job, and the first stage that needs it."""
        if job.stage:
            return f"the stage `{job.stage}`"
        name = getattr(job, "name", job.id.partition(".")[2])
        what = f"the {'data set' if job.kind == 'dataset' else job.kind} `{name}`"
        keys = {job.key}
        for other in self.plan.jobs:
            if keys & set(other.inputs.values()):
                if other.stage:
                    return f"{what}, for the stage `{other.stage}`"
                keys.add(other.key)
        return what

    def tokenizers(self, job: TokenizerJob) -> None:
        self._tokenizer(job.key)
        for name, data in job.datasets.items():
            self._documents(data["source"], data["bad_lines"], name)

    def dataset(self, job: DatasetJob) -> None:
        if job.drop_similar is not None:
            _require_package("rapidfuzz", "`drop similar`", "post")
        if job.form != "prompts" and "tokenizer" not in job.inputs:
            raise DataError(
                "the recipe declares no tokenizer, so its data cannot be tokenized",
                "add one: tokenizer words { train = { on [DATASET], vocab 32000 } }",
            )
        if job.awaited and any(awaited.missing(job.source, self.root)):
            return
        if job.fim and (made := self._tokenizer(job.inputs["tokenizer"])):
            fim.required(job.fim, made, job.name)
        if job.source["kind"] == "tokens":
            self._tokens(job)
        elif job.form == "documents":
            self._documents(job.source, job.bad_lines, job.name)
        else:
            self._records(job)

    def train(self, job: TrainJob) -> None:
        """Checks that the model has a row for every token of its texts, else a step on the GPUs
        would be the first to tell, and that the package that converts layers is there."""
        if SECTION in job.torchtitan:
            _require_package("torchao", "`precision` in 8 or 4 bits", "fp8")
        if LION in optimizers(job.torchtitan):
            _require_package("pytorch_optimizer", "`optimizer = lion`", "lion")
        require_attention(job)
        require_dispatcher(job)
        for key in job.inputs.values():
            data = self.jobs.get(key)
            if not isinstance(data, DatasetJob) or "tokenizer" not in data.inputs:
                continue
            named = self.jobs[data.inputs["tokenizer"]]
            made = self._tokenizer(named.key)
            if made is None:
                continue
            ids = made.get_vocab(with_added_tokens=False).values()
            ends = tokenizer.special(made)
            # Others that were added may never occur: published models lack rows for some.
            also = fim.required(data.fim, made, data.name) if data.fim else ()
            needed = max(*ids, ends.eos, ends.bos or 0, *also) + 1
            if job.model.vocab < needed:
                size = max(made.get_vocab(with_added_tokens=True).values()) + 1
                raise DataError(
                    f"the model has a vocabulary of {job.model.vocab:,} tokens, its tokenizer "
                    f"{size:,}",
                    f"write `vocab = {size}` or more in the model; weights that exist need the "
                    "tokenizer that they were trained with",
                )

    def weights(self, job: WeightsJob) -> None:
        if in_store(job.source.get("folder", "")):
            weight_files.fingerprint(job.source, self.root)
        elif "folder" in job.source:
            weight_files.require_whole(weight_files.find(job.source, self.root))
        else:
            _on_hub(job.source["hub"], "model", job.source["revision"])

    def draw(self, job: DrawJob) -> None:
        self._dialog(job.dialog)
        _require_vllm(job.resources)

    def sample(self, job: SampleJob | RolloutJob) -> None:
        verification.require(job.verify, self.root)

    def measures(self, job: EvaluateJob | GateJob | BestJob) -> None:
        _require_vllm(job.resources)
        found = [job.measure] if isinstance(job, BestJob) else job.measures
        for measure in found:
            if isinstance(measure, VerifiedMeasure):
                verification.require(measure.verify, self.root)
            if isinstance(measure, SuiteMeasure):
                _require_package("lm_eval", f"the suite `{measure.name}`", "eval")
                from ..evaluation.suites import task_folder

                task_folder(measure, self.root)

    def _tokenizer(self, key: str | None) -> Tokenizer | None:
        """The tokenizer that a job makes or has made; None if it is yet to be trained. One on the
        Hub is downloaded: only its content tells whether the recipe fits it.

        Raises: DataError: it cannot be read, or lacks special tokens.
        """
        job = self.jobs.get(key or "")
        if not isinstance(job, TokenizerJob):
            return None
        if job.key not in self.made:
            self.made[job.key] = None
            settings = job.tokenizer
            if job.id in self.done and (folder := self.store.fetch(self.done[job.id])):
                self.made[job.key] = tokenizer.load(folder / "tokenizer.json")
            elif settings["kind"] != "train":
                self.made[job.key] = prepare.tokenizer_of(settings, self.root)
            else:
                prepare.special_tokens(settings, self.root)
        return self.made[job.key]

    def _dialog(self, settings: Mapping[str, Any]) -> None:
        """Renders nothing yet: reads the protocol, and tries the template with some tokenizer."""
        dialog.renderer(settings, self._stand_in(settings), self.root)

    def _stand_in(self, settings: Mapping[str, Any] | None) -> Tokenizer:
        """A byte tokenizer with the special tokens of a protocol."""
        return tokenizer.byte_level(dialog.needed_tokens(settings, self.root) if settings else [])

    def _documents(self, source: Mapping[str, Any], bad_lines: int, name: str) -> None:
        if self._elsewhere(source):
            return
        bad = BadLines(bad_lines)
        if next(readers.read_documents(source, bad, root=self.root), None) is None:
            raise bad.nothing_left(name, "documents")

    def _tokens(self, job: DatasetJob) -> None:
        """Checks the headers of all files, some pages of each, and the first document."""
        made = self._tokenizer(job.inputs.get("tokenizer"))
        if made is None:  # yet to be trained
            token_files.sources(job.source, self.root)
            return
        vocab = token_units.vocabulary(made)
        for file in token_files.sources(job.source, self.root, vocab):
            token_files.sample(file, vocab)
        if not token_units.first_documents(job.source, self.root, made, 1)[1]:
            raise BadLines().nothing_left(job.name, "documents")

    def _records(self, job: DatasetJob) -> None:
        """Checks that some record is not a bad line, and that the first such can be rendered."""
        if self._elsewhere(job.source):
            return
        made = self._tokenizer(job.inputs.get("tokenizer"))
        known = made is not None
        # Lengths are unknown with another tokenizer.
        tried = job if known else job.model_copy(update={"longest": None})
        bad = BadLines(job.bad_lines)
        made = made or self._stand_in(job.dialog)
        maker = RecordMaker(tried, {}, made, self.root, lambda _: None, bad)
        found = maker.prompts() if job.form == "prompts" else maker.made()
        if next(found, None) is None:
            raise bad.nothing_left(job.name, job.form)
        if job.form in ("ratings", "solutions"):
            maker.labels()

    def _elsewhere(self, source: Mapping[str, Any]) -> bool:
        """Whether a source is made by jobs, built in, or on the Hub, which is then asked for it."""
        for pattern in source.get("files", ()):
            _require_protocol(pattern)
        if source["kind"] == "hub" and not (self.root / source["repo"]).is_dir():
            _on_hub(source["repo"], "dataset", None)
            return True
        return source["kind"] in ("job", "sample")


LOOKS: dict[type, Callable[[_Preflight, Any], None]] = {
    TokenizerJob: _Preflight.tokenizers,
    DatasetJob: _Preflight.dataset,
    TrainJob: _Preflight.train,
    WeightsJob: _Preflight.weights,
    DrawJob: _Preflight.draw,
    SampleJob: _Preflight.sample,
    RolloutJob: _Preflight.sample,
    EvaluateJob: _Preflight.measures,
    GateJob: _Preflight.measures,
    BestJob: _Preflight.measures,
}
"""What is checked for each kind of job."""


def _require_package(module: str, what: str, extra: str) -> None:
    if importlib.util.find_spec(module) is None:
        raise RunError(
            f"{what} needs the package {module.replace('_', '-')}, which is not installed",
            f"install it: pip install 'etude[{extra}]'",
        )


def _require_vllm(mesh: Resources | None) -> None:
    if mesh is not None and mesh.replica > 1:
        what = f"a model that writes on {mesh.replica} GPUs"
        if importlib.util.find_spec("vllm") is None:
            raise RunError(f"{what} needs vLLM, which is not installed", "pip install vllm")


def _require_protocol(pattern: str) -> None:
    """Raises: RunError: the package that reads files of a URL is not installed, or unknown."""
    if "://" not in pattern:
        return
    from fsspec.registry import known_implementations

    protocol = pattern.partition("://")[0].rpartition("::")[2]
    known: Mapping[str, Any] = known_implementations.get(protocol, {})
    if not known:
        raise RunError(
            f"no package can read `{protocol}://` in `{pattern}`",
            "write a path, or a URL such as s3://bucket/file.jsonl",
        )
    module = known["class"].partition(".")[0]
    if importlib.util.find_spec(module) is None:
        install = missing_package(pattern).help if in_store(pattern) else f"pip install {module}"
        raise RunError(
            f"`{shown(pattern)}` needs the package {module}, which is not installed",
            f"install it: {install}",
        )


@cache
def _cached() -> frozenset[tuple[str, str]]:
    """Repositories in the local cache of the Hub, with their kinds; read only once."""
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        return frozenset((each.repo_id, each.repo_type) for each in scan_cache_dir().repos)
    except CacheNotFound:
        return frozenset()


def _on_hub(repo: str, kind: str, revision: str | None) -> None:
    """Checks that a repository is in the local cache or on the Hub."""
    from huggingface_hub import HfApi

    if (repo, kind) in _cached():
        return
    # The library lets any network exception through.
    try:
        HfApi().repo_info(repo, repo_type=kind, revision=revision, timeout=10)
    except Exception as problem:
        reason = " ".join(str(problem).split())[:200] or type(problem).__name__
        raise DataError(
            f"{repo} is not in the local cache, and the Hub does not provide it: {reason}",
            "check its name and whether it needs `hf auth login`; or download it on a machine "
            f"with a network (`hf download {repo} --repo-type {kind}`)",
        ) from None
