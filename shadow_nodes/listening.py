"""Where links are listened for, on aiohttp, which itself bounds neither connections nor how slowly a head may come.

Model: a connection has a ``_Doorman`` for its protocol until the head of its first request is there; then aiohttp's own
takes its place, so that links pay nothing for it. Later heads are under the keep-alive time of aiohttp.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Awaitable, Callable
from typing import cast

from aiohttp import web

HEAD_SECONDS_MAX = 10.0
"""From a connection to the end of its first request's head; and for the TLS handshake before it."""
IDLE_SECONDS_MAX = 75.0
"""From an answer to the end of the next request's head. A link is a request under way, and not idle."""
CONNECTIONS_MAX = 512
"""Links, copies, questions and scrapes of one process; more are closed at once. Below the 1,024 open files that a
process often has, so that strangers leave it some for its store and its own links."""
CLOSE_SECONDS_MAX = 1.0
"""What is under way has so long when the server stops."""
BACKLOG = 1024

log = logging.getLogger(__name__)


class BoundedRunner:
    """Serves an application. ``start`` raises OSError where the address cannot be had."""

    def __init__(self, app: web.Application) -> None:
        app.middlewares.insert(0, _let_in)
        self._runner = web.AppRunner(
            app, access_log=None, shutdown_timeout=CLOSE_SECONDS_MAX, keepalive_timeout=IDLE_SECONDS_MAX
        )
        self._listener: asyncio.Server | None = None
        self._full = False

    async def start(self, host: str, port: int, tls: ssl.SSLContext | None) -> int:
        """Returns the port, which is another than asked for where that was 0."""
        await self._runner.setup()
        self._listener = await asyncio.get_running_loop().create_server(
            self._answer_the_door,
            host,
            port,
            ssl=tls,
            backlog=BACKLOG,
            ssl_handshake_timeout=None if tls is None else HEAD_SECONDS_MAX,
        )
        bound: int = self._listener.sockets[0].getsockname()[1]
        return bound

    async def stop(self) -> None:
        if self._listener is not None:
            self._listener.close()
        await self._runner.cleanup()

    def _answer_the_door(self) -> asyncio.Protocol:
        server = self._runner.server
        assert server is not None, "set up before it listens"
        full = len(server.connections) >= CONNECTIONS_MAX
        if full and not self._full:
            log.warning("%d connections are open: more are closed", CONNECTIONS_MAX)
        self._full = full
        return _Doorman(None if full else server())


class _Doorman(asyncio.Protocol):
    """``inner``: who serves the connection; None: it is closed at once."""

    def __init__(self, inner: asyncio.Protocol | None) -> None:
        self.inner = inner
        self._transport: asyncio.Transport | None = None
        self._clock: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's is none by inheritance
        self._transport = cast("asyncio.Transport", transport)
        if self.inner is None:
            self._transport.abort()
            return
        self._clock = asyncio.get_running_loop().call_later(HEAD_SECONDS_MAX, self._transport.abort)
        self.inner.connection_made(transport)

    def leave(self) -> None:
        """The head is there."""
        assert self._transport is not None
        assert self.inner is not None
        self._stop_clock()
        self._transport.set_protocol(self.inner)

    def _stop_clock(self) -> None:
        if self._clock is not None:
            self._clock.cancel()

    def data_received(self, data: bytes) -> None:
        if self.inner is not None:
            self.inner.data_received(data)

    def eof_received(self) -> bool | None:
        return None if self.inner is None else self.inner.eof_received()

    def pause_writing(self) -> None:
        if self.inner is not None:
            self.inner.pause_writing()

    def resume_writing(self) -> None:
        if self.inner is not None:
            self.inner.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_clock()
        if self.inner is not None:
            self.inner.connection_lost(exc)


@web.middleware
async def _let_in(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    transport = request.transport
    if transport is not None and isinstance(doorman := transport.get_protocol(), _Doorman):
        doorman.leave()
    return await handler(request)
