"""Launches whose run folder is in a store: what is queued names the URL, and no secret."""

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
import yaml
from specs import HEAD, plan, stage
from stores import KEY, SECRET, Server, impatient, server

from etude.cli.main import main as command
from etude.compiler.plan.plan import Plan
from etude.runtime.errors import RunError, Stopped
from etude.runtime.launchers import messages, record, remote, sites, slurm_end
from etude.runtime.launchers.engine import Request
from etude.runtime.launchers.remote import Kubernetes, Skypilot
from etude.runtime.launchers.slurm import Slurm
from etude.runtime.launchers.slurm_site import SlurmSite
from etude.runtime.run_folder.store import Store
from etude.runtime.run_folder.variant_folders import folder_at
from etude.runtime.stores import remote as remote_module
from etude.runtime.stores.objects import PATIENCE
from etude.runtime.stores.places import CACHE
from etude.runtime.stores.views import seen

URL = "s3://bucket/runs/small"
WORDS = "tokenizer words { train = { on [web], vocab 300 } }\n"
GPUS = 'cluster big { nodes = 2, gpus = 8 of "H100 80GB" }\n'


def made() -> Plan:
    return plan(HEAD + WORDS + GPUS + stage(batch="64 seqs", data="{ web 100% }"))


def request(folder: Path, site: str) -> Request:
    file = folder / "site.toml"
    file.write_text(site)
    return Request(made(), folder / "shown", folder, file, URL)


def test_scripts_start_ranks_with_the_url(tmp_path: Path) -> None:
    pieces = Slurm().pieces(request(tmp_path, "[slurm]\nparts = 3\n"))
    assert [piece.name for piece in pieces][:3] == ["0-cpu.sh", "1-cpu.sh", "2-gang.sh"]
    for piece in pieces:
        checked = subprocess.run(["bash", "-n"], input=piece.text, text=True)
        assert checked.returncode == 0
        assert str(tmp_path / "shown") not in piece.text, "no node has that folder"
        assert f"#SBATCH --output={tmp_path}/etude-" in piece.text
        assert "before=$(date +%s)" in piece.text
    gang = pieces[2].text
    assert f"-m etude.runtime.worker {URL} {tmp_path}" in gang
    assert f'-m etude.runtime.launchers.slurm_end {URL} "$ETUDE_PHASE" 5' in gang
    assert f"-m etude.runtime.launchers.parts {URL} {tmp_path} 3" in pieces[0].text


def test_a_container_needs_no_mount_for_the_run_folder(tmp_path: Path) -> None:
    site = '[slurm.container]\nimage = "i.sqsh"\nruns_with = "pyxis"\nmounts = ["/data"]\n'
    (gang,) = [p for p in Slurm().pieces(request(tmp_path, site)) if p.name == "2-gang.sh"]
    assert "--container-mounts=/data:/data " in gang.text


def test_manifests_have_the_url_and_need_no_volume(tmp_path: Path) -> None:
    site = '[kubernetes]\nimage = "i"\nsecrets = ["aws"]\n'
    pieces = Kubernetes().pieces(request(tmp_path, site))
    found = {piece.name: yaml.safe_load(piece.text) for piece in pieces}
    gang = found["2-gang.yaml"]["spec"]["trainer"]["command"]
    assert gang[3] == URL
    job = found["1-cpu.yaml"]["spec"]["template"]["spec"]
    assert job["containers"][0]["command"][3] == URL
    assert job["containers"][0]["envFrom"] == [{"secretRef": {"name": "aws"}}]
    assert [volume["name"] for volume in job["volumes"]] == ["plan"]
    assert [mount["name"] for mount in job["containers"][0]["volumeMounts"]] == ["plan"]


def test_tasks_have_the_url_and_need_no_bucket(tmp_path: Path) -> None:
    site = '[skypilot]\nsetup = "pip install etude"\nsecrets = ["AWS_SECRET_ACCESS_KEY"]\n'
    (piece,) = Skypilot().pieces(request(tmp_path, site))
    tasks = list(yaml.safe_load_all(piece.text))[1:]
    for task in tasks:
        assert f"-m etude.runtime.launchers.node {URL} . " in task["run"]
        assert task["secrets"] == {"AWS_SECRET_ACCESS_KEY": None}
        assert list(task["file_mounts"]) == ["/tmp/etude/plan.json.gz"]


@pytest.mark.parametrize(
    ("engine", "text", "said"),
    [
        ("kubernetes", 'image = "i"', "`volume` must name the claim"),
        ("skypilot", 'setup = "x"', "`bucket` or `volume` must say"),
    ],
)
def test_without_a_url_a_site_says_where_the_run_folder_is(
    engine: str, text: str, said: str, tmp_path: Path
) -> None:
    path = tmp_path / "site.toml"
    path.write_text(f"[{engine}]\n{text}\n")
    sites.read(path, engine, remote.TABLES[engine], stored=True)
    with pytest.raises(RunError) as problem:
        sites.read(path, engine, remote.TABLES[engine])
    assert problem.value.message.startswith(f"{path}:1: ")
    assert said in problem.value.message


@pytest.mark.parametrize(
    ("engine", "text", "help"),
    [
        ("slurm", "", "from the shell that launches"),
        ("kubernetes", 'image = "i"\nvolume = "v"', "a Secret of the namespace"),
        ("skypilot", 'setup = "x"\nbucket = "s3://b"', "below [skypilot]: secrets"),
    ],
)
def test_a_secret_in_a_site_file_is_refused_and_not_shown(
    engine: str, text: str, help: str, tmp_path: Path
) -> None:
    path = tmp_path / "site.toml"
    wrong = f'[{engine}.environment]\nNCCL_DEBUG = "WARN"\nAWS_SECRET_ACCESS_KEY = "{SECRET}"\n'
    path.write_text(f"[{engine}]\n{text}\n{wrong}")
    table = SlurmSite if engine == "slurm" else remote.TABLES[engine]
    with pytest.raises(RunError) as problem:
        sites.read(path, engine, table)
    line = path.read_text().splitlines().index(f'AWS_SECRET_ACCESS_KEY = "{SECRET}"') + 1
    assert problem.value.message.startswith(f"{path}:{line}: `AWS_SECRET_ACCESS_KEY` is a secret")
    assert help in problem.value.help
    assert SECRET not in problem.value.message + problem.value.help


@pytest.fixture(scope="module")
def module_store() -> Iterator[Server]:
    with server() as found:
        yield found


@pytest.fixture
def store(module_store: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Server:
    """An empty bucket, and an environment in which etude finds it; patience is short."""
    for name, value in module_store.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv(PATIENCE, "0")
    monkeypatch.setenv(CACHE, str(tmp_path / "cache"))
    for name in ("SLURM_JOB_ID", "SLURM_RESTART_COUNT"):
        monkeypatch.delenv(name, raising=False)
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    for name in module_store.names():
        module_store.client().delete_object(Bucket="bucket", Key=name)
    remote_module._known.clear()
    return module_store


def test_the_record_of_a_launch_is_in_the_store(store: Server) -> None:
    folder = folder_at(URL)
    record.save(folder, record.Launch("skypilot", {"name": "etude-small"}))
    said = json.loads(store.read("runs/small/launch.json"))
    assert (said["engine"], said["queued"]) == ("skypilot", {"name": "etude-small"})
    shown = seen(URL)
    assert record.load(shown) is not None
    record.forget(folder)
    assert not store.names()
    assert record.load(seen(URL)) is None, "what was cancelled elsewhere is not shown"
    assert shown == seen(URL)


def ended(code: int, *, before: float = 0) -> int:
    return slurm_end.main(URL, 2, 3, int(before), code)


def test_an_attempt_that_gets_on_in_the_store_is_requeued_on_any_node(
    store: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    store.put({"runs/small/plan.json": made().to_json().encode()})
    codes = []
    for node in range(4):
        monkeypatch.setenv(CACHE, str(tmp_path / str(node)))
        remote_module._known.clear()
        codes.append(ended(137))
        if node == 1:
            store.put({"runs/small/work/k/checkpoints/step-3/checksums.json": b"{}"})
    assert codes == [75, 75, 75, 75]
    assert ended(137) == 1, "three times in a row, on whichever nodes"
    events = b"".join(map(store.read, store.names("runs/small/events.jsonl.segments/")))
    assert b"was started 3 times in a row without progress" in events


def test_what_rank_0_has_said_in_this_attempt_counts(store: Server) -> None:
    store.put({"runs/small/plan.json": made().to_json().encode()})
    run = Store(folder_at(URL))
    run.tell(messages.failed(Stopped("the gate does not pass", "train longer")))
    assert ended(137, before=time.time() - 60) == 3
    assert ended(137, before=time.time() + 1) == 75, "that was an earlier attempt"


def test_a_store_that_does_not_answer_at_the_end_is_no_reason_to_give_up(
    store: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    impatient(monkeypatch)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    assert ended(75) == 75
    assert ended(1) == 1
    fsspec.get_filesystem_class("s3").clear_instance_cache()


def test_a_dry_run_shows_what_would_be_queued_for_a_run_in_a_store(
    store: Server, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "r.etude").write_text(HEAD + WORDS + stage())
    words = ["launch", str(tmp_path / "r.etude"), "--on", "slurm", "--folder", URL]
    assert command(words) == 0
    shown = capsys.readouterr().out
    assert f"etude.runtime.worker {URL} " in shown
    assert not store.names(), "nothing is written"
    assert KEY not in shown
    assert SECRET not in shown
    assert command([*words[:-1], "s3://none/run"]) == 1
    assert "there is no bucket `none`" in " ".join(capsys.readouterr().err.split())
