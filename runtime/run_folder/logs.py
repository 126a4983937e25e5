"""The logs of ranks in a run folder.

logs/rank-N.log         runs on this machine, one start after the other
logs/PHASE.rank-N.log   phases that an engine has started
logs/PHASE.log          output of the engine's own script for a phase
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from .store import LOG, LOGS

_NAME = re.compile(r"(?:(?P<phase>\d+-[a-z]+)\.)?rank-(?P<rank>\d+)\.log")
_SCRIPT = re.compile(r"(?P<phase>\d+-[a-z]+)\.log")
_BLOCK = 65_536


@dataclass(frozen=True)
class RankLog:
    """The log of a rank.

    Attributes:
        phase: "" if one file has all phases.
        rank: None for the engine's script, or for a run in one process.
        written: when it was last written, in seconds since 1970.
    """

    path: Path
    phase: str
    rank: int | None
    written: float

    def size(self) -> int:
        """Its size in bytes, up to the end of the last complete line."""
        with self.path.open("rb") as file:
            end = file.seek(0, 2)
            while end:
                start = max(end - _BLOCK, 0)
                file.seek(start)
                place = file.read(end - start).rfind(b"\n")
                if place >= 0:
                    return start + place + 1
                end = start
        return 0

    def last(self, count: int) -> list[str]:
        """The last lines, including one that is still being written."""
        if count == 0:
            return []
        with self.path.open("rb") as file:
            start = file.seek(0, 2)
            text = b""
            while start and text.count(b"\n") <= count:
                length = min(_BLOCK, start)
                start -= length
                file.seek(start)
                text = file.read(length) + text
        return _decoded(text)[-count:]

    def since(self, place: int) -> tuple[list[str], int]:
        """The complete lines from a position on, and the position of the next.

        A file that has become shorter is read from the start.
        """
        with self.path.open("rb") as file:
            if file.seek(0, 2) < place:
                place = 0
            file.seek(place)
            text = file.read().rpartition(b"\n")
        whole = text[0] + text[1]
        return _decoded(whole), place + len(whole)


def rank_logs(folder: Path) -> list[RankLog]:
    """The logs in a run folder, by phase, the engine's script before the ranks."""
    found = []
    if (folder / LOG).is_file() and (folder / LOG).stat().st_size:
        found.append(RankLog(folder / LOG, "", None, (folder / LOG).stat().st_mtime))
    for path in (folder / LOGS).glob("*.log"):
        match = _NAME.fullmatch(path.name) or _SCRIPT.fullmatch(path.name)
        if match is None:
            continue
        named = match.groupdict()
        rank = None if named.get("rank") is None else int(named["rank"])
        found.append(RankLog(path, named["phase"] or "", rank, path.stat().st_mtime))
    return sorted(found, key=lambda log: (_number(log.phase), -1 if log.rank is None else log.rank))


def of_phase(logs: Iterable[RankLog], phase: str) -> list[RankLog]:
    """The logs of a phase's ranks; if there are none, that of the engine's script."""
    own = [log for log in logs if log.phase == phase]
    return [log for log in own if log.rank is not None] or own


def _number(phase: str) -> int:
    return int(phase.partition("-")[0] or 0)


def _decoded(text: bytes) -> list[str]:
    """The lines; of a progress bar that overwrites itself, only its last state."""
    lines = text.decode("utf-8", errors="replace").split("\n")
    if lines and not lines[-1]:
        lines.pop()
    return [line.rstrip("\r").rpartition("\r")[2] for line in lines]
