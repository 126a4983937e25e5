"""What a gang tells its launcher: how a phase ended, in the last line of `events.jsonl`; and the
process ids of its ranks on this machine, on their standard output.
"""

import json
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...compiler.values import Resources
from ..errors import Interrupted, RunError, Stopped
from .launcher import Outcome

OUTCOME = "outcome"
JOINED = "joined"
_MARK = "etude-event "
_KINDS = {kind.exit_code: kind for kind in (Stopped, Interrupted)}


def line(event: Mapping[str, Any]) -> str:
    """An event as a line of standard output, without the newline."""
    return _MARK + json.dumps(event)


def event_in(line: str) -> dict[str, Any] | None:
    """The event in a line; None if the line is other output."""
    return json.loads(line.removeprefix(_MARK)) if line.startswith(_MARK) else None


def joined() -> dict[str, Any]:
    """The event of a rank that has started and can be asked to stop."""
    return {"event": JOINED, "process": os.getpid()}


def ended(outcome: Outcome) -> dict[str, Any]:
    """The event of a phase that completed."""
    return {"event": OUTCOME, "needs": outcome.needs and outcome.needs.as_dict()}


def failed(problem: RunError) -> dict[str, Any]:
    """The event of a phase that a problem stopped."""
    return {
        "event": OUTCOME,
        "error": problem.message,
        "help": problem.help,
        "exit_code": problem.exit_code,
    }


def outcome_of(event: Mapping[str, Any] | None, logs: Path) -> Outcome:
    """The outcome in an event.

    Args:
        event: the event at the end of the phase; None: the gang ended without one.
        logs: the folder with the output of its ranks.

    Raises: RunError, Stopped: the phase did not complete.
    """
    if event is None:
        # If any other rank ends, rank 0 reports it.
        raise Interrupted(
            f"rank 0 on {socket.gethostname()} ended without a message; the end of "
            f"{logs / 'rank-0.log'} may say why",
            "run again to continue from the last checkpoint",
        )
    if "error" in event:
        raise _KINDS.get(event["exit_code"], RunError)(event["error"], event["help"])
    return Outcome(Resources(**event["needs"]) if event["needs"] else None)
