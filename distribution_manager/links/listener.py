"""Links that other managers dialled: their requests come in, replies go out under a connection id.

Model: one ``Incoming`` per WebSocket; ManagerPing is answered here, everything else goes to ``on_request``.
Invariant: ``on_closed`` is called once for each connection that was greeted, after its last ``on_request``.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from aiohttp import WSCloseCode, WSMsgType, web

from distribution_manager.core.messages import (
    Greeting,
    ManagerMessage,
    ManagerPing,
    ManagerPong,
    decode_manager_frame,
    encode_manager_frame,
)
from distribution_manager.links.manager_links import check_greeting
from distribution_manager.links.settings import DIAL_SECONDS_MAX, PROBE_SECONDS, AtTurnEnd, LinkSettings
from shadow_nodes.protocol.bearer import knows_secret
from shadow_nodes.protocol.errors import ProtocolError
from shadow_nodes.protocol.frames import FrameWriter
from shadow_nodes.protocol.limits import FRAME_BYTES_MAX

ConnectionId = int
CLOSE_REASON_BYTES_MAX = 120
"""A WebSocket close frame has room for 123 bytes of text."""

log = logging.getLogger(__name__)


class ManagerListener:
    """``handle`` is the aiohttp handler of ``GET /link``."""

    def __init__(
        self,
        greeting: Greeting,
        settings: LinkSettings,
        *,
        on_request: Callable[[ConnectionId, str, int, list[ManagerMessage]], None],
        on_closed: Callable[[ConnectionId], None],
        at_turn_end: AtTurnEnd | None = None,
    ) -> None:
        self._at_turn_end = at_turn_end
        self._greeting = greeting
        self._settings = settings
        self._on_request = on_request
        self._on_closed = on_closed
        self._links: dict[ConnectionId, FrameWriter[ManagerMessage]] = {}
        self._last_id = 0

    def reply(self, connection: ConnectionId, message: ManagerMessage) -> bool:
        """Queues a message for this loop turn's frame. False, and it is dropped, where the connection is gone."""
        link = self._links.get(connection)
        if link is None or link.broken:
            return False
        link.put(message)
        return True

    def close(self) -> None:
        """Breaks every connection; each ``on_closed`` follows."""
        for link in self._links.values():
            link.abort("this manager stops")

    async def handle(self, request: web.Request) -> web.StreamResponse:
        if not self._knows_secret(request):
            raise web.HTTPUnauthorized(text="managers of this cluster share a secret; this request lacks it\n")
        socket = web.WebSocketResponse(
            max_msg_size=FRAME_BYTES_MAX, compress=False, heartbeat=PROBE_SECONDS, timeout=DIAL_SECONDS_MAX
        )
        await socket.prepare(request)
        try:
            await self._serve(socket)
        except (ProtocolError, TimeoutError) as error:
            text = str(error) or "no greeting came"
            log.warning("closing the link from %s: %s", request.remote, text)
            reason = text.encode()[:CLOSE_REASON_BYTES_MAX]
            await socket.close(code=WSCloseCode.POLICY_VIOLATION, message=reason)
        return socket

    def _knows_secret(self, request: web.Request) -> bool:
        return knows_secret(request.headers.get("Authorization", ""), self._settings.secret)

    async def _serve(self, socket: web.WebSocketResponse) -> None:
        """Raises ProtocolError."""
        async with asyncio.timeout(DIAL_SECONDS_MAX):
            first = await socket.receive()
        if first.type is not WSMsgType.BINARY:
            return
        messages = decode_manager_frame(first.data)
        peer = check_greeting(self._greeting, messages[0] if messages else ManagerPing(0))
        assert socket._writer is not None
        at_turn_end = self._at_turn_end or asyncio.get_running_loop().call_soon
        link = FrameWriter(socket._writer, encode_manager_frame, at_turn_end, self._settings.waiting_bytes_max)
        self._last_id += 1
        connection = self._last_id
        self._links[connection] = link
        link.put(self._greeting)
        try:
            self._take(connection, peer, messages[1:])
            while (frame := await socket.receive()).type is WSMsgType.BINARY:
                self._take(connection, peer, decode_manager_frame(frame.data))
        finally:
            del self._links[connection]
            self._on_closed(connection)

    def _take(self, connection: ConnectionId, peer: Greeting, messages: list[ManagerMessage]) -> None:
        requests: list[ManagerMessage] = []
        for message in messages:
            if isinstance(message, ManagerPing):
                self.reply(connection, ManagerPong(message.sent_at))
            else:
                requests.append(message)
        if requests:
            self._on_request(connection, peer.manager, peer.life, requests)
