"""Writes a stage's model from a run folder, with the code that export jobs run."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ..compiler.plan.exports import export_of
from ..compiler.plan.plan import GateJob, Plan, TrainJob
from ..compiler.torchtitan.adapters import SECTION
from .disk import move
from .errors import RunError, reason
from .jobs.measuring import VERDICT
from .run_folder.outcomes import results
from .run_folder.store import Store
from .stores.objects import Bucket

LAST = "config.json"
"""A model without this file is not taken for one, so it is written last."""
UNFINISHED = ".etude-unfinished"
"""There while a model is written into a store."""


def export_to_store(plan: Plan, store: Store, stage: str, to: str, root: Path, dtype: str) -> str:
    """Writes a stage's model into an object store, `config.json` last; returns the URL.

    Args: as for `export_stage`, except
        to: a URL with nothing below it yet.

    Raises: as `export_stage`, and RunError: the store cannot be reached or denies access.
    """
    bucket = Bucket(to)
    there = bucket.listed()
    if UNFINISHED in there:
        raise RunError(
            f"{bucket.url} has an unfinished export, or one that is still being written",
            "remove what is there, or name a new one with --to",
        )
    if there:
        raise RunError(f"{bucket.url} already exists", "name a new one with --to")
    # Checks write access before the model is made.
    bucket.write(UNFINISHED, b"")
    written = [UNFINISHED]
    try:
        with TemporaryDirectory(prefix="etude-") as temporary:
            made = export_stage(plan, store, stage, Path(temporary) / "model", root, dtype)
            names = {
                path.relative_to(made).as_posix(): path
                for path in made.rglob("*")
                if path.is_file()
            }
            written += names
            bucket.put({name: path for name, path in names.items() if name != LAST})
            bucket.put({LAST: names[LAST]})
    except BaseException:
        with suppress(RunError):
            bucket.remove(written)
        raise
    bucket.remove([UNFINISHED])
    return bucket.url


def export_stage(
    plan: Plan, store: Store, stage: str, to: str | Path, root: Path, dtype: str
) -> Path:
    """Writes a stage's model in the format of transformers; returns the folder.

    Args:
        to: a new or empty folder; gets the whole model or, on an error, nothing.
        root: the spec's folder, with the chat template that the recipe names.
        dtype: "fp32" or "bf16"; "": the dtype in the plan.

    Raises:
        NoSuchStage: the plan has no such stage, or the stage makes no model.
        RunError: its result or tokenizer is missing, or the folder cannot be written.
        Stopped: the disk is full.
    """
    job = export_of(plan, stage)
    if dtype:
        job = job.model_copy(update={"dtype": "bf16" if dtype == "bf16" else None})
    if "tokenizer" not in job.inputs:
        raise RunError(
            "the recipe declares no tokenizer, but a model is exported with one",
            "declare one: tokenizer words { bytes }",
        )
    inputs = _inputs(plan, store, job.inputs, stage)
    with _new_folder(Path(to)) as aside:
        from .engine.weights.export import export

        export(job, inputs, aside, root=root)
    return Path(to)


def export_stage_adapter(plan: Plan, store: Store, stage: str, to: str | Path) -> Path:
    """Writes a stage's adapters in the format of PEFT; returns the folder.

    Args, Raises: as `export_stage`; RunError also: the stage trains no adapters.
    """
    job = export_of(plan, stage)
    inputs = _inputs(plan, store, {"model": job.inputs["model"]}, stage)
    trained = next(each for each in plan.jobs if each.key == job.inputs["model"])
    if not isinstance(trained, TrainJob) or SECTION not in trained.torchtitan:
        raise RunError(
            f"`{stage}` trains no adapters",
            "remove --adapter to write its weights, or name a stage with `adapter = lora`",
        )
    with _new_folder(Path(to)) as aside:
        from .engine.weights.adapter_export import export_adapter

        (aside / "result").mkdir()
        try:
            export_adapter(trained, inputs["model"], aside / "result")
        except OSError as problem:
            raise RunError(
                f"{to} cannot be written: {reason(problem)}", "free space, or name another folder"
            ) from problem
    return Path(to)


@contextmanager
def _new_folder(to: Path) -> Iterator[Path]:
    """A folder aside, whose `result` becomes `to` in the end.

    Raises: RunError: `to` is there already, or cannot be written.
    """
    aside = to.with_name(f".{to.name}.partial")
    try:
        if to.exists() and (not to.is_dir() or any(to.iterdir())):
            raise RunError(f"{to} already exists", "name a new folder with --to")
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
    except OSError as problem:
        raise RunError(
            f"{to} cannot be written: {reason(problem)}", "name another folder"
        ) from None
    try:
        yield aside
        if to.exists():
            to.rmdir()
        move(aside / "result", to)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _inputs(plan: Plan, store: Store, keys: dict[str, str], stage: str) -> dict[str, Path]:
    """Role → the folder of an input of the export.

    Raises: RunError
    """
    found = results(plan, store)
    folders = {}
    for role, key in keys.items():
        job = next(job for job in plan.jobs if job.key == key)
        if role == "model":
            job = _passed(plan, found, job)
        if job.id not in found:
            raise RunError(
                f"{job.id} is not finished in {store.name}",
                f"run it first: etude run SPEC --until {job.stage or stage}",
            )
        store.verify(found[job.id].name, shards=True)
        folders[role] = store.fetch(found[job.id].name) or found[job.id]
    return folders


def _passed(plan: Plan, found: dict[str, Path], job: Any) -> Any:
    """The job whose model is used: if its gate failed at first, the extension that passed."""
    for gate in plan.jobs:
        if isinstance(gate, GateJob) and gate.segment == job.key and gate.id in found:
            verdict = json.loads((found[gate.id] / VERDICT).read_text())
            if verdict["passed"] and gate.attempt:
                return next(
                    each
                    for each in plan.jobs
                    if isinstance(each, TrainJob)
                    and each.extends
                    and (each.extends.gate, each.extends.number) == (job.key, gate.attempt)
                )
    return job
