"""The handler as a route, and what the bare server adds: a client that goes away cancels its long poll."""

from __future__ import annotations

import asyncio

import aiohttp
from aiohttp import web

from distribution_manager.core.metadata import QueueMetadata
from distribution_manager.sqs.backend import Executed
from distribution_manager.sqs.config import SqsConfig
from distribution_manager.sqs.handler import make_handler, make_server
from shadow_nodes.protocol.commands import Command

from .fake_backend import FakeBackend

RECEIVE = (
    b"POST / HTTP/1.1\r\nHost: h\r\nX-Amz-Target: AmazonSQS.ReceiveMessage\r\nContent-Length: 41\r\n\r\n"
    b'{"QueueUrl":"orders","WaitTimeSeconds":5}'
)


class PatientBackend(FakeBackend):
    """Receives wait until they are cancelled."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting = asyncio.Event()
        self.cancelled = asyncio.Event()

    async def execute(self, queue: QueueMetadata, command: Command, *, wait_ms: int = 0, key: str = "") -> Executed:
        self.waiting.set()
        try:
            return await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise


async def test_as_a_route() -> None:
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", make_handler(FakeBackend(), SqsConfig()))
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/"
    async with aiohttp.ClientSession() as session:
        headers = {"X-Amz-Target": "AmazonSQS.CreateQueue"}
        async with session.post(url, json={"QueueName": "a"}, headers=headers) as response:
            assert await response.json(content_type=None) == {"QueueUrl": f"{url}000000000000/a"}
        form = {"Action": "SendMessage", "MessageBody": "x" * 500_000}
        async with session.post(f"{url}000000000000/a", data=form, expect100=True, compress="gzip") as response:
            assert response.status == 200
            assert b"<MD5OfMessageBody>" in await response.read()
    await runner.cleanup()


async def test_a_client_that_goes_away() -> None:
    backend = PatientBackend()
    await backend.create_queue("orders", {}, {}, None)
    server = make_server(make_handler(backend, SqsConfig()))
    listener = await asyncio.get_running_loop().create_server(server, "127.0.0.1", 0)
    _, writer = await asyncio.open_connection(*listener.sockets[0].getsockname())

    writer.write(RECEIVE)
    await asyncio.wait_for(backend.waiting.wait(), 5)
    writer.close()
    await asyncio.wait_for(backend.cancelled.wait(), 5)
    listener.close()
    await server.shutdown(1)
