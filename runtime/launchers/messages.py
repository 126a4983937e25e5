"""What a gang tells its launcher: lines on standard output of rank 0, among whatever else is there.

A line is a mark and an event as JSON. The last event is the outcome, or what stopped the gang.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...compiler.values import Resources
from ..errors import Interrupted, RunError, Stopped
from .launcher import Outcome

MARK = "etude-event "
OUTCOME = "outcome"
JOINED = "joined"
_KINDS = {kind.exit_code: kind for kind in (Stopped, Interrupted)}


def line(event: Mapping[str, Any]) -> str:
    """An event as a line, without its line feed."""
    return MARK + json.dumps(event)


def event_in(line: str) -> dict[str, Any] | None:
    """The event in a line; None where it is other output."""
    return json.loads(line.removeprefix(MARK)) if line.startswith(MARK) else None


def joined() -> dict[str, Any]:
    """The event of a rank that has begun, and can be asked to stop."""
    return {"event": JOINED, "process": os.getpid()}


def ended(outcome: Outcome) -> dict[str, Any]:
    """The event of a phase that came to its end."""
    return {"event": OUTCOME, "needs": outcome.needs and outcome.needs.as_dict()}


def failed(problem: RunError) -> dict[str, Any]:
    """The event of a phase that a problem stopped."""
    return {
        "event": OUTCOME,
        "error": problem.message,
        "help": problem.help,
        "exit_code": problem.exit_code,
    }


def outcome_of(event: Mapping[str, Any] | None, log: Path) -> Outcome:
    """The outcome that an event tells.

    Args:
        event: the event of the phase's end; None: the gang ended without one.
        log: the file with what its processes printed.

    Raises: RunError, Stopped: the phase did not come to its end.
    """
    if event is None:
        raise Interrupted(
            f"the training processes ended without a message; the end of {log} may say why",
            "run again to continue",
        )
    if "error" in event:
        raise _KINDS.get(event["exit_code"], RunError)(event["error"], event["help"])
    return Outcome(Resources(**event["needs"]) if event["needs"] else None)
