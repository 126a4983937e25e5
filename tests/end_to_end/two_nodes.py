"""Two "nodes" of this machine: `etude` under a torchrun each, which meet by c10d, one rank each."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from etude_cli import environment


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def start_nodes(
    folder: Path, *arguments: str, variables: Sequence[Mapping[str, str]] = ({}, {})
) -> list["subprocess.Popen[str]"]:
    """Starts both nodes.

    Args:
        variables: of each node, beside those of this process.
    """
    torchrun = (
        f"{sys.executable} -m torch.distributed.run --nnodes 2 --nproc-per-node 1 --rdzv-id two "
        f"--rdzv-backend c10d --rdzv-endpoint 127.0.0.1:{free_port()}"
    )
    return [
        subprocess.Popen(
            [*torchrun.split(), "--module", "etude.cli.main", *arguments],
            cwd=folder,
            env={**environment(), "OMP_NUM_THREADS": "1", **own},
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        for own in variables
    ]


def kill(node: "subprocess.Popen[str]") -> None:
    """Kills a node: torchrun and its rank, which have a group of processes of their own."""
    os.killpg(node.pid, signal.SIGKILL)


def ended(nodes: Sequence["subprocess.Popen[str]"]) -> list[subprocess.CompletedProcess[str]]:
    """What both nodes have said and returned, once they have ended."""
    said = [node.communicate(timeout=900) for node in nodes]
    return [
        subprocess.CompletedProcess(node.args, node.returncode, *each)
        for node, each in zip(nodes, said, strict=True)
    ]


def on_two_nodes(
    folder: Path, *arguments: str, variables: Sequence[Mapping[str, str]] = ({}, {})
) -> list[subprocess.CompletedProcess[str]]:
    """Runs `etude` on both nodes to its end; arguments as for `start_nodes`."""
    return ended(start_nodes(folder, *arguments, variables=variables))
