"""Connections of clients, bounded: how many there are, and how long one may be slow.

Model: aiohttp's server, with a clock on each connection until its first request head is whole, aiohttp's own clock on
idle ones, and the kernel's on those that do not take what they are sent.
Invariant: a connection on which nothing useful happens ends, whatever its client does.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

CONNECTIONS_MAX_DEFAULT = 10_000
_TCP_USER_TIMEOUT = getattr(socket, "TCP_USER_TIMEOUT", None)
"""Linux: how long sent data may stay unacknowledged, or a full window shut, before the connection is given up."""


@dataclass(frozen=True)
class ConnectionBounds:
    """``first_head_seconds``: from connecting to the end of the first request's head. ``idle_seconds``: between an
    answer and the end of the next head. ``unread_seconds``: how long a client may leave an answer unread.

    How long a body may take is ``SqsConfig.body_seconds_max``.
    """

    connections_max: int = CONNECTIONS_MAX_DEFAULT
    first_head_seconds: float = 10.0
    idle_seconds: float = 75.0
    unread_seconds: float = 60.0

    def __post_init__(self) -> None:
        if min(self.connections_max, self.first_head_seconds, self.idle_seconds, self.unread_seconds) <= 0:
            raise ValueError("connection bounds: must be above 0")


class ClientServer(web.Server):
    """A bare HTTP server, for ``loop.create_server``. Needs a running loop.

    A client that goes away cancels its request, so that no long poll takes messages for nobody.
    """

    def __init__(self, handler: Handler, bounds: ConnectionBounds) -> None:
        super().__init__(
            handler,
            request_factory=self._begin,
            access_log=None,
            auto_decompress=False,
            handler_cancellation=True,
            keepalive_timeout=bounds.idle_seconds,
        )
        self.refused = 0
        """Connections closed at once because there were too many."""
        self._bounds = bounds
        self._loop = asyncio.get_running_loop()
        self._open = 0
        self._silent: dict[RequestHandler, asyncio.TimerHandle] = {}

    def connection_made(self, handler: RequestHandler, transport: asyncio.Transport) -> None:
        super().connection_made(handler, transport)
        self._open += 1
        if self._open > self._bounds.connections_max:
            self.refused += 1
            transport.abort()
            return
        connection = transport.get_extra_info("socket")
        if connection is not None and _TCP_USER_TIMEOUT is not None:
            connection.setsockopt(socket.IPPROTO_TCP, _TCP_USER_TIMEOUT, int(self._bounds.unread_seconds * 1000))
        self._silent[handler] = self._loop.call_later(self._bounds.first_head_seconds, transport.abort)

    def connection_lost(self, handler: RequestHandler, exc: BaseException | None = None) -> None:
        self._open -= 1
        self._heard(handler)
        super().connection_lost(handler, exc)

    def _begin(
        self, message: Any, payload: Any, protocol: RequestHandler, writer: Any, task: asyncio.Task[None]
    ) -> web.BaseRequest:
        """A request's head is there."""
        if self._silent:
            self._heard(protocol)
        return web.BaseRequest(message, payload, protocol, writer, task, self._loop)

    def _heard(self, handler: RequestHandler) -> None:
        timer = self._silent.pop(handler, None)
        if timer is not None:
            timer.cancel()
