"""Nodes of a gang agree on a number while no ranks run: the first node tells the others.

Each node could look at the run folder by itself, but a shared folder may show nodes different
states, and then they would start different phases.
"""

import socket
import time
from collections.abc import Callable

_RETRY = 1.0
"""Seconds between two attempts to reach the first node."""


def agreed(own: Callable[[], int], *, node: int, nodes: int, address: str, port: int) -> int:
    """The number that the first node finds. Nodes wait for each other without end: a node that is
    lost is for the engine to notice, which then starts all of them again.

    Args:
        own: finds it; called on the first node alone.
        node: this node's number, from 0, of `nodes`.
        address, port: of the first node, where rank 0 listens while ranks run.
    """
    if nodes == 1:
        return own()
    if node == 0:
        number = own()
        _tell(number, nodes - 1, port)
        return number
    while True:
        try:
            with socket.create_connection((address, port)) as first, first.makefile() as lines:
                if (line := lines.readline()).startswith(_MARK):
                    return int(line.removeprefix(_MARK))
        except (OSError, ValueError):  # not there yet, or still another program
            pass
        time.sleep(_RETRY)


_MARK = "etude phase "


def _tell(number: int, others: int, port: int) -> None:
    dual = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if dual else socket.AF_INET
    with socket.create_server(("", port), family=family, dualstack_ipv6=dual) as server:
        for _ in range(others):
            other, _ = server.accept()
            with other:
                other.sendall(f"{_MARK}{number}\n".encode())
