"""Phases that follow each other on the same machines are one job of a batch system."""

import os
import socket
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from turns_apart import turns_apart
from whole_spec import spec

from etude.compiler.driver import analyse, compile
from etude.compiler.plan.plan import Plan
from etude.compiler.values import Phase
from etude.runtime.launchers import agreement, machines, remaining
from etude.runtime.launchers import node as node_of
from etude.runtime.launchers.agreement import agreed
from etude.runtime.launchers.engine import Request
from etude.runtime.launchers.kubernetes import KubernetesSite, manifests
from etude.runtime.launchers.machines import Machines, allocations
from etude.runtime.launchers.skypilot import SkypilotSite, tasks
from etude.runtime.launchers.slurm import Slurm
from etude.runtime.part import PHASE
from etude.runtime.run_folder.store import Store
from etude.spec.load import reads

KUBEFLOW = {"PET_NNODES": "2", "PET_MASTER_ADDR": "run-node-0-0.run", "PET_MASTER_PORT": "29500"}


@pytest.fixture(scope="module")
def turns() -> Plan:
    """A policy of three turns, each of which writes on some of the machines it learns on."""
    return turns_apart("steps = 30, refresh = 10 steps")


def test_turns_of_a_policy_keep_their_machines(turns: Plan) -> None:
    """They write on one GPU, and learn on two nodes."""
    found = allocations(turns, turns.phases, None)
    (shared,) = [each for each in found if len(each.phases) > 1]
    assert [phase.kind for phase in shared.phases][:6] == ["generate", "gang"] * 3
    assert list(shared.needs[:2]) == [Machines(1, 1, 1), Machines(2, 8, 8)]
    assert shared.machines == Machines(2, 8, 8)
    assert [phase for each in found for phase in each.phases] == list(turns.phases)


@pytest.mark.parametrize("judges", ["rm", "judged", "all"])
def test_turns_that_reward_models_judge_keep_their_processes(judges: str) -> None:
    """Scores are combined where they were made: a phase of one process between two gangs had the
    turns give their nodes back and queue for them again."""
    text = spec("grpo", f"steps = 30, refresh = 10 steps, reward = {judges}")
    text += "\nstage all: ensemble { of = [rm, judged] }\n"
    made = compile(analyse(reads(text)))
    assert made
    assert made.plan
    every = [job.id for job in made.plan.jobs if job.stage == "rl" and job.kind != "export"]
    (gang,) = [phase for phase in made.plan.phases if not set(every).isdisjoint(phase.jobs)]
    assert set(every) <= set(gang.jobs)
    assert gang.kind == "gang"


@pytest.mark.parametrize(
    ("change", "shared"),
    [
        ({}, True),
        ({"kind": "generate"}, True),
        ({"nodes": 4}, False),
        ({"ranks": 4}, False),
        ({"device": "H200"}, False),
        ({"devices": 4}, False),
    ],
)
def test_only_equal_machines_are_shared(
    change: dict[str, Any], shared: bool, turns: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    def needed(plan: Plan, phase: Phase, gpus: int | None) -> Machines:
        return Machines(phase.nodes, phase.ranks, phase.devices)

    monkeypatch.setattr(machines, "machines", needed)
    one: Any = {"nodes": 2, "ranks": 8, "device": "H100 80GB", "devices": 8, "kind": "gang"}
    rest: Any = {"jobs": ["a"], "conditional": False, "seconds": None}
    phases = [Phase(number=1, **one, **rest), Phase(number=2, **{**one, **change}, **rest)]
    assert len(allocations(turns, phases, None)) == (1 if shared else 2)
    assert len(allocations(turns, phases, None, lambda one, other: False)) == 2


def test_single_processes_do_not_share_a_job(turns: Plan) -> None:
    """Phases of one process were joined if they are alike: these ask for different things."""
    alone: Any = {"nodes": 1, "ranks": 1, "device": "cpu", "devices": 0}
    rest: Any = {"jobs": ["a"], "conditional": False, "seconds": None}
    phases = [
        Phase(number=1, kind="cpu", **alone, **rest),
        Phase(number=2, kind="small", **alone, **rest),
    ]
    assert len(allocations(turns, phases, None)) == 2


def script(plan: Plan, folder: Path, site: str = "") -> str:
    (folder / "site.toml").write_text(f"[slurm]\n{site}")
    request = Request(plan, folder / "run", folder, folder / "site.toml")
    (found,) = [each for each in Slurm().pieces(request) if "done <<< " in each.text]
    return found.text


def walked(
    text: str, folder: Path, srun: str, *, left: str = "", code: int = 0
) -> tuple[int, list[str]]:
    """Runs a batch script with programs in place of Slurm's; returns its exit code, and which
    phases were started, on how many nodes, or decided about.

    Args:
        srun: what a phase does, in bash.
        left: what `remaining` prints; it ends with `code`.
    """
    programs = folder / "bin"
    programs.mkdir()
    log = folder / "said"
    log.touch()
    for name, does in {
        "srun": f'echo "ranks $ETUDE_PHASE $1 $2" >> {log}; {srun}',
        "scancel": f'echo "$1 $2" >> {log}; pkill -USR1 -f {folder}/bin/srun',
        "scontrol": f'echo "$1" >> {log}; exit 0',
        "python": f'case "$2" in *remaining) printf "{left}"; exit {code};; '
        f'*) echo "end $4 $7" >> {log}; exit 75;; esac',
        "sleep": "exec /bin/sleep 0.1",
    }.items():
        (programs / name).write_text(f"#!/bin/bash\n{does}\n")
        (programs / name).chmod(0o755)
    path = f"{programs}:{os.environ['PATH']}"
    variables = {"PATH": path, "SLURM_CPUS_ON_NODE": "8", "SLURM_JOB_ID": "7"}
    done = subprocess.run(["bash", "-c", text], env=variables, timeout=60, capture_output=True)
    assert b"unbound" not in done.stderr, done.stderr
    return done.returncode, log.read_text().splitlines()


PYTHON = 'python = "python"\n'
LEFT = "4 2 8\\n5 1 1\\n6 2 8\\n"
"""Three phases are left."""
FOUR, FIVE, SIX = (
    "ranks 4 --nodes=2 --ntasks=16",
    "ranks 5 --nodes=1 --ntasks=1",
    "ranks 6 --nodes=2 --ntasks=16",
)


def numbers(plan: Plan) -> tuple[int, int]:
    (found,) = [each for each in allocations(plan, plan.phases, None) if len(each.phases) > 1]
    return found.numbers


def test_the_script_does_what_is_left_one_phase_after_the_other(
    turns: Plan, tmp_path: Path
) -> None:
    text = script(turns, tmp_path, PYTHON)
    assert walked(text, tmp_path, "cat; exit 0", left=LEFT) == (0, [FOUR, FIVE, SIX])


def test_if_nothing_is_left_nothing_is_started(turns: Plan, tmp_path: Path) -> None:
    text = script(turns, tmp_path, PYTHON)
    assert walked(text, tmp_path, "exit 0") == (0, [])


def test_if_nobody_knows_what_is_left_the_job_is_queued_again(turns: Plan, tmp_path: Path) -> None:
    first, _ = numbers(turns)
    text = script(turns, tmp_path, PYTHON)
    assert walked(text, tmp_path, "exit 0", code=75) == (75, [f"end {first} 75", "requeue"])


def test_the_phase_that_fails_is_the_one_that_is_decided_about(turns: Plan, tmp_path: Path) -> None:
    fails = '[ "$ETUDE_PHASE" = 5 ] && exit 137; exit 0'
    text = script(turns, tmp_path, PYTHON)
    said = [FOUR, FIVE, "end 5 137", "requeue"]
    assert walked(text, tmp_path, fails, left=LEFT) == (75, said)


def test_a_job_that_has_to_leave_starts_no_other_phase(turns: Plan, tmp_path: Path) -> None:
    """Its ranks are told, by the number of their step; here they are done, and end with 0."""
    tells = (
        '[ "$ETUDE_PHASE" = 5 ] || exit 0; trap "exit 0" USR1; '
        "kill -USR1 $PPID; for i in {1..100}; do /bin/sleep 0.05; done; exit 1"
    )
    text = script(turns, tmp_path, PYTHON)
    code, said = walked(text, tmp_path, tells, left=LEFT)
    told = [line for line in said if line.startswith("--signal")]
    assert told[0] == "--signal=USR1 7.1"
    rest = [line for line in said if line not in told]
    assert (code, rest) == (75, [FOUR, FIVE, "end 6 75", "requeue"])


def test_kinds_of_phases_for_which_a_site_asks_otherwise_have_jobs_of_their_own(
    turns: Plan, tmp_path: Path
) -> None:
    (tmp_path / "site.toml").write_text('[slurm]\n[slurm.phase.generate]\npartition = "infer"\n')
    request = Request(turns, tmp_path / "run", tmp_path, tmp_path / "site.toml")
    pieces = Slurm().pieces(request)
    assert len(pieces) == len(turns.phases)
    assert not any("done <<< " in piece.text for piece in pieces)


def test_a_container_that_srun_starts_is_asked_in_a_step_of_its_own(
    turns: Plan, tmp_path: Path
) -> None:
    text = script(turns, tmp_path, '[slurm.container]\nimage = "/e.sqsh"\n')
    (asks,) = [line for line in text.splitlines() if "launchers.remaining" in line]
    assert "srun --nodes=1 --ntasks=1" in asks
    assert "--output" not in asks, "the script reads what it prints"
    assert " step=1 " in text
    assert subprocess.run(["bash", "-n"], input=text, text=True).returncode == 0


def test_nodes_of_other_engines_get_the_last_phase(turns: Plan, tmp_path: Path) -> None:
    first, last = numbers(turns)
    name = turns.phases[first - 1].name
    words = ["--phase", name, "--ranks", "8", "--through", str(last)]
    made = manifests(turns, turns.phases, KubernetesSite(image="etude", volume="work"))
    commands = [each["spec"]["trainer"]["command"] for each in made if each["kind"] == "TrainJob"]
    (several,) = [command for command in commands if "--through" in command]
    place = several.index("--phase")
    assert several[place : place + 6] == words
    site = SkypilotSite(image="etude", volume="work")
    pipeline = tasks(turns, turns.phases, site, tmp_path, tmp_path / "plan")[1:]
    (run,) = [task["run"] for task in pipeline if "--through" in task["run"]]
    assert " ".join(words) in run


def finish(store: Store, plan: Plan, count: int) -> None:
    """Makes the jobs of the first phases done."""
    for phase in plan.phases[:count]:
        for job in plan.jobs:
            if job.id in phase.jobs:
                (store.folder / "artifacts" / job.key).mkdir(parents=True)
                store.record(job.id, job.key, "finished", {"plan": job.key})


def test_what_is_left_is_read_from_the_run_folder(
    turns: Plan, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store(tmp_path)
    store.create()
    (tmp_path / "plan.json").write_text(turns.to_json())
    first, last = numbers(turns)

    def printed(*gpus: int) -> list[str]:
        assert remaining.main(str(tmp_path), first, last, *gpus) == 0
        return capsys.readouterr().out.splitlines()

    with store.lease():
        assert printed()[:2] == [f"{first} 1 1", f"{first + 1} 2 8"]
        assert len(printed()) == last - first + 1
        finish(store, turns, first + 1)
        assert printed()[0] == f"{first + 2} 1 1"
        assert printed(16)[1] == f"{first + 3} 1 16"
        assert remaining.left(turns, tmp_path)[0].number == first + 2
    (tmp_path / "plan.json").write_text("{")
    assert remaining.main(str(tmp_path), first, last) == 1
    assert "error: " in capsys.readouterr().err


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("", 0))
        return one.getsockname()[1]


def test_all_nodes_take_the_number_of_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """They ask again while another program listens there."""
    monkeypatch.setattr(agreement, "_RETRY", 0.05)
    port, found = free_port(), {}

    def ask(node: int, own: Callable[[], int]) -> None:
        found[node] = agreed(own, node=node, nodes=3, address="127.0.0.1", port=port)

    others = [threading.Thread(target=ask, args=(node, lambda: 99)) for node in (1, 2)]
    with socket.create_server(("127.0.0.1", port)) as rank_0:
        for each in others:
            each.start()
        for _ in others:
            rank_0.accept()[0].close()
    ask(0, lambda: 12)
    for each in others:
        each.join()
    assert found == {0: 12, 1: 12, 2: 12}


@pytest.mark.parametrize(("fails", "expected"), [(None, 0), (5, 75)])
@pytest.mark.parametrize("number", [0, 1])
def test_a_node_does_its_share_of_the_phases_until_one_fails(
    number: int,
    fails: int | None,
    expected: int,
    turns: Plan,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    started, reached = [], iter([4, 5, 6, 99])

    def run(ranks: list[node_of.Rank], *, patience: float) -> int:
        phase, world = ranks[0].variables[PHASE], ranks[0].variables["WORLD_SIZE"]
        started.append((phase, [rank.number for rank in ranks], world, ranks[0].log))
        return expected if phase == str(fails) else 0

    monkeypatch.setattr(node_of, "run", run)
    monkeypatch.setattr(node_of, "agreed", lambda own, **place: next(reached))
    monkeypatch.setattr(node_of, "RANK_0_FIRST", 0.0)
    for name, value in {**KUBEFLOW, "PET_NODE_RANK": str(number)}.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "plan.json").write_text(turns.to_json())
    words = [str(tmp_path), ".", "cpu", "--phase", "3-generate", "--through", "10", "--ranks", "8"]
    own = list(range(number * 8, number * 8 + 8))
    log = tmp_path / "logs" / f"3-generate.rank-{own[0]}.log"
    both, alone = ("4", own, "16", log), ("5", [0], "1", log)
    some = [both, *([alone] if number == 0 else []), ("6", own, "16", log)]
    stops = fails is not None and number == 0
    assert node_of.main(words) == (expected if stops else 0)
    assert started == (some[:2] if stops else some)


def test_a_node_that_cannot_read_the_run_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "plan.json").write_text("{")
    assert node_of.main([str(tmp_path), ".", "cpu", "--phase", "2-gang", "--through", "4"]) == 1
    assert "plan.json is not JSON" in capsys.readouterr().err
