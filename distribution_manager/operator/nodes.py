"""``POST /admin/join`` (a node announces itself) and ``POST /admin/forget?node=NAME``."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Protocol

from aiohttp import web

from shadow_nodes.protocol.answers import decode_json
from shadow_nodes.protocol.errors import OutcomeUnknownError, ProtocolError, RejectedError, ShadowQError
from shadow_nodes.protocol.joining import JOIN_PATH, Announcement

FORGET_PATH = "/admin/forget"


class NodeRegistry(Protocol):
    """Refuses with a ShadowQError whose message is for the one who asked."""

    async def join(self, announcement: Announcement) -> bool: ...

    async def forget(self, node: str) -> None: ...


class NodesApi:
    def __init__(self, registry: NodeRegistry) -> None:
        self._registry = registry

    def add_to(self, app: web.Application) -> None:
        app.router.add_post(JOIN_PATH, self._join)
        app.router.add_post(FORGET_PATH, self._forget)

    async def _join(self, request: web.Request) -> web.Response:
        try:
            announcement = decode_json(await request.read(), Announcement)
        except ProtocolError as error:
            return _refusal(400, f"that is no announcement of a node: {error}")
        return await _answered(self._registry.join(announcement))

    async def _forget(self, request: web.Request) -> web.Response:
        return await _answered(self._registry.forget(request.query.get("node", "")))


async def _answered(work: Awaitable[object]) -> web.Response:
    try:
        await work
    except (OutcomeUnknownError, RejectedError) as error:
        return _refusal(503, f"etcd: {error}: try again")
    except ShadowQError as error:
        return _refusal(409, str(error))
    return web.json_response({})


def _refusal(status: int, error: str) -> web.Response:
    return web.json_response({"error": error}, status=status)
