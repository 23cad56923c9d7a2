"""``/admin/drain?name=NODE|REGION``: POST marks it, with ``undo=1`` takes the mark away; GET says how far it is."""

from __future__ import annotations

import asyncio
import time
from typing import Any, Protocol

import msgspec
from aiohttp import web

from distribution_manager.core.draining import drain_key, look_at
from distribution_manager.core.manager import ManagerCore
from distribution_manager.core.metadata import Drain, encode_record
from distribution_manager.core.transactions import Outcome, Put, Remove, Transaction
from shadow_nodes.protocol.messages import Inspected

DRAIN_PATH = "/admin/drain"


class Drainer(Protocol):
    core: ManagerCore

    def enter(self) -> None: ...

    async def inspect(self, shards: list[str] | None, *, digest: bool = False) -> dict[str, Inspected]: ...


class DrainApi:
    def __init__(self, drainer: Drainer) -> None:
        self._drainer = drainer
        self._core = drainer.core

    def add_to(self, app: web.Application) -> None:
        app.router.add_get(DRAIN_PATH, self._look)
        app.router.add_post(DRAIN_PATH, self._mark)

    async def _look(self, request: web.Request) -> web.Response:
        name = request.query.get("name", "")
        key = drain_key(self._core.directory, name)
        if key is None:
            return _unknown(name)
        return await self._state(name, key)

    async def _mark(self, request: web.Request) -> web.Response:
        name = request.query.get("name", "")
        key = drain_key(self._core.directory, name)
        if key is None:
            return _unknown(name)
        undo = request.query.get("undo") == "1"
        mark = Put(key, encode_record(Drain(since_ms=time.time_ns() // 1_000_000)))
        if await self._transact(Transaction([], [Remove(key) if undo else mark], [key])) is None:
            return web.json_response({"error": "etcd did not answer: try again"}, status=503)
        if undo:
            return web.json_response({"name": name, "marked": False})
        return await self._state(name, key)

    async def _state(self, name: str, key: str) -> web.Response:
        answers = await self._drainer.inspect(None)
        replicas = {node: {item.shard: item.quarantined for item in answer.shards} for node, answer in answers.items()}
        found = look_at(self._core.directory, name, key, replicas)
        body: dict[str, Any] = msgspec.to_builtins(found)
        return web.json_response({**body, "drained": found.drained, "safe": found.safe})

    async def _transact(self, transaction: Transaction) -> Outcome | None:
        future: asyncio.Future[Outcome | None] = asyncio.get_running_loop().create_future()
        self._drainer.enter()
        self._core.transact(transaction, future.set_result)
        return await future


def _unknown(name: str) -> web.Response:
    return web.json_response({"error": f"{name!r} is neither a node nor a region: see shadowq status"}, status=404)
