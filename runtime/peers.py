"""What the ranks of a phase ask of each other while they do a job together."""

from typing import Protocol


class Peers(Protocol):
    """The ranks of a phase, while they do a job together."""

    @property
    def rank(self) -> int:
        """Of this process."""
        ...

    def send(self, message: bytes) -> None:
        """On another rank: sends a message to rank 0."""
        ...

    def received(self) -> bytes | None:
        """On rank 0: the next message that was sent during this job; None if none is there yet."""
        ...

    def told(self, message: bytes) -> bytes:
        """What rank 0 says: its message. All ranks call this together."""
        ...

    def all_say(self, yes: bool) -> bool:
        """Whether all ranks say yes; all call this together."""
        ...

    def meet(self, first: int) -> tuple[str, int]:
        """Where some of the ranks meet: an address of the host of the first of them, which all of
        them can reach, and a port there that was free just now. All of them call this."""
        ...


class Single:
    """The peers of a single rank: none."""

    rank = 0

    def send(self, message: bytes) -> None:
        """Does nothing: there is nobody to send to."""

    def received(self) -> bytes | None:
        return None

    def told(self, message: bytes) -> bytes:
        return message

    def all_say(self, yes: bool) -> bool:
        return yes

    def meet(self, first: int) -> tuple[str, int]:
        raise RuntimeError("a single rank meets nobody")


SINGLE = Single()
