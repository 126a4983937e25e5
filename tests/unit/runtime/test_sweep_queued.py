"""Sweeps, and recipes with all variants, that are given to Kubernetes and to SkyPilot, whose
commands are stand-ins here."""

import json
import time
from pathlib import Path

import pytest
import yaml
from stand_ins import Programs
from test_kubernetes import SPEC

from etude.cli.main import main
from etude.runtime.errors import RunError
from etude.runtime.launchers.engine import Request
from etude.runtime.launchers.record import load
from etude.runtime.launchers.remote import Kubernetes

SITE = """
[kubernetes]
image = "registry/etude:1"
volume = "work"
[skypilot]
setup = "pip install etude"
bucket = "s3://bucket"
"""
RUNS = ["sweep_shared", "sweep_lr_1e_3", "sweep_lr_1e_4"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("site.toml").write_text(SITE)
    Path("small.etude").write_text(SPEC.format(nodes=2, gpus=8, gpu="H100 80GB"))
    return tmp_path


def swept(engine: str, *words: str, over: str = "pre.lr=1e-3,1e-4") -> int:
    site = () if "--site" in words else ("--site", "site.toml")
    return main(["sweep", "small.etude", "--over", over, "--on", engine, *site, *words])


def test_on_kubernetes_points_begin_once_what_they_share_is_complete(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[str] = []

    def submit(self: Kubernetes, request: Request) -> list[str]:
        told.append(f"begin {request.plan.variant}")
        time.sleep(0.05)
        told.append(f"end {request.plan.variant}")
        return ["all phases are complete"]

    monkeypatch.setattr(Kubernetes, "submit", submit)
    assert swept("kubernetes", "--submit") == 0
    assert told[:2] == ["begin sweep_shared", "end sweep_shared"]
    assert sorted(told[2:4]) == ["begin sweep_lr_1e_3", "begin sweep_lr_1e_4"]


def test_on_kubernetes_nothing_begins_after_what_has_failed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    told: list[str | None] = []

    def submit(self: Kubernetes, request: Request) -> list[str]:
        told.append(request.plan.variant)
        raise RunError("1-cpu has failed", "look at its pods")

    monkeypatch.setattr(Kubernetes, "submit", submit)
    assert swept("kubernetes", "--submit") == 1
    assert told == ["sweep_shared"]
    assert "1-cpu has failed" in capsys.readouterr().err


def test_skypilot_gets_all_parts_as_one_managed_job(
    programs: Programs, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    programs.write("sky", """case "$2" in queue) cat "$(dirname "$0")/queue";; esac""")
    (programs.folder / "queue").write_text("[]\n")
    assert swept("skypilot", "--submit") == 0
    homes = [folder / "runs" / "small" / "variants" / name for name in RUNS]
    job, *tasks = yaml.safe_load_all((homes[0] / "skypilot.yaml").read_text())
    assert job == {"name": "etude-small-all"}
    names = [task["name"] for task in tasks]
    assert names[0] == "sweep-shared-1-cpu"
    assert len(set(names)) == len(names)
    of = [next(run for run in RUNS if name.startswith(run.replace("_", "-"))) for name in names]
    assert of == sorted(of, key=RUNS.index)
    plans = {path for task in tasks for path in task["file_mounts"].values() if "plan" in str(path)}
    assert plans == {str(home / "plan.json.gz") for home in homes}
    records = [load(home) for home in homes]
    assert [record and record.queued for record in records] == [{"name": "etude-small-all"}] * 3
    (programs.folder / "queue").write_text('[{"job_name": "etude-small-all", "status": "RUNNING"}]')
    assert swept("skypilot", "--submit") == 1
    assert "is queued already" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("words", "over", "code", "said"),
    [
        (("--site", "none.toml"), "pre.lr=1e-3,1e-4", 1, "there is no site `none.toml`"),
        ((), "pre.lr=1e-3,x", 1, "cannot be planned, so nothing was run"),
        (("--html", "page.html"), "pre.lr=1e-3,1e-4", 2, "--html needs the results"),
        (("--ranks", "2"), "pre.lr=1e-3,1e-4", 2, "--ranks is for this machine"),
        (("--dry-run",), "pre.lr=1e-3,1e-4", 2, "contradict each other"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_queued(
    words: tuple[str, ...],
    over: str,
    code: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(Kubernetes, "submit", lambda *of: pytest.fail("something was queued"))
    assert swept("kubernetes", "--submit", *words, over=over) == code
    assert said in " ".join(capsys.readouterr().err.split())
    assert not Path("runs").exists()


def test_submit_and_site_belong_to_an_engine(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sweep", "small.etude", "--over", "pre.lr=1e-3,1e-4", "--submit"]) == 2
    assert "--submit belongs to --on" in capsys.readouterr().err


def test_without_submit_the_manifests_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert swept("kubernetes", "--json") == 0
    queue = json.loads(capsys.readouterr().out)["queue"]
    assert list(queue) == RUNS
    assert list(queue["sweep_shared"]) == ["configmap.yaml", "1-cpu.yaml"]
    assert not Path("runs").exists()
    # Each run has a label of its own, however alike their names begin.
    labels = {
        yaml.safe_load(made["configmap.yaml"])["metadata"]["labels"]["app.kubernetes.io/name"]
        for made in queue.values()
    }
    assert len(labels) == 3


VARIANTS = """
variant cold { pre.lr = 1e-4 }
variant long { pre.steps = 2 }
"""


def launched(*words: str, engine: str = "kubernetes", text: str = VARIANTS) -> int:
    spec = SPEC.format(nodes=2, gpus=8, gpu="H100 80GB")
    Path("small.etude").write_text(spec + text)
    site = ("--on", engine, "--site", "site.toml")
    return main(["launch", "small.etude", "--variant", "all", *site, *words])


def test_variants_begin_beside_the_recipe_once_what_they_share_is_complete(
    monkeypatch: pytest.MonkeyPatch, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told: list[tuple[str | None, Path]] = []

    def submit(self: Kubernetes, request: Request) -> list[str]:
        told.append((request.plan.variant, request.folder))
        return ["all phases are complete"]

    monkeypatch.setattr(Kubernetes, "submit", submit)
    assert launched("--submit", "--json") == 0
    home = folder / "runs" / "small"
    assert told[0] == ("variants_shared", home / "variants" / "variants_shared")
    assert dict(told[1:]) == {
        None: home,
        "cold": home / "variants" / "cold",
        "long": home / "variants" / "long",
    }
    said = json.loads(capsys.readouterr().out)
    assert said["event"] == "variants"
    assert list(said["folders"]) == ["variants_shared", "small", "cold", "long"]


def test_skypilot_names_the_tasks_of_the_recipe_and_its_variants(
    programs: Programs, folder: Path
) -> None:
    programs.write("sky", """case "$2" in queue) echo '[]';; esac""")
    assert launched("--submit", engine="skypilot") == 0
    written = folder / "runs" / "small" / "variants" / "variants_shared" / "skypilot.yaml"
    _, *tasks = yaml.safe_load_all(written.read_text())
    names = [task["name"] for task in tasks]
    assert len(set(names)) == len(names)
    assert [name for name in names if name.startswith("small-")]


@pytest.mark.parametrize(
    ("words", "text", "code", "said"),
    [
        (("--until", "pre"), VARIANTS, 2, "--variant all and --until do not go together"),
        (("--from", "measured"), VARIANTS, 2, "--variant all and --from do not go together"),
        ((), "", 1, "has no variants"),
        ((), "variant all { pre.steps = 2 }", 1, "is also the name of one"),
        ((), "variant cold { pre.lr = 2 steps }", 1, "error[E"),
    ],
)
def test_what_is_wrong_with_all_variants_is_said_before_anything_is_queued(
    words: tuple[str, ...], text: str, code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert launched("--submit", *words, text=text) == code
    assert said in " ".join(capsys.readouterr().err.split())
    assert not Path("runs").exists()


def test_all_variants_are_shown_in_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert launched() == 0
    told = capsys.readouterr().out
    found = {name: told.find(f"|{name} ") for name in ("variants_shared", "small", "cold", "long")}
    assert -1 not in found.values()
    assert sorted(found, key=found.__getitem__) == list(found)
