"""Launchers: a run asks one for each leg, and hears from it what the next one needs."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from specs import plan

from etude.compiler.plan.plan import Plan, TrainJob
from etude.runtime.errors import DataError, Interrupted, RunError, Stopped
from etude.runtime.gang import execute
from etude.runtime.launchers import LAUNCHERS, messages
from etude.runtime.launchers.launcher import Leg, Outcome
from etude.runtime.launchers.local import Local
from etude.runtime.run_folder.recorder import OnEvent
from etude.runtime.run_folder.store import Store

SPEC = """recipe small {{ seed = 1 }}
model tiny {{ layers = 1, dim = 32, heads = 2, ffn = 64, vocab = 300 }}
tokenizer letters {{ bytes }}
dataset sums {{ sample = arithmetic, documents = 20 docs }}
{cluster}
stage pre: train {{
  model = tiny, steps = 1, seq_len = 64, batch = 8 seqs, lr = 1e-3, data = sums
}}
"""
TWO = SPEC.format(cluster='cluster pair { gpus = 2 of "cpu" }')
EIGHT = SPEC.format(cluster='cluster node { gpus = 8 of "H100 80GB" }')


class Elsewhere:
    """A launcher that makes the data here, and keeps what it is asked to do on other machines."""

    legs: list[Leg]

    def ready(self, plan: Plan) -> None:
        type(self).legs = []

    def start(self, leg: Leg, store: Store, on_event: OnEvent) -> Outcome:
        self.legs.append(leg)
        return Local().start(leg, store, on_event) if leg.ranks == 1 else Outcome(None)


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> type[Elsewhere]:
    monkeypatch.setitem(LAUNCHERS, "elsewhere", Elsewhere)
    return Elsewhere


@pytest.mark.parametrize(("text", "ranks", "device"), [(TWO, 2, "cpu"), (EIGHT, 8, "H100 80GB")])
def test_a_registered_launcher_gets_the_phases_of_a_run(
    text: str, ranks: int, device: str, elsewhere: type[Elsewhere], tmp_path: Path
) -> None:
    events: list[dict[str, Any]] = []
    made = plan(text)
    execute(made, tmp_path / "run", tmp_path, events.append, launcher="elsewhere")
    assert [(p.ranks, p.device) for p in elsewhere.legs] == [(1, None), (ranks, device)]
    assert {leg.root for leg in elsewhere.legs} == {tmp_path}
    assert all(leg.plan == made for leg in elsewhere.legs)
    done = [event["job"] for event in events if event["event"] == "finished"]
    assert done == [job.id for job in made.jobs if job.kind in ("tokenizer", "dataset")]


def test_this_machine_refuses_what_it_has_no_devices_for(tmp_path: Path) -> None:
    many = (os.cpu_count() or 1) + 1
    text = SPEC.format(cluster=f'cluster many {{ gpus = {many} of "cpu" }}')
    made = plan(text.replace("8 seqs", f"{many} seqs"))
    with pytest.raises(RunError, match=rf"needs {many} processes, but this machine has"):
        execute(made, tmp_path / "r", tmp_path, lambda _: None)
    assert not (tmp_path / "r").exists()


def test_this_machine_forgets_which_rank_another_launcher_said_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "PET_NNODES", "PET_RDZV_ENDPOINT")
    for name in said:
        monkeypatch.setenv(name, "3")
    Local().ready(plan(SPEC.format(cluster="")))
    assert not any(name in os.environ for name in said)


def test_a_worker_is_told_the_folders_as_whole_paths_and_its_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    made = plan(EIGHT)
    leg = Leg(made, Path("specs"), 8, "H100 80GB")
    folders = [str(tmp_path / "runs" / "small"), str(tmp_path / "specs")]
    assert leg.worker(Store(Path("runs/small"))) == [
        "etude.runtime.worker",
        *folders,
        "H100 80GB",
    ]


def test_what_the_next_job_needs_is_the_same_after_it_was_told_in_a_line(tmp_path: Path) -> None:
    (job,) = (job for job in plan(EIGHT).jobs if isinstance(job, TrainJob))
    for outcome in (Outcome(job.resources), Outcome(None)):
        told = json.loads(json.dumps(messages.ended(outcome)))
        assert messages.outcome_of(told, tmp_path / "log") == outcome


@pytest.mark.parametrize(
    ("problem", "kind"),
    [
        (Stopped("full", "make room"), Stopped),
        (Interrupted("lost", "run again"), Interrupted),
        (DataError("bad"), RunError),
    ],
)
def test_a_problem_of_a_gang_is_one_of_its_launcher(
    problem: RunError, kind: type[RunError], tmp_path: Path
) -> None:
    told = json.loads(json.dumps(messages.failed(problem)))
    with pytest.raises(RunError) as raised:
        messages.outcome_of(told, tmp_path / "log")
    assert type(raised.value) is kind
    assert (raised.value.message, raised.value.help) == (problem.message, problem.help)


def test_a_gang_that_ends_without_a_word_has_lost_rank_0(tmp_path: Path) -> None:
    with pytest.raises(Interrupted, match=r"rank 0 on .* ended without .*rank-0\.log may say why"):
        messages.outcome_of(None, tmp_path / "logs")


def test_what_a_rank_says_of_its_process_is_told_from_other_output() -> None:
    assert messages.event_in(messages.line(messages.joined())) == {
        "event": messages.JOINED,
        "process": os.getpid(),
    }
    assert messages.event_in("a library says hello\n") is None
