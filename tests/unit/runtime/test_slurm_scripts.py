"""Batch scripts: one a phase, plain bash that asks for the machines of the phase."""

import subprocess
from pathlib import Path

import pytest
from specs import HEAD, after, plan, stage

from etude.compiler.plan.part import part_of
from etude.compiler.plan.plan import Plan
from etude.runtime.errors import RunError, Stopped
from etude.runtime.launchers import messages
from etude.runtime.launchers.engine import Request
from etude.runtime.launchers.slurm import Slurm
from etude.runtime.launchers.slurm_end import main, progress
from etude.runtime.run_folder import json_lines
from etude.runtime.run_folder.store import EVENTS, Store

WORDS = "tokenizer words { train = { on [web], vocab 300 } }\n"
GPUS = 'cluster big { nodes = 4, gpus = 8 of "H100 80GB" }\n'
SITE = """
[slurm]
partition = "gpu"
time = "24:00:00"
gres = "gpu:h100:{devices}"
modules = ["cuda/12.8"]
setup = ["ulimit -n 65536"]
options = ["--constraint=ib"]
cpus = 12
memory = "0"
exclusive = true
python = "/opt/my venv/bin/python"
[slurm.environment]
WORDS = "it's two words"
[slurm.phase.cpu]
partition = "cpu"
"""


def made(more: str = "") -> Plan:
    return plan(HEAD + WORDS + GPUS + stage(batch="64 seqs", data="{ web 100% }") + more)


def scripts(folder: Path, site: str | None = SITE) -> dict[str, str]:
    file = None
    if site is not None:
        file = folder / "site.toml"
        file.write_text(site)
    request = Request(made(), folder / "a run", folder, file)
    return {piece.name: piece.text for piece in Slurm().pieces(request)}


def directives(text: str) -> set[str]:
    return {line.removeprefix("#SBATCH ") for line in text.splitlines() if "#SBATCH" in line}


def test_each_phase_asks_for_its_machines(tmp_path: Path) -> None:
    found = scripts(tmp_path)
    assert list(found) == ["1-cpu.sh", "2-gang.sh", "3-small.sh"]
    gang = directives(found["2-gang.sh"])
    assert gang >= {
        "--job-name=etude-test-2-gang",
        "--nodes=4",
        "--ntasks-per-node=8",
        "--gres=gpu:h100:8",
        "--partition=gpu",
        "--time=24:00:00",
        "--mem=0",
        "--cpus-per-task=12",
        "--exclusive",
        "--requeue",
        "--open-mode=append",
        "--signal=B:USR1@300",
        "--kill-on-invalid-dep=yes",
        "--constraint=ib",
    }
    cpu = directives(found["1-cpu.sh"])
    assert cpu >= {"--nodes=1", "--ntasks-per-node=1", "--partition=cpu"}
    assert not any("gres" in each for each in cpu)


def test_a_part_of_a_plan_has_the_phases_of_its_jobs(tmp_path: Path) -> None:
    whole = made(after())
    text = {}
    for asked in ({}, {"until": "first"}, {"since": "second"}, {"only": "second"}):
        part = part_of(whole, **asked)
        pieces = Slurm().pieces(Request(part, tmp_path / "run", tmp_path, None))
        assert [piece.name for piece in pieces][:2] == ["1-cpu.sh", "2-gang.sh"]
        text["".join(asked)] = pieces[1].text
    assert "# test, phase 2-gang on 4 nodes: first.1 … second.1\n" in text[""]
    assert "# test --until first, phase 2-gang on 4 nodes: first.1\n" in text["until"]
    assert "# test --from second, phase 2-gang on 4 nodes: second.1\n" in text["since"]
    assert "# test --only second, phase 2-gang on 4 nodes: second.1\n" in text["only"]


@pytest.mark.parametrize("site", [SITE, None, '[slurm]\ntime = "10"\n'])
def test_scripts_are_bash(site: str | None, tmp_path: Path) -> None:
    for text in scripts(tmp_path, site).values():
        checked = subprocess.run(["bash", "-n"], input=text, text=True, capture_output=True)
        assert checked.returncode == 0, checked.stderr
        head = text.splitlines()
        assert head[0].startswith("#!/bin/bash")
        said = [n for n, line in enumerate(head) if line.startswith("#SBATCH")]
        first = next(n for n, line in enumerate(head) if line and not line.startswith("#"))
        assert max(said) < first, "sbatch reads no directives below commands"


def test_ranks_get_what_the_site_says(tmp_path: Path) -> None:
    text = scripts(tmp_path)["2-gang.sh"]
    line = next(each for each in text.splitlines() if each.startswith("export WORDS"))
    shown = subprocess.run(["bash", "-c", f'{line}; echo "$WORDS"'], capture_output=True, text=True)
    assert shown.stdout == "it's two words\n"
    assert text.index("module load cuda/12.8") < text.index("ulimit -n 65536") < text.index("srun")
    assert "'/opt/my venv/bin/python' -m etude.runtime.worker" in text
    assert "--cpus-per-task=12" in text.partition("--kill-on-bad-exit=1")[2]


def test_of_a_short_job_a_fifth_of_its_time_is_left_to_save(tmp_path: Path) -> None:
    text = scripts(tmp_path, '[slurm]\ntime = "10"\n')["2-gang.sh"]
    assert "--signal=B:USR1@120" in directives(text)


def test_containers_are_started_around_the_ranks(tmp_path: Path) -> None:
    box = '[slurm]\n[slurm.container]\nimage = "/images/e.sqsh"\nmounts = ["/data"]\n'
    pyxis = scripts(tmp_path, box)["2-gang.sh"]
    assert "--container-image=/images/e.sqsh" in pyxis
    assert "--container-mounts='/data:/data," in pyxis
    apptainer = scripts(tmp_path, box + 'runs_with = "apptainer"\n')["2-gang.sh"]
    assert "apptainer exec --nv --bind /data /images/e.sqsh python3 -m" in apptainer


def test_nodes_of_the_site_may_have_other_numbers_of_gpus(tmp_path: Path) -> None:
    text = scripts(tmp_path, "[slurm]\ngpus_per_node = 4\n")["2-gang.sh"]
    assert directives(text) >= {"--nodes=8", "--ntasks-per-node=4", "--gres=gpu:4"}
    with pytest.raises(RunError, match="32 ranks, which do not fill nodes of 5 GPUs"):
        scripts(tmp_path, "[slurm]\ngpus_per_node = 5\n")


def test_a_job_is_queued_again_as_long_as_it_gets_on(tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text(made().to_json())
    assert [main(str(tmp_path), 2, 3, 0, code) for code in (0, 75, 137, 143)] == [0, 75, 75, 1]
    checkpoint = tmp_path / "work" / "key" / "checkpoints" / "step-10"
    checkpoint.mkdir(parents=True)
    assert progress(tmp_path) == ["key/step-10"]
    before = (tmp_path / EVENTS).stat().st_size
    assert main(str(tmp_path), 2, 3, before, 75) == 75


@pytest.mark.parametrize("code", [1, 2, 3])
def test_what_a_person_has_to_decide_is_not_queued_again(code: int, tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text(made().to_json())
    assert main(str(tmp_path), 2, 3, 0, code) == code


def test_what_rank_0_has_said_counts_before_the_code_of_srun(tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text(made().to_json())
    store = Store(tmp_path)
    store.tell(messages.failed(Stopped("the gate does not pass", "train longer")))
    assert main(str(tmp_path), 2, 3, 0, 137) == 3
    before = (tmp_path / EVENTS).stat().st_size
    assert main(str(tmp_path), 2, 3, before, 137) == 75, "that was an earlier attempt"
    store.tell(messages.failed(RunError("the data are gone", "bring them back")))
    assert main(str(tmp_path), 2, 3, before, 137) == 1
    assert len(list(json_lines.read(tmp_path / EVENTS))) == 2, "it has been said"


def test_what_nobody_has_said_is_left_for_status(tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text(made().to_json())
    assert [main(str(tmp_path), 2, 2, 0, 137) for _ in range(2)] == [75, 1]
    (said,) = json_lines.read(tmp_path / EVENTS)
    assert said["error"] == (
        "2-gang was started 2 times in a row without progress; the last time, 2-gang ended with 137"
    )
