"""The engines for `etude launch` besides Slurm: Kubernetes and SkyPilot."""

import sys
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from textwrap import wrap

from pydantic import BaseModel

from ...compiler.plan.phases import phases
from . import kubectl, sites, sky
from .engine import Piece, Request, Strand
from .kubernetes import COMPONENT, KubernetesSite, Manifest, as_yaml, manifests
from .skypilot import SkypilotSite, Task, tasks
from .skypilot import name as job_name


class Kubernetes:
    """The engine."""

    shares_folder = False

    def folder(self, name: str, site: Path | None) -> Path:
        """The local run folder, for the record of the launch; the run's own folder is in pods."""
        return Path("runs") / name

    def pieces(self, request: Request) -> list[Piece]:
        """The manifests, one per file.

        Raises: RunError.
        """
        return [Piece(_file(each), as_yaml([each])) for each in _manifests(request)[1]]

    def ready(self, request: Request) -> None:
        """Does nothing: a second launch continues the first, and `submit` checks active ones."""

    def submit(self, request: Request) -> list[str]:
        """Runs the phases, and waits for the last.

        Raises: RunError, Stopped, Interrupted.
        """
        site, made = _manifests(request)
        cluster = kubectl.Cluster.current(site.namespace)
        kubectl.submit(made, cluster, request.folder, lambda words: print(words, file=sys.stderr))
        return ["all phases are complete"]

    def submit_all(self, strands: Sequence[Strand]) -> list[str]:
        """Runs several runs, each once those that it waits for are complete; waits for all.

        Raises: RunError, Stopped, Interrupted.
        """
        for each in strands:
            _manifests(each.request)  # all of them fit, or nothing is started
        done: dict[str, Future[list[str]]] = {}

        def run(each: Strand, before: Sequence[Future[list[str]]]) -> list[str]:
            for one in before:
                one.result()
            return self.submit(each.request)

        with ThreadPoolExecutor(len(strands)) as pool:
            for each in strands:
                before = [done[name] for name in each.after if name in done]
                done[each.name] = pool.submit(run, each, before)
        return [f"{name}: {line}" for name, one in done.items() for line in one.result()]


def _manifests(request: Request) -> tuple[KubernetesSite, list[Manifest]]:
    site = sites.read(request.site, "kubernetes", KubernetesSite, stored=bool(request.url))
    return site, manifests(request.plan, phases(request.plan), site, request.url)


def _file(made: Manifest) -> str:
    """The file name of a manifest: a phase's own name, or the manifest's kind."""
    name = made["metadata"]["labels"].get(COMPONENT, made["kind"].lower())
    return f"{name}.yaml"


class Skypilot:
    """The engine."""

    shares_folder = False

    def folder(self, name: str, site: Path | None) -> Path:
        """The local run folder, for what is launched; nodes see the run's own folder."""
        return Path("runs") / name

    def pieces(self, request: Request) -> list[Piece]:
        """The pipeline.

        Raises: RunError.
        """
        return [Piece(sky.PIPELINE, as_yaml(_tasks(request)[1]))]

    def ready(self, request: Request) -> None:
        """Checks that SkyPilot is installed and does not already have the run.

        Raises: RunError.
        """
        site = sites.read(request.site, "skypilot", SkypilotSite, stored=bool(request.url))
        sky.ready(site.secrets)
        sky.require_not_queued(job_name(request.plan), request.folder)

    def submit(self, request: Request) -> list[str]:
        """Queues the pipeline as a managed job.

        Raises: RunError, Stopped.
        """
        site, made = _tasks(request)
        sky.pack(request.plan, request.folder)
        job = sky.submit(made, site.secrets, request.folder)
        return [f"managed job {job}; its output: sky jobs logs -n {job}"]

    def submit_all(self, strands: Sequence[Strand]) -> list[str]:
        """Queues several runs as one managed job: SkyPilot has no order among jobs, so that the
        tasks of a run follow those of the run before.

        Raises: RunError, Stopped.
        """
        first = strands[0].request
        of_all = job_name(first.plan, of="all")
        sky.require_not_queued(of_all, first.folder)
        pipeline: list[Task] = [{"name": of_all}]
        for each in strands:
            for task in _tasks(each.request)[1][1:]:
                name = f"{each.name.replace('_', '-')}-{task['name']}"
                pipeline.append({**task, "name": name})
        site = sites.read(first.site, "skypilot", SkypilotSite, stored=bool(first.url))
        for each in strands:
            sky.pack(each.request.plan, each.request.folder)
        job = sky.submit(pipeline, site.secrets, *(each.request.folder for each in strands))
        return [f"managed job {job}; its output: sky jobs logs -n {job}"]


def _tasks(request: Request) -> tuple[SkypilotSite, list[Task]]:
    site = sites.read(request.site, "skypilot", SkypilotSite, stored=bool(request.url))
    packed = request.folder / sky.PACKED
    made = tasks(request.plan, phases(request.plan), site, request.root, packed, request.url)
    return site, made


TABLES: dict[str, type[BaseModel]] = {"kubernetes": KubernetesSite, "skypilot": SkypilotSite}
"""Engine → the model of its table in a site file."""
_EXAMPLES = {
    "image": '"registry.example.org/team/etude:1"',
    "volume": '"work"',
    "namespace": '"default"',
    "mount": '"/etude"',
    "root": '"/etude/specs"',
    "gpu": '"nvidia.com/gpu"',
    "gpus_per_node": "8",
    "cpu": '"96"',
    "memory": '"1500Gi"',
    "small_cpu": '"4"',
    "small_memory": '"16Gi"',
    "shared_memory": '"64Gi"',
    "node_selector": '{ "cloud.example.org/gpu" = "h100" }',
    "tolerations": '[{ key = "nvidia.com/gpu", operator = "Exists" }]',
    "service_account": '"trainer"',
    "image_pull_secrets": '["registry"]',
    "secrets": '["tokens"]',
    "environment": '{ NCCL_DEBUG = "WARN" }',
    "queue": '"team"',
    "parts": "16",
    "restarts": "100",
    "grace": "600",
}
"""An example value for each key, in TOML."""
_SKYPILOT = {
    "setup": '"pip install etude"',
    "bucket": '"s3://my-bucket/etude"',
    "cloud": '"aws"',
    "region": '"us-east-1"',
    "zone": '"us-east-1a"',
    "use_spot": "false",
    "accelerator": '"H100"',
    "cpus": '"4+"',
    "memory": '"32+"',
    "disk_size": "512",
    "network_tier": '"best"',
    "strategy": '"EAGER_NEXT_REGION"',
    "secrets": '["HF_TOKEN"]',
}
_LIKELY = {"kubernetes": ("image", "volume"), "skypilot": ("setup", "bucket")}
"""Keys that a site file must have, or of which it must have one."""


def template(engine: str, folder: str) -> str:
    """A site file with all keys of an engine and their meanings.

    Args:
        folder: where named site files are kept.
    """
    examples = _EXAMPLES | (_SKYPILOT if engine == "skypilot" else {})
    head = (
        "# A site file: what your account on a cluster is like. It belongs to no spec.\n"
        f"# As {folder}/NAME.toml it has a name:\n#\n"
        f"#   etude launch SPEC --on {engine} --site NAME\n\n[{engine}]\n"
    )
    shown = []
    for name, of in TABLES[engine].model_fields.items():
        about = wrap(of.description or "", 96, initial_indent="# ", subsequent_indent="# ")
        mark = "" if name in _LIKELY[engine] else "#"
        shown.append("\n".join([*about, f"{mark}{name} = {examples[name]}\n"]))
    return head + "\n".join(shown)
