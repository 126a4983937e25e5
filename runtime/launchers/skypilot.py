"""SkyPilot: a run as a pipeline of managed jobs, one task per phase, one after the other.

SkyPilot starts the nodes of a task, runs its command on each, and restarts the task if a machine is
taken away or the command ends with 75.
"""

import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationInfo, model_validator

from ...compiler.costs.hardware import gpu
from ...compiler.plan.plan import Plan
from ...compiler.values import Phase
from ..errors import RunError
from .engine import folder_name
from .machines import Allocation, Machines, Options, allocations
from .node import AGAIN
from .parts import NUMBER, parts_phase
from .sites import STORED

Task = dict[str, Any]

MOUNT = "/etude"
"""Where nodes see the bucket or volume with the run folder."""
PLAN = "/tmp/etude/plan.json.gz"
"""Where nodes find the plan."""
ACCELERATORS = {
    "A100 40GB": "A100",
    "A100 80GB": "A100-80GB",
    "L40S": "L40S",
    "H100 80GB": "H100",
    "H200": "H200",
    "B200": "B200",
    "MI300X": "MI300X",
}
"""GPU names in specs → in SkyPilot; a site file adds others."""


class SkypilotSite(Options):
    """The table `[skypilot]` of a site file."""

    setup: str | None = Field(default=None, description="installs etude on a node")
    image: str | None = Field(default=None, description="a container image that has etude")
    bucket: str | None = Field(
        default=None,
        pattern=r"^(s3|gs|r2|oci|nebius|https)://.+",
        description="keeps the run folder",
    )
    volume: str | None = Field(
        default=None, description="a SkyPilot volume that keeps the run folder"
    )
    cloud: str | None = Field(
        default=None, pattern=r"^[a-z0-9]+$", description="default: the cheapest that has the GPUs"
    )
    region: str | None = Field(default=None, description="of the cloud")
    zone: str | None = Field(default=None, description="of the region")
    use_spot: bool = Field(default=False, description="cheaper machines that may be preempted")
    accelerator: str | None = Field(default=None, description="SkyPilot's name of the GPU")
    gpus_per_node: int | None = Field(
        default=None,
        ge=1,
        description="GPUs of a node, if different from the spec's cluster",
    )
    parts: int = Field(
        default=1, ge=1, description="nodes that tokenize documents side by side, before the rest"
    )
    cpus: str = Field(default="4+", description="of a node without GPUs")
    memory: str | None = Field(default=None, description="GiB of a node without GPUs, such as 32+")
    disk_size: int | None = Field(default=None, ge=1, description="GB of a node")
    network_tier: str | None = Field(default=None, description="of several nodes, such as best")
    strategy: str | None = Field(default=None, description="SkyPilot's recovery strategy")
    environment: dict[str, str] = Field(default={}, description="variables of all nodes")
    secrets: list[str] = Field(
        default=[], description="variables of your shell that the nodes get, such as HF_TOKEN"
    )

    @model_validator(mode="after")
    def _complete(self, info: ValidationInfo) -> "SkypilotSite":
        stored = bool((info.context or {}).get(STORED))
        said = [each for each in (self.bucket, self.volume) if each]
        if len(said) != 1 and (said or not stored):
            raise ValueError("`bucket` or `volume` must say where the run folder is")
        if self.setup is None and self.image is None:
            raise ValueError("`setup` or `image` must install etude on the nodes")
        if self.region and not self.cloud:
            raise ValueError("`region` belongs to a `cloud`, which is missing")
        if self.zone and not self.region:
            raise ValueError("`zone` belongs to a `region`, which is missing")
        return self


def tasks(
    plan: Plan,
    phases: Sequence[Phase],
    site: SkypilotSite,
    root: Path,
    packed: Path,
    url: str = "",
) -> list[Task]:
    """The documents of a pipeline: its name, then a task per phase, in order.

    Args:
        root: the spec's folder, which is copied to every node.
        packed: the gzipped plan file.
        url: the recipe's run folder in a store; "": it is in the site's bucket or volume.

    Raises: RunError: a placement does not fit the nodes, or SkyPilot has no such GPU.
    """
    found = allocations(plan, phases, site.gpus_per_node)
    if site.parts > 1 and (first := parts_phase(plan, phases)):
        found.insert(0, Allocation((first,), (Machines(site.parts, 1, 0),)))
    made = [_task(plan, each, site, root, packed, url) for each in found]
    return [{"name": name(plan)}, *made]


def name(plan: Plan, of: str | None = None) -> str:
    """The name of the managed job of a plan.

    Args:
        of: what it stands for, if that is not the plan's variant.
    """
    variant = of or plan.variant
    run = f"{plan.recipe}-{variant}" if variant else plan.recipe
    return "etude-" + re.sub(r"[^a-z0-9]+", "-", run.lower()).strip("-")


def _task(
    plan: Plan, of: Allocation, site: SkypilotSite, root: Path, packed: Path, url: str
) -> Task:
    needs = of.machines
    mounts: dict[str, Any] = {PLAN: str(packed)}
    if site.bucket:
        mounts[MOUNT] = {"source": site.bucket, "mode": "MOUNT_CACHED"}
    made: Task = {
        "name": of.name,
        "workdir": str(root),
        "num_nodes": needs.nodes,
        "resources": _resources(of.phases[0], needs, site),
        "file_mounts": mounts,
        "envs": {"PYTHONUNBUFFERED": "1", "OMP_WAIT_POLICY": "PASSIVE", **site.environment},
        "run": _run(plan, of, site, url),
    }
    if site.volume:
        made["volumes"] = {MOUNT: site.volume}
    if site.secrets:
        made["secrets"] = dict.fromkeys(site.secrets)
    if site.setup:
        made["setup"] = site.setup
    return made


def _resources(phase: Phase, needs: Machines, site: SkypilotSite) -> dict[str, Any]:
    recovery: dict[str, Any] = {"max_restarts_on_errors": 0, "recover_on_exit_codes": [AGAIN]}
    if site.strategy:
        recovery["strategy"] = site.strategy
    made: dict[str, Any] = {"job_recovery": recovery, "use_spot": site.use_spot}
    if site.cloud:
        made["infra"] = "/".join(filter(None, (site.cloud, site.region, site.zone)))
    if needs.gpus:
        made["accelerators"] = {_accelerator(phase, site): needs.gpus}
    else:
        made["cpus"] = site.cpus
        if site.memory:
            made["memory"] = site.memory
    if site.image:
        # SkyPilot's own files say `docker:` in front; people copy it.
        made["image_id"] = f"docker:{site.image.removeprefix('docker:')}"
    if site.disk_size:
        made["disk_size"] = site.disk_size
    if site.network_tier and needs.nodes > 1:
        made["network_tier"] = site.network_tier
    return made


def _accelerator(phase: Phase, site: SkypilotSite) -> str:
    if site.accelerator:
        return site.accelerator
    known = gpu(phase.device)
    if known is None or known.name not in ACCELERATORS:
        raise RunError(
            f"etude does not know SkyPilot's name of the GPU {phase.device}",
            'set it in the site file, under [skypilot]: accelerator = "…"; `sky gpus list` shows '
            "the names",
        )
    return ACCELERATORS[known.name]


def _run(plan: Plan, of: Allocation, site: SkypilotSite, url: str) -> str:
    folder = shlex.quote(url) if url else f"{MOUNT}/runs/{folder_name(plan)}"
    phase, needs = of.phases[0], of.machines
    parts = f" --parts {needs.nodes}" if phase.number == NUMBER else ""
    return (
        f"python -m etude.runtime.launchers.node {folder} . {shlex.quote(phase.device)} "
        f"{' '.join(of.options(site.gpus_per_node))} --plan {PLAN}{parts}\n"
    )
