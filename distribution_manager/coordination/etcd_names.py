"""Keeps the connections to etcd at the addresses that its endpoints' names stand for.

Model: a task per name waits until the answer of DNS expires, or until an endpoint failed to answer, and asks again;
literal addresses are there from the beginning and need none.
Invariant: the endpoints of all names, in the order of the settings, are the connections' targets; a name that has no
address any more keeps those it had.
"""

from __future__ import annotations

import asyncio
import logging

from distribution_manager.coordination.etcd_connection import Connections
from shadow_nodes.protocol.errors import ProtocolError
from shadow_nodes.resolve import Endpoint, Resolver, is_fixed

log = logging.getLogger(__name__)

ASK_PAUSE_S = 0.2
"""Between two questions for a name, however often its endpoints fail to answer."""
UNKNOWN_PAUSE_S = 1.0
"""Until a name that has never had an address is asked for again."""


class EtcdNames:
    def __init__(self, names: tuple[str, ...], resolver: Resolver) -> None:
        self._resolver = resolver
        self._found: dict[str, list[Endpoint]] = {name: [] for name in names}
        self._suspected = {name: asyncio.Event() for name in names}
        self._connections: Connections | None = None
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def stale(self) -> int:
        return self._resolver.stale

    async def start(self, connections: Connections) -> None:
        self._connections = connections
        for name in self._found:
            if is_fixed(name):
                self._found[name] = await self._resolver.resolve(name)
            else:
                self._tasks.append(asyncio.create_task(self._follow(name), name=f"etcd at {name}"))
        self._tell()

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._resolver.close()

    def suspect(self, endpoint: Endpoint) -> None:
        """It failed to answer: its names are asked for again."""
        self._resolver.failed(endpoint)
        for name, found in self._found.items():
            if endpoint in found:
                self._resolver.forget(name)
                self._suspected[name].set()

    def _tell(self) -> None:
        assert self._connections is not None
        self._connections.set_targets([endpoint for found in self._found.values() for endpoint in found])

    async def _follow(self, name: str) -> None:
        while True:
            try:
                found = await self._resolver.resolve(name)
            except (OSError, ProtocolError) as error:
                log.warning("etcd: %s has no address: %s", name, error)
                await asyncio.sleep(UNKNOWN_PAUSE_S)
                continue
            if set(found) != set(self._found[name]):
                self._found[name] = found
                log.info("etcd: %s is %s", name, ", ".join(f"{each.host}:{each.port}" for each in found))
                self._tell()
            await asyncio.sleep(ASK_PAUSE_S)
            await self._until_worth_asking(name)

    async def _until_worth_asking(self, name: str) -> None:
        """The answer has expired and is renewed, or an endpoint failed, and DNS has been asked again."""
        suspected = asyncio.create_task(self._suspected[name].wait())
        expired = asyncio.create_task(self._resolver.expired(name))
        try:
            await asyncio.wait([suspected, expired], return_when=asyncio.FIRST_COMPLETED)
            if suspected.done():
                self._suspected[name].clear()
                await self._resolver.renewed(name)
        finally:
            suspected.cancel()
            expired.cancel()
