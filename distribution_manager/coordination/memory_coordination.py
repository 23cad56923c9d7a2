"""The async interface over a MemoryCluster, for tests of what uses coordination.

Model: several managers in one process share one cluster object, as they would share an etcd.
Invariant: the same contract suite passes against this and against a real etcd.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from typing import TypeVar

from distribution_manager.coordination.interface import CoordinationUnavailable, Counters
from distribution_manager.coordination.memory import MemoryCluster, MemoryWatch
from distribution_manager.core.transactions import Change, KeyValue, Outcome, Snapshot, Transaction
from shadow_nodes.protocol.errors import OutcomeUnknownError, RejectedError

T = TypeVar("T")

SESSION_TTL_MS = 5_000


class MemoryCoordination:
    """Implements interface.Coordination. Its lease ends only when a test says so (``cluster.expire``, ``tick``)."""

    def __init__(self, cluster: MemoryCluster | None = None) -> None:
        self.cluster = cluster or MemoryCluster()
        self._counters = Counters()
        self._healthy = False
        self._session: int | None = None
        self._callbacks: list[Callable[[int], None]] = []
        self._events: set[asyncio.Event] = set()
        self._started = False
        self._closed = False

    @property
    def healthy(self) -> bool:
        return self._healthy

    @property
    def counters(self) -> Counters:
        return self._counters

    @property
    def session(self) -> int | None:
        return self._session

    def on_session(self, callback: Callable[[int], None]) -> None:
        self._callbacks.append(callback)
        if self._session is not None:
            callback(self._session)

    async def start(self) -> None:
        self._started = True
        self.cluster.listeners.append(self._look)
        self._look()

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._started:
            self.cluster.listeners.remove(self._look)
        if self._session is not None:
            with suppress(RejectedError):
                self.cluster.revoke(self._session)
        self._session = None
        self._wake_watches()

    async def transact(self, transaction: Transaction) -> Outcome:
        return await self._call(lambda: self.cluster.transact(transaction, self._session))

    async def get(self, key: str) -> KeyValue | None:
        return await self._call(lambda: self.cluster.get(key))

    async def list_prefix(self, prefix: str) -> Snapshot:
        return await self._call(lambda: self.cluster.list_prefix(prefix))

    async def watch(self) -> AsyncGenerator[Snapshot | list[Change], None]:
        watch, event = MemoryWatch(self.cluster), asyncio.Event()
        self._events.add(event)
        try:
            while not self._closed:
                event.clear()
                while (item := watch.step()) is not None:
                    self._counters.watch_snapshots += isinstance(item, Snapshot)
                    yield item
                if not self._closed:
                    await event.wait()
        finally:
            self._events.discard(event)

    async def _call(self, call: Callable[[], T]) -> T:
        await asyncio.sleep(0)  # other tasks run in between, as they would
        self._counters.calls += 1
        try:
            if self._closed or not self._started:
                raise CoordinationUnavailable("coordination is closed")
            answer = call()
        except (CoordinationUnavailable, OutcomeUnknownError) as error:
            self._healthy = False
            self._counters.errors += 1
            self._counters.unknown_outcomes += isinstance(error, OutcomeUnknownError)
            raise
        self._healthy = True
        self._counters.last_success_s = time.monotonic()
        return answer

    def _look(self) -> None:
        """Something happened in the cluster: a session may be lost or possible again, watches may have something to
        give."""
        if self._session is not None and not self.cluster.has_lease(self._session):
            self._session = None
        if self._session is None and self.cluster.available and not self._closed:
            self._session = self.cluster.grant(SESSION_TTL_MS, 0)
            self._healthy = True
            self._counters.sessions += 1
            for callback in self._callbacks:
                asyncio.get_running_loop().call_soon(callback, self._session)
        self._wake_watches()

    def _wake_watches(self) -> None:
        for event in self._events:
            event.set()
