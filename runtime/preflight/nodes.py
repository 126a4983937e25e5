"""Checks every node of a gang before hours are spent on it: do all nodes run the same code, see the
same run folder, reach each other, and have what the phase needs?

Each rank checks its node and reports to rank 0, which raises one error with the node's name.
"""

import importlib.metadata
import importlib.util
import json
import platform
import resource
import shutil
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path
from shlex import quote
from typing import Any

from ...compiler.plan.measures import SuiteMeasure
from ...compiler.plan.plan import DatasetJob, Plan, TrainJob, WritingJob
from ...compiler.torchtitan.configuration import optimizers
from ...compiler.torchtitan.quantization import SECTION
from ...compiler.values import LION
from ..errors import RunError
from ..stores.objects import StoreError
from ..stores.remote import Remote, remote_above
from .disk_space import in_bytes
from .kernels import DEEP_EP, DEEP_EP_SOURCE, exchanging

FILES = 1024
"""Open files that a rank may need: data shards, checkpoints, connections to other ranks."""
FREE = 64 << 20
"""Bytes that must be free in the run folder, as every node sees it."""
PATIENCE = 90.0
"""Seconds in which a node must see a new file: shared file systems cache that it did not exist."""
PACKAGES = ("torch", "torchtitan", "numpy", "safetensors", "tokenizers")


@dataclass(frozen=True)
class Node:
    """What a rank has found on its node.

    Attributes:
        versions: name → version, of Python, etude and the libraries it computes with.
        files: how many files it may open at a time.
        free: free bytes in the run folder.
        lacks: packages that the phase needs and that are missing.
        sees: whether the file that rank 0 has written into the run folder is visible.
        store: what is wrong with the object store that the run folder is in, and a fix.
    """

    rank: int
    host: str
    versions: Mapping[str, str]
    files: int
    free: int
    lacks: Sequence[str] = field(default=())
    sees: bool = True
    store: Sequence[str] = field(default=())

    def to_json(self) -> bytes:
        """The node as JSON."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_json(cls, text: bytes) -> "Node":
        """The node in a JSON text."""
        return cls(**json.loads(text))

    def __str__(self) -> str:
        return f"{self.host} (rank {self.rank})"


def look(rank: int, folder: Path, needs: Iterable[str], sign: str) -> Node:
    """Checks this rank's node, and notes whether it has a local folder of its own of a store.

    Args:
        folder: the run folder.
        needs: modules that the phase needs.
        sign: the name of the file that rank 0 has written there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    remote = remote_above(folder / sign)
    if remote is not None:
        remote.apart = not (folder / sign).exists()
    return Node(
        rank,
        socket.gethostname(),
        versions(needs),
        _open_files(),
        shutil.disk_usage(folder).free,
        [module for module in needs if importlib.util.find_spec(module) is None],
        remote is not None or _appears(folder / sign, PATIENCE),
        _store(remote, folder / sign, rank) if remote is not None else [],
    )


def versions(more: Iterable[str] = ()) -> dict[str, str]:
    """The versions of the software that runs here, including a digest of etude's code.

    Args:
        more: packages besides those of every run.
    """
    found = {"python": platform.python_version()}
    for name in (*PACKAGES, *more):
        with suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found | {"etude": _own_version()}


def _own_version() -> str:
    digest = sha256()
    for package in ("compiler", "runtime"):
        spec = importlib.util.find_spec(f"etude.{package}")
        for folder in spec.submodule_search_locations or () if spec else ():
            for path in sorted(Path(folder).rglob("*.py")):
                digest.update(path.relative_to(folder).as_posix().encode() + path.read_bytes())
    return f"{importlib.metadata.version('etude')}+{digest.hexdigest()[:8]}"


def _open_files() -> int:
    """How many files this process may open, after raising the limit as far as possible."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = 1 << 20 if hard == resource.RLIM_INFINITY else hard
    if soft == resource.RLIM_INFINITY:
        return most
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(most, 1 << 16)), hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def _appears(path: Path, patience: float) -> bool:
    """Whether a file exists or appears within `patience` seconds."""
    end = time.monotonic() + patience
    while not path.exists():
        if time.monotonic() > end:
            return False
        time.sleep(0.5)
    return True


def _store(remote: Remote, sign: Path, rank: int) -> Sequence[str]:
    """What is wrong with the store as this rank sees it: it must find what rank 0 has written, and
    be able to write."""
    name = remote.name(sign)
    try:
        if remote.bucket.about(name) is None:
            return [
                f"what rank 0 has written there, {name}, is not in the store that it asks",
                "give all nodes the same endpoint and credentials: AWS_ENDPOINT_URL, "
                "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or ~/.aws",
            ]
        if rank != 0:
            own = f"{name}.rank-{rank}"
            remote.bucket.write(own, b"")
            remote.bucket.remove([own])
    except StoreError as problem:
        return [problem.message, problem.help]
    return []


def needed(plan: Plan, jobs: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Module → its purpose, and what pip installs to provide it, for jobs of a plan."""
    own, found = set(jobs), {}
    for job in plan.jobs:
        if job.id not in own:
            continue
        if isinstance(job, DatasetJob) and job.drop_similar is not None:
            found["rapidfuzz"] = ("`drop similar`", "etude[post]")
        measures: list[Any] = [*getattr(job, "measures", ()), getattr(job, "measure", None)]
        if any(isinstance(measure, SuiteMeasure) for measure in measures):
            found["lm_eval"] = ("suites", "etude[eval]")
        if isinstance(job, WritingJob) and job.resources and job.resources.replica > 1:
            found["vllm"] = ("a model on several GPUs", "vllm")
        if SECTION in getattr(job, "torchtitan", {}):
            found["torchao"] = ("`precision` in 8 or 4 bits", "etude[fp8]")
        if isinstance(job, TrainJob) and LION in optimizers(job.torchtitan):
            found["pytorch_optimizer"] = ("`optimizer = lion`", "etude[lion]")
        if isinstance(job, TrainJob) and (kind := exchanging(job)):
            found[DEEP_EP] = (f"`dispatcher = {kind}`", DEEP_EP_SOURCE)
    return found


def wrong(
    nodes: Sequence[Node], folder: Path, needs: Mapping[str, tuple[str, str]]
) -> RunError | None:
    """What is wrong with the nodes of a gang, if anything.

    Args:
        nodes: by rank.
        needs: from `needed`.
    """
    for look_at in (_unshared, _versions, _limits):
        if problem := look_at(nodes, folder):
            return problem
    for node in nodes:
        for module in node.lacks:
            what, source = needs.get(module, ("the phase", module))
            return RunError(
                f"{node} lacks the package {module.replace('_', '-')}, which {what} needs",
                f"install it on every node: pip install {quote(source)}",
            )
    return None


def _unshared(nodes: Sequence[Node], folder: Path) -> RunError | None:
    if wrong := [node for node in nodes if node.store]:
        remote = remote_above(folder / "any")
        place = remote.url if remote else folder
        message, help = wrong[0].store
        return RunError(
            f"{wrong[0]}{_more(wrong)} cannot use the run folder {place}: {message}", help
        )
    blind = [node for node in nodes if not node.sees]
    if not blind:
        return None
    return RunError(
        f"{blind[0]}{_more(blind)} does not see the run folder {folder} of rank 0 on "
        f"{nodes[0].host}: a file written there did not appear in {PATIENCE:.0f} seconds",
        "choose a folder on a file system that all nodes share, with --folder or `scratch` in "
        "the site file, or one in an object store: --folder s3://…",
    )


def _versions(nodes: Sequence[Node], folder: Path) -> RunError | None:
    for name in nodes[0].versions:
        count = Counter(node.versions.get(name, "none") for node in nodes)
        if len(count) == 1:
            continue
        usual = count.most_common(1)[0][0]
        others = [node for node in nodes if node.versions.get(name, "none") != usual]
        return RunError(
            f"nodes run different versions: {others[0]}{_more(others)} has {name} "
            f"{others[0].versions.get(name, 'none')}, the others have {usual}",
            "use one environment that all nodes share, or the same container on each: `python` or "
            "`container` in the site file",
        )
    return None


def _limits(nodes: Sequence[Node], folder: Path) -> RunError | None:
    for node in nodes:
        if node.files < FILES:
            return RunError(
                f"{node} may open {node.files} files at a time, but up to {FILES} are needed",
                'raise the limit: setup = ["ulimit -n 65536"] in the site file, or ask your '
                "cluster's administrators",
            )
        if node.free < FREE:
            return RunError(
                f"{node} has {in_bytes(node.free)} free in {folder}",
                "free some space, or choose another folder with --folder, or with "
                "ETUDE_STORE_CACHE the local one of a run in a store",
            )
    return None


def _more(nodes: Sequence[Node]) -> str:
    return f" (and {len(nodes) - 1} more)" if len(nodes) > 1 else ""


def require_nodes(
    folder: Path,
    rank: int,
    needs: Mapping[str, tuple[str, str]] | None,
    share: Callable[[str, bytes | None], bytes],
    collect: Callable[[str, bytes], list[bytes] | None],
) -> None:
    """All ranks call this together; rank 0 raises the error if any of them has a problem.

    Args:
        folder: the run folder.
        needs: on rank 0, what the gang's jobs need, from `needed`; None on the others.
        share: sends rank 0's value to all ranks; the others pass None.
        collect: gathers every rank's value on rank 0, by rank; None on the others.

    Raises: RunError: on rank 0.
    """
    sign = folder / f".shared-{time.time_ns()}"
    remote = remote_above(sign)
    if rank == 0:
        folder.mkdir(parents=True, exist_ok=True)
        sign.touch()
        if remote is not None:
            remote.bucket.write(remote.name(sign), b"")
    try:
        said = json.dumps([sign.name, list(needs)]).encode() if needs is not None else None
        name, modules = json.loads(share("sign", said))
        found = collect("nodes", look(rank, folder, modules, name).to_json())
        if (
            found is not None
            and needs is not None
            and (problem := wrong([*map(Node.from_json, found)], folder, needs))
        ):
            raise problem
    finally:
        if rank == 0:
            sign.unlink(missing_ok=True)
            if remote is not None:
                with suppress(StoreError):
                    remote.bucket.remove([remote.name(sign)])
