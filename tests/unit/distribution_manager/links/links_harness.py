"""Peers played by hand: a node that welcomes, and a journal of what the links reported."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import WSMsgType, web

from shadow_nodes.protocol.limits import FRAME_BYTES_MAX, PROTOCOL_VERSION
from shadow_nodes.protocol.messages import Hello, Welcome, decode_to_node, encode_frame

HELLO = Hello(PROTOCOL_VERSION, "c", "m1", 5, "r1")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Listener:
    """An aiohttp server with one handler at /link; stops and starts again on the same port."""

    def __init__(self, handler: Handler, port: int = 0) -> None:
        self._handler = handler
        self.port = port
        self._runner: web.AppRunner | None = None

    async def start(self, ssl_context: Any = None) -> None:
        app = web.Application()
        app.router.add_get("/link", self._handler)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port, ssl_context=ssl_context).start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None


class FakeNode(Listener):
    """Welcomes managers and keeps the frames that they send."""

    def __init__(self, name: str = "n1", cluster: str = "c") -> None:
        super().__init__(self._handle)
        self.welcome = Welcome(PROTOCOL_VERSION, cluster, name, "r1", "inc", 0)
        self.frames: list[list[Any]] = []
        self.sockets: list[web.WebSocketResponse] = []
        self.requests: list[web.Request] = []
        self.alongside: list[Any] = []
        """Sent in the frame of the Welcome."""

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse(max_msg_size=FRAME_BYTES_MAX, compress=False)
        await socket.prepare(request)
        self.requests.append(request)
        self.sockets.append(socket)
        while (message := await socket.receive()).type is WSMsgType.BINARY:
            self.frames.append(decode_to_node(message.data))
            if isinstance(self.frames[-1][0], Hello):
                await socket.send_bytes(encode_frame([self.welcome, *self.alongside]))
        return socket

    def cut(self) -> None:
        """Breaks every connection without a word."""
        for request in self.requests:
            if request.transport is not None:
                request.transport.abort()

    async def stop(self) -> None:
        self.cut()
        await super().stop()


class Journal:
    """What the callbacks were told, in order."""

    def __init__(self) -> None:
        self.events: list[tuple[Any, ...]] = []

    def up(self, peer: str, welcome: Any) -> None:
        self.events.append(("up", peer, welcome))

    def messages(self, peer: str, messages: list[Any]) -> None:
        self.events.append(("messages", peer, messages))

    def down(self, peer: str) -> None:
        self.events.append(("down", peer))

    @property
    def kinds(self) -> list[str]:
        return [event[0] for event in self.events]

    def count(self, kind: str) -> int:
        return self.kinds.count(kind)

    def callbacks(self) -> dict[str, Any]:
        return {"on_up": self.up, "on_messages": self.messages, "on_down": self.down}
