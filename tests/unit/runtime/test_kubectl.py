"""Runs that are given to Kubernetes and to SkyPilot by their commands, which are stand-ins here."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import kubectl_stand_in
import pytest
from specs import plan
from stand_ins import Programs
from test_kubernetes import LEAST, SPEC

from etude.cli.main import main
from etude.compiler.plan.plan import Plan
from etude.runtime.errors import Interrupted, RunError, Stopped
from etude.runtime.launchers import kubectl
from etude.runtime.launchers.kubectl import Cluster, at_work, cancel, state, submit
from etude.runtime.launchers.kubernetes import Manifest, manifests
from etude.runtime.launchers.record import load

PHASES = ("1-cpu", "2-gang", "3-small")


class Kubernetes:
    """The stand-in, and what it was asked for."""

    def __init__(self, programs: Programs) -> None:
        self.file = programs.folder / "cluster.json"
        script = programs.folder / "stand_in.py"
        shutil.copyfile(kubectl_stand_in.__file__, script)
        programs.write("kubectl", f'exec {sys.executable} {script} "$@"')
        self.set(objects={}, applied=[], unknown=[], ends={}, gone=0)

    def set(self, **changes: Any) -> None:
        before = json.loads(self.file.read_text()) if self.file.exists() else {}
        self.file.write_text(json.dumps(before | changes))

    def get(self, name: str) -> Any:
        return json.loads(self.file.read_text())[name]


@pytest.fixture
def kubernetes(programs: Programs, monkeypatch: pytest.MonkeyPatch) -> Kubernetes:
    monkeypatch.setattr(kubectl, "POLL_SECONDS", 0.0)
    return Kubernetes(programs)


def gang(nodes: int = 2) -> Plan:
    return plan(SPEC.format(nodes=nodes, gpus=8, gpu="H100 80GB"))


def made(of: Plan | None = None) -> list[Manifest]:
    of = of or gang()
    return manifests(of, of.phases, LEAST)


def launch(folder: Path, documents: list[Manifest] | None = None) -> list[str]:
    said: list[str] = []
    submit(documents or made(), Cluster.current("default"), folder, said.append)
    return said


def phases_of(applied: list[str]) -> list[str]:
    names = [name for name in applied if name.startswith(("Job/", "TrainJob/"))]
    return [next(phase for phase in PHASES if name.endswith(phase)) for name in names]


def test_a_phase_is_applied_when_the_one_before_is_complete(
    kubernetes: Kubernetes, tmp_path: Path
) -> None:
    said = launch(tmp_path)
    applied = kubernetes.get("applied")
    assert [name.split("/")[0] for name in applied[:2]] == ["ConfigMap", "TrainingRuntime"]
    assert phases_of(applied) == list(PHASES)
    queued = [line.endswith("is queued") for line in said]
    assert queued == [True, False] * 3  # then complete, and only then the next
    assert said[0].startswith("phase 1 of 3: etude-small-")
    # All phases are looked at by the cluster before the first is queued.
    calls = [line.split() for line in (kubernetes.file.parent / "calls").read_text().splitlines()]
    applies = [words for words in calls if words[1:2] == ["apply"]]
    dry = ["--dry-run=server" in words for words in applies]
    assert dry == [False, True, False, False, False]


def test_who_waits_may_end_and_the_same_launch_continues(
    kubernetes: Kubernetes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(seconds: float) -> None:
        if phases_of(kubernetes.get("applied")) == ["1-cpu", "2-gang"]:
            raise KeyboardInterrupt

    monkeypatch.setattr(kubectl, "sleep", interrupted)
    with pytest.raises(KeyboardInterrupt):
        launch(tmp_path)
    record = load(tmp_path)
    assert record
    assert at_work(record.queued)
    monkeypatch.setattr(kubectl, "sleep", lambda seconds: None)
    said = launch(tmp_path)
    assert phases_of(kubernetes.get("applied")) == list(PHASES)
    assert any(line.endswith("2-gang already exists") for line in said)
    assert not at_work(record.queued)


def test_after_a_failure_the_same_launch_begins_anew(
    kubernetes: Kubernetes, tmp_path: Path
) -> None:
    kubernetes.set(ends={"2-gang": "Failed"})
    with pytest.raises(RunError, match=r"2-gang has failed: PodFailurePolicy") as raised:
        launch(tmp_path)
    assert raised.value.exit_code == 1
    assert "kubectl logs -n default -l jobset.sigs.k8s.io/jobset-name=etude" in raised.value.help
    assert phases_of(kubernetes.get("applied")) == ["1-cpu", "2-gang"]
    kubernetes.set(ends={}, applied=[])
    launch(tmp_path)
    # Phases that are done end at once: whoever corrects data wants them looked at.
    assert phases_of(kubernetes.get("applied")) == list(PHASES)


@pytest.mark.parametrize(("code", "kind"), [(3, Stopped), (1, RunError)])
def test_the_exit_code_of_a_pod_says_whether_a_person_decides(
    code: int, kind: type[RunError], kubernetes: Kubernetes, tmp_path: Path
) -> None:
    documents = made()
    name = documents[2]["metadata"]["name"]
    pod = {
        "kind": "Pod",
        "metadata": {"labels": {"job-name": name}},
        "status": {"containerStatuses": [{"state": {"terminated": {"exitCode": code}}}]},
    }
    kubernetes.set(ends={"1-cpu": "Failed"}, objects={"Pod/a": pod})
    with pytest.raises(RunError) as raised:
        launch(tmp_path, documents)
    assert type(raised.value) is kind
    assert raised.value.exit_code == code


def test_a_launch_of_a_run_that_is_at_work_with_another_plan_is_refused(
    kubernetes: Kubernetes, tmp_path: Path
) -> None:
    first = made(gang(1))
    running = next(each for each in first if each["kind"] == "TrainJob")
    kubernetes.set(objects={f"TrainJob/{running['metadata']['name']}": running})
    with pytest.raises(RunError, match="an earlier launch of this run is active") as raised:
        launch(tmp_path)
    assert f"etude cancel {tmp_path}" in raised.value.help
    assert phases_of(kubernetes.get("applied")) == []
    assert load(tmp_path) is None


def test_a_cluster_without_kubeflow_is_said_before_anything_is_queued(
    kubernetes: Kubernetes, tmp_path: Path
) -> None:
    kubernetes.set(unknown=["TrainingRuntime", "TrainJob"])
    with pytest.raises(RunError, match="no matches for kind") as raised:
        launch(tmp_path)
    assert "install Kubeflow Trainer 2.2 or later" in raised.value.help
    assert phases_of(kubernetes.get("applied")) == []


def test_a_cluster_that_does_not_answer_for_a_while_is_waited_for(
    kubernetes: Kubernetes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = iter([3])

    def outage(seconds: float) -> None:
        if number := next(gone, 0):
            kubernetes.set(gone=number)

    monkeypatch.setattr(kubectl, "sleep", outage)
    launch(tmp_path)
    assert phases_of(kubernetes.get("applied")) == list(PHASES)
    kubernetes.set(objects={}, applied=[])
    monkeypatch.setattr(kubectl, "LOST_SECONDS", -1.0)
    monkeypatch.setattr(kubectl, "sleep", lambda seconds: kubernetes.set(gone=1))
    with pytest.raises(Interrupted, match="the cluster has not answered") as raised:
        launch(tmp_path)
    assert raised.value.exit_code == 75


def test_all_that_a_launch_has_made_is_deleted(kubernetes: Kubernetes, tmp_path: Path) -> None:
    launch(tmp_path)
    record = load(tmp_path)
    assert record
    assert len(kubernetes.get("objects")) == 5
    cancel(record.queued)
    assert kubernetes.get("objects") == {}


def test_conditions_of_phases() -> None:
    def of(*conditions: tuple[str, str]) -> str:
        found = [{"type": kind, "status": status} for kind, status in conditions]
        return state({"status": {"conditions": found}})[0]

    assert state({})[0] == "active"
    assert of(("Suspended", "True")) == "active"
    assert of(("Complete", "True"), ("Suspended", "False")) == "complete"
    assert of(("Failed", "True")) == "failed"
    assert of(("Failed", "False")) == "active"
    assert of(("SuccessCriteriaMet", "True")) == "active"


SITE = """
[kubernetes]
image = "registry/etude:1"
volume = "work"
[skypilot]
setup = "pip install etude"
bucket = "s3://bucket"
secrets = ["HF_TOKEN"]
"""


@pytest.fixture
def spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    Path("site.toml").write_text(SITE)
    Path("small.etude").write_text(SPEC.format(nodes=2, gpus=8, gpu="H100 80GB"))
    return "small.etude"


def launched(spec: str, engine: str, *words: str) -> int:
    return main(["launch", spec, "--on", engine, "--site", "site.toml", *words])


def test_launch_runs_all_phases_on_kubernetes(
    spec: str, kubernetes: Kubernetes, capsys: pytest.CaptureFixture[str]
) -> None:
    assert launched(spec, "kubernetes", "--submit") == 0
    assert phases_of(kubernetes.get("applied")) == list(PHASES)
    assert "all phases are complete" in capsys.readouterr().out


def test_a_dry_run_needs_no_cluster(
    spec: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "")
    assert launched(spec, "kubernetes", "--json") == 0
    files = list(json.loads(capsys.readouterr().out))
    assert files == [
        *("configmap.yaml", "trainingruntime.yaml", "1-cpu.yaml", "2-gang.yaml"),
        "3-small.yaml",
    ]
    assert launched(spec, "skypilot") == 0
    assert "==> skypilot.yaml <==\nname: etude-small\n---\n" in capsys.readouterr().out
    for engine, program in (("kubernetes", "kubectl"), ("skypilot", "sky")):
        assert launched(spec, engine, "--submit") == 1
        assert f"`{program}` is not installed here" in " ".join(capsys.readouterr().err.split())
    assert not Path("runs/small/launch.json").exists()


def test_skypilot_gets_one_managed_job(
    spec: str,
    programs: Programs,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    programs.write("sky", """case "$2" in queue) cat "$(dirname "$0")/queue";; esac""")
    (programs.folder / "queue").write_text("some words\n[]\n")
    assert launched(spec, "skypilot", "--submit") == 1
    assert "the secret HF_TOKEN, which is not set" in " ".join(capsys.readouterr().err.split())
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert launched(spec, "skypilot", "--submit") == 0
    folder = Path("runs/small").resolve()
    assert programs.called("sky")[-1] == (
        f"sky jobs launch -y -d -n etude-small --secret HF_TOKEN {folder}/skypilot.yaml"
    )
    assert "hf_secret" not in (folder / "skypilot.yaml").read_text()
    record = load(folder)
    assert record
    assert (record.engine, record.queued) == ("skypilot", {"name": "etude-small"})
    (programs.folder / "queue").write_text('[{"job_name": "etude-small", "status": "RUNNING"}]')
    assert launched(spec, "skypilot", "--submit") == 1
    assert "is queued already" in " ".join(capsys.readouterr().err.split())


def test_a_part_of_a_run_is_launched_whose_beginning_is_elsewhere(
    spec: str, kubernetes: Kubernetes, capsys: pytest.CaptureFixture[str]
) -> None:
    """The results that it begins with are on the cluster's volume: its pods look for them."""
    assert launched(spec, "kubernetes", "--json", "--until", "pre") == 0
    until = list(json.loads(capsys.readouterr().out))
    assert "2-gang.yaml" in until
    assert launched(spec, "kubernetes", "--json", "--only", "measured") == 0
    only = list(json.loads(capsys.readouterr().out))
    assert only[2:] == ["1-cpu.yaml", "2-gang.yaml"]  # its data, and its losses on all ranks
    assert launched(spec, "kubernetes", "--submit", "--only", "measured") == 0
    applied = [n for n in kubernetes.get("applied") if n.startswith(("Job/", "TrainJob/"))]
    assert [name.split("-", 3)[-1] for name in applied] == ["1-cpu", "2-gang"]
    assert launched(spec, "kubernetes", "--only", "mesured") == 2
    assert "did you mean `measured`?" in capsys.readouterr().err
