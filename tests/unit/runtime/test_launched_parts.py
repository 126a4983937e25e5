"""Preparing in parts, as engines start them: before the first phase, side by side."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from specs import HEAD, plan, stage
from test_kubernetes import require_valid

from etude.compiler.plan.plan import Plan
from etude.runtime.errors import RunError
from etude.runtime.launchers import node, parts, slurm_end, slurm_queue
from etude.runtime.launchers.engine import Request
from etude.runtime.launchers.kubernetes import KubernetesSite, as_yaml, manifests
from etude.runtime.launchers.skypilot import SkypilotSite, tasks
from etude.runtime.launchers.slurm import Slurm

WORDS = "tokenizer words { train = { on [web], vocab 300 } }\n"
GPUS = 'cluster big { nodes = 4, gpus = 8 of "H100 80GB" }\n'


def made() -> Plan:
    return plan(HEAD + WORDS + GPUS + stage(batch="64 seqs", data="{ web 100% }"))


def slurm(folder: Path, site: str) -> dict[str, str]:
    (folder / "site.toml").write_text(f"[slurm]\n{site}\n")
    request = Request(made(), folder / "run", folder, folder / "site.toml")
    return {piece.name: piece.text for piece in Slurm().pieces(request)}


def test_slurm_has_an_array_before_the_first_phase(tmp_path: Path) -> None:
    whole = slurm(tmp_path, 'python = "py"\n[slurm.phase.cpu]\npartition = "cpu"')
    found = slurm(tmp_path, 'python = "py"\nparts = 16\n[slurm.phase.cpu]\npartition = "cpu"')
    assert list(found) == ["0-cpu.sh", *whole]
    assert {name: found[name] for name in whole} == whole
    text = found["0-cpu.sh"]
    said = {line.removeprefix("#SBATCH ") for line in text.splitlines() if "#SBATCH" in line}
    logs = tmp_path / "run" / "logs"
    assert said >= {
        "--array=1-16",
        "--nodes=1",
        "--ntasks-per-node=1",
        "--partition=cpu",
        "--requeue",
        f"--output={logs}/0-cpu.%a.log",
    }
    assert f"--output={logs}/0-cpu.rank-%a.log" in text
    run = tmp_path / "run"
    assert f"py -m etude.runtime.launchers.parts {run} {tmp_path} 16 < /dev/null &" in text
    assert f'{slurm_end.__name__} {run} "$ETUDE_PHASE" 5' in text
    assert "0-cpu.sh" not in slurm(tmp_path, "parts = 1")


def test_kubernetes_has_an_indexed_job() -> None:
    site = KubernetesSite(image="registry/etude:1", volume="work", parts=16)
    documents = list(yaml.safe_load_all(as_yaml(manifests(made(), made().phases, site))))
    job = next(each for each in documents if each["kind"] == "Job")
    assert job["metadata"]["name"].endswith("-0-cpu")
    assert job["spec"]["completionMode"] == "Indexed"
    assert job["spec"]["completions"] == job["spec"]["parallelism"] == 16
    assert job["spec"]["template"]["spec"]["containers"][0]["command"][-2:] == ["--parts", "16"]
    require_valid(job)


def test_skypilot_has_a_task_of_as_many_nodes(tmp_path: Path) -> None:
    site = SkypilotSite(setup="pip install etude", bucket="s3://bucket", parts=16)
    found = tasks(made(), made().phases, site, tmp_path, tmp_path / "plan.json.gz")
    assert [each["name"] for each in found[1:3]] == ["0-cpu", "1-cpu"]
    assert found[1]["num_nodes"] == 16
    assert found[1]["run"].rstrip().endswith("--parts 16")
    assert "--parts" not in found[2]["run"]
    assert "accelerators" not in found[1]["resources"]


@pytest.mark.parametrize(
    ("said", "number"),
    [
        ({"SLURM_ARRAY_TASK_ID": "1"}, 1),
        ({"SLURM_ARRAY_TASK_ID": "16"}, 16),
        ({"JOB_COMPLETION_INDEX": "0"}, 1),
        ({"JOB_COMPLETION_INDEX": "15"}, 16),
        ({"SKYPILOT_NODE_RANK": "3"}, 4),
    ],
)
def test_the_engine_says_which_part_it_is(said: dict[str, str], number: int) -> None:
    assert parts.number(said, 16) == number


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({}, "nothing says which of 16 parts this process does"),
        ({"SLURM_ARRAY_TASK_ID": "17"}, "SLURM_ARRAY_TASK_ID=17 names none of 16 parts"),
        ({"SLURM_ARRAY_TASK_ID": "0"}, "names none"),
        ({"JOB_COMPLETION_INDEX": "16"}, "names none"),
        ({"JOB_COMPLETION_INDEX": "x"}, "names none"),
    ],
)
def test_a_number_that_is_none_is_refused(said: dict[str, str], message: str) -> None:
    with pytest.raises(RunError, match=message):
        parts.number(said, 16)


def test_a_node_does_the_part_that_it_is_numbered_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[Any] = []
    monkeypatch.setattr(node, "run", lambda ranks, patience: ran.extend(ranks) or 0)
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "4")
    words = [str(tmp_path / "run"), "/specs", "cpu", "--phase", "0-cpu", "--parts", "8"]
    assert node.main(words) == 0
    (rank,) = ran
    assert rank.command[1:] == ("-m", parts.MODULE, str(tmp_path / "run"), "/specs", "8")
    assert rank.log == tmp_path / "run" / "logs" / "0-cpu.rank-5.log"
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "8")
    assert node.main(words) == 1


def test_a_part_is_queued_again_unless_it_crashes_too_often(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ends(code: int, restarts: int) -> int:
        monkeypatch.setenv("SLURM_RESTART_COUNT", str(restarts))
        return slurm_end.main(str(tmp_path), 0, 3, 0, code)

    assert [ends(code, 0) for code in (0, 1, 2, 3, 75, 137)] == [0, 1, 2, 3, 75, 75]
    assert [ends(75, 9), ends(137, 1), ends(137, 2)] == [75, 75, 1]


def test_an_array_is_one_job_of_the_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = "7 COMPLETED\n7 RUNNING\n7 PENDING\n8 PENDING\n9 RUNNING\n"
    monkeypatch.setattr(slurm_queue, "require", lambda *_: None)
    monkeypatch.setattr(slurm_queue, "call", lambda *_, **__: lines)
    assert slurm_queue.states({"jobs": ["7", "8"]}) == {"7": "RUNNING", "8": "PENDING"}
