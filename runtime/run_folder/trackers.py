"""Trackers of experiments, by their own libraries: W&B, MLflow, Trackio. Each stage is a run, whose
axis is the stage's tokens."""

import os
import re
import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from importlib import import_module
from math import isfinite
from pathlib import Path
from typing import Any

from ...compiler.plan.plan import Plan
from ...compiler.plan.summary import Tracker
from ..disk import disk, write
from ..errors import RunError
from .boards import BOARDS, Boards
from .figures import figures, losses, scored
from .logger import Logger, Made

IDENTITY = "tracking_id"
"""The file with what tells the runs of this folder from those of others."""
PROJECT = "etude"
_MOST_AT_ONCE, _LONGEST, _MOST_FIGURES = 100, 6000, 1000
"""Parameters that MLflow takes at once, characters of one, and figures that it takes at once
(mlflow 3, utils/validation.py)."""
SEND_SECONDS = 5.0
"""Figures are sent to MLflow with those of as many seconds before them."""


def loggers(plan: Plan, folder: Path) -> list[Logger]:
    """The trackers of a plan. None is connected before there is something to say."""
    return [
        Boards(folder / BOARDS) if of.kind == "tensorboard" else KINDS[of.kind](plan, of, folder)
        for of in plan.trackers
    ]


class _Runs(ABC):
    """A tracker with one run at a time: that of the stage at work."""

    name: str
    module: str

    def __init__(self, plan: Plan, settings: Tracker, folder: Path) -> None:
        self.plan = plan
        self.folder = folder
        self.project = settings.project or PROJECT
        self.group = settings.group or plan.recipe
        self.entity = settings.entity
        self._stage: str | None = None
        self._tokens: dict[str, int] = {}

    def step(self, event: Mapping[str, Any]) -> None:
        more = {"steps": event["step"] + 1}
        self._log(event["stage"], figures(event) | more, event["tokens"])

    def evaluation(self, event: Mapping[str, Any]) -> None:
        self._log(event["stage"], losses(event), event["tokens"])

    def scores(self, job: str, stage: str, scores: Mapping[str, Mapping[str, Any]]) -> None:
        named = {f"{job}/{name}": score for name, score in scored(scores).items()}
        self._log(stage, named, self._tokens.get(stage, 0))

    def result(self, made: Made) -> None:
        self._enter(made.stage)
        self._keep(made, {"job": made.job, "key": made.key, "inputs": dict(made.inputs)})

    def close(self) -> None:
        if self._stage is not None:
            self._stage = None
            self._finish()

    def title(self, stage: str) -> str:
        """What people read of a run: its stage, with the variant if there is one."""
        return f"{self.plan.variant}.{stage}" if self.plan.variant else stage

    def configuration(self, stage: str) -> dict[str, str]:
        """The plan's values as one table, and which stage the run is of."""
        about = {"recipe": self.plan.recipe, "variant": self.plan.variant or "", "stage": stage}
        of_stages = {name: of.values for name, of in self.plan.stages.items()}
        return about | {
            f"{block}.{attribute}": value.value
            for block, values in (self.plan.values | of_stages).items()
            for attribute, value in values.items()
        }

    def identity(self) -> str:
        """What tells the runs of this folder from those of others, the same when it is resumed."""
        file = self.folder / IDENTITY
        if not file.exists():
            with disk(file):
                write(file, secrets.token_hex(4))
        return file.read_text().strip()

    def library(self) -> Any:
        """Raises: RunError: it is not installed."""
        try:
            return import_module(self.module)
        except ImportError:
            raise RunError(*lacking(self.module)) from None

    def _log(self, stage: str, values: Mapping[str, Any], tokens: int) -> None:
        self._enter(stage)
        self._tokens[stage] = tokens
        self._send({n: v for n, v in values.items() if isinstance(v, int | float)}, tokens)

    def _enter(self, stage: str) -> None:
        if stage != self._stage:
            self.close()
            self._begin(stage)
            self._stage = stage

    @abstractmethod
    def _begin(self, stage: str) -> None:
        """Makes the stage's run the one at work, resumed if there is one."""

    @abstractmethod
    def _send(self, values: Mapping[str, float], tokens: int) -> None: ...

    @abstractmethod
    def _keep(self, made: Made, about: dict[str, Any]) -> None:
        """Keeps the manifest of a result, and where it comes from."""

    @abstractmethod
    def _finish(self) -> None: ...


class _Aside:
    """Calls that a thread of its own makes, in their order: a library that waits for its service
    does not slow training.

    Args:
        name: of the thread.
    """

    def __init__(self, name: str) -> None:
        # One thread: several would send figures in any order.
        self._thread = ThreadPoolExecutor(1, name)
        self._calls: list[Future[Any]] = []

    def call(self, function: Callable[..., Any], *given: Any, **named: Any) -> None:
        """Has a function called. Raises: what an earlier call has raised."""
        self._calls.append(self._thread.submit(function, *given, **named))
        while self._calls and self._calls[0].done():
            self._calls.pop(0).result()

    def finish(self) -> None:
        """Waits for all calls. Raises: what one has raised."""
        self._thread.shutdown()
        for each in self._calls:
            each.result()


class WandB(_Runs):
    """W&B. It is offline, in the run folder, unless WANDB_MODE says otherwise."""

    name, module = "W&B", "wandb"

    def _begin(self, stage: str) -> None:
        wandb = self.library()
        self._run = wandb.init(
            project=self.project,
            entity=self.entity,
            group=self.group,
            name=self.title(stage),
            id=f"{self.identity()}-{stage}",
            resume="allow",
            config=self.configuration(stage),
            # W&B's service may belong to a parent process with another working directory.
            dir=self.folder.resolve(),
            mode=os.environ.get("WANDB_MODE", "offline"),
            # Neither the code nor the command line, which may name places with passwords.
            save_code=False,
            settings=wandb.Settings(
                silent=True, console="off", disable_git=True, x_disable_meta=True
            ),
        )
        self._aside = _Aside("wandb")
        self._run.define_metric("tokens")
        self._run.define_metric("*", step_metric="tokens")

    def _send(self, values: Mapping[str, float], tokens: int) -> None:
        self._aside.call(self._run.log, {"tokens": tokens, **values})

    def _keep(self, made: Made, about: dict[str, Any]) -> None:
        online = not self._run.offline
        for role, key in made.inputs.items() if online else ():
            manifest = made.manifest.parent.parent / key / made.manifest.name
            if manifest.exists():
                self._run.use_artifact(self._artifact(role, "input", manifest, {"key": key}))
        self._run.log_artifact(
            self._artifact(made.stage, "model", made.manifest, about), aliases=["latest", made.job]
        )

    def _artifact(self, name: str, kind: str, manifest: Path, about: dict[str, Any]) -> Any:
        plain = _NO_LABEL.sub("_", f"{self.plan.recipe}-{name}")
        artifact = self.library().Artifact(plain, type=kind, metadata=about)
        artifact.add_file(str(manifest))
        return artifact

    def _finish(self) -> None:
        self._aside.finish()
        self._run.finish()


class MLflow(_Runs):
    """MLflow: the server of MLFLOW_TRACKING_URI, or a database in the run folder. It is sent the
    figures of several steps at once: a call takes 16 ms of a processor, however few there are."""

    name, module = "MLflow", "mlflow"

    def _begin(self, stage: str) -> None:
        mlflow = self.library()
        self._client = client = mlflow_client(self.folder)
        self._aside = _Aside("mlflow")
        self._waiting: list[Any] = []
        self._last = float("-inf")
        known = client.get_experiment_by_name(self.project)
        place = None if os.environ.get(_MLFLOW_URI) else (self.folder / "mlflow").resolve().as_uri()
        experiment = known.experiment_id if known else client.create_experiment(self.project, place)
        name = f"{self.identity()}-{stage}"
        found = client.search_runs([experiment], f"tags.`{_ID}` = '{name}'", max_results=1)
        if found:
            self._id = found[0].info.run_id
            client.update_run(self._id, status="RUNNING")
            return
        tags = {_ID: name, "group": self.group, "recipe": self.plan.recipe}
        self._id = client.create_run(experiment, run_name=self.title(stage), tags=tags).info.run_id
        parameters = [
            mlflow.entities.Param(_NO_NAME.sub("_", key), value[:_LONGEST])
            for key, value in self.configuration(stage).items()
            if value
        ]
        for first in range(0, len(parameters), _MOST_AT_ONCE):
            client.log_batch(self._id, params=parameters[first : first + _MOST_AT_ONCE])
        if (self.folder / "plan.json").exists():
            client.log_artifact(self._id, str(self.folder / "plan.json"))

    def _send(self, values: Mapping[str, float], tokens: int) -> None:
        now, metric = int(1000 * time.time()), self.library().entities.Metric
        self._waiting += [
            metric(_name(name), float(value), now, tokens)
            for name, value in values.items()
            if isfinite(value)
        ]
        if time.monotonic() - self._last >= SEND_SECONDS:
            self._submit()

    def _submit(self) -> None:
        waiting, self._waiting, self._last = self._waiting, [], time.monotonic()
        for first in range(0, len(waiting), _MOST_FIGURES):
            batch = waiting[first : first + _MOST_FIGURES]
            self._aside.call(self._client.log_batch, self._id, metrics=batch)

    def _keep(self, made: Made, about: dict[str, Any]) -> None:
        self._client.log_dict(self._id, about, f"{made.job}/lineage.json")
        self._client.log_artifact(self._id, str(made.manifest), made.job)

    def _finish(self) -> None:
        self._submit()
        self._aside.finish()
        self._client.set_terminated(self._id)


class Trackio(_Runs):
    """Trackio: its database of this user, or the Space or server that its variables name."""

    name, module = "Trackio", "trackio"

    def _begin(self, stage: str) -> None:
        self._run = self.library().init(
            project=self.project,
            name=f"{self.title(stage)}-{self.identity()}",
            group=self.group,
            config=self.configuration(stage),
            resume="allow",
            embed=False,
            auto_log_gpu=False,
            auto_log_cpu=False,
        )

    def _send(self, values: Mapping[str, float], tokens: int) -> None:
        self._run.log(dict(values) | {"tokens": tokens}, step=tokens)

    def _keep(self, made: Made, about: dict[str, Any]) -> None:
        name = _NO_LABEL.sub("_", f"{self.plan.recipe}-{made.stage}")
        artifact = self.library().Artifact(name, type="model", metadata=about)
        artifact.add_file(made.manifest)
        self._run.log_artifact(artifact, aliases=["latest"])

    def _finish(self) -> None:
        self._run.finish()


KINDS: dict[str, type[_Runs]] = {"wandb": WandB, "mlflow": MLflow, "trackio": Trackio}

_ID, _MLFLOW_URI = "etude.run", "MLFLOW_TRACKING_URI"
_NO_LABEL = re.compile(r"[^\w.-]")
_NO_NAME = re.compile(r"[^\w. :/-]")


def _name(name: str) -> str:
    """A name of a figure that MLflow accepts: `loss(web)` is `loss/web` there."""
    return _NO_NAME.sub("_", name.replace("(", "/").replace(")", ""))


def mlflow_client(folder: Path) -> Any:
    """A client of MLflow's server, or of the database in the run folder."""
    uri = os.environ.get(_MLFLOW_URI) or f"sqlite:///{(folder / 'mlflow.db').resolve()}"
    return import_module("mlflow").MlflowClient(tracking_uri=uri)


def lacking(module: str) -> tuple[str, str]:
    """What is said where the library of a tracker is not installed: message and fix."""
    extra = "wandb" if module == "wandb" else f"'etude[{module}]'"
    return f"{module}, which it uses for tracking, is not installed", f"pip install {extra}"
