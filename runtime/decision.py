"""Decisions of rank 0 that all ranks of a gang follow.

Only rank 0 reads the run folder: a cluster's file system may show a file to other hosts up to a
minute late, so ranks that each looked for themselves could decide differently.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from ..compiler.values import Resources
from .peers import Peers, Single


@dataclass(frozen=True)
class Together:
    """A job that all ranks now do.

    Attributes:
        job: its id in the plan.
        key: key of its artifact.
        inputs: role → key of the artifact that the job reads.
        known: what rank 0 has read for all ranks; see `jobs.task.Work`.
        spent: keys of artifacts that nobody reads any more.
    """

    job: str
    key: str
    inputs: Mapping[str, str]
    known: Mapping[str, Any]
    spent: Sequence[str] = ()


@dataclass(frozen=True)
class End:
    """The gang has nothing left to do.

    Attributes:
        needs: what the next job needs; None: the plan is done.
    """

    needs: Resources | None


Decision = Together | End


def to_json(decision: Decision) -> str:
    """A decision in the form that rank 0 sends."""
    if isinstance(decision, Together):
        return json.dumps(asdict(decision))
    return json.dumps({"needs": decision.needs and decision.needs.as_dict()})


def from_json(text: str | bytes) -> Decision:
    """A decision as received by the other ranks."""
    values = json.loads(text)
    if "job" in values:
        return Together(**values)
    return End(Resources(**values["needs"]) if values["needs"] else None)


class Gang(Peers, Protocol):
    """The ranks of a phase, as rank 0 sees them."""

    @property
    def world_size(self) -> int: ...

    def all_do(self, decision: Together, do: Callable[[], None]) -> None:
        """Tells the other ranks what all do next, does this rank's part, and waits for theirs."""
        ...

    def end(self, decision: End) -> None:
        """Tells the other ranks that nothing is left to do."""
        ...


class Alone(Single):
    """A gang of one rank."""

    world_size = 1

    def all_do(self, decision: Together, do: Callable[[], None]) -> None:
        do()

    def end(self, decision: End) -> None:
        """Does nothing: there are no other ranks."""
