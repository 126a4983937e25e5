"""Task suites run by lm-evaluation-harness, with the recipe's task files or the harness's own."""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import chdir, contextmanager, nullcontext, redirect_stderr
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from tokenizers.processors import TemplateProcessing

from ...compiler.plan.measures import SuiteMeasure
from ..data.tokens.tokenizer import begins
from ..errors import DataError, Interrupted, RunError
from ..sampling.drawing import Generator
from .task_files import check, sandboxed


def suite(
    measure: SuiteMeasure, generator: Generator, tokenizer: Any, root: Path
) -> dict[str, Any]:
    """{"score", "tasks": task → {"metric", "score", "samples"}}.

    The score is the mean of the tasks' first metrics; a group counts as its tasks. A model whose
    tokenizer has a chat template is prompted through it; any other reads the beginning of text and
    the prompt. Paths in task files are relative to the folder of the task files.

    Args:
        generator: draws the answers: vLLM, which is passed to the harness, or transformers.
        tokenizer: its tokenizer, modified here to write the beginning of text.
        root: the folder of the spec, which the measure's folder is relative to.

    Raises:
        RunError: lm-evaluation-harness is not installed, or a task is unknown.
        DataError: a task file, or something it refers to, cannot be read.
    """
    harness = _harness(measure, "lm_eval")
    with sandboxed() if measure.folder else nullcontext():
        return _measured(measure, generator, tokenizer, root, harness)


def _measured(
    measure: SuiteMeasure, generator: Generator, tokenizer: Any, root: Path, harness: Any
) -> dict[str, Any]:
    tasks, manager = _load(measure, root)
    model = _model(measure, generator, tokenizer)
    try:
        with _quiet():
            found = harness.simple_evaluate(
                model=model,
                tasks=tasks,
                task_manager=manager,
                limit=measure.limit,
                apply_chat_template=bool(tokenizer.chat_template),
                log_samples=False,
                bootstrap_iters=0,
                random_seed=measure.seed,
                numpy_random_seed=measure.seed,
                torch_random_seed=measure.seed,
                fewshot_random_seed=measure.seed,
            )
    except Interrupted:
        raise
    # Tasks are other people's code and data, which fail in their own ways.
    except Exception as problem:
        raise DataError(
            f"the suite `{measure.name}` cannot be measured: {_reason(problem)}",
            f"see its tasks: {', '.join(measure.tasks)}",
        ) from problem
    rows = {
        name: _first(name, found["results"][name], measure)
        | {"samples": found["n-samples"][name]["effective"]}
        for name in sorted(found["n-samples"])
    }
    return {"score": sum(row["score"] for row in rows.values()) / len(rows), "tasks": rows}


def _model(measure: SuiteMeasure, generator: Generator, tokenizer: Any) -> Any:
    """The model in the form that the harness takes."""
    begin = begins(tokenizer)
    if begin is not None:
        name = tokenizer.convert_ids_to_tokens(begin)
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
            single=f"{name} $A", special_tokens=[(name, begin)]
        )
    return generator.in_harness(
        lambda name: _harness(measure, name), tokenizer, begins=begin is not None
    )


def _harness(measure: SuiteMeasure, module: str) -> Any:
    """A module of lm-evaluation-harness.

    Raises: RunError: it is not installed.
    """
    try:
        harness: Any = import_module(module)
    except ImportError:
        raise RunError(
            f"the suite `{measure.name}` needs lm-evaluation-harness, which is not installed",
            "install it: pip install 'etude[eval]'",
        ) from None
    # Its advice, like the progress bars below, is for its own command line: only in logs.
    if not logging.getLogger().hasHandlers():
        logging.getLogger("lm_eval").setLevel(logging.ERROR)
    return harness


def task_folder(measure: SuiteMeasure, root: Path) -> Path | None:
    """The folder of a measure's own task files, if it has one.

    Raises: DataError: it does not exist, or a file in it is not a task.
    """
    folder = (root / measure.folder).resolve() if measure.folder else None
    if folder and not folder.is_dir():
        raise DataError(
            f"there is no folder {folder} of task files for the suite `{measure.name}`",
            "write a folder next to the spec as `tasks`",
        )
    if folder:
        check(folder)
    return folder


def _load(measure: SuiteMeasure, root: Path) -> tuple[list[Any], Any]:
    """The tasks and groups of a measure, and the manager that has loaded them.

    Raises: RunError, DataError.
    """
    task_manager: Any = import_module("lm_eval.tasks").TaskManager
    folder = task_folder(measure, root)
    manager = task_manager(include_path=folder, include_defaults=folder is None)
    known = set(manager.all_tasks)
    loaded: list[Any] = []
    for name in measure.tasks:
        if name not in manager.all_tasks:
            where = f"in {folder}" if folder else "of lm-evaluation-harness"
            there = ", ".join(sorted(known)[:12]) or "none"
            raise RunError(
                f"the suite `{measure.name}` names the unknown task `{name}`",
                f"the tasks {where} are: {there}{', …' if len(known) > 12 else ''}",
            )
        place = getattr(manager.task_index[name], "yaml_path", None) or f"the task {name}"
        try:
            with chdir(folder or Path.cwd()), _quiet():
                tasks = manager.load(name)
        # Task files name data sets, functions and metrics, and fail in many ways.
        except Exception as problem:
            raise DataError(
                f"{place}: the task `{name}` cannot be loaded: {_reason(problem)}",
                "fix the task file; its paths are relative to its folder of tasks",
            ) from problem
        loaded += list(tasks.get("groups", {}).values()) or list(tasks["tasks"].values())
    return loaded, manager


def _first(name: str, result: dict[str, Any], measure: SuiteMeasure) -> dict[str, Any]:
    """The first metric of a task's result, whose keys are "METRIC,FILTER"."""
    for key, value in result.items():
        metric, _, _ = key.partition(",")
        if "," in key and not metric.endswith("_stderr") and isinstance(value, int | float):
            return {"metric": metric, "score": float(value)}
    raise DataError(
        f"the task `{name}` of the suite `{measure.name}` has no metric", "add a metric_list"
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Logs progress bars and output of the harness's child processes, instead of showing them."""
    sys.stderr.flush()
    shown = os.dup(2)
    with TemporaryFile("w+", errors="replace") as said:
        os.dup2(said.fileno(), 2)
        try:
            with redirect_stderr(said):
                yield
        finally:
            os.dup2(shown, 2)
            os.close(shown)
            said.seek(0)
            if text := said.read().strip():
                logging.getLogger(__name__).info("the harness says:\n%s", text)


def _reason(problem: Exception) -> str:
    return " ".join(str(problem).split())[:300] or type(problem).__name__
