"""Manifests for Kubernetes: Kubeflow Trainer's models and Kubernetes' schemas take them."""

import base64
import copy
import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from packages import needed
from pydantic import ValidationError
from specs import plan

from etude.compiler.plan.plan import Plan
from etude.compiler.plan.plan_schema import read_plan
from etude.runtime.errors import RunError
from etude.runtime.launchers.kubernetes import INSTANCE, KubernetesSite, as_yaml, manifests
from etude.runtime.launchers.machines import Machines, machines
from etude.runtime.launchers.node import take_plan
from etude.runtime.run_folder.store import Store

SPEC = """recipe small {{ seed = 1 }}
model tiny {{ layers = 1, dim = 32, heads = 2, ffn = 64, vocab = 300 }}
tokenizer letters {{ bytes }}
dataset sums {{ sample = arithmetic, documents = 20 docs }}
cluster node {{ nodes = {nodes}, gpus = {gpus} of "{gpu}" }}
stage pre: train {{
  model = tiny, steps = 1, seq_len = 64, batch = 48 seqs, lr = 1e-3, data = sums
}}
stage measured: evaluate {{ from = pre, loss = [sums] }}
"""
VERSION = "1.37"
"""Of Kubernetes, whose schemas the manifests are held against."""
FULL = KubernetesSite.model_validate(
    {
        "image": "registry/etude:1",
        "volume": "work",
        "namespace": "research",
        "mount": "/mnt/work",
        "root": "/mnt/work/specs",
        "cpu": "96",
        "memory": "1500Gi",
        "node_selector": {"cloud/gpu": "h100"},
        "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
        "service_account": "trainer",
        "image_pull_secrets": ["registry"],
        "secrets": ["tokens"],
        "environment": {"NCCL_DEBUG": "WARN"},
        "queue": "team",
    }
)
LEAST = KubernetesSite(image="registry/etude:1", volume="work")


def gang(nodes: int = 2, gpus: int = 8, gpu: str = "H100 80GB") -> Plan:
    return plan(SPEC.format(nodes=nodes, gpus=gpus, gpu=gpu))


def made(site: KubernetesSite = FULL, of: Plan | None = None) -> list[dict[str, Any]]:
    of = of or gang()
    return list(yaml.safe_load_all(as_yaml(manifests(of, of.phases, site))))


def by_kind(documents: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    return next(each for each in documents if each["kind"] == kind)


class Refused(ValueError):
    """Kubernetes would refuse a manifest, or leave something in it out."""


def require_valid(document: dict[str, Any]) -> None:
    """Raises: Refused."""
    kind, job = document["kind"], document
    if kind in ("TrainJob", "TrainingRuntime"):
        models = needed("kubeflow_trainer_api.models")
        try:
            read = getattr(models, f"TrainerV1alpha1{kind}").from_dict(document).to_dict()
        except ValidationError as problem:
            raise Refused(str(problem)) from None
        if read != document:
            raise Refused("the models leave out what they do not know")
        if kind == "TrainJob":
            return
        # The models do not look for what a pod lacks: Kubernetes' schemas do.
        (replicated,) = document["spec"]["template"]["spec"]["replicatedJobs"]
        job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "gang"}}
        job["spec"] = replicated["template"]["spec"]
    schemas = needed("kubernetes_validate")
    try:
        schemas.validate(job, VERSION, strict=True)
    except schemas.ValidationError as problem:
        raise Refused(str(problem)) from None


@pytest.mark.parametrize("site", [FULL, LEAST], ids=["full", "least"])
def test_all_manifests_are_as_their_schemas_say(site: KubernetesSite) -> None:
    documents = made(site)
    kinds = [each["kind"] for each in documents]
    assert kinds == ["ConfigMap", "TrainingRuntime", "Job", "TrainJob", "Job"]
    for document in documents:
        require_valid(document)


def _rename(*path: str | int) -> Callable[[dict[str, Any]], None]:
    """A typo in the key at the end of a path."""

    def change(document: dict[str, Any]) -> None:
        inner: Any = document
        for step in path[:-1]:
            inner = inner[step]
        inner[f"{path[-1]}x"] = inner.pop(path[-1])

    return change


POD = ("spec", "template", "spec", "replicatedJobs", 0, "template", "spec", "template", "spec")


@pytest.mark.parametrize(
    ("kind", "typo"),
    [
        ("TrainJob", _rename("spec", "trainer", "numProcPerNode")),
        ("TrainJob", _rename("spec", "trainer", "resourcesPerNode", "limits")),
        ("TrainJob", _rename("spec", "runtimeRef")),
        ("TrainJob", lambda job: job["spec"]["trainer"].update(numNodes="2")),
        ("TrainingRuntime", _rename("spec", "template", "spec", "failurePolicy", "maxRestarts")),
        ("TrainingRuntime", _rename(*POD, "containers", 0, "volumeMounts", 0, "mountPath")),
        ("TrainingRuntime", _rename(*POD, "nodeSelector")),
        ("Job", _rename("spec", "podFailurePolicy", "rules", 0, "onExitCodes")),
        ("Job", _rename("spec", "template", "spec", "containers", 0, "image")),
        ("ConfigMap", _rename("binaryData")),
    ],
)
def test_a_typo_in_a_manifest_is_found(kind: str, typo: Callable[[dict[str, Any]], None]) -> None:
    document = copy.deepcopy(by_kind(made(), kind))
    typo(document)
    with pytest.raises(Refused):
        require_valid(document)


def test_a_gang_is_a_train_job_on_whole_nodes() -> None:
    job = by_kind(made(), "TrainJob")
    trainer = job["spec"]["trainer"]
    assert (trainer["numNodes"], trainer["numProcPerNode"]) == (2, 8)
    assert trainer["resourcesPerNode"] == {
        "requests": {"cpu": "96", "memory": "1500Gi", "nvidia.com/gpu": "8"},
        "limits": {"nvidia.com/gpu": "8"},
    }
    assert trainer["command"] == [
        *("python", "-m", "etude.runtime.launchers.node", "/mnt/work/runs/small"),
        *("/mnt/work/specs", "H100 80GB", "--phase", "2-gang", "--ranks", "8"),
        *("--plan", "/etc/etude/plan.json.gz"),
    ]
    runtime = by_kind(made(), "TrainingRuntime")
    assert job["spec"]["runtimeRef"]["name"] == runtime["metadata"]["name"]


def test_only_what_can_be_started_again_is() -> None:
    documents = made()
    runtime = by_kind(documents, "TrainingRuntime")["spec"]["template"]["spec"]
    (replicated,) = runtime["replicatedJobs"]
    policies = [replicated["template"]["spec"], by_kind(documents, "Job")["spec"]]
    for spec in policies:
        (rule,) = spec["podFailurePolicy"]["rules"]
        assert rule["action"] == "FailJob"
        assert rule["onExitCodes"]["values"] == [1, 2, 3]
        (container,) = spec["template"]["spec"]["containers"]
        assert rule["onExitCodes"]["containerName"] == container["name"]
        assert spec["template"]["spec"]["restartPolicy"] == "Never"
    # One pod that ends fails the Job; the JobSet then starts all pods again, or ends.
    assert policies[0]["backoffLimit"] == 0
    assert runtime["failurePolicy"]["maxRestarts"] == policies[1]["backoffLimit"] == 100
    (rule,) = runtime["failurePolicy"]["rules"]
    assert (rule["action"], rule["onJobFailureReasons"]) == ("FailJobSet", ["PodFailurePolicy"])
    # By these, Kubeflow Trainer finds what it adds the command to.
    assert replicated["name"] == "node"
    labels = replicated["template"]["metadata"]["labels"]
    assert labels == {"trainer.kubeflow.org/trainjob-ancestor-step": "trainer"}


def test_pods_share_the_volume_and_have_memory_to_share() -> None:
    documents = made()
    runtime = by_kind(documents, "TrainingRuntime")["spec"]["template"]["spec"]
    gang_pod = runtime["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
    small_pod = by_kind(documents, "Job")["spec"]["template"]["spec"]
    for pod in (gang_pod, small_pod):
        volumes = {each["name"]: each for each in pod["volumes"]}
        mounts = {each["name"]: each["mountPath"] for each in pod["containers"][0]["volumeMounts"]}
        assert volumes.keys() == mounts.keys()
        assert volumes["work"]["persistentVolumeClaim"] == {"claimName": "work"}
        assert mounts["work"] == "/mnt/work"
        assert pod["serviceAccountName"] == "trainer"
    volumes = {each["name"]: each for each in gang_pod["volumes"]}
    assert volumes["shared-memory"]["emptyDir"] == {"medium": "Memory", "sizeLimit": "64Gi"}
    assert gang_pod["nodeSelector"] == {"cloud/gpu": "h100"}
    assert "nodeSelector" not in small_pod  # it needs no GPU


def test_pods_get_the_plan_itself(tmp_path: Path) -> None:
    of = gang()
    config = by_kind(made(of=of), "ConfigMap")
    packed = tmp_path / "plan.json.gz"
    packed.write_bytes(base64.b64decode(config["binaryData"]["plan.json.gz"]))
    for _ in range(2):  # every node does it
        take_plan(packed, tmp_path / "run")
    assert read_plan(tmp_path / "run" / "plan.json") == of
    assert [each.name for each in (tmp_path / "run").glob("*plan*")] == ["plan.json"]
    assert Store(tmp_path / "run").exists()


def test_a_variant_has_a_run_folder_of_its_own_in_pods(tmp_path: Path) -> None:
    text = SPEC.format(nodes=2, gpus=8, gpu="H100 80GB")
    of = plan(text + "\nvariant quick { pre.steps = 2 }\n", variant="quick")
    job = by_kind(made(of=of), "TrainJob")
    assert job["spec"]["trainer"]["command"][3] == "/mnt/work/runs/small"
    packed = tmp_path / "plan.json.gz"
    packed.write_bytes(gzip.compress(of.to_json().encode()))
    own = take_plan(packed, tmp_path / "small")
    assert own == take_plan(packed, tmp_path / "small") == tmp_path / "small/variants/quick"
    assert read_plan(own / "plan.json") == of
    assert (own / "artifacts").resolve() == tmp_path / "small" / "artifacts"


def test_another_plan_or_site_has_other_names() -> None:
    def instance(site: KubernetesSite, of: Plan) -> str:
        found = {each["metadata"]["labels"][INSTANCE] for each in made(site, of)}
        (only,) = found
        return only

    names = {instance(FULL, gang()), instance(LEAST, gang()), instance(FULL, gang(nodes=1))}
    assert len(names) == 3
    assert instance(FULL, gang()) in names


def test_names_of_long_recipes_are_short_enough() -> None:
    text = SPEC.replace("recipe small", f"recipe {'very_long_' * 6}x")
    of = plan(text.format(nodes=2, gpus=8, gpu="H100 80GB"))
    for document in made(of=of):
        require_valid(document)
        # A Job of a JobSet adds `-node-0`, its pods `-0-abcde`; labels hold 63 characters.
        assert len(document["metadata"]["name"] + "-node-0-000-abcde") <= 63


@pytest.mark.parametrize(
    ("site", "expected"),
    [
        (None, Machines(2, 8, 8)),
        (16, Machines(1, 16, 16)),
        (4, Machines(4, 4, 4)),
        (1, Machines(16, 1, 1)),
    ],
)
def test_a_site_may_have_other_nodes_than_the_spec(site: int | None, expected: Machines) -> None:
    of = gang()
    phase = next(each for each in of.phases if each.kind == "gang")
    assert machines(of, phase, site) == expected


def test_what_does_not_fit_the_nodes_is_said_before_anything_is_queued() -> None:
    with pytest.raises(RunError, match=r"2-gang has 16 ranks, which do not fill nodes of 6 GPUs"):
        made(FULL.model_copy(update={"gpus_per_node": 6}))


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"image": None}, "image"),
        ({"image": ""}, "image"),
        ({"volume": ""}, "volume"),
        ({"imagee": "x"}, "imagee"),
        ({"namespace": "My Team"}, "namespace"),
        ({"mount": "work"}, "mount"),
        ({"tolerations": [{"key": "a", "operator": "Is"}]}, "tolerations"),
        ({"restarts": -1}, "restarts"),
    ],
)
def test_a_site_that_cannot_be_is_refused(change: dict[str, Any], where: str) -> None:
    said = {"image": "registry/etude:1", "volume": "work"} | change
    with pytest.raises(ValidationError) as raised:
        KubernetesSite.model_validate({k: v for k, v in said.items() if v is not None})
    assert raised.value.errors()[0]["loc"][0] == where


def test_a_plan_that_no_config_map_holds_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("etude.runtime.launchers.kubernetes._MOST", 1000)
    with pytest.raises(RunError, match=r"has [\d,]+ bytes, gzipped, but Kubernetes allows 1,000"):
        made()


def test_the_plan_is_packed_to_the_same_bytes_each_time() -> None:
    first, second = (by_kind(made(), "ConfigMap")["binaryData"] for _ in range(2))
    assert first == second
    assert gzip.decompress(base64.b64decode(first["plan.json.gz"]))
