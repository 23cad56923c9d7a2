"""The server: its connections, its bounds, its end."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from email.utils import formatdate
from typing import Protocol

from distribution_manager.sqs.http.connection import Connection
from distribution_manager.sqs.http.messages import Problem, Request, Response

CONNECTIONS_MAX_DEFAULT = 10_000


class Application(Protocol):
    """``body_bytes_max``: past it a request is a Problem. ``body_seconds_max``: from a head to the body's end."""

    body_bytes_max: int
    body_seconds_max: float

    async def handle(self, request: Request) -> Response:
        """Answers a whole request. Cancelled when its client goes away; raises nothing."""

    def refuse(self, request: Request) -> Response | None:
        """Before a body that is not all there yet is read: would the request be refused whatever it is?"""

    def complain(self, request: Request | None, problem: Problem) -> Response:
        """Words what is wrong. ``request``: without a body, and None where not even the head could be read."""


@dataclass(frozen=True)
class ConnectionBounds:
    """``first_head_seconds``: from connecting to the end of the first request's head. ``idle_seconds``: between an
    answer and the end of the next head; also for taking the answer. ``unread_seconds``: how long a client may leave an
    answer unread altogether.
    """

    connections_max: int = CONNECTIONS_MAX_DEFAULT
    first_head_seconds: float = 10.0
    idle_seconds: float = 75.0
    unread_seconds: float = 60.0

    def __post_init__(self) -> None:
        if min(self.connections_max, self.first_head_seconds, self.idle_seconds, self.unread_seconds) <= 0:
            raise ValueError("connection bounds: must be above 0")


class HttpServer:
    """A protocol factory, for ``loop.create_server``. Needs a running loop."""

    def __init__(self, application: Application, bounds: ConnectionBounds) -> None:
        self.application = application
        self.bounds = bounds
        self.loop = asyncio.get_running_loop()
        self.connections: set[Connection] = set()
        self.refused = 0
        """Connections closed at once because there were too many."""
        self.ending = False
        self._empty = asyncio.Event()
        self._second = 0
        self._date = ""

    def __call__(self) -> Connection:
        return Connection(self)

    def admit(self, connection: Connection) -> bool:
        if self.ending or len(self.connections) >= self.bounds.connections_max:
            self.refused += 1
            return False
        self.connections.add(connection)
        return True

    def forget(self, connection: Connection) -> None:
        self.connections.discard(connection)
        if self.ending and not self.connections:
            self._empty.set()

    async def shutdown(self, seconds_max: float) -> None:
        """Ends connections: idle ones at once, others after the answer under way, for which they have so long.

        The listening socket is the caller's, and to be closed before.
        """
        self.ending = True
        for connection in list(self.connections):
            connection.close_when_idle()
        try:
            async with asyncio.timeout(seconds_max):
                while self.connections:
                    self._empty.clear()
                    await self._empty.wait()
        except TimeoutError:
            for connection in list(self.connections):
                connection.cut_off()

    def lines(self, version: str, *, stays: bool) -> str:
        """Header lines of an answer that are the same for every one. ``version``: the request's."""
        now_s = int(time.time())
        if now_s != self._second:
            self._second = now_s
            self._date = f"Date: {formatdate(now_s, usegmt=True)}\r\n"
        if not stays:
            return f"{self._date}Connection: close\r\n"
        return self._date if version == "1.1" else f"{self._date}Connection: keep-alive\r\n"
