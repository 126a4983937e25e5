"""Tasks for SkyPilot: SkyPilot itself reads them, in an environment of its own, whose packages do
not go together with those of etude. `make test` makes it."""

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from packages import NEEDED
from pydantic import ValidationError
from specs import plan

from etude.compiler.plan.plan import Plan
from etude.runtime.errors import RunError
from etude.runtime.launchers.kubernetes import as_yaml
from etude.runtime.launchers.skypilot import MOUNT, PLAN, SkypilotSite, tasks

PYTHON = Path(__file__).resolve().parents[3] / "build" / "skypilot" / "bin" / "python"
READ = """
import json, sys
from sky.utils import dag_utils
secrets = [(name, "a secret") for name in sys.argv[1:]]
dag = dag_utils.load_chain_dag_from_yaml_str(sys.stdin.read(), secrets_overrides=secrets)
assert dag.is_chain()
tasks = [
    {
        "name": task.name, "num_nodes": task.num_nodes, "run": task.run, "setup": task.setup,
        "resources": [each.to_yaml_config() for each in task.resources],
        "mounts": sorted([*(task.file_mounts or {}), *(task.storage_mounts or {})]),
    }
    for task in dag.tasks
]
print(json.dumps({"name": dag.name, "tasks": tasks}))
"""
SPEC = """recipe small {{ seed = 1 }}
model tiny {{ layers = 1, dim = 32, heads = 2, ffn = 64, vocab = 300 }}
tokenizer letters {{ bytes }}
dataset sums {{ sample = arithmetic, documents = 20 docs }}
cluster node {{ nodes = 2, gpus = 8 of "{gpu}" }}
stage pre: train {{
  model = tiny, steps = 1, seq_len = 64, batch = 48 seqs, lr = 1e-3, data = sums
}}
stage measured: evaluate {{ from = pre, loss = [sums] }}
"""
LEAST = {"setup": "pip install etude", "bucket": "s3://bucket/etude"}
FULL = {
    "image": "registry/etude:1",
    "volume": "work",
    "cloud": "aws",
    "region": "us-east-1",
    "use_spot": True,
    "accelerator": "H100",
    "memory": "32+",
    "disk_size": 512,
    "network_tier": "best",
    "strategy": "EAGER_NEXT_REGION",
    "environment": {"NCCL_DEBUG": "WARN"},
    "secrets": ["HF_TOKEN"],
}
sky = pytest.mark.skipif(
    not PYTHON.exists() and not os.environ.get(NEEDED),
    reason="needs SkyPilot in build/skypilot: make build/skypilot/.installed",
)


def pipeline(said: Mapping[str, Any], root: Path, gpu: str = "H100 80GB") -> list[dict[str, Any]]:
    of: Plan = plan(SPEC.format(gpu=gpu))
    packed = root / "plan.json.gz"
    packed.write_bytes(b"")
    return tasks(of, of.phases, SkypilotSite.model_validate(said), root, packed)


def read(documents: list[dict[str, Any]], home: Path, secrets: tuple[str, ...] = ()) -> Any:
    """What SkyPilot makes of a pipeline; raises where it refuses it."""
    home.mkdir(exist_ok=True)
    ended = subprocess.run(
        [PYTHON, "-c", READ, *secrets],
        input=as_yaml(documents),
        env={"HOME": str(home), "PATH": "/usr/bin:/bin", "SKYPILOT_DISABLE_USAGE_COLLECTION": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    if ended.returncode:
        raise ValueError(ended.stderr)
    return json.loads(ended.stdout.splitlines()[-1])


@sky
@pytest.mark.parametrize(("said", "secrets"), [(LEAST, ()), (FULL, ("HF_TOKEN",))])
def test_skypilot_reads_the_pipeline(
    said: Mapping[str, Any], secrets: tuple[str, ...], tmp_path: Path
) -> None:
    found = read(pipeline(said, tmp_path), tmp_path / "home", secrets)
    assert found["name"] == "etude-small"
    assert [task["name"] for task in found["tasks"]] == ["1-cpu", "2-gang", "3-small"]
    assert [task["num_nodes"] for task in found["tasks"]] == [1, 2, 1]
    gang = found["tasks"][1]
    (resources,) = gang["resources"]
    assert resources["accelerators"] == {"H100": 8}
    recovery = resources["job_recovery"]
    assert recovery["recover_on_exit_codes"] == [75]
    assert recovery["max_restarts_on_errors"] == 0
    assert resources.get("use_spot", False) is bool(said.get("use_spot"))
    assert PLAN in gang["mounts"]
    assert (MOUNT in gang["mounts"]) is ("bucket" in said)
    assert gang["run"] == (
        f"python -m etude.runtime.launchers.node {MOUNT}/runs/small . 'H100 80GB' --phase 2-gang "
        f"--ranks 8 --plan {PLAN}\n"
    )


@sky
@pytest.mark.parametrize(
    ("where", "name"),
    [((), "num_node"), (("resources",), "accelerator"), (("file_mounts", MOUNT), "sources")],
)
def test_skypilot_finds_a_typo(where: tuple[str, ...], name: str, tmp_path: Path) -> None:
    documents = pipeline(LEAST, tmp_path)
    inner = documents[2]
    for step in where:
        inner = inner[step]
    right = name.removesuffix("s") if name == "sources" else f"{name}s"
    inner[name] = inner.pop(right)
    with pytest.raises(ValueError, match=name):
        read(documents, tmp_path / "home")


def test_a_volume_or_a_bucket_keeps_the_run_folder(tmp_path: Path) -> None:
    for task in pipeline(LEAST, tmp_path)[1:]:
        assert task["file_mounts"][MOUNT] == {"source": LEAST["bucket"], "mode": "MOUNT_CACHED"}
        assert "volumes" not in task
    for task in pipeline(FULL, tmp_path)[1:]:
        assert task["volumes"] == {MOUNT: "work"}
        assert MOUNT not in task["file_mounts"]


@pytest.mark.parametrize("image", ["registry/etude:1", "docker:registry/etude:1"])
def test_an_image_may_be_written_as_skypilot_writes_it(image: str, tmp_path: Path) -> None:
    _, *found = pipeline({**FULL, "image": image}, tmp_path)
    assert {each["resources"]["image_id"] for each in found} == {"docker:registry/etude:1"}


def test_no_secret_is_in_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_do_not_write_me")
    text = as_yaml(pipeline(FULL, tmp_path))
    assert "HF_TOKEN: null" in text
    assert "hf_do_not_write_me" not in text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bucket": None}, "`bucket` or `volume` must say"),
        ({"volume": "v"}, "`bucket` or `volume` must say"),
        ({"setup": None}, "`setup` or `image` must install"),
        ({"region": "us-east-1"}, "belongs to a `cloud`"),
        ({"bucket": "my-bucket"}, "should match pattern"),
        ({"spot": True}, "Extra inputs"),
    ],
)
def test_a_site_that_cannot_be_is_refused(change: dict[str, Any], message: str) -> None:
    said = {name: value for name, value in (LEAST | change).items() if value is not None}
    with pytest.raises(ValidationError, match=message):
        SkypilotSite.model_validate(said)


def test_a_gpu_of_another_name_has_to_be_said(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="etude does not know SkyPilot's name of the GPU H800"):
        pipeline(LEAST, tmp_path, gpu="H800")
    (gang,) = [t for t in pipeline(FULL, tmp_path, gpu="H800")[1:] if t["name"] == "2-gang"]
    assert gang["resources"]["accelerators"] == {"H100": 8}


def test_what_does_not_fit_the_nodes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="do not fill nodes of 3 GPUs"):
        pipeline(LEAST | {"gpus_per_node": 3}, tmp_path)
