"""The GPUs of this machine, without torch."""

import os
import shutil
import subprocess

_QUERY = ("--query-gpu=name", "--format=csv,noheader")


def gpus() -> list[str]:
    """The names of the GPUs that a process may use, from `nvidia-smi`; [] if there are none.

    CUDA_VISIBLE_DEVICES hides those that it does not name.
    """
    command = shutil.which("nvidia-smi")
    if command is None:
        return []
    try:
        done = subprocess.run(
            [command, *_QUERY], capture_output=True, text=True, timeout=30, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return []
    names = [line.strip() for line in done.stdout.splitlines() if line.strip()]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return names
    chosen = [each.strip() for each in visible.split(",") if each.strip() not in ("", "-1")]
    numbered = [int(each) for each in chosen if each.isdecimal()]
    if len(numbered) < len(chosen):  # named by UUID, in their own order
        return names[: len(chosen)]
    return [names[number] for number in numbered if number < len(names)]
