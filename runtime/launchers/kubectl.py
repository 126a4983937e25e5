"""Runs phases on Kubernetes with kubectl, each when the previous one is complete.

Kubernetes has no order among TrainJobs and Jobs. A pod that waits for another phase would hold its
GPUs meanwhile, and a controller in the cluster would need rights that few users have. So the
launching process applies each phase when it is due. Its whole state is in the cluster: it may end
at any time, and the same launch continues.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep
from typing import Any, Literal

from ..errors import Interrupted, RunError, Stopped
from ..run_folder.store import Store
from .kubernetes import INSTANCE, RUN, Manifest, as_yaml
from .programs import Refused, call, require
from .record import Launch, save

PROGRAM: str = "kubectl"
POLL_SECONDS = 10.0
"""Seconds between two looks at a phase."""
LOST_SECONDS = 1800.0
"""The launching process gives up if the cluster has not answered for this many seconds."""
PHASES = {"TrainJob": "trainjobs.trainer.kubeflow.org", "Job": "jobs.batch"}
"""The kinds of phases → their resource names in kubectl."""
_SHARED = {"TrainingRuntime": "trainingruntimes.trainer.kubeflow.org", "ConfigMap": "configmaps"}
State = Literal["absent", "active", "complete", "failed"]
Say = Callable[[str], None]


@dataclass(frozen=True)
class Cluster:
    """A namespace of the cluster in a context."""

    namespace: str
    context: str

    @classmethod
    def current(cls, namespace: str) -> "Cluster":
        """The cluster that kubectl is configured for.

        Raises: RunError: kubectl is missing, or has no cluster.
        """
        require(
            "kubectl",
            "install it, or write the manifests with --dry-run and apply them elsewhere, each "
            "phase when the previous one is complete",
        )
        help = "choose the cluster: kubectl config use-context NAME"
        return cls(namespace, call(["kubectl", "config", "current-context"], help=help).strip())

    def call(self, *words: str, text: str | None = None, help: str = "") -> str:
        """Runs kubectl in this namespace; returns its output.

        Raises: RunError.
        """
        where = ["--context", self.context, "--namespace", self.namespace]
        return call(["kubectl", words[0], *where, *words[1:]], text=text, help=help)

    def apply(self, made: Sequence[Manifest], *options: str) -> None:
        """Applies manifests.

        Raises: RunError: the cluster rejects a manifest.
        """
        try:
            self.call("apply", *options, "-f", "-", text=as_yaml(made))
        except Refused as problem:
            raise RunError(problem.message, _advice(problem.said)) from None

    def objects(self, kinds: Sequence[str], labels: Mapping[str, str]) -> list[dict[str, Any]]:
        """The objects with these labels.

        Raises: RunError.
        """
        selector = ",".join(f"{name}={value}" for name, value in labels.items())
        text = self.call("get", ",".join(kinds), "-l", selector, "-o", "json")
        return json.loads(text)["items"]

    def phase(self, made: Manifest) -> tuple[State, str]:
        """The state of a phase, and the reason.

        Raises: RunError.
        """
        name = made["metadata"]["name"]
        options = ("--ignore-not-found", "-o", "json")
        text = self.call("get", PHASES[made["kind"]], name, *options)
        return state(json.loads(text)) if text.strip() else ("absent", "")


def state(found: Mapping[str, Any]) -> tuple[State, str]:
    """The state of a TrainJob or Job, and the reason, from its conditions."""
    for each in found.get("status", {}).get("conditions", ()):
        if each.get("status") == "True" and each["type"] in ("Complete", "Failed"):
            why = ": ".join(filter(None, (each.get("reason"), each.get("message"))))
            return ("complete" if each["type"] == "Complete" else "failed"), why
    return "active", ""


def submit(made: Sequence[Manifest], cluster: Cluster, folder: Path, say: Say) -> None:
    """Runs the phases of a run in order, and waits for the last.

    Args:
        made: the manifests.
        folder: the local run folder, for the record of the launch.

    Raises:
        RunError: the cluster rejects a manifest, or a phase has failed.
        Stopped: a phase has ended because a person must decide.
        Interrupted: the cluster does not answer.
    """
    shared = [each for each in made if each["kind"] not in PHASES]
    phases = [each for each in made if each["kind"] in PHASES]
    kinds = sorted({PHASES[each["kind"]] for each in phases})
    labels = phases[0]["metadata"]["labels"]
    cluster.apply(shared)
    cluster.apply(phases, "--dry-run=server")
    there = cluster.objects(kinds, {RUN: labels[RUN]})
    active = [each for each in there if state(each)[0] == "active"]
    for each in active:
        other = each["metadata"]["labels"].get(INSTANCE)
        if other != labels[INSTANCE]:
            raise RunError(
                f"an earlier launch of this run is active, {other}, with another plan or site",
                f"wait for it, or cancel it: etude cancel {Store(folder).name}",
            )
    if not active and there:
        cluster.call("delete", ",".join(kinds), "-l", f"{RUN}={labels[RUN]}", "--wait=true")
    all_kinds = sorted({*kinds, *(_SHARED[each["kind"]] for each in shared)})
    queued = {"namespace": cluster.namespace, "context": cluster.context, "kinds": all_kinds}
    save(folder, Launch("kubernetes", queued | {"instance": labels[INSTANCE]}))
    for number, each in enumerate(phases, 1):
        _phase(each, f"phase {number} of {len(phases)}", cluster, say)


def _phase(made: Manifest, what: str, cluster: Cluster, say: Say) -> None:
    name = made["metadata"]["name"]
    now, why = cluster.phase(made)
    if now == "absent":
        cluster.apply([made])
        now = "active"
        say(f"{what}: {name} is queued")
    elif now == "active":
        say(f"{what}: {name} already exists")
    answered = monotonic()
    while now == "active":
        sleep(POLL_SECONDS)
        try:
            now, why = cluster.phase(made)
            answered = monotonic()
        except RunError as problem:
            if monotonic() - answered > LOST_SECONDS:
                raise Interrupted(
                    f"the cluster has not answered for {LOST_SECONDS / 60:.0f} minutes: "
                    f"{problem.message}",
                    "the phase continues there; launch again to continue with the next ones",
                ) from None
    if now == "absent":
        raise Interrupted(f"{name} was removed from the cluster", "launch again to continue")
    if now == "failed":
        raise _failure(made, why, cluster)
    say(f"{what}: {name} is complete")


def _failure(made: Manifest, why: str, cluster: Cluster) -> RunError:
    """Why a phase has failed, from the exit codes of its pods."""
    name = made["metadata"]["name"]
    label = "jobset.sigs.k8s.io/jobset-name" if made["kind"] == "TrainJob" else "job-name"
    look = f"kubectl logs -n {cluster.namespace} -l {label}={name} --tail=50 --prefix"
    codes = _exit_codes(cluster, label, name)
    if Stopped.exit_code in codes:
        message = f"{name} has stopped, and a person has to decide"
        return Stopped(message, f"its last lines say what about: {look}")
    ended = f" (exit code {', '.join(map(str, sorted(codes)))})" if codes else ""
    return RunError(f"{name} has failed{ended}: {why}", f"its last lines say more: {look}")


def _exit_codes(cluster: Cluster, label: str, name: str) -> set[int]:
    try:
        pods = cluster.objects(["pods"], {label: name})
    except RunError:
        return set()
    found = set()
    for pod in pods:
        for container in pod.get("status", {}).get("containerStatuses", ()):
            ended = container.get("state", {}).get("terminated")
            if ended and ended.get("exitCode"):
                found.add(int(ended["exitCode"]))
    return found


def cancel(queued: Mapping[str, Any]) -> None:
    """Deletes everything that a launch has made; its pods get SIGTERM, and time to save.

    Raises: RunError.
    """
    require("kubectl", "cancel from a machine that has it")
    cluster = Cluster(queued["namespace"], queued["context"])
    kinds = ",".join(queued["kinds"])
    cluster.call("delete", kinds, "-l", f"{INSTANCE}={queued['instance']}", "--wait=false")


def at_work(queued: Mapping[str, Any]) -> bool:
    """Whether a phase of a launch is queued or running.

    Raises: RunError.
    """
    require("kubectl", "ask from a machine that has it")
    cluster = Cluster(queued["namespace"], queued["context"])
    kinds = [kind for kind in queued["kinds"] if kind in PHASES.values()]
    found = cluster.objects(kinds, {INSTANCE: queued["instance"]})
    return any(state(each)[0] == "active" for each in found)


def _advice(said: str) -> str:
    """What to do if the cluster rejects a manifest."""
    if "no matches for kind" in said and "kubeflow" in said:
        return "install Kubeflow Trainer 2.2 or later in the cluster"
    if "namespaces" in said and "not found" in said:
        return "name an existing namespace in the site file, under [kubernetes]"
    if "Forbidden" in said or "forbidden" in said:
        return "ask for the right to create jobs and trainjobs in the namespace, or name another"
    if "Unable to connect" in said or "refused" in said or "no such host" in said:
        return "check whether `kubectl get pods` answers"
    return "correct the site file, and launch again; nothing has been started"
