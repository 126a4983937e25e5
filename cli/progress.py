"""Shows the progress of a run: bars on a terminal, lines in a pipe, JSON lines for programs."""

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TextIO

from ..compiler.plan.plan import Plan
from ..runtime.run_folder.recorder import OnEvent
from ..spec.quantity import counted, measured, short
from .common import too_long
from .screen import clean, colors, lasting
from .way import Way

SECONDS = 10.0
"""Seconds between two reports of a train job in a pipe."""
COLUMNS = 80
"""What a line in a pipe should not exceed."""
WAITED = 0.1
"""From this share of a step's time on, waiting for data is worth a word."""


@contextmanager
def display(plan: Plan, terminal: TextIO, *, json_lines: bool) -> Iterator[OnEvent]:
    """Yields a function that shows events.

    Args:
        terminal: where they are shown; the output of libraries goes elsewhere.
    """
    if json_lines:
        yield lambda event: print(json.dumps(event), file=terminal, flush=True)
    elif terminal.isatty():
        with _bars(plan, terminal) as on_event:
            yield on_event
    else:
        yield _Lines(terminal, Way(plan))


def _message(event: dict[str, Any]) -> str | None:
    """An event as one line; None if it is not worth showing."""
    kind, job = event["event"], event.get("job", "")
    if kind == "kept":
        return f"{job}: already done"
    if kind == "dataset":
        records = counted(event["documents"], event["form"])
        tokens = event["tokens"]  # 0 for prompts, which are rendered when they are answered
        return f"{job}: {records}" + (f", {counted(tokens, 'tokens')}" if tokens else "")
    if kind == "weights":
        read = f"{counted(event['tensors'], 'tensors')}, {short(event['parameters'])} parameters"
        return "; ".join([f"{job}: {read}", *event.get("notes", ())])
    if kind in ("reading", "note", "ranks", "continuing"):
        return event["message"]
    if kind == "evaluation":
        return f"{job}: {evaluated(event)}"
    if kind == "warning":
        return f"warning: {event['message']}"
    if kind == "stopping":
        again = "; Ctrl-C again stops at once" if event["signal"] == "Ctrl-C" else ""
        return f"{event['signal']}: saving and stopping{again}"
    if kind == "changed":
        return f"{job}: the weights have changed; what depends on them is rerun"
    if kind == "similar":
        responses = counted(event["responses"], "responses")
        records = counted(event["records"], "records")
        return f"{job}: dropped {responses} too similar to better ones, and with them {records}"
    if kind == "long":
        return f"{job}: {too_long(event)}"
    if kind == "sites":
        dropped = counted(event["dropped"], "documents")
        return f"{job}: {dropped} dropped by their sites, {event['kept']:,} kept"
    if kind == "bad_line":
        return f"{job}: skipped {event['message']}"
    if kind == "started":
        size = (
            f", {counted(event['steps'], 'steps')}, {short(event['tokens'])} tokens"
            if event["steps"]
            else ""
        )
        return f"{job}: {event['kind']}{size}"
    if kind == "scores":
        return f"{job}: " + ", ".join(
            f"{name} {measured(score['score'], 4)}" for name, score in event["scores"].items()
        )
    if kind == "picked":
        return f"{job}: {event['winner']}, {measured(event['score'], 4)}"
    if kind == "sampled" and event["prompts"] == event["of"]:
        return f"{job}: {_sampled(event)}"
    if kind == "rollouts":
        return f"{job}: {_rewarded(event)}"
    if kind == "gate":
        return f"{job}: {decided(event)}"
    return None


def _sampled(event: dict[str, Any]) -> str:
    """What was drawn, and how good it is."""
    reward = event.get("reward")
    judged = "" if reward is None else f", mean reward {measured(reward, 4)}"
    right = f", {event['right']:.1%} right" if "right" in event else ""
    draws, prompts = counted(event["draws"], "draws"), counted(event["of"], "prompts")
    return f"{draws} for {prompts}{right}{judged}"


def decided(event: Mapping[str, Any]) -> str:
    """What a gate has decided."""
    shown = ", ".join(
        f"{r['measure']} {measured(r['score'], 4)} ({r['op']} {measured(r['wanted'], 4)})"
        for r in event["requirements"]
    )
    if event["passed"]:
        return f"passed: {shown}"
    more = event["attempts"] - event["attempt"]
    return f"not passed: {shown}; {f'extending ({more} left)' if more else 'stopping'}"


def evaluated(event: Mapping[str, Any]) -> str:
    """What an evaluation inside a stage has found, and what follows."""
    shown = ", ".join(
        f"{name} {measured(score['score'], 4)}"
        + (f" (accuracy {score['accuracy']:.1%})" if "accuracy" in score else "")
        for name, score in event["scores"].items()
    )
    follows = "; the lowest so far" if event.get("best") else ""
    follows += "; it no longer falls, so the stage ends" if event.get("ends") else ""
    return f"after {counted(event['step'] + 1, 'steps')} {shown}{follows}"


def _rewarded(event: dict[str, Any]) -> str:
    """What became of a policy's answers, or of a student's, which have no rewards."""
    shown = counted(event["answers"], "answers")
    if "reward" not in event:
        return shown + f", {measured(event['length'], 3)} tokens each on average"
    shown += f", mean reward {measured(event['reward'], 4)}"
    if len(event["rewards"]) > 1:
        known = {name: mean for name, mean in event["rewards"].items() if mean is not None}
        shown += f" ({', '.join(f'{name} {measured(known[name], 4)}' for name in known)})"
    if "drawn" in event:
        right, wrong = event["all_right"], event["all_wrong"]
        shown += f"; of {event['drawn']} prompts {right} all right, {wrong} all wrong"
    return shown + (f"; all alike in {event['idle']:.0%} of groups" if event["idle"] else "")


SHOWN = ("accuracy", "margin", "reward", "mtp_loss")
"""What is shown of a step beside its loss, where there is such a figure."""


def _rate(event: dict[str, Any], room: int | None = None, left: str = "") -> str:
    """A step's figures.

    Args:
        room: columns that there are; the least important figures go where they are too few.
        left: how long it will take.
    """
    parts = {"loss": f"loss {event['loss']:.3f}"}
    parts |= {name: f"{name} {event[name]:.3f}" for name in SHOWN if name in event}
    parts["lr"] = f"lr {event['lr']:.3g}"
    parts["tokens"] = f"{short(event['tokens'])} tokens"
    parts["speed"] = f"{event['tokens_per_second']:,.0f} tokens/s"
    if "mfu" in event:
        parts["mfu"] = f"MFU {event['mfu']:.0%}"
    waited = event.get("data_seconds", 0.0) / event.get("seconds", 1.0)
    if waited >= WAITED:
        parts["data"] = f"data {waited:.0%}"
    if left:
        parts["left"] = left
    for name in ("lr", "tokens", "margin", "mtp_loss", "mfu", "left"):
        if room is not None and len("  ".join(parts.values())) > room:
            parts.pop(name, None)
    return "  ".join(parts.values())


def _left(way: Way) -> str:
    """The time left for the recipe; "" if it is not known."""
    seconds = way.seconds()
    return f"{lasting(seconds[0])} left" if seconds else ""


def _both(way: Way) -> str:
    """The time left for the job and, if more follow, for the recipe."""
    seconds = way.seconds()
    if seconds is None:
        return ""
    whole, own = seconds
    more = f", {lasting(whole)} in all" if round(whole) > round(own) else ""
    return f"{lasting(own)} left{more}"


class _Lines:
    """Plain lines: every job, and a step from time to time."""

    def __init__(self, terminal: TextIO, way: Way) -> None:
        self.terminal = terminal
        self.way = way
        self.last = 0.0
        self.latest: dict[str, Any] | None = None

    def __call__(self, event: dict[str, Any]) -> None:
        self.way.note(event)
        if event["event"] == "step":
            self.latest = event
            if time.monotonic() - self.last >= SECONDS:
                self._step(event)
            return
        if self.latest:
            self._step(self.latest)
        message = _message(event)
        if message:
            if event["event"] == "started":
                message = "; ".join(filter(None, (message, self.way.number())))
            print(clean(message), file=self.terminal, flush=True)

    def _step(self, event: dict[str, Any]) -> None:
        self.last = time.monotonic()
        self.latest = None
        line = f"{event['job']}: step {event['step']:,}  "
        line += _rate(event, COLUMNS - len(line), _left(self.way))
        print(line, file=self.terminal, flush=True)


@contextmanager
def _bars(plan: Plan, terminal: TextIO) -> Iterator[OnEvent]:
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, Progress, TextColumn

    console = Console(
        file=terminal, color_system="auto" if colors(terminal) else None, highlight=False
    )
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TextColumn("{task.completed}/{task.total}"),
        TextColumn("{task.fields[rate]}"),
        TextColumn("{task.fields[left]}"),
    )
    first_steps = {job.id: getattr(job, "first_step", 0) for job in plan.jobs}
    way = Way(plan)
    with Progress(
        *columns, console=console, transient=True, redirect_stdout=False, redirect_stderr=False
    ) as progress:
        task: Any = None

        def on_event(event: dict[str, Any]) -> None:
            nonlocal task
            way.note(event)
            kind = event["event"]
            if kind == "started" and event["kind"] == "train":
                title = ", ".join(filter(None, (event["job"], way.number())))
                task = progress.add_task(escape(title), total=event["steps"], rate="", left="")
            elif kind == "step" and task is not None:
                done = event["step"] - first_steps[event["job"]] + 1
                progress.update(task, completed=done, rate=_rate(event), left=_both(way))
                progress.tasks[-1].fields["last"] = event
            elif kind == "finished" and event["kind"] == "train" and task is not None:
                last = progress.tasks[-1].fields.get("last")
                progress.remove_task(task)
                task = None
                console.print(f"{event['job']}: {_rate(last)}" if last else event["job"])
            else:
                message = _message(event)
                if message:
                    console.print(escape(clean(message)))

        yield on_event
