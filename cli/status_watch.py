"""Follows a run, wherever it runs: `etude watch`, and `etude status --watch`."""

import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from time import monotonic, sleep, time
from typing import TYPE_CHECKING, Any

from ..spec.quantity import counted
from .progress import decided
from .screen import clean, colors, lasting, width

if TYPE_CHECKING:
    from rich.console import RenderableType

    from ..compiler.plan.plan import Plan
    from ..runtime.launchers.record import Launch
    from ..runtime.run_folder.progress import Progress
    from ..runtime.run_folder.store import Store

LOOK_SECONDS = 1.0
ASK_SECONDS = 30.0
"""Seconds between two queries to an engine while nobody uses the folder."""
LINE_SECONDS = 10.0
"""Seconds between two lines of a train job, without a terminal."""
ENDED = ("done", "stopped", "dead")
BAR = 40
"""Columns of a bar."""
_BLOCKS = "▁▂▃▄▅▆▇█"
_STYLES = {"running": "green", "done": "green", "stopped": "red", "dead": "red"}


class Look:
    """Looks at a run, and queries its engine from time to time."""

    def __init__(self, plan: "Plan", store: "Store") -> None:
        self.plan = plan
        self.store = store
        self._asked = float("-inf")
        self._queued = False
        self.launch: Launch | None = None

    def now(self) -> "Progress":
        """How far the run has come.

        Raises: RunError: its folder is damaged.
        """
        from ..runtime.run_folder.progress import progress
        from ..runtime.stores.views import look_again

        look_again(self.store.folder)
        found = progress(self.plan, self.store)
        if found.owner is not None and found.state == "running":
            return found
        self._ask()
        told = self.launch.queued.get("stopped") if self.launch else None
        return progress(self.plan, self.store, queued=self._queued, stopped=told)

    def _ask(self) -> None:
        from ..runtime.launchers.launched import at_work
        from ..runtime.launchers.record import load

        if monotonic() - self._asked < ASK_SECONDS:
            return
        self.launch = load(self.store.folder)
        self._queued = bool(at_work(self.launch))
        self._asked = monotonic()


def watch(plan: "Plan", store: "Store", *, json_lines: bool = False) -> int:
    """Shows a run until it ends; returns 0 if it is done, 1 if it has stopped or died.

    Args:
        json_lines: print the run's events as they come, and not what follows from them.

    Raises: RunError: its folder is damaged.
    """
    look = Look(plan, store)
    if json_lines:
        found = _events(look)
    elif sys.stdout.isatty() and os.environ.get("TERM") != "dumb":
        found = _live(look)
    else:
        found = _lines(look)
    return 0 if found.state == "done" else 1


def _live(look: Look) -> "Progress":
    from rich.console import Console
    from rich.live import Live

    console = Console(
        color_system="auto" if colors(sys.stdout) else None, highlight=False, width=width()
    )
    found = look.now()
    with Live(console=console, auto_refresh=False) as live:
        while True:
            live.update(_view(look.plan, found, look.launch), refresh=True)
            if found.state in ENDED:
                return found
            sleep(LOOK_SECONDS)
            found = look.now()


def _events(look: Look) -> "Progress":
    """Prints the run's events from now on, a line of JSON each, between two events `progress`."""
    from ..runtime.run_folder.json_lines import Follower
    from ..runtime.run_folder.store import EVENTS

    path = look.store.folder / EVENTS
    news = Follower(path, path.stat().st_size if path.exists() else 0)
    found = look.now()
    _tell({"event": "progress", **as_json(found)})
    while found.state not in ENDED:
        sleep(LOOK_SECONDS)
        found = look.now()
        for event in news.new():
            _tell(event)
    _tell({"event": "progress", **as_json(found)})
    return found


def _tell(event: Mapping[str, Any]) -> None:
    print(json.dumps(event), flush=True)


def _lines(look: Look) -> "Progress":
    """Prints a line when another job starts, and from time to time for a train job."""
    before, said = None, float("-inf")
    while True:
        found = look.now()
        at = (found.state, found.job)
        step = found.training.step if found.training else 0
        if at != before or (step and monotonic() - said >= LINE_SECONDS):
            print(clean(line(found, look.launch)), flush=True)
            before, said = at, monotonic()
        if found.state in ENDED:
            return found
        sleep(LOOK_SECONDS)


def line(found: "Progress", launch: "Launch | None") -> str:
    """A run in one line."""
    words = [headline(found, launch)]
    if found.state not in ENDED and found.job:
        words.append(f"{found.job} ({found.number} of {found.jobs})")
        shown = dict(rows(found))
        words += [f"step {shown['step']}"] if "step" in shown else []
        if found.training and found.training.last:
            words.append(f"{found.training.tokens_per_second or 0:,.0f} tokens/s")
        words += [shown["left"]] if "left" in shown else []
    return "; ".join(words)


def headline(found: "Progress", launch: "Launch | None") -> str:
    """The state of a run in words."""
    holder = found.owner
    if found.state == "running" and holder:
        job = f", Slurm job {holder.slurm_job}" if holder.slurm_job else ""
        return f"running on {holder.host} (process {holder.process}{job})"
    if found.state == "dead" and holder:
        where = f"process {holder.process} on {holder.host}"
        return f"dead: {where} has sent no heartbeat since {clock(holder.beat)}"
    if found.state == "stopped":
        return f"stopped: {found.why}"
    if found.state == "waiting":
        if launch is None:
            return "not begun"
        what = "waiting: the next phase is" if found.finished else "queued: it is"
        return f"{what} in the queue of {launch.engine}"
    return found.state


def rows(found: "Progress") -> Iterator[tuple[str, str]]:
    """The facts about a running run, each with its name."""
    if found.phase:
        phase = found.phase
        ranks = counted(phase.ranks, "ranks")
        on = f"{counted(phase.nodes, 'nodes')} with {ranks} each" if phase.nodes > 1 else ranks
        yield "phase", f"{phase.name}: {on}, {phase.device}"
    if found.job:
        yield "job", f"{found.job}, {found.kind}, {found.number} of {found.jobs}"
    training = found.training
    if training and training.last:
        yield "step", f"{training.step:,} of {training.steps:,}"
        last = training.last
        yield "loss", f"{last['loss']:.4f}   lr {last['lr']:.3g}   norm {last['grad_norm']:.3g}"
        if training.evaluation:
            from .progress import evaluated  # few runs need it

            yield "evaluated", evaluated(training.evaluation)
        speed = [f"{training.tokens_per_second or 0:,.0f} tokens/s"]
        speed += [f"MFU {training.mfu:.1%}"] if training.mfu is not None else []
        speed += [f"{training.data:.1%} waiting for data"] if training.data is not None else []
        yield "speed", "   ".join(speed)
        if "memory_reserved" in last:
            share = last["memory_reserved_share"]
            yield "memory", f"{last['memory_reserved']:.1f} GiB of a GPU, {share:.0%}"
    if found.seconds:
        ends = datetime.fromtimestamp(time() + found.seconds)
        shown = f"{ends:%H:%M}" if found.seconds < 86_400 else f"{ends:%a %d %b %H:%M}"
        left = f"about {lasting(found.seconds)} of training, to {shown}"
        if found.job_seconds and round(found.job_seconds) < round(found.seconds):
            left += f"; {lasting(found.job_seconds)} in this job"
        yield "left", left
    if training and training.checkpoint:
        saved = training.checkpoint
        yield "saved", f"step {saved.step:,}, {lasting(time() - saved.at)} ago"
    if found.gate:
        yield "gate", f"{found.gate.job} {decided(found.gate.event)}"
    if found.state == "running" and found.phase and found.phase.nodes * found.phase.ranks > 1:
        yield "ranks", found.late or "all send heartbeats"
    if found.heard:
        yield "news", f"{lasting(time() - found.heard)} ago"


def _view(plan: "Plan", found: "Progress", launch: "Launch | None") -> "RenderableType":
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    state, _, rest = headline(found, launch).partition(" ")
    style = _STYLES.get(found.state, "yellow")
    head = Text.assemble((clean(plan.recipe), "bold"), "  ", (clean(state), style))
    head.append(clean(f" {rest}"))
    table = Table.grid(padding=(0, 2, 0, 1))
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    if found.state not in ENDED:
        for name, text in rows(found):
            table.add_row(name, Text(clean(text)))
            if name == "step" and found.training:
                done, steps = found.training.step, found.training.steps
                table.add_row("", ProgressBar(total=steps, completed=done, width=BAR))
            elif name == "loss" and found.training and found.training.losses:
                table.add_row("", sparkline(found.training.losses))
            elif name == "job":
                table.add_row(
                    "", ProgressBar(total=found.jobs, completed=found.finished, width=BAR)
                )
    parts: list[Any] = [head, table]
    if found.help:
        parts.append(Text(clean(f"  = help: {found.help}")))
    return Group(*parts)


def sparkline(values: Sequence[float]) -> str:
    """Numbers as a line of blocks, the lowest of them an eighth high."""
    low, high = min(values), max(values)
    scale = (len(_BLOCKS) - 1) / (high - low) if high > low else 0.0
    return "".join(_BLOCKS[round((value - low) * scale)] for value in values)


def clock(at: float) -> str:
    """A time of day, with the date if it is not today."""
    moment = datetime.fromtimestamp(at)
    today = moment.date() == datetime.now().date()
    return f"{moment:%H:%M:%S}" if today else f"{moment:%Y-%m-%d %H:%M:%S}"


def as_json(found: "Progress") -> Mapping[str, Any]:
    """A run's progress as JSON."""
    training, saved = found.training, found.training and found.training.checkpoint
    return {
        "state": found.state,
        "why": found.why or None,
        "help": found.help or None,
        "host": found.owner.host if found.owner else None,
        "process": found.owner.process if found.owner else None,
        "job": found.job,
        "number": found.number,
        "of": found.jobs,
        "phase": found.phase.name if found.phase else None,
        "step": training.step if training else None,
        "steps": training.steps if training else None,
        "tokens_per_second": training.tokens_per_second if training else None,
        "mfu": training.mfu if training else None,
        "data_share": training.data if training else None,
        "checkpoint": saved.step if saved else None,
        "seconds_left": found.seconds,
        "job_seconds_left": found.job_seconds,
        "gate": found.gate and {"job": found.gate.job, **found.gate.event},
        "late": found.late or None,
        "heard": found.heard,
    }
