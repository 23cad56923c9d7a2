"""Real etcd processes, a network to them that can be cut, and a reader that checks every watch it follows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, suppress
from pathlib import Path
from typing import Any

import pytest

from distribution_manager.coordination.embedded import EmbeddedEtcd, free_ports
from distribution_manager.coordination.etcd import EtcdCoordination
from distribution_manager.coordination.etcd_settings import EtcdSettings
from distribution_manager.coordination.interface import Coordination, CoordinationUnavailable
from distribution_manager.core.transactions import Change, Put, Snapshot, Transaction
from shadow_nodes.protocol.errors import OutcomeUnknownError
from tests.dns_server import DnsServer

POLL_S = 0.01


async def until(condition: Callable[[], object], timeout_s: float = 15.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110 - conditions are of other processes
            await asyncio.sleep(POLL_S)


class Proxy:
    """A TCP connection between a client and a server that a test can cut, or make one-way."""

    def __init__(self, port: int) -> None:
        self.replies_pass = True
        self.accepted = 0
        self._to = port
        self._server: asyncio.Server | None = None
        self._pumps: set[asyncio.Task[None]] = set()
        self._silent: set[asyncio.Task[None]] = set()
        (self.port,) = free_ports(1)

    @property
    def endpoint(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def open(self) -> None:
        self.replies_pass = True
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)

    def forget_old_connections(self) -> None:
        """Connections opened from now on are whole; the open ones stay open and silent, as behind a lost NAT entry."""
        self._silent |= self._pumps
        self.replies_pass = True

    async def cut(self) -> None:
        if self._server:
            self._server.close()
            self._server = None
        for pump in list(self._pumps):
            pump.cancel()
        await asyncio.gather(*self._pumps, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._to)
        except OSError:
            writer.close()
            return
        for source, target, replies in ((reader, far_writer, False), (far_reader, writer, True)):
            pump = asyncio.create_task(self._pump(source, target, replies))
            self._pumps.add(pump)
            pump.add_done_callback(self._pumps.discard)

    async def _pump(self, source: asyncio.StreamReader, target: asyncio.StreamWriter, replies: bool) -> None:
        with suppress(OSError):
            try:
                while data := await source.read(65536):
                    silent = asyncio.current_task() in self._silent
                    if not silent and (self.replies_pass or not replies):
                        target.write(data)
            finally:
                target.close()


class Follower:
    """Follows a watch in a task, as a manager's cache would, and stops at a gap or a repeat."""

    def __init__(self, coordination: Coordination) -> None:
        self.snapshots = 0
        self.revision = 0
        self.known: dict[str, bytes] = {}
        self.changes: list[Change] = []
        self._coordination = coordination
        self.task = asyncio.create_task(self._follow())

    async def _follow(self) -> None:
        async with aclosing(self._coordination.watch()) as watch:
            async for item in watch:
                if isinstance(item, Snapshot):
                    self.snapshots += 1
                    self.revision = item.revision
                    self.known = {each.key: each.value for each in item.items}
                    continue
                assert item
                assert item[0].mod_revision > self.revision, "a repeat"
                assert [change.mod_revision for change in item] == sorted(change.mod_revision for change in item)
                self.revision = item[-1].mod_revision
                self.changes += item
                for change in item:
                    if change.value is None:
                        assert self.known.pop(change.key, None) is not None, "a removal of what was never put: a gap"
                    else:
                        self.known[change.key] = change.value

    async def until(self, condition: Callable[[], object], timeout_s: float = 15.0) -> None:
        await until(lambda: self.task.done() or condition(), timeout_s)
        if self.task.done():
            self.task.result()

    async def same_as(self, coordination: Coordination) -> None:
        """Waits until it knows exactly what is stored."""
        stored = {item.key: item.value for item in (await coordination.list_prefix("")).items}
        await self.until(lambda: self.known == stored)


class Bench:
    """Makes what a test needs, and ends it after the test."""

    until = staticmethod(until)

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._made: list[Any] = []

    def etcd(self, name: str = "etcd", **options: Any) -> EmbeddedEtcd:
        etcd = EmbeddedEtcd(self.folder / name, name=name, **options)

        async def kill() -> None:
            etcd.kill()

        self._made.append(kill)
        return etcd

    async def three_members(self) -> list[EmbeddedEtcd]:
        """A cluster that serves."""
        ports = free_ports(6)
        cluster = {f"m{i}": ports[i] for i in range(3)}
        members = [
            self.etcd(name, peer_port=port, client_port=ports[3 + i], cluster=cluster, election_ms=500)
            for i, (name, port) in enumerate(cluster.items())
        ]
        for member in members:
            await member.start(wait=False)
        for member in members:
            await member.wait_serving()
        return members

    async def proxy(self, etcd: EmbeddedEtcd) -> Proxy:
        proxy = Proxy(etcd.client_port)
        await proxy.open()
        self._made.append(proxy.cut)
        return proxy

    async def dns(self) -> DnsServer:
        dns = DnsServer()
        await dns.start()

        async def stop() -> None:
            dns.stop()

        self._made.append(stop)
        return dns

    async def connect(self, *endpoints: str, **settings: Any) -> EtcdCoordination:
        settings = {"session_ttl_s": 1, "call_timeout_s": 1.0} | settings
        coordination = EtcdCoordination(EtcdSettings("drill", endpoints, **settings))
        await coordination.start()
        self._made.append(coordination.close)
        return coordination

    async def put(self, coordination: Coordination, key: str) -> int:
        """Puts until it is known to be done; returns the revision."""
        async with asyncio.timeout(15):
            while True:
                try:
                    return (await coordination.transact(Transaction([], [Put(key, b"")]))).revision
                except (OutcomeUnknownError, CoordinationUnavailable):
                    continue

    async def follow(self, coordination: Coordination) -> Follower:
        follower = Follower(coordination)

        async def end() -> None:
            follower.task.cancel()
            await asyncio.gather(follower.task, return_exceptions=True)

        self._made.append(end)
        await follower.until(lambda: follower.snapshots)
        return follower

    async def end(self) -> None:
        for end in reversed(self._made):
            await end()


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    bench = Bench(tmp_path)
    try:
        yield bench
    finally:
        await bench.end()
