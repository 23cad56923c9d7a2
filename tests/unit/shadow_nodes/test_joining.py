"""A node's announcement, and what answers at the address where a manager should be."""

from __future__ import annotations

from typing import Any

import pytest
from aiohttp import web

from shadow_nodes.joining import Joining
from shadow_nodes.peer_http import PeerHttp
from shadow_nodes.protocol.joining import JOIN_PATH, Announcement, Identity
from shadow_nodes.resolve import Resolver

NODE = Announcement(
    identity=Identity(node="n1", region="r1", cluster="c", incarnation="i1", life=1), address="127.0.0.1:1"
)


@pytest.mark.parametrize(
    ("status", "body", "reason"),
    [
        (503, b'{"error":"etcd: try\\n again"}', "etcd: try again"),
        (502, b'{"error":"\xff"}', "502"),
        (502, b'{"x":' + b"[" * 100_000, "502"),
        (404, b"<html>", "404"),
    ],
    ids=["a manager", "no UTF-8", "deep", "no JSON"],
)
async def test_whatever_answers_is_a_reason(status: int, body: bytes, reason: str) -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(status=status, body=body)

    app = web.Application()
    app.router.add_post(JOIN_PATH, answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    address: Any = runner.addresses[0]
    resolver = Resolver()
    joining = Joining(NODE, [f"127.0.0.1:{address[1]}"], PeerHttp(resolver, "", None))
    try:
        assert (await joining._announce()).endswith(reason)
    finally:
        await resolver.close()
        await runner.cleanup()
