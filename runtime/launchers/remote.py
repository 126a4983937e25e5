"""The engines that `etude launch` knows besides Slurm: Kubernetes and SkyPilot."""

import sys
from pathlib import Path

from ...compiler.plan.phases import phases
from . import kubectl, sites, sky
from .engine import Piece, Request
from .kubernetes import COMPONENT, KubernetesSite, Manifest, as_yaml, manifests
from .skypilot import SkypilotSite, Task, tasks


class Kubernetes:
    """The engine."""

    def folder(self, name: str, site: Path | None) -> Path:
        """The run folder here, which has the record of the launch; the run's own is in pods."""
        return Path("runs") / name

    def pieces(self, request: Request) -> list[Piece]:
        """The manifests, a file each.

        Raises: RunError.
        """
        return [Piece(_file(each), as_yaml([each])) for each in _manifests(request)[1]]

    def submit(self, request: Request) -> list[str]:
        """Runs the phases, and waits for the last.

        Raises: RunError, Stopped, Interrupted.
        """
        site, made = _manifests(request)
        cluster = kubectl.Cluster.current(site.namespace)
        kubectl.submit(made, cluster, request.folder, lambda words: print(words, file=sys.stderr))
        return ["all phases are complete"]


def _manifests(request: Request) -> tuple[KubernetesSite, list[Manifest]]:
    site = sites.read(request.site, "kubernetes", KubernetesSite)
    return site, manifests(request.plan, phases(request.plan), site)


def _file(made: Manifest) -> str:
    """The file of a manifest: a phase has its own name, the others that of their kind."""
    name = made["metadata"]["labels"].get(COMPONENT, made["kind"].lower())
    return f"{name}.yaml"


class Skypilot:
    """The engine."""

    def folder(self, name: str, site: Path | None) -> Path:
        """The run folder here, which has what is launched; the run's own is where nodes see it."""
        return Path("runs") / name

    def pieces(self, request: Request) -> list[Piece]:
        """The pipeline.

        Raises: RunError.
        """
        return [Piece(sky.PIPELINE, as_yaml(_tasks(request)[1]))]

    def submit(self, request: Request) -> list[str]:
        """Queues the pipeline as a managed job.

        Raises: RunError, Stopped.
        """
        site, made = _tasks(request)
        sky.ready(site.secrets)
        sky.pack(request.plan, request.folder)
        name = sky.submit(made, site.secrets, request.folder)
        return [f"managed job {name}; its output: sky jobs logs -n {name}"]


def _tasks(request: Request) -> tuple[SkypilotSite, list[Task]]:
    site = sites.read(request.site, "skypilot", SkypilotSite)
    packed = request.folder / sky.PACKED
    return site, tasks(request.plan, phases(request.plan), site, request.root, packed)
