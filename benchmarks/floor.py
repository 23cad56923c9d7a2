"""The floors: servers that do what cannot be left out, and no more, each as processes of their own.

    python -m benchmarks.floor noop PORT            aiohttp reads a request and answers it
    python -m benchmarks.floor manager PORT N N N   the hot path bare: HTTP in, one sequencer, three nodes, majority ack
    python -m benchmarks.floor node PORT FILE       one WebSocket, one SQLite transaction with fsync per entry

No state machine, no parsing, no signatures, no features: SendMessage and SendMessageBatch only.
"""

from __future__ import annotations

import asyncio
import sqlite3
import sys
from pathlib import Path

import aiohttp
import msgspec
import uvloop
from aiohttp import web

UNDER_WAY_MAX = 4
"""Entries sequenced and not yet acknowledged by a majority."""
FRAME_BYTES_MAX = 64 << 20
_SINGLE = msgspec.json.encode({"MessageId": "0" * 36, "MD5OfMessageBody": "0" * 32})
_BATCH = msgspec.json.encode(
    {"Successful": [{"Id": str(index), "MessageId": "0" * 36, "MD5OfMessageBody": "0" * 32} for index in range(10)]}
)
_CREATED = msgspec.json.encode({"QueueUrl": "http://localhost/000000000000/floor"})

Entry = tuple[int, list[bytes]]
_encode = msgspec.msgpack.Encoder().encode
_decode_entry = msgspec.msgpack.Decoder(Entry).decode


def _answer(request: web.BaseRequest) -> web.Response:
    operation = request.headers.get("X-Amz-Target", "")
    body = _BATCH if operation.endswith("Batch") else _CREATED if operation.endswith("CreateQueue") else _SINGLE
    return web.Response(body=body, headers={"Content-Type": "application/x-amz-json-1.0", "x-amzn-RequestId": "0" * 36})


async def _noop(request: web.BaseRequest) -> web.Response:
    await request.read()
    return _answer(request)


class Sequencer:
    """Gathers what comes while entries are under way; one entry goes to every node at once."""

    def __init__(self) -> None:
        self._nodes: list[aiohttp.ClientWebSocketResponse] = []
        self._waiting: list[tuple[bytes, asyncio.Future[None]]] = []
        self._under_way: dict[int, tuple[list[asyncio.Future[None]], int]] = {}
        self._seq = 0
        self._flushing = False
        self._tasks: set[asyncio.Task[None]] = set()

    async def connect(self, ports: list[int]) -> None:
        session = aiohttp.ClientSession()
        for port in ports:
            node = await session.ws_connect(f"http://127.0.0.1:{port}/", max_msg_size=FRAME_BYTES_MAX)
            self._nodes.append(node)
            self._start(self._listen(node))

    def _start(self, work: object) -> None:
        task: asyncio.Task[None] = asyncio.ensure_future(work)  # type: ignore[arg-type]
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def handle(self, request: web.BaseRequest) -> web.Response:
        body = await request.read()
        if not request.headers.get("X-Amz-Target", "").endswith("CreateQueue"):
            done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append((body, done))
            self._flush_soon()
            await done
        return _answer(request)

    def _flush_soon(self) -> None:
        if not self._flushing and len(self._under_way) < UNDER_WAY_MAX:
            self._flushing = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        self._seq += 1
        self._under_way[self._seq] = ([done for _, done in waiting], len(self._nodes) // 2 + 1)
        frame = _encode((self._seq, [body for body, _ in waiting]))
        for node in self._nodes:
            self._start(node.send_bytes(frame))

    async def _listen(self, node: aiohttp.ClientWebSocketResponse) -> None:
        async for message in node:
            seq = int.from_bytes(message.data, "little")
            item = self._under_way.get(seq)
            if item is None:
                continue
            waiting, missing = item
            if missing > 1:
                self._under_way[seq] = (waiting, missing - 1)
                continue
            del self._under_way[seq]
            for done in waiting:
                if not done.done():
                    done.set_result(None)
            if self._waiting:
                self._flush_soon()


class Node:
    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None)
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = FULL")
        self._connection.execute("CREATE TABLE IF NOT EXISTS log(seq INTEGER, data BLOB)")

    async def handle(self, request: web.BaseRequest) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(max_msg_size=FRAME_BYTES_MAX, compress=False)
        await socket.prepare(request)
        async for message in socket:
            seq, _ = _decode_entry(message.data)
            self._connection.execute("INSERT INTO log VALUES (?, ?)", (seq, message.data))
            await socket.send_bytes(seq.to_bytes(8, "little"))
        return socket


async def _serve(handler: object, port: int) -> None:
    server = web.Server(handler, access_log=None)  # type: ignore[arg-type]
    await asyncio.get_running_loop().create_server(server, "127.0.0.1", port, backlog=1024)
    await asyncio.Event().wait()


async def main(kind: str, port: int, rest: list[str]) -> None:
    if kind == "node":
        await _serve(Node(Path(rest[0])).handle, port)
    elif kind == "manager":
        sequencer = Sequencer()
        await sequencer.connect([int(item) for item in rest])
        await _serve(sequencer.handle, port)
    else:
        await _serve(_noop, port)


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], int(sys.argv[2]), sys.argv[3:]))
