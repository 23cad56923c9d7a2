"""Nodes in this process on free loopback ports, and managers played by hand."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import uvloop

sys.path.insert(0, str(Path(__file__).parent))

from node_harness import Manager

from shadow_nodes.config import NodeSettings
from shadow_nodes.core.store import Store
from shadow_nodes.protocol.addresses import Address
from shadow_nodes.server import NodeServer

StartNode = Callable[..., Awaitable[NodeServer]]
Connect = Callable[..., Awaitable[Manager]]


@pytest.hookimpl(optionalhook=True)
def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The loop that runs in production: it hands bytes to the kernel at other moments than asyncio's own."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture
def fatal() -> list[BaseException]:
    """What a node would have died of; a test that expects it clears the list."""
    return []


@pytest.fixture
async def start_node(tmp_path: Path, fatal: list[BaseException]) -> AsyncIterator[StartNode]:
    """``await start_node(store, node="n1", ...)``: a NodeServer that listens."""
    servers: list[NodeServer] = []

    async def start(store: Store, node: str = "n1", replaced: str = "", **settings: Any) -> NodeServer:
        settings = {"node": node, "region": "r1", "cluster": "c", "listen": Address("127.0.0.1", 0)} | settings
        given = NodeSettings(data=tmp_path, **settings)
        server = NodeServer(given, store, fatal.append, replaced)
        servers.append(server)
        await server.start()
        return server

    yield start
    for server in servers:
        await server.stop()
    assert not fatal


@pytest.fixture
async def connect(session: aiohttp.ClientSession) -> AsyncIterator[Connect]:
    managers: list[Manager] = []

    async def connect(server: NodeServer, **options: Any) -> Manager:
        manager = await Manager.connect(session, server.port, **options)
        managers.append(manager)
        return manager

    yield connect
    for manager in managers:
        await manager.socket.close()
