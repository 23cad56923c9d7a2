"""The count of bytes between regions, against transfers of a known size."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from benchmarks.traffic import Traffic

SENT_BYTES = 1_234_567
ANSWERED_BYTES = 89
_PEER = f"""
import socket, sys
peer = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
for _ in iter(sys.stdin.readline, ""):
    left = {SENT_BYTES}
    while left:
        left -= len(peer.recv(left))
    peer.sendall(bytes({ANSWERED_BYTES}))
"""


@pytest.fixture
def peer() -> Iterator[tuple[subprocess.Popen[str], socket.socket]]:
    """Another process, and a connection to it."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        command = [sys.executable, "-c", _PEER, str(server.getsockname()[1])]
        with subprocess.Popen(command, stdin=subprocess.PIPE, text=True) as process:
            connection, _ = server.accept()
            with connection:
                yield process, connection
            process.kill()


def transfer(process: subprocess.Popen[str], connection: socket.socket) -> None:
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()
    connection.sendall(bytes(SENT_BYTES))
    left = ANSWERED_BYTES
    while left:
        left -= len(connection.recv(left))


def test_both_directions_of_a_connection_between_regions_are_counted(
    peer: tuple[subprocess.Popen[str], socket.socket],
) -> None:
    process, connection = peer
    regions = {"here": [os.getpid()], "there": [process.pid]}
    transfer(process, connection)
    before = Traffic.of(regions)
    transfer(process, connection)
    after = Traffic.of(regions)
    assert after.connections == 1
    assert after.since(before) == SENT_BYTES + ANSWERED_BYTES


def test_a_connection_within_a_region_is_not_counted(peer: tuple[subprocess.Popen[str], socket.socket]) -> None:
    process, connection = peer
    transfer(process, connection)
    assert Traffic.of({"here": [os.getpid(), process.pid], "there": []}).connections == 0
