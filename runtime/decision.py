"""Decisions of rank 0 that all ranks of a gang follow.

Rank 0 alone looks at the run folder: file systems of clusters may show another host a file up to a
minute late, so ranks that each looked for themselves would each do something else.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from ..compiler.values import Resources


@dataclass(frozen=True)
class Together:
    """A job that all ranks do now.

    Attributes:
        job: its id in the plan.
        key: of its artifact.
        inputs: role → key of the artifact that it reads.
        known: what rank 0 has read for all; see `jobs.task.Work`.
    """

    job: str
    key: str
    inputs: Mapping[str, str]
    known: Mapping[str, Any]


@dataclass(frozen=True)
class End:
    """The gang has no more to do.

    Attributes:
        needs: what the next job needs; None: the plan is done.
    """

    needs: Resources | None


Decision = Together | End


def to_json(decision: Decision) -> str:
    """A decision as rank 0 sends it."""
    if isinstance(decision, Together):
        return json.dumps(asdict(decision))
    return json.dumps({"needs": decision.needs and decision.needs.as_dict()})


def from_json(text: str | bytes) -> Decision:
    """A decision as the other ranks get it."""
    values = json.loads(text)
    if "job" in values:
        return Together(**values)
    return End(Resources(**values["needs"]) if values["needs"] else None)


class Gang(Protocol):
    """The ranks that do a phase, as rank 0 sees them."""

    @property
    def world_size(self) -> int: ...

    def all_do(self, decision: Together, do: Callable[[], None]) -> None:
        """Tells the other ranks what all do now, does this rank's part, and waits for theirs."""
        ...

    def end(self, decision: End) -> None:
        """Tells the other ranks that there is no more to do."""
        ...


class Alone:
    """A gang of one rank."""

    world_size = 1

    def all_do(self, decision: Together, do: Callable[[], None]) -> None:
        do()

    def end(self, decision: End) -> None:
        """There is nobody to tell."""
