"""One client's connection: requests are answered one at a time, in the order in which they came.

Model: what is read becomes turns in a queue, a turn being a request, or an answer that is ready because the request was
refused. One clock runs per connection; it asks what is due when it rings, so that moving it costs nothing.
Invariant: a connection on which nothing useful happens ends, whatever its client does; a client that goes away cancels
its request, so that no long poll takes messages for nobody; nothing is read ahead past a bound.
"""

from __future__ import annotations

import asyncio
import logging
import math
import socket
from collections import deque
from typing import TYPE_CHECKING, NamedTuple, cast

from distribution_manager.sqs.http.messages import Problem, Request, Response
from distribution_manager.sqs.http.reader import HEAD_BYTES_MAX, BadRequestError, RequestReader

if TYPE_CHECKING:
    from distribution_manager.sqs.http.server import HttpServer

PIPELINED_MAX = 16
"""Requests that wait behind the one under way before reading pauses; those of the piece read last may exceed it."""
PIECE_BYTES_MAX = 4096
"""Parsed at a time. The smallest requests have 25 bytes, and take some 600 in memory while they wait."""
LINGER_SECONDS = 5.0
"""How long a client that was refused may go on sending (and we on dropping it) before it is cut off. Cut off at once,
it could lose the answer: closing a socket with unread data resets the connection."""
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_TCP_USER_TIMEOUT = getattr(socket, "TCP_USER_TIMEOUT", None)
"""Linux: how long sent data may stay unacknowledged, or a full window shut, before the connection is given up."""

_log = logging.getLogger(__name__)

assert PIECE_BYTES_MAX <= HEAD_BYTES_MAX, "the reader takes no more at a time"


class _Turn(NamedTuple):
    """``request`` is None where none could be made out; without a response too, the connection ends.

    ``last``: nothing after it can be read.
    """

    request: Request | None
    response: Response | None = None
    last: bool = False


class Connection(asyncio.Protocol):
    """``transport`` is None before and after the connection's life."""

    def __init__(self, server: HttpServer) -> None:
        self.transport: asyncio.Transport | None = None
        self._server = server
        self._loop = server.loop
        self._reader = RequestReader(server.application.body_bytes_max)
        self._unread = memoryview(b"")
        """Has come, and is not parsed yet."""
        self._turns: deque[_Turn] = deque()
        self._running: asyncio.Task[None] | None = None
        self._partial: Request | None = None
        """The reader's, as of the last look: it was admitted, or refused and its body is being dropped."""
        self._refused = False
        self._continue = False
        """The client waits for a 100 before it sends the body of ``_partial``."""
        self._broken = False
        """What came last cannot be read, nor can anything after it."""
        self.reading_paused = False
        self._writing_paused = False
        self._ending = False
        """The last answer is written; what still comes is dropped."""
        self._deadline_s = 0.0
        self._clock: asyncio.TimerHandle | None = None
        self._rings_at_s = math.inf
        self._remote = ""
        self._secure = False

    @property
    def waiting(self) -> int:
        """Requests and refusals behind the one under way."""
        return len(self._turns)

    # --- the transport's callbacks ---------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast("asyncio.Transport", transport)  # uvloop's for TLS only behaves like one
        if not self._server.admit(self):
            transport.abort()
            return
        self.transport = transport
        bounds = self._server.bounds
        peer = transport.get_extra_info("peername")
        self._remote = peer[0] if isinstance(peer, tuple) else ""
        self._secure = transport.get_extra_info("sslcontext") is not None
        connection = transport.get_extra_info("socket")
        if connection is not None and _TCP_USER_TIMEOUT is not None:
            connection.setsockopt(socket.IPPROTO_TCP, _TCP_USER_TIMEOUT, int(bounds.unread_seconds * 1000))
        self._due_in(bounds.first_head_seconds)

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.forget(self)
        self.transport = None
        self._ending = True
        self._turns.clear()
        self._unread = memoryview(b"")
        if self._clock is not None:
            self._clock.cancel()
        if self._running is not None:
            self._running.cancel()

    def data_received(self, data: bytes) -> None:
        if self._ending or self._broken:
            return
        if self._unread:  # reading is paused, but TLS may have had more
            self._unread = memoryview(bytes(self._unread) + data)
        elif len(data) > PIECE_BYTES_MAX:
            self._unread = memoryview(data)
        else:
            self._parse(data)
        self._go_on()

    def pause_writing(self) -> None:
        self._writing_paused = True
        self._due_in(self._server.bounds.idle_seconds)

    def resume_writing(self) -> None:
        self._writing_paused = False
        if self._partial is not None and not self._refused:
            self._due_in(self._server.application.body_seconds_max)  # it could not come while nothing was read
        self._go_on()

    def close_when_idle(self) -> None:
        """The server ends: what is under way is answered, what waits behind it is not."""
        self._turns.clear()
        self._unread = memoryview(b"")
        if self._running is None:
            self._end()

    # --- reading ---------------------------------------------------------------------------------------------------

    def _parse(self, data: bytes | memoryview) -> None:
        """Into turns."""
        reader = self._reader
        bad: BadRequestError | None = None
        try:
            reader.feed(data)
        except BadRequestError as error:
            bad = error
        if reader.complete:
            for request in reader.complete:
                self._add(request)
            reader.complete.clear()
        if bad is not None:
            self._give_up(bad)
        elif reader.partial is not None:
            self._look_at(reader.partial)

    def _add(self, request: Request) -> None:
        """A whole request."""
        if request is self._partial:
            self._partial, self._continue = None, False
            if self._refused:
                self._refused = False
                self._due_in(self._server.bounds.idle_seconds)
                return
        else:
            self._introduce(request)
        if request.problem is None:
            self._turns.append(_Turn(request))
        else:
            self._turns.append(_Turn(request, self._server.application.complain(request, request.problem)))

    def _introduce(self, request: Request) -> None:
        request.connection, request.remote, request.secure = self, self._remote, self._secure

    def _look_at(self, request: Request) -> None:
        """A request's head is there, its body is not: who is refused is told so before all of it is taken in."""
        application = self._server.application
        response = None
        if request is not self._partial:
            self._partial = request
            self._introduce(request)
            self._due_in(application.body_seconds_max)
            self._continue = request.headers.get("expect", "").lower() == "100-continue"
            response = application.refuse(request) if request.problem is None else None
        if request.problem is not None and not self._refused:
            response = application.complain(request, request.problem)
        if response is not None:
            # who waits for a 100 may or may not send the body after a refusal: no telling what the next bytes are
            self._refuse(request, response, last=self._continue)

    def _refuse(self, request: Request, response: Response, *, last: bool) -> None:
        """Answers a request whose body is still to come."""
        self._refused = True
        self._turns.append(_Turn(request, response, last))

    def _give_up(self, error: BadRequestError) -> None:
        self._broken = True
        self._unread = memoryview(b"")
        if self._refused:
            self._turns.append(_Turn(None))
        else:
            response = self._server.application.complain(error.request, error.problem)
            self._turns.append(_Turn(error.request, response, last=True))

    # --- answering -------------------------------------------------------------------------------------------------

    def _go_on(self) -> None:
        """Takes the next turns, and what was read ahead, for as far as that goes now."""
        while not self._ending:
            if self._turns and self._running is None and not self._writing_paused:
                self._take(self._turns.popleft())
            elif self._unread and len(self._turns) < PIPELINED_MAX:
                piece, self._unread = self._unread[:PIECE_BYTES_MAX], self._unread[PIECE_BYTES_MAX:]
                self._parse(piece)
            else:
                break
        if self._ending or self.transport is None:
            return
        if self._continue and not self._refused and self._running is None and not self._turns:
            self._continue = False
            self.transport.write(_CONTINUE)
        full = bool(self._unread) or len(self._turns) >= PIPELINED_MAX
        if full is not self.reading_paused:
            self.reading_paused = full
            if full:
                self.transport.pause_reading()
            else:
                self.transport.resume_reading()

    def _take(self, turn: _Turn) -> None:
        if turn.response is not None:
            self._write(turn.request, turn.response, last=turn.last)
        elif turn.request is not None:
            self._running = self._loop.create_task(self._run(turn.request))
        else:
            self._end()

    async def _run(self, request: Request) -> None:
        try:
            response = await self._server.application.handle(request)
        except Exception:
            _log.exception("a request was left without an answer")
            self.cut_off()
            return
        self._running = None
        if self.transport is not None:
            self._write(request, response)
            self._go_on()

    def _write(self, request: Request | None, response: Response, *, last: bool = False) -> None:
        transport = self.transport
        assert transport is not None, "a connection that is lost has no turns"
        stays = request is not None and request.keep_alive and not last and not self._server.ending
        method, version = ("", "") if request is None else (request.method, request.version)
        transport.write(response.encode(method, self._server.lines(version, stays=stays)))
        if not stays:
            self._end()
        elif self._partial is None:
            self._due_in(self._server.bounds.idle_seconds)

    def _end(self) -> None:
        """After the last answer. A client that is still sending is let finish, for a while."""
        transport = self.transport
        if transport is None:
            return
        self._ending = True
        if self._server.ending or not (self._broken or self._partial is not None):
            self._due_in(self._server.bounds.idle_seconds)  # for taking the answer
            transport.close()
            return
        if self.reading_paused:
            self.reading_paused = False
            transport.resume_reading()
        if transport.can_write_eof():  # not over TLS
            transport.write_eof()
        self._due_in(LINGER_SECONDS)

    # --- time ------------------------------------------------------------------------------------------------------

    def _due_in(self, seconds: float) -> None:
        self._deadline_s = self._loop.time() + seconds
        if self._deadline_s < self._rings_at_s:
            self._set_clock(self._deadline_s)

    def _set_clock(self, at_s: float) -> None:
        if self._clock is not None:
            self._clock.cancel()
        self._rings_at_s = at_s
        self._clock = self._loop.call_at(at_s, self._ring)

    def _ring(self) -> None:
        self._rings_at_s = math.inf
        now_s = self._loop.time()
        if now_s < self._deadline_s:
            self._set_clock(self._deadline_s)
            return
        if self._ending or self.transport is None or (self._writing_paused and self._running is None):
            self.cut_off()  # the last answer was not taken in all this time, however slowly it is being read
        elif self.reading_paused or (self._partial is None and (self._running is not None or self._turns)):
            self._set_clock(now_s + self._server.bounds.idle_seconds)  # it is not the client that is slow
        elif self._partial is not None and not self._refused:
            self._due_in(LINGER_SECONDS)
            application = self._server.application
            late = Problem(408, f"The body took more than {application.body_seconds_max:g} s to come.")
            self._refuse(self._partial, application.complain(self._partial, late), last=True)
            self._go_on()
        else:
            self.cut_off()

    def cut_off(self) -> None:
        if self.transport is not None:
            self.transport.abort()
