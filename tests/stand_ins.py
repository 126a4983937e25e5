"""Stand-ins for programs of engines: shell scripts in a folder of their own, before all others in
PATH, which write down how they were called."""

import os
from pathlib import Path

import pytest


class Programs:
    """Programs that tests write."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._calls = folder / "calls"
        folder.mkdir()

    def write(self, name: str, body: str) -> None:
        """A program that notes its call, and then does what its body says."""
        path = self.folder / name
        path.write_text(f'#!/bin/sh\necho "{name} $*" >> {self._calls}\n{body}\n')
        path.chmod(0o755)

    def slurm(self, states: dict[str, str]) -> None:
        """A Slurm with jobs in these states, of which those end that are cancelled or told to."""
        queue = self.folder / "queue"
        queue.write_text("".join(f"{job} {state}\n" for job, state in states.items()))
        self.write("squeue", f"cat {queue}")
        self.write("scontrol", "")
        remove = 'for job in "$@"; do sed -i "/^$job /d" '
        self.write("scancel", f"{remove} {queue}; done")

    def called(self, *names: str) -> list[str]:
        """How these programs were called, in order."""
        lines = self._calls.read_text().splitlines() if self._calls.exists() else []
        return [line for line in lines if line.partition(" ")[0] in names]


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Programs:
    """Programs before all others in PATH."""
    found = Programs(tmp_path / "programs")
    monkeypatch.setenv("PATH", f"{found.folder}{os.pathsep}{os.environ['PATH']}")
    return found
