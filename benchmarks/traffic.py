"""Bytes between regions, counted by the kernel: what each TCP connection between two regions' processes has delivered.

Model: the regions of a system on this machine are groups of its processes. A snapshot asks the kernel for every TCP
socket (``NETLINK_SOCK_DIAG``, what ``ss -ti`` prints) and keeps ``bytes_received`` of those that a process of one
region holds and whose other end a process of another region holds: both directions, payload alone, no TCP or IP
headers, no acknowledgements. Invariant: only connections that are there at both snapshots are told exactly; one that
closed between them is missed, so links must persist while something is measured.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

NETLINK_SOCK_DIAG = 4
SOCK_DIAG_BY_FAMILY = 20
NLM_F_REQUEST_DUMP = 0x301
NLMSG_ERROR = 2
NLMSG_DONE = 3
INET_DIAG_INFO = 2
ESTABLISHED = 1 << 1
RECEIVE_BYTES = 1 << 18
_HEADER = struct.Struct("=IHHII")
_REQUEST = struct.Struct("=BBBBI48x")
_SOCKET = struct.Struct("=4x2s2s16s16s4x8s16xI")
"""Of struct inet_diag_msg: ports and addresses of both ends, cookie, inode."""
_ATTRIBUTE = struct.Struct("=HH")
_RECEIVED_OFFSET = 128
"""Of tcpi_bytes_received in struct tcp_info (linux/tcp.h), 64 bits."""

Regions = Mapping[str, Sequence[int]]
"""Region -> the pids of its processes."""
End = tuple[bytes, bytes]
"""(address, port)"""


class _Socket(NamedTuple):
    inode: int
    cookie: bytes
    here: End
    there: End
    received_bytes: int


class Traffic:
    """The bytes delivered so far on each connection between regions, by the receiving socket's cookie."""

    def __init__(self, received: dict[bytes, int]) -> None:
        self._received = received

    @classmethod
    def of(cls, regions: Regions) -> Traffic:
        """Raises OSError where the kernel does not tell."""
        holders = {inode: region for region, pids in regions.items() for pid in pids for inode in _inodes(pid)}
        sockets = [item for item in _sockets() if item.inode in holders]
        region_at = {(item.here, item.there): holders[item.inode] for item in sockets}
        received = {}
        for item in sockets:
            other = region_at.get((item.there, item.here))
            if other is not None and other != holders[item.inode]:
                received[item.cookie] = item.received_bytes
        return cls(received)

    @property
    def connections(self) -> int:
        return len(self._received) // 2

    def since(self, before: Traffic) -> int:
        """Bytes delivered after an earlier snapshot."""
        return sum(count - before._received.get(cookie, 0) for cookie, count in self._received.items())


def _inodes(pid: int) -> Iterator[int]:
    """Of the sockets that a process has open; none where it is gone."""
    with suppress(OSError):
        for entry in os.scandir(f"/proc/{pid}/fd"):
            with suppress(OSError):
                target = str(Path(entry.path).readlink())
                if target.startswith("socket:["):
                    yield int(target[8:-1])


def _sockets() -> Iterator[_Socket]:
    for family in (socket.AF_INET, socket.AF_INET6):
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_SOCK_DIAG) as link:
            request = _REQUEST.pack(family, socket.IPPROTO_TCP, 1 << (INET_DIAG_INFO - 1), 0, ESTABLISHED)
            link.send(
                _HEADER.pack(_HEADER.size + len(request), SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST_DUMP, 1, 0) + request
            )
            yield from _answers(link)


def _answers(link: socket.socket) -> Iterator[_Socket]:
    while True:
        received = link.recv(RECEIVE_BYTES)
        place = 0
        while place < len(received):
            size, kind, _, _, _ = _HEADER.unpack_from(received, place)
            if kind == NLMSG_DONE:
                return
            if kind == NLMSG_ERROR:
                number = -struct.unpack_from("=i", received, place + _HEADER.size)[0]
                raise OSError(number, f"the kernel does not list its sockets: {os.strerror(number)}")
            found = _parse(received[place + _HEADER.size : place + size])
            if found is not None:
                yield found
            place += (size + 3) & ~3


def _parse(message: bytes) -> _Socket | None:
    """None where the kernel gave no tcp_info with it."""
    port, other_port, address, other_address, cookie, inode = _SOCKET.unpack_from(message)
    place = _SOCKET.size
    while place < len(message):
        size, kind = _ATTRIBUTE.unpack_from(message, place)
        if kind == INET_DIAG_INFO:
            count = struct.unpack_from("=Q", message, place + _ATTRIBUTE.size + _RECEIVED_OFFSET)[0]
            return _Socket(inode, cookie, (_plain(address), port), (_plain(other_address), other_port), count)
        place += (size + 3) & ~3
    return None


def _plain(address: bytes) -> bytes:
    """An IPv4 address that an IPv6 socket sees, as the other end sees itself."""
    mapped = address[:12] == bytes(10) + b"\xff\xff"
    return address[12:] + bytes(12) if mapped else address
