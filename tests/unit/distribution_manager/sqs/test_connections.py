"""Clients that are slow, silent or too many."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from distribution_manager.sqs.config import SqsConfig
from distribution_manager.sqs.connections import ClientServer, ConnectionBounds
from distribution_manager.sqs.handler import make_handler, make_server

from .fake_backend import FakeBackend

PATIENCE_S = 10.0
SHORT_S = 0.2
LIST = b"POST / HTTP/1.1\r\nHost: x\r\nX-Amz-Target: AmazonSQS.ListQueues\r\nContent-Length: 2\r\n\r\n{}"
Start = Callable[..., Awaitable[tuple[ClientServer, int]]]


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """(server, port)"""
    cleanups: list[tuple[Any, ClientServer]] = []

    async def make(bounds: ConnectionBounds, backend: Any = None, **config: Any) -> tuple[ClientServer, int]:
        server = make_server(make_handler(backend or FakeBackend(), SqsConfig(**config)), bounds)
        listener = await asyncio.get_running_loop().create_server(server, "127.0.0.1", 0)
        cleanups.append((listener, server))
        return server, listener.sockets[0].getsockname()[1]

    yield make
    for listener, server in cleanups:
        listener.close()
        server.pre_shutdown()
        await server.shutdown(1)


async def ends(reader: asyncio.StreamReader) -> bytes:
    """What comes until the server closes the connection."""
    async with asyncio.timeout(PATIENCE_S):
        try:
            return await reader.read()
        except ConnectionResetError:
            return b""


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(3 * PATIENCE_S):
        while not holds():  # noqa: ASYNC110 - nothing else tells of a connection's end
            await asyncio.sleep(SHORT_S / 10)


@pytest.mark.parametrize("sent", [b"", b"POST / HTTP/1.1\r\nHost: x\r\n"], ids=["silent", "half a head"])
async def test_a_first_head_must_come_in_time(start: Start, sent: bytes) -> None:
    _, port = await start(ConnectionBounds(first_head_seconds=SHORT_S))
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(sent)
    assert await ends(reader) == b""
    writer.close()


@pytest.mark.parametrize("sent", [b"", b"POST / HTTP/1.1\r\n"], ids=["silent", "half a head"])
async def test_an_idle_connection_ends(start: Start, sent: bytes) -> None:
    server, port = await start(ConnectionBounds(first_head_seconds=SHORT_S, idle_seconds=3 * SHORT_S))
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    began = asyncio.get_running_loop().time()
    writer.write(LIST)
    assert (await reader.readline()) == b"HTTP/1.1 200 OK\r\n"
    writer.write(sent)
    await ends(reader)
    assert asyncio.get_running_loop().time() - began > 2 * SHORT_S, "the first head's clock has stopped"
    assert server.connections == []
    writer.close()


async def test_a_body_must_come_in_time(start: Start) -> None:
    _, port = await start(ConnectionBounds(), body_seconds_max=SHORT_S)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(LIST[:-1])
    async with asyncio.timeout(PATIENCE_S):
        answer = await reader.readuntil(b"}")
    assert answer.startswith(b"HTTP/1.1 408")
    assert b"RequestTimeoutException" in answer
    writer.close()


async def test_connections_are_bounded(start: Start) -> None:
    server, port = await start(ConnectionBounds(connections_max=2))
    open_ones = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2)]
    for reader, writer in open_ones:
        writer.write(LIST)
        assert (await reader.readline()) == b"HTTP/1.1 200 OK\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    assert await ends(reader) == b""
    assert server.refused == 1
    writer.close()
    open_ones[0][1].close()
    await until(lambda: len(server.connections) < 2)
    reader, other = await asyncio.open_connection("127.0.0.1", port)
    other.write(LIST)
    assert (await reader.readline()) == b"HTTP/1.1 200 OK\r\n"
    for each in (other, open_ones[1][1]):
        each.close()


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="the kernel's clock is Linux's")
async def test_who_does_not_read_answers_is_let_go(start: Start) -> None:
    backend = FakeBackend()
    server, port = await start(ConnectionBounds(unread_seconds=SHORT_S), backend)
    await backend.create_queue("q" * 80, {}, {}, None)
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
    connection.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(connection, ("127.0.0.1", port))
    sending = loop.create_task(loop.sock_sendall(connection, LIST * 100_000))
    try:
        await until(lambda: bool(server.connections))
        await until(lambda: not server.connections)
    finally:
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        connection.close()


@pytest.mark.parametrize("name", ["connections_max", "first_head_seconds", "idle_seconds", "unread_seconds"])
def test_bounds_are_above_nothing(name: str) -> None:
    with pytest.raises(ValueError, match="above 0"):
        ConnectionBounds(**{name: 0})
