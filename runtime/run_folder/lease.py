"""The lease of a run folder: only one run at a time works in it, on any host.

File locks depend on how a file system is mounted. So the owner writes `lease.json`, and changes a
number in it every few seconds. A process that wants the folder checks the owner: on the same host
by its processes, from another host by that number, timed by its own clock, since the clocks of
hosts differ. An owner whose number stops changing is dead and loses the folder.

A run has the folder of the recipe, and with it those of all variants. Parts of a sweep make
different jobs: each has the folder of its own variant, and they keep out only runs of the recipe.
"""

import getpass
import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..disk import named
from ..errors import Interrupted, RunError

LEASE = "lease.json"
BEAT_SECONDS = 10.0
"""Seconds between two changes of the number."""
DEAD_SECONDS = 90.0
"""An owner whose number has not changed for this many seconds is dead. A cluster's file system may
show a change up to a minute late."""
INHERITED = "ETUDE_LEASE"
"""The variable that tells the processes of a gang that their parent has the lease."""


class Lease:
    """The lease of one run folder.

    Args:
        apart: finds the other folders that nobody may be using meanwhile.
    """

    def __init__(self, folder: Path, apart: Callable[[], Iterable[Path]] = lambda: ()) -> None:
        self.folder = folder
        self._apart = apart
        self.name = str(folder)
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
        """Makes this process the owner, until `release`.

        Args:
            on_wait: called with the reason if this may take a while.

        Raises:
            RunError: another run is using the folder.
            OSError: the lease cannot be written.
        """
        inherited = os.environ.get(INHERITED)
        if inherited and (self._look() or {}).get("token") == inherited:
            return
        while not self._create(self._path):
            there = self._look()
            if there is None:
                continue
            self._require_dead(there, on_wait)
            if self._succeed(self._path, there, on_wait):
                break
        self._mine = True
        try:  # whoever wants the other folder looks here after it has that
            for other in map(Lease, self._apart()):
                if (there := other._look()) is not None:
                    other._require_dead(there, on_wait)
        except BaseException:
            self.release()
            raise
        threading.Thread(target=self._keep, name="lease", daemon=True).start()

    def _require_dead(self, there: Mapping[str, Any], on_wait: Callable[[str], None]) -> None:
        """Raises: RunError: the owner is alive."""
        if not self._is_dead(there, on_wait):
            raise RunError(
                f"another run is using {self.name}: {_who(there)}",
                "wait for it, or choose another folder with --folder",
            )

    def include(self, process: int) -> None:
        """Adds a process of this host to the owner: the lease ends when all of them have ended."""
        if self._mine:
            self._processes.append(_process(process))
            self._write()

    @property
    def token(self) -> str:
        """The token for processes that work for the owner, in the variable `INHERITED`."""
        return self._token if self._mine else os.environ.get(INHERITED, "")

    def require(self) -> None:
        """Raises: Interrupted: another run has taken the folder."""
        if self._lost is not None:
            raise Interrupted(
                f"another run has taken {self.name} because this one did not answer: "
                f"{_who(self._lost)}",
                "run again once it has ended",
            )

    def release(self) -> None:
        """Gives up the lease."""
        self._ended.set()
        with self._changing:
            try:
                if self._mine and (self._look() or {}).get("token") == self._token:
                    self._remove()
            finally:
                self._mine = False

    @property
    def mine(self) -> bool:
        """Whether this process itself is the owner."""
        return self._mine

    def _look(self) -> dict[str, Any] | None:
        """The owner, if any."""
        return _read(self._path)

    def _remove(self) -> None:
        self._path.unlink(missing_ok=True)

    def _change(self) -> None:
        """Shows in the lease that this owner is alive."""
        # In place: other hosts may see a new file under the same name a minute late.
        with self._path.open("r+b") as file:
            file.write(self._content())
            file.truncate()
            file.flush()
            os.fsync(file.fileno())

    def _create(self, path: Path) -> bool:
        """Atomically creates a file of this owner unless it exists; returns whether it did."""
        partial = self._path.with_name(f"{LEASE}.{self._token}")
        with named(self._path):
            partial.write_bytes(self._content())
        try:
            os.link(partial, path)
        except FileExistsError:
            return False
        except OSError:  # the file system has no hard links
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
            # If the disk is full or the store is unreachable, the run ends at another write.
            with suppress(OSError, RunError):
                self._write()

    def _write(self) -> None:
        with self._changing:
            if not self._mine:
                return
            there = self._look()
            # A lease that cannot be read now is tried again at the next beat.
            if there and there.get("token") != self._token:
                self._lost = there
                self._mine = False
                return
            self._beats += 1
            if there is None:  # somebody has removed it
                self._create(self._path)
                return
            self._change()

    def _is_dead(self, there: Mapping[str, Any], on_wait: Callable[[str], None]) -> bool:
        job = os.environ.get("SLURM_JOB_ID")
        restarts = int(os.environ.get("SLURM_RESTART_COUNT") or 0)
        if job and there.get("slurm_job") == job and there.get("slurm_restarts", 0) < restarts:
            return True  # Slurm requeues a job only after all of it has ended
        if there.get("host") == socket.gethostname() and there.get("space") == _space():
            return self._has_ended(there.get("processes", []))
        on_wait(
            f"{self.name} is in use by {_who(there)}; waiting up to {DEAD_SECONDS:.0f} s to "
            "see whether that run is alive"
        )
        end = time.monotonic() + DEAD_SECONDS
        while time.monotonic() < end:
            time.sleep(min(1.0, BEAT_SECONDS))
            now = self._look()
            if now is None:
                return True  # it has ended and released the lease
            if now != there:
                return False
        return True

    def _has_ended(self, processes: list[dict[str, Any]]) -> bool:
        """Whether the processes of an owner on this host have ended; its child processes end
        slightly later than the first."""
        end = time.monotonic() + DEAD_SECONDS
        while any(_alive(each) for each in processes):
            if _alive(processes[0]) or time.monotonic() > end:
                return False
            time.sleep(0.1)
        return True

    def _succeed(self, path: Path, dead: Mapping[str, Any], on_wait: Callable[[str], None]) -> bool:
        """Replaces a dead owner with this one, unless another process does.

        Whichever process creates the successor file may replace the lease, and does so only while
        it still belongs to the dead owner. If that process dies first, it is replaced in the same
        way.

        Args:
            path: the file with the dead owner.

        Returns: whether this process is now the owner. If not, check the file again.
        """
        successor = self._path.with_name(f"{LEASE}.after-{dead.get('token', 'nobody')}")
        if not self._create(successor):
            other = _read(successor)
            if other is None:
                return False
            if not self._is_dead(other, on_wait):
                time.sleep(0.05)  # it is about to get the lease
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
    """The owner of the lease of a run folder.

    Attributes:
        process: the id of its first process on its host.
        since: when it started, in words.
        beat: its last sign of life, in seconds since 1970 by the file system's clock.
        alive: whether its processes are alive; None if they are on another host.
    """

    host: str
    user: str
    process: int
    slurm_job: str | None
    since: str
    beat: float
    alive: bool | None


def owner(folder: Path) -> Owner | None:
    """The owner of the lease of a run folder, dead or alive, if any.

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
    """The owner; None if there is none; empty if the lease cannot be read."""
    for _ in range(20):
        try:
            found = parsed(path.read_bytes())
        except FileNotFoundError:
            return None
        if found is not None:
            return found
        time.sleep(0.05)
    return {}


def parsed(content: bytes) -> dict[str, Any] | None:
    """The owner in a lease; None if it has not the form of one: half written, or damaged."""
    try:
        found = json.loads(content)
        processes = found["processes"]
        formed = all(type(each["pid"]) is int and "started" in each for each in processes)
        formed &= isinstance(processes, list) and type(found.get("slurm_restarts", 0)) is int
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return found if formed else None


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
    """What makes process ids unique: the machine's boot, and the container."""
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
    """When a process started, by the kernel's clock, since process ids are reused (Linux)."""
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
