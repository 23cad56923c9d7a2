"""Carries out Pulls: copies committed entries, or a snapshot, of a shard from another node.

Model: one pull per shard at a time, a bounded number in all. Entries are asked for first; a source whose log begins
later has a snapshot, which is staged chunk by chunk and installed by the core once its end has come.
Invariant: the core is told of entries and snapshots that came whole, or of failure; every pull ends in one of them.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import ssl
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import aiohttp

from shadow_nodes.core.node import Pull
from shadow_nodes.core.store import Store
from shadow_nodes.driver import Driver
from shadow_nodes.metrics import NodeMetrics
from shadow_nodes.pace import Pace
from shadow_nodes.protocol.commands import ShardKey
from shadow_nodes.protocol.errors import NoRoomError, ProtocolError
from shadow_nodes.protocol.messages import Position
from shadow_nodes.replica_stream import (
    BrokenStreamError,
    SnapshotEnd,
    SnapshotHead,
    SnapshotRows,
    read_part,
    unpack_log,
    unpack_snapshot,
)
from shadow_nodes.resolve import Endpoint, Resolver

PULLS_MAX = 4
CONNECT_SECONDS_MAX = 5.0
STALL_SECONDS_MAX = 15.0
"""A source that sends nothing for this long has failed."""

log = logging.getLogger(__name__)


class Replication:
    def __init__(
        self,
        driver: Driver,
        store: Store,
        metrics: NodeMetrics,
        *,
        headers: dict[str, str],
        tls: ssl.SSLContext | None,
        resolver: Resolver,
        pace: Pace,
    ) -> None:
        self._driver = driver
        self._store = store
        self._metrics = metrics
        self._headers = headers
        self._tls = tls
        self._resolver = resolver
        self._pace = pace
        self._scheme = "http" if tls is None else "https"
        self._session: aiohttp.ClientSession | None = None
        self._running: dict[ShardKey, asyncio.Task[None]] = {}
        self._next: dict[ShardKey, Pull] = {}
        self._room = asyncio.Semaphore(PULLS_MAX)
        self._numbers = itertools.count(1)
        self._stager = ThreadPoolExecutor(1, "stager")

    def start(self, pull: Pull) -> None:
        """Returns at once; the pull follows any of the same shard that is still running."""
        if pull.shard in self._running:
            self._next[pull.shard] = pull
            return
        task = asyncio.create_task(self._run(pull), name=f"pull {pull.shard}")
        self._running[pull.shard] = task
        task.add_done_callback(lambda _: self._ended(pull.shard))

    def _ended(self, shard: ShardKey) -> None:
        del self._running[shard]
        following = self._next.pop(shard, None)
        if following is not None:
            self.start(following)

    async def close(self) -> None:
        self._next.clear()
        tasks = list(self._running.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        if self._session is not None:
            await self._session.close()
        await asyncio.to_thread(self._stager.shutdown)

    # --- one pull --------------------------------------------------------------------------------------------------

    async def _run(self, pull: Pull) -> None:
        core = self._driver.core
        async with self._room:
            try:
                outcome = await self._copy(pull)
            except (aiohttp.ClientError, OSError, TimeoutError, ProtocolError, BrokenStreamError) as error:
                outcome = "failed"
                log.warning("cannot copy from %s: %r", pull.source, error, extra={"shard": pull.shard})
            self._metrics.pulls[outcome] += 1
            if outcome == "failed":
                self._driver.guard(core.pull_failed, pull)
            self._driver.wake()

    async def _copy(self, pull: Pull) -> str:
        """From the first of the source's addresses that can be connected to; what became of it.

        Raises the errors of the network, ProtocolError and BrokenStreamError.
        """
        failed: Exception = ProtocolError(f"{pull.source} stands for no address")
        for endpoint in await self._resolver.resolve(pull.source):
            try:
                outcome = await self._copy_from(endpoint, pull)
            except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
                self._resolver.failed(endpoint)
                failed = error
            else:
                self._resolver.answered(endpoint)
                return outcome
        self._resolver.forget(pull.source)
        raise failed

    async def _copy_from(self, endpoint: Endpoint, pull: Pull) -> str:
        if self._session is None:
            connector = aiohttp.TCPConnector(limit=0)
            timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS_MAX, sock_read=STALL_SECONDS_MAX)
            self._session = aiohttp.ClientSession(connector=connector, headers=self._headers, timeout=timeout)
        url = endpoint.url(self._scheme, f"/replica/{pull.shard}")
        security: dict[str, Any] = {} if self._tls is None else {"ssl": self._tls, "server_hostname": endpoint.name}
        async with self._session.get(f"{url}/log", params={"after": pull.after_seq}, **security) as response:
            if response.status == 204:
                self._driver.guard_input(self._driver.core.pulled, pull, [])
                return "complete"
            if response.status == 200:
                await self._take_log(pull, response.content)
                return "entries"
            if response.status != 410:
                raise BrokenStreamError(f"{response.status}: {(await response.text()).strip()}")
        async with self._session.get(f"{url}/snapshot", **security) as response:
            if response.status != 200:
                raise BrokenStreamError(f"{response.status}: {(await response.text()).strip()}")
            return await self._take_snapshot(pull, response.content)

    async def _next_part(self, stream: aiohttp.StreamReader) -> tuple[int, bytes]:
        part = await read_part(stream)
        await self._pace.take(len(part[1]))
        return part

    async def _take_log(self, pull: Pull, stream: aiohttp.StreamReader) -> None:
        """Each part counts as soon as it has come. Raises BrokenStreamError, ProtocolError."""
        after_seq = pull.after_seq
        while entries := unpack_log(await self._next_part(stream), after_seq):
            self._driver.guard_input(self._driver.core.pulled, pull, entries)
            self._driver.wake()
            after_seq = entries[-1].seq
            await asyncio.sleep(0)
            await self._driver.settled()

    async def _take_snapshot(self, pull: Pull, stream: aiohttp.StreamReader) -> str:
        driver = self._driver
        head = unpack_snapshot(await read_part(stream))
        if not isinstance(head, SnapshotHead) or head.shard != pull.shard:
            raise BrokenStreamError(f"not the head of a snapshot of {pull.shard}")
        wanted: list[bool] = []
        driver.guard(lambda: wanted.append(driver.core.snapshot_wanted(pull, head.checkpoint)))
        if wanted != [True]:
            return "unneeded"
        log.info("copying a snapshot from %s", pull.source, extra={"shard": pull.shard})
        number = next(self._numbers)
        driver.copying += 1
        try:
            await self._stage_all(pull.shard, number, head.checkpoint, stream)
        finally:
            driver.copying -= 1
        driver.guard(driver.core.install, pull, number, head.checkpoint)
        return "snapshot"

    async def _stage_all(
        self, shard: ShardKey, number: int, checkpoint: Position, stream: aiohttp.StreamReader
    ) -> None:
        """Raises BrokenStreamError unless every row came and was staged."""
        loop = asyncio.get_running_loop()
        count = 0
        while True:
            part = unpack_snapshot(await self._next_part(stream))
            if isinstance(part, SnapshotHead):
                raise BrokenStreamError("a second head")
            rows = part.rows if isinstance(part, SnapshotRows) else []
            if isinstance(part, SnapshotEnd):
                if part.rows != count:
                    raise BrokenStreamError(f"{count} of {part.rows} rows came")
                if count:
                    return
            try:
                await loop.run_in_executor(self._stager, self._store.stage, shard, number, checkpoint, rows)
            except NoRoomError as error:
                raise BrokenStreamError(str(error)) from error
            except Exception as error:
                self._driver.fail(error)
                raise BrokenStreamError("the store failed") from error
            if isinstance(part, SnapshotEnd):
                return
            count += len(rows)
