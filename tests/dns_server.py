"""A DNS server for tests: UDP and TCP on one loopback port, with records that tests change while it runs.

It answers what is asked (RFC 1035, RFC 2782), fails (``failing``), is silent, or cuts its UDP answers short.
"""

from __future__ import annotations

import asyncio
import ipaddress
import struct
import threading
from types import TracebackType
from typing import Self

TYPES = {1: "A", 28: "AAAA", 33: "SRV"}
ANSWER, TRUNCATED, SERVFAIL, NXDOMAIN = 0x8180, 0x0200, 2, 3


def name_bytes(name: str) -> bytes:
    return b"".join(bytes([len(label)]) + label.encode() for label in name.rstrip(".").split(".")) + b"\0"


class DnsServer(asyncio.DatagramProtocol):
    """``records``: {(name, type): [(ttl, data)]}. ``questions``: what it was asked, as (name, type), in order.

    ``failing``: names that get SERVFAIL. ``silent``: answers nothing. ``truncating``: UDP says to ask over TCP.
    """

    def __init__(self) -> None:
        self.records: dict[tuple[str, str], list[tuple[int, bytes]]] = {}
        self.questions: list[tuple[str, str]] = []
        self.failing: set[str] = set()
        self.silent = False
        self.truncating = False
        self.over_tcp = 0
        self.address = ""
        self._udp: asyncio.DatagramTransport | None = None
        self._tcp: asyncio.Server | None = None

    async def start(self) -> str:
        """Listens; returns ``address``, which is for a resolver."""
        loop = asyncio.get_running_loop()
        while True:
            self._udp, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=("127.0.0.1", 0))
            port = self._udp.get_extra_info("sockname")[1]
            try:
                self._tcp = await asyncio.start_server(self._serve_tcp, "127.0.0.1", port)
            except OSError:
                self._udp.close()  # that port is free for UDP only
            else:
                self.address = f"127.0.0.1:{port}"
                return self.address

    def stop(self) -> None:
        assert self._udp is not None
        assert self._tcp is not None
        self._udp.close()
        self._tcp.close()

    def a(self, name: str, *ips: str, ttl: int = 60) -> None:
        """Adds addresses, of either family."""
        for ip in ips:
            address = ipaddress.ip_address(ip)
            kind = "A" if address.version == 4 else "AAAA"
            self.records.setdefault((name, kind), []).append((ttl, address.packed))

    def srv(self, name: str, priority: int, port: int, target: str, *, weight: int = 1, ttl: int = 60) -> None:
        data = struct.pack(">HHH", priority, weight, port) + name_bytes(target)
        self.records.setdefault((name, "SRV"), []).append((ttl, data))

    def remove(self, name: str) -> None:
        self.records = {key: value for key, value in self.records.items() if key[0] != name}

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        reply = self._reply(data, truncating=self.truncating)
        if reply is not None and self._udp is not None:
            self._udp.sendto(reply, addr)

    async def _serve_tcp(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                (length,) = struct.unpack(">H", await reader.readexactly(2))
                reply = self._reply(await reader.readexactly(length), truncating=False)
                self.over_tcp += 1
                if reply is not None:
                    writer.write(struct.pack(">H", len(reply)) + reply)
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            writer.close()

    def _reply(self, query: bytes, *, truncating: bool) -> bytes | None:
        labels, place = [], 12
        while length := query[place]:
            labels.append(query[place + 1 : place + 1 + length].decode())
            place += 1 + length
        kind, _ = struct.unpack_from(">HH", query, place + 1)
        name = ".".join(labels).lower()
        self.questions.append((name, TYPES.get(kind, str(kind))))
        if self.silent:
            return None
        flags, answers = ANSWER, self.records.get(self.questions[-1], [])
        if name in self.failing:
            flags, answers = flags | SERVFAIL, []
        elif not any(known == name for known, _ in self.records):
            flags |= NXDOMAIN
        elif truncating:
            flags, answers = flags | TRUNCATED, []
        head = struct.pack(">HHHHHH", struct.unpack_from(">H", query)[0], flags, 1, len(answers), 0, 0)
        reply = head + query[12 : place + 5]
        for ttl, record in answers:
            reply += struct.pack(">HHHIH", 0xC00C, kind, 1, ttl, len(record)) + record
        return reply


class DnsThread:
    """The same server on a loop of its own, for tests that have none: ``with DnsThread() as dns``."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="dns")
        self.server = DnsServer()
        self.address = ""

    def __enter__(self) -> Self:
        self._thread.start()
        self.address = asyncio.run_coroutine_threadsafe(self.server.start(), self._loop).result()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _end(self) -> None:
        self.server.stop()
        serving = asyncio.all_tasks() - {asyncio.current_task()}
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)
