"""The progress of a run, from its folder alone, since it may run on other hosts."""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from statistics import fmean, median
from typing import Any, Literal

from ...compiler.plan.plan import GateJob, Plan, TrainJob
from ...compiler.values import Phase
from ..errors import RunError
from .homes import owner_of
from .json_lines import Follower, is_moment
from .lease import DEAD_SECONDS, Owner
from .outcomes import Outcome, evaluations, outcomes, steps
from .saved import SUMS
from .store import EVENTS, Store

State = Literal["done", "running", "dead", "stopped", "waiting"]
RECENT = 50
"""The number of steps that the speed is computed over."""
CURVE = 40
"""The most points of a job's curve of losses."""
VERDICT = "verdict.json"
"""The file in a gate's result with its decision."""
_TAIL = 65_536
"""How many bytes at the end of `events.jsonl` are searched for the newest events."""


@dataclass(frozen=True)
class Checkpoint:
    """The newest checkpoint of a job: the step after which it was made (of the job, from 1), and
    when it was complete, in seconds since 1970."""

    step: int
    at: float


@dataclass(frozen=True)
class Training:
    """A running train job.

    Attributes:
        step: steps done, of `steps`; 0 before the first.
        tokens_per_second: of all ranks, over the newest steps; None before the first.
        sequence_seconds: seconds per sequence; None before the first step.
        last: the newest step's event.
        mfu: share of the GPUs' peak over the newest steps, as the plan counts it; None if unknown.
        data: share of the newest steps' time in which rank 0 waited for data.
        losses: over the job so far, means of up to `CURVE` stretches of steps of equal length.
        evaluation: the event of the newest evaluation; None before the first.
    """

    step: int
    steps: int
    tokens_per_second: float | None
    sequence_seconds: float | None
    last: Mapping[str, Any] | None
    checkpoint: Checkpoint | None
    mfu: float | None = None
    data: float | None = None
    losses: tuple[float, ...] = ()
    evaluation: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Gate:
    """A gate that has decided: its job, and its event as a run tells it (`passed`, `requirements`,
    `attempt`, `attempts`)."""

    job: str
    event: Mapping[str, Any]


@dataclass(frozen=True)
class Progress:
    """How far a run has come.

    Attributes:
        state: "waiting": not started, or nobody is running it and it has not stopped.
        why, help: if the run has stopped: the reason, and what to do.
        owner: who is or was running it.
        job: the current or next job; None at the end.
        number: the job's number, from 1, among the `jobs` that every run of the plan does.
        seconds: time left, from the speed so far and the plan's estimates; None if unknown.
        job_seconds: the same, of the current job alone; None if it does not train.
        gate: the last gate of the plan that has decided.
        late: ranks that send no heartbeats, in words; "" if all do, as far as rank 0 has told.
        heard: when something was last written, in seconds since 1970; None: never.
    """

    state: State
    why: str
    help: str
    owner: Owner | None
    job: str | None
    kind: str
    number: int
    jobs: int
    finished: int
    phase: Phase | None
    training: Training | None
    seconds: float | None
    heard: float | None
    job_seconds: float | None = None
    gate: Gate | None = None
    late: str = ""


def progress(
    plan: Plan, store: Store, *, queued: bool = False, stopped: Mapping[str, str] | None = None
) -> Progress:
    """How far a run of a plan has come.

    Args:
        queued: whether an engine has the run, and will start or continue it.
        stopped: `message` and `help` of an engine that has given up on the run.

    Raises: RunError: the journal is damaged.
    """
    # Read first, since a run gives up its lease after all other writes.
    holder = owner_of(store.folder)
    begun = outcomes(plan, store) if store.exists() else {}
    done = {job for job, outcome in begun.items() if outcome.state == "finished"}
    asked = [job for job in plan.jobs if not plan.aside(job)]
    meant = [job for job in asked if job.extends is None or job.id in begun]
    job = next((job for job in meant if job.id not in done), None)
    events = _newest(store.folder / EVENTS)
    training = None
    if isinstance(job, TrainJob):
        training = _training(job, store, begun.get(job.id), events)
    state, why, help = _state(
        holder, events, complete=job is None, begun=bool(begun), queued=queued
    )
    if stopped and state in ("stopped", "dead", "waiting") and not queued:
        state, why, help = "stopped", stopped["message"], stopped.get("help", "")
    number = meant.index(job) + 1 if job else len(meant)
    return Progress(
        state=state,
        why=why,
        help=help,
        owner=holder,
        job=job.id if job else None,
        kind=job.kind if job else "",
        number=number,
        jobs=len(meant),
        finished=len([each for each in meant if each.id in done]),
        phase=next((p for p in plan.phases if job and job.id in p.jobs), None),
        training=training,
        seconds=left(meant[number - 1 :], training) if job else 0.0,
        heard=_heard(store, job.id if job else None, events),
        job_seconds=left([job], training) if isinstance(job, TrainJob) else None,
        gate=_gate(plan, store, begun),
        late=_late(events) if state == "running" else "",
    )


def is_dead(holder: Owner) -> bool:
    """Whether the owner of a lease is dead, as far as can be told from here."""
    if holder.alive is not None:
        return not holder.alive
    return time.time() - holder.beat > DEAD_SECONDS


def _state(
    holder: Owner | None,
    events: Sequence[Mapping[str, Any]],
    *,
    complete: bool,
    begun: bool,
    queued: bool,
) -> tuple[State, str, str]:
    """The state, the reason if the run has stopped, and what to do."""
    if holder is not None and not is_dead(holder):
        return "running", "", ""
    if queued:
        return "waiting", "", ""
    if holder is not None:
        return "dead", "", ""
    last = events[-1] if events else {}
    # `error`: `etude run` reports a problem. `outcome`: the gang's ranks report their end.
    why = {"error": last.get("message"), "outcome": last.get("error")}.get(last.get("event", ""))
    if why is not None:
        return "stopped", str(why), str(last.get("help", ""))
    if complete:
        return "done", "", ""
    if begun:
        return "stopped", "it ended before it was done", "run or launch it again to continue"
    return "waiting", "", ""


def _training(
    job: TrainJob,
    store: Store,
    outcome: Outcome | None,
    events: Sequence[Mapping[str, Any]],
) -> Training:
    lines = steps(store, job.id, outcome) if outcome else []
    evaluated = evaluations(store, job.id, outcome) if outcome and job.evaluation else []
    return Training(
        step=lines[-1]["step"] - job.first_step + 1 if lines else 0,
        steps=job.steps,
        tokens_per_second=typical(lines[-RECENT:], "tokens_per_second"),
        sequence_seconds=_pace(lines, events, job.id),
        last=lines[-1] if lines else None,
        checkpoint=_checkpoint(store, outcome),
        mfu=typical(lines[-RECENT:], "mfu"),
        data=data_share(lines[-RECENT:]),
        losses=tuple(_curve([line["loss"] for line in lines])),
        evaluation=evaluated[-1] if evaluated else None,
    )


def _curve(losses: Sequence[float]) -> Iterator[float]:
    """Means of at most `CURVE` stretches of equal length; what is no number is left out."""
    size = -(-len(losses) // CURVE) or 1
    for start in range(0, len(losses), size):
        known = [loss for loss in losses[start : start + size] if isfinite(loss)]
        if known:
            yield fmean(known)


def _gate(plan: Plan, store: Store, begun: Mapping[str, Outcome]) -> Gate | None:
    """The last gate of the plan that has decided; None if its decision cannot be read."""
    for job in reversed(plan.jobs):
        outcome = begun.get(job.id)
        if not isinstance(job, GateJob) or outcome is None or outcome.state != "finished":
            continue
        try:
            folder = store.fetch(outcome.key, only=[VERDICT])
            verdict = json.loads((folder / VERDICT).read_bytes()) if folder else None
        except (RunError, OSError, ValueError, RecursionError):
            return None  # damaged: the next run says so
        attempts = {"attempt": job.attempt, "attempts": job.attempts}
        return Gate(job.id, verdict | attempts) if verdict else None
    return None


def _late(events: Sequence[Mapping[str, Any]]) -> str:
    """The ranks that were late when rank 0 last told of it in this start of the gang, in words."""
    for event in reversed(events):
        if event.get("event") == "ranks":
            return str(event.get("message", "")) if event.get("late") else ""
        if event.get("event") in ("error", "outcome"):
            break
    return ""


def typical(lines: Sequence[Mapping[str, Any]], name: str) -> float | None:
    """The median of a figure over steps; None if no step has it."""
    found = [line[name] for line in lines if line.get(name) is not None]
    return median(found) if found else None


def data_share(lines: Sequence[Mapping[str, Any]]) -> float | None:
    """The share of the steps' time in which rank 0 waited for data; None if no step tells."""
    told = [line for line in lines if line.get("seconds") and "data_seconds" in line]
    whole = sum(line["seconds"] for line in told)
    return sum(line["data_seconds"] for line in told) / whole if whole else None


def _checkpoint(store: Store, outcome: Outcome | None) -> Checkpoint | None:
    if outcome is None:
        return None
    found = []
    for complete in (store.work(outcome.key) / "checkpoints").glob(f"step-*/{SUMS}"):
        number = complete.parent.name.removeprefix("step-")
        if number.isdecimal():
            found.append(Checkpoint(int(number), complete.stat().st_mtime))
    return max(found, key=lambda each: each.step, default=None)


def left(jobs: Sequence[Any], training: Training | None) -> float | None:
    """Seconds for the remaining train jobs, from the speed so far.

    The plan's estimates give the ratio between the times of two jobs; without estimates, their
    FLOPs do.
    """
    left = [job for job in jobs if isinstance(job, TrainJob) and job.extends is None]
    if not left:
        return 0.0
    first = left[0]
    if first is not jobs[0] or training is None or training.sequence_seconds is None:
        estimates = [job.cost.seconds for job in left]
        return sum(s for s in estimates if s is not None) if all(estimates) else None
    seconds = training.sequence_seconds * _sequences(first, training.step)
    whole = training.sequence_seconds * _sequences(first, 0)
    for job in left[1:]:
        if job.cost.seconds and first.cost.seconds:
            seconds += whole * job.cost.seconds / first.cost.seconds
        else:
            seconds += whole * _flops(job) / _flops(first)
    return seconds


def _sequences(job: TrainJob, done: int) -> int:
    """The number of sequences in a job's steps from its step `done` on."""
    start = job.first_step + done
    pieces = job.schedule.batch
    return sum(p.sequences * max(p.to_step - max(p.from_step, start), 0) for p in pieces)


def _pace(
    lines: Sequence[Mapping[str, Any]], events: Sequence[Mapping[str, Any]], job: str
) -> float | None:
    """Seconds per sequence, over the newest steps: by their own stopwatch where they have one. A
    clock may be set meanwhile, and between two starts of a run lie hours in which it does nothing.
    """
    told = [e for e in events if e.get("event") == "step" and e.get("job") == job]
    watched = [e for e in told if _is_length(e.get("seconds"))]
    if len(watched) > 2:
        seconds = sum(event["seconds"] for event in watched[1:])
        return seconds / max(sum(event["sequences"] for event in watched[1:]), 1)
    told = [event for event in told if "time" in event]
    if len(told) > 2 and told[-1]["time"] > told[0]["time"]:
        seconds = told[-1]["time"] - told[0]["time"]
        return seconds / max(sum(event["sequences"] for event in told[1:]), 1)
    timed = [line for line in lines[-RECENT:] if line.get("tokens_per_second")]
    if not timed:
        return None
    return median(line.get("seq_len", 0) / line["tokens_per_second"] for line in timed)


def _is_length(seconds: Any) -> bool:
    return isinstance(seconds, int | float) and 0 < seconds < float("inf")


def _flops(job: TrainJob) -> float:
    cost = job.cost
    return (cost.flops_per_token + cost.attention_flops_per_token) * job.tokens


def _newest(path: Path) -> list[dict[str, Any]]:
    """The newest events of a run, oldest first."""
    try:
        start = max(path.stat().st_size - _TAIL, 0)
    except FileNotFoundError:
        return []
    return [event for event in Follower(path, start).new() if _is_event(event)]


def _is_event(event: Mapping[str, Any]) -> bool:
    """Whether a line has the form of an event; damage is left out."""
    needs = ("step", "sequences") if event.get("event") == "step" else ()
    numbers = [event.get(name) for name in needs]
    numbered = all(isinstance(n, int | float) and 0 <= n < float("inf") for n in numbers)
    return numbered and is_moment(event.get("time", 0.0))


def _heard(store: Store, job: str | None, events: Sequence[Mapping[str, Any]]) -> float | None:
    """When the run last wrote something; the owner's heartbeat does not count as progress."""
    times = [float(event["time"]) for event in events if "time" in event]
    journal = store.events()[-1:] if store.exists() else []
    times += [float(event["time"]) for event in journal]
    if job:
        times += _written(store.folder / "metrics" / f"{job}.jsonl")
    return max(times, default=None)


def _written(path: Path) -> list[float]:
    try:
        return [path.stat().st_mtime]
    except FileNotFoundError:
        return []
