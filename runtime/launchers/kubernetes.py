"""Kubernetes: a run as manifests, with a TrainJob of Kubeflow Trainer per gang and Jobs otherwise.

A pod starts `runtime/launchers/node.py`, whose exit code says whether a restart can help. The pods
of a gang restart together: the Job of a TrainJob fails with its first pod, and its JobSet is
recreated unless the exit code is final (1, 2, 3).
"""

import base64
import gzip
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import Field, ValidationInfo, model_validator

from ...compiler.plan.plan import Plan
from ...compiler.values import Phase
from ..errors import RunError
from .engine import folder_name
from .machines import Allocation, Machines, Options, allocations
from .node import DECIDED
from .parts import parts_phase
from .sites import STORED

Manifest = dict[str, Any]

API = "trainer.kubeflow.org/v1alpha1"
PARTS = "app.kubernetes.io/part-of"
INSTANCE = "app.kubernetes.io/instance"
"""The label shared by everything that a launch has made."""
RUN = "app.kubernetes.io/name"
"""The label of a run, whatever its plan and site; a run has one active launch at a time."""
COMPONENT = "app.kubernetes.io/component"
_ANCESTOR = "trainer.kubeflow.org/trainjob-ancestor-step"
_QUEUE = "kueue.x-k8s.io/queue-name"
_PLAN = "/etc/etude"
_CONTAINER = "node"
"""The container name that Kubeflow Trainer requires for a gang."""
_MOST = 1_000_000
"""Bytes that a ConfigMap may hold, less a reserve for its names."""


class Toleration(Options):
    """A taint of nodes that pods tolerate."""

    key: str | None = None
    operator: Literal["Exists", "Equal"] = "Equal"
    value: str | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None


class KubernetesSite(Options):
    """The table `[kubernetes]` of a site file."""

    image: str = Field(min_length=1, description="has etude and everything that it needs")
    volume: str | None = Field(
        default=None,
        min_length=1,
        description="claim of a volume that all nodes can read and write (RWX), for the run folder",
    )
    namespace: str = Field(
        default="default",
        pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$",
        description="for all objects",
    )
    mount: str = Field(
        default="/etude", pattern=r"^/.+", description="mount point of the volume in pods"
    )
    root: str | None = Field(
        default=None,
        pattern=r"^/.+",
        description="folder of the spec's data in pods; default: the volume",
    )
    gpu: str = Field(default="nvidia.com/gpu", description="the resource name of GPUs")
    gpus_per_node: int | None = Field(
        default=None,
        ge=1,
        description="GPUs of a node, if different from the spec's cluster",
    )
    cpu: str | None = Field(default=None, description="cores of a pod of a gang, such as 96")
    memory: str | None = Field(default=None, description="of a pod of a gang, such as 1500Gi")
    small_cpu: str = Field(default="4", description="cores of a pod without GPUs")
    small_memory: str = Field(default="16Gi", description="of a pod without GPUs")
    shared_memory: str = Field(default="64Gi", description="/dev/shm of a pod of a gang")
    node_selector: dict[str, str] = Field(
        default={}, description="labels of the nodes that pods with GPUs go to"
    )
    tolerations: list[Toleration] = Field(
        default=[], description="taints of nodes that pods with GPUs are allowed on"
    )
    service_account: str | None = Field(default=None, description="that pods run as")
    image_pull_secrets: list[str] = Field(default=[], description="for the image's registry")
    secrets: list[str] = Field(default=[], description="Secrets whose keys become variables")
    environment: dict[str, str] = Field(default={}, description="variables of all pods")
    queue: str | None = Field(default=None, description="a LocalQueue of Kueue")
    parts: int = Field(
        default=1, ge=1, description="pods that tokenize documents side by side, before the rest"
    )
    restarts: int = Field(default=100, ge=0, description="new starts of a phase at most")
    grace: int = Field(
        default=600, ge=30, description="seconds that a pod has to save before it is killed"
    )

    @model_validator(mode="after")
    def _complete(self, info: ValidationInfo) -> "KubernetesSite":
        if self.volume is None and not (info.context or {}).get(STORED):
            raise ValueError(
                "`volume` must name the claim of the volume with the run folder; write it, or "
                "launch into a store: --folder s3://…"
            )
        return self


def manifests(
    plan: Plan, phases: Sequence[Phase], site: KubernetesSite, url: str = ""
) -> list[Manifest]:
    """All manifests of a run: first the plan and what gangs share, then the phases in order.

    Args:
        url: the recipe's run folder in a store; "": it is on the volume.

    Raises: RunError: a placement does not fit the site's nodes.
    """
    names = Names(plan, site, url)
    shared = [_config_map(plan, names, site)]
    made = []
    if site.parts > 1 and (first := parts_phase(plan, phases)):
        alone = Allocation((first,), (Machines(1, 1, 0),))
        made.append(_indexed(_job(alone, names, site), site.parts))
    for each in allocations(plan, phases, site.gpus_per_node):
        gang = any(phase.kind == "gang" or phase.world_size > 1 for phase in each.phases)
        made.append((_train_job if gang else _job)(each, names, site))
    if any(each["kind"] == "TrainJob" for each in made):
        shared.append(_runtime(names, site))
    return [*shared, *made]


class Names:
    """Names of the objects of a launch; they depend on the plan and the site.

    Attributes:
        run: the same for every plan and site.
        instance: for everything that the launch makes.
        folder: the recipe's run folder, as pods see it: a path, or a URL.
    """

    def __init__(self, plan: Plan, site: KubernetesSite, url: str) -> None:
        said = plan.to_json() + site.model_dump_json() + url
        digest = hashlib.sha256(said.encode()).hexdigest()[:6]
        run = f"{plan.recipe}-{plan.variant}" if plan.variant else plan.recipe
        slug = re.sub(r"[^a-z0-9]+", "-", run.lower()).strip("-")
        if len(slug) > 16:  # variants may begin alike
            slug = f"{slug[:9].strip('-')}-{hashlib.sha256(run.encode()).hexdigest()[:6]}"
        self.run = f"etude-{slug}"
        self.instance = f"{self.run}-{digest}"
        self.folder = url or f"{site.mount.rstrip('/')}/runs/{folder_name(plan)}"

    def phase(self, of: Allocation) -> str:
        """The name of the TrainJob or Job of phases."""
        return f"{self.instance}-{of.name}"


def _metadata(name: str, names: Names, site: KubernetesSite, **labels: str) -> dict[str, Any]:
    own = {PARTS: "etude", RUN: names.run, INSTANCE: names.instance, **labels}
    return {"name": name, "namespace": site.namespace, "labels": own}


def _config_map(plan: Plan, names: Names, site: KubernetesSite) -> Manifest:
    """The plan, which the pods of every phase put into the run folder."""
    data = base64.b64encode(gzip.compress(plan.to_json().encode() + b"\n", mtime=0)).decode()
    if len(data) > _MOST:
        raise RunError(
            f"the plan of {plan.recipe} has {len(data):,} bytes, gzipped, but Kubernetes allows "
            f"{_MOST:,}",
            "split the recipe in two, and begin the second with `use` of the first",
        )
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": _metadata(f"{names.instance}-plan", names, site),
        "binaryData": {"plan.json.gz": data},
    }


def _runtime(names: Names, site: KubernetesSite) -> Manifest:
    """What all gangs of the run share; a TrainJob adds the command, nodes and their resources."""
    container = _container(site)
    template = {
        "metadata": {"labels": {_ANCESTOR: "trainer"}},
        "spec": {
            "backoffLimit": 0,
            "podFailurePolicy": _POLICY,
            "template": {"spec": _pod(container, names, site, gang=True)},
        },
    }
    failures = {
        "maxRestarts": site.restarts,
        "rules": [
            {
                "name": "decided",
                "action": "FailJobSet",
                "onJobFailureReasons": ["PodFailurePolicy"],
            }
        ],
    }
    jobs = [{"name": _CONTAINER, "template": template}]
    return {
        "apiVersion": API,
        "kind": "TrainingRuntime",
        "metadata": _metadata(names.instance, names, site),
        "spec": {
            "mlPolicy": {"numNodes": 1, "torch": {}},
            "template": {"spec": {"failurePolicy": failures, "replicatedJobs": jobs}},
        },
    }


_POLICY = {
    "rules": [
        {
            "action": "FailJob",
            "onExitCodes": {
                "containerName": _CONTAINER,
                "operator": "In",
                "values": list(DECIDED),
            },
        }
    ]
}
"""Exit codes that a restart does not change end a phase; 75 or a killed pod restarts it."""


def _train_job(of: Allocation, names: Names, site: KubernetesSite) -> Manifest:
    needs = of.machines
    return {
        "apiVersion": API,
        "kind": "TrainJob",
        "metadata": _phase_metadata(of, names, site),
        "spec": {
            "runtimeRef": {"apiGroup": API.split("/")[0], "kind": "TrainingRuntime"}
            | {"name": names.instance},
            "trainer": {
                "image": site.image,
                "command": _command(of, names, site),
                "numNodes": needs.nodes,
                "numProcPerNode": needs.ranks,
                "resourcesPerNode": _resources(needs, site, site.cpu, site.memory),
            },
        },
    }


def _job(of: Allocation, names: Names, site: KubernetesSite) -> Manifest:
    needs = of.machines
    container = _container(site) | {"command": _command(of, names, site)}
    size = (site.cpu, site.memory) if needs.gpus else (site.small_cpu, site.small_memory)
    container["resources"] = _resources(needs, site, *size)
    pod = _pod(container, names, site, gang=bool(needs.gpus))
    labels = {PARTS: "etude", INSTANCE: names.instance, COMPONENT: of.name}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": _phase_metadata(of, names, site),
        "spec": {
            "backoffLimit": site.restarts,
            "podFailurePolicy": _POLICY,
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    }


def _indexed(job: Manifest, parts: int) -> Manifest:
    """The Job with one pod per part, all at once; each restarts independently."""
    spec: Any = job["spec"]
    own = {"completionMode": "Indexed", "completions": parts, "parallelism": parts}
    container = spec["template"]["spec"]["containers"][0]
    container["command"] = [*container["command"], "--parts", str(parts)]
    return {**job, "spec": {**own, **spec}}


def _phase_metadata(of: Allocation, names: Names, site: KubernetesSite) -> dict[str, Any]:
    queue = {_QUEUE: site.queue} if site.queue else {}
    return _metadata(names.phase(of), names, site, **{COMPONENT: of.name}, **queue)


def _command(of: Allocation, names: Names, site: KubernetesSite) -> list[str]:
    module = ["python", "-m", "etude.runtime.launchers.node"]
    folders = [names.folder, site.root or site.mount]
    numbers = of.options(site.gpus_per_node)
    return [*module, *folders, of.phases[0].device, *numbers, "--plan", f"{_PLAN}/plan.json.gz"]


def _container(site: KubernetesSite) -> dict[str, Any]:
    variables = {"PYTHONUNBUFFERED": "1", "OMP_WAIT_POLICY": "PASSIVE", **site.environment}
    made: dict[str, Any] = {
        "name": _CONTAINER,
        "image": site.image,
        "env": [{"name": name, "value": value} for name, value in variables.items()],
        "volumeMounts": [{"name": "plan", "mountPath": _PLAN, "readOnly": True}],
    }
    if site.volume:
        made["volumeMounts"].insert(0, {"name": "work", "mountPath": site.mount})
    if site.secrets:
        made["envFrom"] = [{"secretRef": {"name": name}} for name in site.secrets]
    return made


def _pod(
    container: Mapping[str, Any], names: Names, site: KubernetesSite, *, gang: bool
) -> dict[str, Any]:
    """The pod of a phase.

    Args:
        gang: whether it has GPUs or ranks that share memory, and so goes to the nodes for those.
    """
    container = dict(container)
    volumes: list[dict[str, Any]] = [
        {"name": "plan", "configMap": {"name": f"{names.instance}-plan"}},
    ]
    if site.volume:
        volumes.insert(0, {"name": "work", "persistentVolumeClaim": {"claimName": site.volume}})
    made: dict[str, Any] = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": site.grace,
    }
    if site.service_account:
        made["serviceAccountName"] = site.service_account
    if site.image_pull_secrets:
        made["imagePullSecrets"] = [{"name": name} for name in site.image_pull_secrets]
    if gang:
        memory = {"medium": "Memory", "sizeLimit": site.shared_memory}
        volumes.append({"name": "shared-memory", "emptyDir": memory})
        shared = {"name": "shared-memory", "mountPath": "/dev/shm"}
        container["volumeMounts"] = [*container["volumeMounts"], shared]
        if site.node_selector:
            made["nodeSelector"] = site.node_selector
        if site.tolerations:
            made["tolerations"] = [t.model_dump(exclude_none=True) for t in site.tolerations]
    return made | {"containers": [container], "volumes": volumes}


def _resources(
    needs: Machines, site: KubernetesSite, cpu: str | None, memory: str | None
) -> dict[str, Any]:
    said = {"cpu": cpu, "memory": memory}
    requests = {name: value for name, value in said.items() if value}
    gpus = {site.gpu: str(needs.gpus)} if needs.gpus else {}
    found = {"requests": requests | gpus, "limits": gpus}
    return {name: value for name, value in found.items() if value}


def as_yaml(made: Sequence[Manifest]) -> str:
    """Manifests as YAML documents."""
    import yaml

    return yaml.safe_dump_all(json.loads(json.dumps(list(made))), sort_keys=False, width=100)
