"""The lease of a run folder: one run at a time is at work in it, on whatever host.

Locks of files depend on how a file system is mounted. So the owner writes `lease.json`, and changes
a number in it every few seconds. Whoever else wants the folder looks at the owner: on the same host
at its processes, from another one at that number, by a clock of its own, since those of hosts
differ. An owner whose number stands still has died, and loses the folder.
"""

import getpass
import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import Interrupted, RunError

LEASE = "lease.json"
BEAT_SECONDS = 10.0
"""Between two changes of the number."""
DEAD_SECONDS = 90.0
"""A number that has stood still for so long is that of a dead owner. File systems of clusters may
show a change a minute late."""
INHERITED = "ETUDE_LEASE"
"""By this variable the processes of a gang know that whoever started them has the lease."""


class Lease:
    """The lease of one run folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._path = folder / LEASE
        self._token = secrets.token_hex(8)
        self._processes = [_process(os.getpid())]
        self._since = time.strftime("%Y-%m-%d %H:%M:%S %z")
        self._beats = 0
        self._ended = threading.Event()
        self._changing = threading.Lock()
        self._lost: Mapping[str, Any] | None = None
        self._mine = False

    def take(self, on_wait: Callable[[str], None] = lambda message: None) -> None:
        """Makes this process the owner, and keeps it that until `release`.

        Args:
            on_wait: is told why this may take a while.

        Raises:
            RunError: another run is at work in the folder.
            OSError: the lease cannot be written.
        """
        there = _read(self._path)
        if there is not None and there.get("token") == os.environ.get(INHERITED):
            return
        while not self._create(self._path):
            there = _read(self._path)
            if there is None:
                continue
            if not self._is_dead(there, on_wait):
                raise RunError(
                    f"another run is using {self.folder}: {_who(there)}",
                    "wait for it, or choose another folder with --folder",
                )
            if self._succeed(self._path, there, on_wait):
                break
        self._mine = True
        threading.Thread(target=self._keep, name="lease", daemon=True).start()

    def include(self, process: int) -> None:
        """Counts another process of this host as owner, too: the lease ends when all have ended."""
        if self._mine:
            self._processes.append(_process(process))
            self._write()

    @property
    def token(self) -> str:
        """What processes that work for the owner are told, in the variable `INHERITED`."""
        return self._token if self._mine else os.environ.get(INHERITED, "")

    def require(self) -> None:
        """Raises: Interrupted: another run has taken the folder meanwhile."""
        if self._lost is not None:
            raise Interrupted(
                f"another run has taken {self.folder} since this one did not answer: "
                f"{_who(self._lost)}",
                "run again when it has ended",
            )

    def release(self) -> None:
        """Gives the folder back."""
        self._ended.set()
        with self._changing:
            if self._mine and (_read(self._path) or {}).get("token") == self._token:
                self._path.unlink(missing_ok=True)
            self._mine = False

    def _create(self, path: Path) -> bool:
        """Makes a file of this owner, whole at once, where there is none."""
        partial = self._path.with_name(f"{LEASE}.{self._token}")
        partial.write_bytes(self._content())
        try:
            os.link(partial, path)
        except FileExistsError:
            return False
        except OSError:  # a file system without hard links
            try:
                with path.open("xb") as file:
                    file.write(self._content())
            except FileExistsError:
                return False
        finally:
            partial.unlink(missing_ok=True)
        return True

    def _content(self) -> bytes:
        owner = {
            "host": socket.gethostname(),
            "user": _user(),
            "slurm_job": os.environ.get("SLURM_JOB_ID"),
            "slurm_restarts": int(os.environ.get("SLURM_RESTART_COUNT") or 0),
            "since": self._since,
            "processes": self._processes,
            "space": _space(),
            "token": self._token,
            "beats": self._beats,
        }
        return json.dumps(owner, indent=1).encode() + b"\n"

    def _keep(self) -> None:
        while not self._ended.wait(BEAT_SECONDS):
            with suppress(OSError):  # a full disk ends the run where something is written
                self._write()

    def _write(self) -> None:
        with self._changing:
            if not self._mine:
                return
            there = _read(self._path)
            # One that cannot be read just now is tried again at the next beat.
            if there and there.get("token") != self._token:
                self._lost = there
                self._mine = False
                return
            self._beats += 1
            if there is None:  # somebody has removed it by hand
                self._create(self._path)
                return
            # In the same file: a new one under the same name other hosts may see a minute late.
            with self._path.open("r+b") as file:
                file.write(self._content())
                file.truncate()
                file.flush()
                os.fsync(file.fileno())

    def _is_dead(self, there: Mapping[str, Any], on_wait: Callable[[str], None]) -> bool:
        job = os.environ.get("SLURM_JOB_ID")
        restarts = int(os.environ.get("SLURM_RESTART_COUNT") or 0)
        if job and there.get("slurm_job") == job and there.get("slurm_restarts", 0) < restarts:
            return True  # Slurm has requeued the job, which it does when all of it has ended
        if there.get("host") == socket.gethostname() and there.get("space") == _space():
            return self._has_ended(there.get("processes", []))
        on_wait(
            f"{self.folder} is in use by {_who(there)}; waiting for up to {DEAD_SECONDS:.0f} s to "
            "see whether that run is alive"
        )
        end = time.monotonic() + DEAD_SECONDS
        while time.monotonic() < end:
            time.sleep(min(1.0, BEAT_SECONDS))
            now = _read(self._path)
            if now is None and not self._path.exists():
                return True  # it has ended, and its lease with it
            if now is not None and now != there:
                return False
        return True

    def _has_ended(self, processes: list[dict[str, Any]]) -> bool:
        """Whether the processes of an owner on this host have ended; those that the first one has
        started end a little later than it."""
        end = time.monotonic() + DEAD_SECONDS
        while any(_alive(each) for each in processes):
            if _alive(processes[0]) or time.monotonic() > end:
                return False
            time.sleep(0.1)
        return True

    def _succeed(self, path: Path, dead: Mapping[str, Any], on_wait: Callable[[str], None]) -> bool:
        """Puts this owner in the place of a dead one, unless another process does.

        Whoever makes the successor's file may replace the lease, and does so only while it is still
        the dead owner's. A successor that has died before it did is succeeded in the same way.

        Args:
            path: the file with the dead owner.

        Returns: whether this process is the owner now. If not, the file has to be looked at again.
        """
        successor = self._path.with_name(f"{LEASE}.after-{dead.get('token', 'nobody')}")
        if not self._create(successor):
            other = _read(successor)
            if other is None:
                return False
            if not self._is_dead(other, on_wait):
                time.sleep(0.05)  # it has the lease in a moment
                return False
            if not self._succeed(successor, other, on_wait):
                return False
        now = _read(path)
        if now is None or now.get("token") != dead.get("token"):
            successor.unlink()
            return False
        os.replace(successor, path)
        return True


@dataclass(frozen=True)
class Owner:
    """Who has the lease of a run folder.

    Attributes:
        process: the number of its first process on its host.
        since: when it began, in words.
        beat: when it has shown last that it lives, in seconds since 1970, by the clock of the
            file system.
        alive: whether its processes live; None where they are on another host.
    """

    host: str
    user: str
    process: int
    slurm_job: str | None
    since: str
    beat: float
    alive: bool | None


def owner(folder: Path) -> Owner | None:
    """Who has the lease of a run folder, dead or alive; None where nobody has.

    Args:
        folder: the recipe's run folder, not that of a variant (`store.home_of`).
    """
    path = folder / LEASE
    there = _read(path)
    if not there or not there.get("processes"):
        return None
    try:
        beat = path.stat().st_mtime
    except FileNotFoundError:
        return None
    alive = None
    if there.get("host") == socket.gethostname() and there.get("space") == _space():
        alive = any(_alive(each) for each in there["processes"])
    return Owner(
        host=str(there.get("host")),
        user=str(there.get("user")),
        process=there["processes"][0]["pid"],
        slurm_job=there.get("slurm_job"),
        since=str(there.get("since")),
        beat=beat,
        alive=alive,
    )


def _read(path: Path) -> dict[str, Any] | None:
    """The owner, or None where there is none, or it is just being written."""
    for _ in range(20):
        try:
            found = json.loads(path.read_bytes())
        except FileNotFoundError:
            return None
        except ValueError:
            time.sleep(0.05)
            continue
        return found if isinstance(found, dict) else {}
    return {}


def _who(owner: Mapping[str, Any]) -> str:
    """An owner in words."""
    if "host" not in owner:
        return f"{LEASE} there cannot be read"
    job = f" in the Slurm job {owner['slurm_job']}" if owner.get("slurm_job") else ""
    number = owner["processes"][0]["pid"] if owner.get("processes") else "?"
    return (
        f"process {number} of {owner.get('user')} on {owner['host']}{job}, "
        f"since {owner.get('since')}"
    )


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container whose user has no name
        return str(os.getuid())


def _space() -> list[str]:
    """In what numbers of processes are unique: since when the machine runs, and which container."""
    found = []
    for read in (
        lambda: Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
        lambda: os.readlink("/proc/self/ns/pid"),
    ):
        try:
            found.append(read())
        except OSError:
            found.append("")
    return found


def _process(number: int) -> dict[str, Any]:
    return {"pid": number, "started": _started(number)}


def _started(number: int) -> str | None:
    """When a process began, by the kernel's count, since numbers are used again (Linux)."""
    try:
        fields = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    state, begun = fields[0], fields[19]
    return None if state in "ZX" else begun


def _alive(process: Mapping[str, Any]) -> bool:
    if Path("/proc/self/stat").exists():
        return _started(process["pid"]) == process["started"] is not None
    try:
        os.kill(process["pid"], 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
