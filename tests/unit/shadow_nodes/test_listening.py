"""Strangers at the door of a link listener, over real sockets: slow heads, idle connections, and too many of them."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from shadow_nodes import listening
from shadow_nodes.listening import BoundedRunner

SHORT_S = 0.2
HEAD = b"GET /hello HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture(autouse=True)
def soon(monkeypatch: Any) -> None:
    monkeypatch.setattr(listening, "HEAD_SECONDS_MAX", SHORT_S)
    monkeypatch.setattr(listening, "IDLE_SECONDS_MAX", SHORT_S)
    monkeypatch.setattr(listening, "CONNECTIONS_MAX", 3)


async def hello(_: web.Request) -> web.Response:
    return web.Response(text="hello")


async def echo(request: web.Request) -> web.WebSocketResponse:
    link = web.WebSocketResponse()
    await link.prepare(request)
    async for message in link:
        await link.send_str(message.data)
    return link


@pytest.fixture
async def port(soon: None) -> AsyncIterator[int]:
    app = web.Application()
    app.router.add_get("/hello", hello)
    app.router.add_get("/link", echo)
    runner = BoundedRunner(app)
    yield await runner.start("127.0.0.1", 0, None)
    await runner.stop()


async def drip(writer: asyncio.StreamWriter, data: bytes) -> None:
    """A byte at a time, each well within any bound on silence, for as long as the other side takes them."""
    while not writer.is_closing():
        writer.write(data)
        await asyncio.sleep(SHORT_S / 10)


async def turned_away(port: int) -> bool:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        return await closed(reader)
    finally:
        writer.close()


async def closed(reader: asyncio.StreamReader) -> bool:
    """Waits until the other side has closed; the test's own time limit is the bound."""
    try:
        return await reader.read() == b""
    except ConnectionError:
        return True


@pytest.mark.parametrize("beginning", [b"", b"GET /", b"GET /hello HTTP/1.1\r\nX-A: "])
async def test_a_head_must_come_in_time(port: int, beginning: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(beginning)
    dripping = asyncio.create_task(drip(writer, b"a" if beginning else b""))
    assert await closed(reader)
    dripping.cancel()
    writer.close()


async def test_so_must_the_next_one(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(HEAD)
    assert b"200 OK" in await reader.readuntil(b"hello")
    writer.write(HEAD[:-2] + b"X-A: ")
    dripping = asyncio.create_task(drip(writer, b"a"))
    assert await closed(reader)
    dripping.cancel()
    writer.close()


async def test_a_link_is_not_bound_by_that(port: int) -> None:
    async with aiohttp.ClientSession() as session, session.ws_connect(f"http://127.0.0.1:{port}/link") as link:
        assert await turned_away(port), "a stranger's time is over, so the link's would be"
        await link.send_str("still here")
        assert (await link.receive()).data == "still here"


async def answer(session: aiohttp.ClientSession, port: int) -> int:
    """The status of the first answer; while too many are connected there is none."""
    while True:
        try:
            async with session.get(f"http://127.0.0.1:{port}/hello") as response:
                return response.status
        except aiohttp.ClientConnectionError:
            await asyncio.sleep(0.01)


async def test_no_more_connections_than_the_bound_and_more_when_some_have_gone(port: int, caplog: Any) -> None:
    async with aiohttp.ClientSession() as session:
        links = [await session.ws_connect(f"http://127.0.0.1:{port}/link") for _ in range(3)]
        assert await turned_away(port)
        assert "3 connections are open: more are closed" in caplog.text
        await links[0].send_str("served as before")
        assert (await links[0].receive()).data == "served as before"
        for link in links:
            await link.close()

        assert await answer(session, port) == 200


async def test_strangers_that_come_and_go_leave_nothing(port: int) -> None:
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", port)) as stranger:
            stranger.send(b"G")
    async with aiohttp.ClientSession() as session:
        assert await answer(session, port) == 200
