"""When each job of a run was at work, from the run's events."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..run_folder.json_lines import is_moment, record_of

_STEP = b'"event": "step"'
_HEAD = 80
"""The kind of an event stands within this many bytes of its line (`Store.tell`)."""


@dataclass(frozen=True)
class Stretch:
    """One start of a job, until it finished or the run ended.

    Attributes:
        began, ended: in seconds since 1970; `ended` is the run's last event before its end.
        step: the first step that it did (of the stage, from 0); None if it did none.
        why: the problem that ended it, as the run reported it; "" if it finished, or the run said
            nothing.
    """

    job: str
    began: float
    ended: float
    finished: bool = False
    step: int | None = None
    why: str = ""


def stretches(path: Path) -> list[Stretch]:
    """The starts of all jobs, in order. Steps are not parsed, save those beside another event: a
    long run has millions of them.

    Args:
        path: the run's `events.jsonl`; it need not exist.
    """
    found: list[Stretch] = []
    for event in _events(path):
        kind, now = event.get("event"), float(event.get("time", 0.0))
        current = found[-1] if found and not found[-1].finished else None
        if kind == "started":
            found.append(Stretch(str(event.get("job")), now, now))
        elif current is None:
            continue
        elif kind in ("error", "outcome"):
            why = event.get("message") or event.get("error") or ""
            found[-1] = replace(current, why=str(why))
        else:
            first = kind == "step" and event.get("job") == current.job and current.step is None
            found[-1] = replace(
                current,
                ended=max(current.ended, now),
                step=event.get("step") if first else current.step,
                finished=kind == "finished" and event.get("job") == current.job,
            )
    return found


def _events(path: Path) -> Iterator[dict[str, Any]]:
    """The events that are not steps, and of each row of steps the first and the last."""
    last, first = b"", True
    try:
        with path.open("rb") as file:
            for line in file:
                if _STEP in line[:_HEAD] and not first:
                    last = line
                    continue
                yield from _parsed(last)
                yield from _parsed(line)
                last, first = b"", _STEP not in line[:_HEAD]
            yield from _parsed(last)
    except FileNotFoundError:
        return


def _parsed(line: bytes) -> Iterator[dict[str, Any]]:
    event = record_of(line)
    if event is not None and is_moment(event.get("time", 0.0)):
        yield event
