"""Keeps one WebSocket to each of a changing set of peers: the common part of links to nodes and to managers.

Model: a task per target dials, greets, is welcomed, reads until the link breaks, and dials again after a pause. Where a
name has moved to other addresses, a link to one of those takes the old one's place as soon as it is welcomed.
Invariants: ``on_up`` and ``on_down`` of a peer alternate, in this order; ``on_messages`` comes only in between; none is
called from inside a method of this class, but always from the loop.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import aiohttp

from distribution_manager.links.settings import (
    BACKOFF_SECONDS_MAX,
    BACKOFF_SECONDS_START,
    DIAL_SECONDS_MAX,
    PROBE_SECONDS,
    STEADY_SECONDS,
    AtTurnEnd,
    LinkSettings,
)
from shadow_nodes.protocol.errors import ProtocolError
from shadow_nodes.protocol.frames import FrameWriter
from shadow_nodes.protocol.limits import FRAME_BYTES_MAX
from shadow_nodes.resolve import Endpoint, Resolver, is_fixed

Out = TypeVar("Out")
In = TypeVar("In")
Welcomed = TypeVar("Welcomed")

log = logging.getLogger(__name__)

_DIAL_ERRORS = (OSError, TimeoutError, aiohttp.ClientError, ProtocolError)


@dataclass(frozen=True)
class _Dialled(Generic[In, Welcomed]):
    """A link that was welcomed, and what came in the same frame after the welcome."""

    endpoint: Endpoint
    socket: aiohttp.ClientWebSocketResponse
    welcomed: Welcomed
    others: list[In]


@dataclass
class _Move(Generic[In, Welcomed]):
    """The task that looks whether a link's name has moved, and the link it has found then."""

    task: asyncio.Task[None] | None = None
    successor: _Dialled[In, Welcomed] | None = None

    def take(self) -> _Dialled[In, Welcomed] | None:
        successor, self.successor = self.successor, None
        return successor

    async def end(self) -> None:
        """A successor that nobody took is broken. Does not wait where one was taken: a cancellation would lose it."""
        if self.task is not None and not self.task.done():
            self.task.cancel()
            await asyncio.wait([self.task])
        if self.successor is not None:
            await _break(self.successor.socket)


async def _break(socket: aiohttp.ClientWebSocketResponse) -> None:
    # aiohttp has no public name for the transport
    socket._writer.transport.abort()
    await socket.close()


class Dialler(Generic[Out, In, Welcomed]):
    """Subclasses say what is spoken: ``_greeting``, ``_encode``, ``_decode``, ``_welcome``."""

    def __init__(
        self,
        resolver: Resolver,
        settings: LinkSettings,
        *,
        on_up: Callable[[str, Welcomed], None],
        on_messages: Callable[[str, list[In]], None],
        on_down: Callable[[str], None],
        at_turn_end: AtTurnEnd | None = None,
    ) -> None:
        self._at_turn_end = at_turn_end
        self._resolver = resolver
        self._settings = settings
        self._on_up = on_up
        self._on_messages = on_messages
        self._on_down = on_down
        self._targets: dict[str, str] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self._links: dict[str, FrameWriter[Out]] = {}
        self._complaints: dict[str, str] = {}
        self._session: aiohttp.ClientSession | None = None

    # --- what a subclass gives -------------------------------------------------------------------------------------

    def _greeting(self) -> Out:
        raise NotImplementedError

    def _encode(self, messages: list[Out]) -> bytes:
        raise NotImplementedError

    def _decode(self, frame: bytes) -> list[In]:
        """Raises ProtocolError."""
        raise NotImplementedError

    def _welcome(self, peer: str, message: In) -> Welcomed:
        """Checks the first message of the peer. Raises ProtocolError."""
        raise NotImplementedError

    # --- for the runtime -------------------------------------------------------------------------------------------

    def set_targets(self, targets: dict[str, str]) -> None:
        """``{peer: address}``, an address as ``Resolver.resolve`` takes it. What is unchanged stays up."""
        for peer in [peer for peer, address in self._targets.items() if targets.get(peer) != address]:
            del self._targets[peer]
            self._links.pop(peer, None)
            task = self._tasks.pop(peer)
            task.cancel()
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)
        for peer, address in targets.items():
            if peer not in self._targets:
                self._targets[peer] = address
                self._tasks[peer] = asyncio.create_task(self._keep(peer, address), name=f"link to {peer}")

    def send(self, peer: str, message: Out) -> bool:
        """Queues a message for this loop turn's frame. False, and it is dropped, where the link is not up."""
        link = self._links.get(peer)
        if link is None or link.broken:
            return False
        link.put(message)
        return True

    def is_up(self, peer: str) -> bool:
        link = self._links.get(peer)
        return link is not None and not link.broken

    def waiting_bytes(self, peer: str) -> int:
        """What this peer has not taken yet. A sender of much looks here first: past the bound the link is dropped."""
        link = self._links.get(peer)
        return 0 if link is None else link.waiting_bytes

    def drop(self, peer: str, reason: str) -> None:
        """Breaks the link; it is redialled. For a peer that answers nonsense, and for tests."""
        link = self._links.get(peer)
        if link is not None:
            link.abort(reason)

    async def close(self) -> None:
        """Ends every link, with its ``on_down``."""
        self.set_targets({})
        if self._ending:
            await asyncio.wait(self._ending)
        if self._session is not None:
            await self._session.close()
            self._session = None

    # --- one peer --------------------------------------------------------------------------------------------------

    async def _keep(self, peer: str, address: str) -> None:
        pause = BACKOFF_SECONDS_START
        while True:
            lasted = 0.0
            try:
                dialled: _Dialled[In, Welcomed] | None = await self._dial(peer, address)
                while dialled is not None:
                    move = _Move[In, Welcomed]()
                    try:
                        lasted = await self._live(peer, address, dialled, move)
                        dialled = move.take()
                    finally:
                        await move.end()
            except _DIAL_ERRORS as error:
                self._complain(peer, address, f"{type(error).__name__}: {error}")
            except Exception:
                log.exception("link to %s failed on an unexpected error; dialling again", peer)
            if lasted > STEADY_SECONDS:
                pause = BACKOFF_SECONDS_START
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(2 * pause, BACKOFF_SECONDS_MAX)

    async def _live(self, peer: str, address: str, dialled: _Dialled[In, Welcomed], move: _Move[In, Welcomed]) -> float:
        """One life of the link, from ``on_up`` to ``on_down``. Returns how many seconds it lasted; ``move`` has the
        link that is to take its place, where there is one."""
        loop = asyncio.get_running_loop()
        since = loop.time()
        socket = dialled.socket
        # the writer itself, not send_bytes: FrameWriter must know the transport, for which aiohttp has no public name
        at_turn_end = self._at_turn_end or loop.call_soon
        link = FrameWriter(socket._writer, self._encode, at_turn_end, self._settings.waiting_bytes_max)
        self._links[peer] = link
        self._complaints.pop(peer, None)
        log.info("link to %s is up", peer)
        if not is_fixed(address):
            move.task = asyncio.create_task(self._follow(peer, address, dialled.endpoint, link, move))
        try:
            self._on_up(peer, dialled.welcomed)
            if dialled.others:
                self._on_messages(peer, dialled.others)
            reason = await self._read(peer, socket)
            log.warning("link to %s is down: %s", peer, link.broken or reason)
        finally:
            if self._links.get(peer) is link:
                del self._links[peer]
            link.abort("closed")
            self._on_down(peer)
            await socket.close()
        return loop.time() - since

    async def _follow(
        self,
        peer: str,
        address: str,
        endpoint: Endpoint,
        link: FrameWriter[Out],
        move: _Move[In, Welcomed],
    ) -> None:
        """Until the name stands for other addresses than the link's, and the peer answers at one of them."""
        while True:
            try:
                endpoints = await self._resolver.expired(address)
                if endpoint in endpoints:
                    continue
                move.successor = await self._dial_any(peer, address, endpoints)
            except _DIAL_ERRORS as error:
                # what is linked is not given up for what does not answer; DNS may be the one that is wrong
                self._complain(peer, address, f"moved? {type(error).__name__}: {error}")
                await asyncio.sleep(BACKOFF_SECONDS_MAX)
            else:
                link.abort(f"{address} has moved")
                return

    async def _read(self, peer: str, socket: aiohttp.ClientWebSocketResponse) -> str:
        """Until the link breaks; returns why. Raises ProtocolError."""
        while True:
            message = await socket.receive()
            if message.type is not aiohttp.WSMsgType.BINARY:
                return f"{message.type.name} {socket.close_code or ''}".strip()
            self._on_messages(peer, self._decode(message.data))

    async def _dial(self, peer: str, address: str) -> _Dialled[In, Welcomed]:
        """Tries every address the name stands for. Raises the last one's error."""
        return await self._dial_any(peer, address, await self._resolver.resolve(address))

    async def _dial_any(self, peer: str, address: str, endpoints: list[Endpoint]) -> _Dialled[In, Welcomed]:
        """Raises the last one's error."""
        failed: Exception = ProtocolError(f"{address} stands for no address")
        for endpoint in endpoints:
            try:
                async with asyncio.timeout(DIAL_SECONDS_MAX):
                    dialled = await self._greet(peer, endpoint)
            except _DIAL_ERRORS as error:
                failed = error
                self._resolver.failed(endpoint)
            else:
                self._resolver.answered(endpoint)
                return dialled
        self._resolver.forget(address)
        raise failed

    async def _greet(self, peer: str, endpoint: Endpoint) -> _Dialled[In, Welcomed]:
        if self._session is None:
            connector = aiohttp.TCPConnector(limit=0, force_close=True)
            self._session = aiohttp.ClientSession(connector=connector, headers=self._settings.headers)
        socket = await self._session.ws_connect(
            endpoint.url(self._settings.scheme, "/link"),
            max_msg_size=FRAME_BYTES_MAX,
            heartbeat=PROBE_SECONDS,
            ssl=self._settings.client_tls or True,
            server_hostname=endpoint.name if self._settings.client_tls else None,
        )
        try:
            await socket.send_bytes(self._encode([self._greeting()]))
            message = await socket.receive()
            if message.type is not aiohttp.WSMsgType.BINARY:
                raise ProtocolError(f"refused: {message.extra or message.type.name} ({socket.close_code})")
            messages = self._decode(message.data)
            if not messages:
                raise ProtocolError("welcomed with an empty frame")
            return _Dialled(endpoint, socket, self._welcome(peer, messages[0]), messages[1:])
        except BaseException:
            await _break(socket)
            raise

    def _complain(self, peer: str, address: str, reason: str) -> None:
        """Logs why a peer cannot be reached, once per reason: dialling goes on for as long as the peer is away."""
        if self._complaints.get(peer) != reason:
            self._complaints[peer] = reason
            log.warning("no link to %s at %s: %s", peer, address, reason)
