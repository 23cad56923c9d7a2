"""The session: one lease that lives as long as this process does, whatever happens to etcd meanwhile.

Model: grant, keep alive every third of its time to live, and when etcd says that it is gone, grant another.
Invariant: only etcd's word ends a session. That keep-alives fail says nothing (etcd gives leases their full time again
after a restart or a change of leader); that they come late is found out by asking.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import grpc
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_random_exponential

from distribution_manager.coordination.etcd3_protobuf import etcdrpc
from distribution_manager.coordination.etcd_connection import Connections
from distribution_manager.coordination.interface import CoordinationUnavailable
from shadow_nodes.protocol.errors import ShadowQError

log = logging.getLogger(__name__)

RETRY_WAIT_MAX_S = 1.0
GOODBYE_TIMEOUT_S = 0.5
"""Giving the lease back at close, where etcd may be away."""


class Session:
    def __init__(self, connections: Connections) -> None:
        self.lease: int | None = None
        self._connections = connections
        self._callbacks: list[Callable[[int], None]] = []
        self._granted = asyncio.Event()
        self._lost = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def on_session(self, callback: Callable[[int], None]) -> None:
        self._callbacks.append(callback)
        if self.lease is not None:
            callback(self.lease)

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="coordination session")

    async def close(self) -> None:
        if self._task is None:
            return
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task
        self._task = None
        lease, self.lease = self.lease, None
        if lease is not None and self._connections.healthy:
            with suppress(ShadowQError):
                request = etcdrpc.LeaseRevokeRequest(ID=lease)
                await self._connections.read(lambda client: client.leasestub.LeaseRevoke, request, GOODBYE_TIMEOUT_S)

    async def wait_granted(self, timeout_s: float) -> int:
        """The lease to bind keys to. Raises CoordinationUnavailable."""
        if self.lease is None:
            try:
                await asyncio.wait_for(self._granted.wait(), timeout_s)
            except TimeoutError:
                raise CoordinationUnavailable("no session lease was granted in time") from None
        if self.lease is None:
            raise CoordinationUnavailable("the session lease was lost again")
        return self.lease

    def report_lost(self, lease: int) -> None:
        """A transaction was told that there is no such lease: look now, not at the next keep-alive."""
        if lease == self.lease:
            self._lost.set()

    async def _run(self) -> None:
        while True:
            lease, ttl_s = await self._grant()
            self._begin(lease)
            await self._keep(lease, ttl_s)
            log.warning("the session lease %x is lost; granting another", lease)
            self.lease = None
            self._granted.clear()

    def _begin(self, lease: int) -> None:
        self.lease = lease
        self._lost.clear()
        self._granted.set()
        self._connections.counters.sessions += 1
        for callback in self._callbacks:
            try:
                callback(lease)
            except Exception:
                log.exception("a session callback failed")

    async def _grant(self) -> tuple[int, float]:
        """A grant whose answer got lost leaks a lease that nobody keeps alive: it is gone after its time to live."""
        settings = self._connections.settings
        request = etcdrpc.LeaseGrantRequest(TTL=settings.session_ttl_s)
        async for attempt in self._retrying():
            with attempt:
                response = await self._connections.read(
                    lambda client: client.leasestub.LeaseGrant, request, settings.call_timeout_s / 2
                )
                return int(response.ID), float(response.TTL)
        raise AssertionError("retrying never stops")

    async def _keep(self, lease: int, ttl_s: float) -> None:
        """Returns when the lease is gone."""
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._lost.wait(), ttl_s / 3)
            self._lost.clear()
            async for attempt in self._retrying():
                with attempt:
                    remaining_s = await self._keep_alive(lease)
            if remaining_s <= 0:
                return

    async def _keep_alive(self, lease: int) -> int:
        """Seconds that the lease has now; 0 where there is no such lease."""
        timeout_s = self._connections.settings.call_timeout_s / 2
        request = etcdrpc.LeaseKeepAliveRequest(ID=lease)
        response = await self._connections.read(_keep_alive_once, request, timeout_s)
        return int(response.TTL)

    def _retrying(self) -> AsyncRetrying:
        return AsyncRetrying(
            retry=retry_if_exception_type(ShadowQError),
            wait=wait_random_exponential(multiplier=0.05, max=RETRY_WAIT_MAX_S),
            before_sleep=_log_sometimes,
        )


def _log_sometimes(state: RetryCallState) -> None:
    """The third failure, then every hundredth: an outage must be seen in the log, and must not fill it."""
    if state.attempt_number % 100 == 3 and state.outcome is not None:
        log.warning("session: no answer from etcd, still trying: %s", state.outcome.exception())


def _keep_alive_once(client: Any) -> Any:
    """Keep-alive is a stream in etcd's interface; one request and one answer are all that is wanted of it."""
    channel: grpc.Channel = client.channel
    return channel.unary_unary(
        "/etcdserverpb.Lease/LeaseKeepAlive",
        request_serializer=etcdrpc.LeaseKeepAliveRequest.SerializeToString,
        response_deserializer=etcdrpc.LeaseKeepAliveResponse.FromString,
    )
