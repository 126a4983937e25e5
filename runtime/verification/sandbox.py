"""Runs Python that a model has written in a sandbox: bubblewrap, with namespaces of its own and a
filter of system calls.

The program sees Python and the system's libraries, which it cannot change, and an empty folder
`/tmp` of 16 MiB. It has no network, no environment, no other process, and cannot start one: calls
that would are refused. Its processor time, memory, file sizes and open files are limited.
"""

import json
import os
import platform
import secrets
import select
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

SECONDS = 5
"""Processor time of a program."""
WAIT = 20
"""Seconds until a program that waits, and takes no processor time, is ended."""
MEMORY = 512 << 20
"""Bytes of address space."""
FOLDER = 16 << 20
"""Bytes of the one folder that can be written."""
LIMITS = {
    "RLIMIT_CPU": SECONDS,
    "RLIMIT_AS": MEMORY,
    "RLIMIT_FSIZE": FOLDER,
    "RLIMIT_NOFILE": 64,
    "RLIMIT_CORE": 0,
}
_INSIDE = Path(__file__).with_name("inside.py")
_SYSTEM = ("/usr", "/lib", "/lib64", "/bin")
"""Folders of the system's libraries."""

_ALLOW, _KILL = 0x7FFF0000, 0x80000000
_REFUSE, _UNKNOWN = 0x00050000 | 1, 0x00050000 | 38  # EPERM; ENOSYS, after which libc tries clone
_LOAD, _EQUAL, _ANY, _ABOVE, _RETURN = 0x20, 0x15, 0x45, 0x35, 0x06
_THREAD = 0x00010000  # CLONE_THREAD
_CLONE3 = 435
_MACHINES = {
    # (AUDIT_ARCH, clone, calls that start processes, namespaces or look at others)
    "x86_64": (0xC000003E, 56, (57, 58, 101, 272, 308, 310, 311, 425)),
    "aarch64": (0xC00000B7, 220, (117, 97, 268, 270, 271, 425)),
}
"""Machine → its numbers, from the kernel's tables of system calls: fork, vfork, ptrace, unshare,
setns, process_vm_readv, process_vm_writev, io_uring_setup."""


class NoSandbox(Exception):
    """There is no sandbox on this machine.

    Attributes:
        message, help: for people.
    """

    def __init__(self, message: str, help: str) -> None:
        super().__init__(message)
        self.message, self.help = message, help


def require() -> None:
    """Tries the sandbox on a program that passes and on one that fails.

    Raises: NoSandbox: it does not work here.
    """
    help = "on Debian and Ubuntu: apt-get install bubblewrap; it needs Linux with user namespaces"
    if shutil.which("bwrap") is None:
        raise NoSandbox("bubblewrap, in which answers are run, is not installed", help)
    if platform.machine() not in _MACHINES:
        raise NoSandbox(f"answers cannot be run on {platform.machine()} machines", "use x86_64")
    if not passes("x = 1", "assert x == 1") or passes("x = 1", "assert x == 2"):
        raise NoSandbox("bubblewrap does not start a program on this machine", help)


def passes(code: str, tests: str) -> bool:
    """Whether Python code and then its tests run to their end, within the limits, without an
    exception. A program that ends before its tests have run does not pass."""
    word = secrets.token_hex(16)
    given = {"code": code, "tests": tests, "word": word, "limits": LIMITS}
    with tempfile.TemporaryFile() as rules, tempfile.TemporaryFile() as asked:
        for file, content in ((rules, _filter()), (asked, json.dumps(given).encode())):
            file.write(content)
            file.seek(0)
        process = subprocess.Popen(
            _command(rules.fileno()),
            stdin=asked,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            pass_fds=(rules.fileno(),),
            start_new_session=True,
        )
        try:
            assert process.stdout
            return _said(process.stdout.fileno(), len(word)) == word.encode()
        finally:
            process.kill()  # and with it all that it started
            process.wait()
            if process.stdout:
                process.stdout.close()


def _said(place: int, length: int) -> bytes:
    """What a program says in time; no more than a little beyond a length."""
    until, found = time.monotonic() + WAIT, b""
    while len(found) <= length:
        left = until - time.monotonic()
        if left <= 0 or not select.select([place], [], [], left)[0]:
            return b""
        more = os.read(place, 4096)
        if not more:
            break
        found += more
    return found


def _command(rules: int) -> list[str]:
    python = os.path.realpath(sys.executable)
    folders = [each for each in (*_SYSTEM, sys.base_prefix) if os.path.isdir(each)]
    mounts: list[str] = []
    for each in dict.fromkeys(folders):
        link = os.readlink(each) if os.path.islink(each) else ""
        mounts += ["--symlink", link, each] if link else ["--ro-bind", each, each]
    return [
        "bwrap",
        "--unshare-all",
        "--die-with-parent",
        "--new-session",
        "--clearenv",
        *("--cap-drop", "ALL"),
        *mounts,
        *("--proc", "/proc"),
        *("--dev", "/dev"),
        *("--remount-ro", "/dev"),
        *("--size", str(FOLDER), "--tmpfs", "/tmp"),
        *("--remount-ro", "/"),
        *("--chdir", "/tmp"),
        # Sets of texts have the same order in every run.
        *("--setenv", "PYTHONHASHSEED", "0"),
        *("--seccomp", str(rules)),
        "--",
        *(python, "-s", "-S", "-P", "-c", _INSIDE.read_text(encoding="utf-8")),
    ]


def _filter() -> bytes:
    """A program for the kernel's filter of system calls (seccomp): no new process, but threads."""
    machine, clone, refused = _MACHINES[platform.machine()]
    more: Sequence[tuple[int, int, int, int]] = ()
    if platform.machine() == "x86_64":  # the calls of the x32 interface
        more = [(_ABOVE, 0x40000000, 0, 1), (_RETURN, _KILL, 0, 0)]
    program = [
        (_LOAD, 4, 0, 0),
        (_EQUAL, machine, 1, 0),
        (_RETURN, _KILL, 0, 0),
        (_LOAD, 0, 0, 0),
        *more,
        (_EQUAL, _CLONE3, 0, 1),
        (_RETURN, _UNKNOWN, 0, 0),
        *(
            step
            for number in refused
            for step in ((_EQUAL, number, 0, 1), (_RETURN, _REFUSE, 0, 0))
        ),
        (_EQUAL, clone, 1, 0),
        (_RETURN, _ALLOW, 0, 0),
        (_LOAD, 16, 0, 0),
        (_ANY, _THREAD, 0, 1),
        (_RETURN, _ALLOW, 0, 0),
        (_RETURN, _REFUSE, 0, 0),
    ]
    return b"".join(struct.pack("=HBBI", code, yes, no, value) for code, value, yes, no in program)
