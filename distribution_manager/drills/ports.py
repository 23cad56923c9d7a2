"""Loopback ports for local clusters.

Model: ports are chosen below the range that the kernel hands to outgoing connections: a killed process's port is then
still free when the process is started again, however many connections clients have opened meanwhile.
"""

from __future__ import annotations

import random
import socket
from typing import Final

LOOPBACK: Final = "127.0.0.1"
CHOSEN_FROM: Final = range(20_000, 32_000)
ATTEMPTS: Final = 1_000


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def free_ports(count: int, avoid: frozenset[int] = frozenset()) -> list[int]:
    """Different free ports, none of them in ``avoid``. Raises OSError when there are none."""
    chosen: list[int] = []
    for _ in range(ATTEMPTS):
        if len(chosen) == count:
            return chosen
        port = random.choice(CHOSEN_FROM)
        if port not in avoid and port not in chosen and is_free(port):
            chosen.append(port)
    raise OSError(f"no {count} free ports on {LOOPBACK}")


def free_run(count: int) -> int:
    """The first of ``count`` free ports in a row. Raises OSError when there are none."""
    for _ in range(ATTEMPTS):
        first = random.choice(CHOSEN_FROM[:-count])
        if all(is_free(first + offset) for offset in range(count)):
            return first
    raise OSError(f"no {count} free ports in a row on {LOOPBACK}")
