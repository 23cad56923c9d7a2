"""One lean asyncio client for SQS servers, so that a benchmark measures the server and not its client.

Model: N connections, each with one call under way; the request is put together by hand, the JSON protocol as SDKs speak
it. A connection that the server closes is dialled again. aiobotocore costs half a millisecond a call, this some 30 µs.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from typing import Any
from urllib.parse import urlsplit

import msgspec

Json = dict[str, Any]

SERVICE_UNAVAILABLE = 503
CREATE_TRIES_MAX = 20
CREATE_AGAIN_SECONDS = 0.25

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_CLOSES = re.compile(rb"\r\nconnection: *close", re.IGNORECASE)
AUTHORIZATION = (
    "AWS4-HMAC-SHA256 Credential=benchmark/20260101/us-east-1/sqs/aws4_request,"
    " SignedHeaders=host;x-amz-date, Signature=0000000000000000000000000000000000000000000000000000000000000000"
)
"""As long as a real one. Servers that check signatures have to be told not to."""


class CallError(Exception):
    """The server answered with an error: (status, body)."""


class _Connection(asyncio.Protocol):
    def __init__(self) -> None:
        self.open = True
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def call(self, request: bytes) -> asyncio.Future[tuple[int, bytes]]:
        assert self._transport is not None
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return self._answer

    def data_received(self, data: bytes) -> None:
        received = self._received = self._received + data if self._received else data
        end = received.find(b"\r\n\r\n")
        if end < 0:
            return
        length = _LENGTH.search(received, 0, end + 2)
        start = end + 4
        needed = int(length[1]) if length else 0
        if len(received) - start < needed:
            return
        if _CLOSES.search(received, 0, end + 2):
            self.close()
        self._received = b""
        if self._answer is not None and not self._answer.done():
            self._answer.set_result((int(received[9:12]), received[start : start + needed]))

    def connection_lost(self, _: Exception | None) -> None:
        self.open = False
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(ConnectionError("the server closed the connection"))

    def close(self) -> None:
        self.open = False
        if self._transport is not None:
            self._transport.close()


class SqsClient:
    """``connections``: calls that can be under way at once; more wait. Use with ``async with``."""

    def __init__(self, endpoint: str, connections: int = 64) -> None:
        parts = urlsplit(endpoint)
        self.host, self.port = parts.hostname or "127.0.0.1", parts.port or 80
        self.calls = 0
        self._free: deque[_Connection | None] = deque([None] * connections)
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._headers: dict[str, bytes] = {}

    async def __aenter__(self) -> SqsClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        for connection in self._free:
            if connection is not None:
                connection.close()
        await asyncio.sleep(0)

    # --- calls -----------------------------------------------------------------------------------------------------

    async def call(self, operation: str, body: Json) -> Json:
        """Raises CallError, ConnectionError."""
        answer = await self.call_encoded(operation, msgspec.json.encode(body))
        value: Json = msgspec.json.decode(answer) if answer else {}
        return value

    async def call_encoded(self, operation: str, body: bytes) -> bytes:
        """For bodies that are sent many times: encoded once. Raises CallError, ConnectionError."""
        head = self._headers.get(operation)
        if head is None:
            head = self._headers[operation] = self._head(operation)
        while not self._free:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(waiter)
            await waiter
        connection = self._free.pop()
        try:
            if connection is None or not connection.open:
                connection = await self._dial()
            status, answer = await connection.call(b"%b%d\r\n\r\n%b" % (head, len(body), body))
        except BaseException:
            if connection is not None:
                connection.close()
            raise
        finally:
            self._free.append(connection)
            if self._waiting:
                self._waiting.popleft().set_result(None)
        self.calls += 1
        if status != 200:
            raise CallError(status, answer.decode(errors="replace"))
        return answer

    def _head(self, operation: str) -> bytes:
        return (
            f"POST / HTTP/1.1\r\nHost: {self.host}:{self.port}\r\nX-Amz-Target: AmazonSQS.{operation}\r\n"
            f"Content-Type: application/x-amz-json-1.0\r\nX-Amz-Date: 20260101T000000Z\r\n"
            f"Authorization: {AUTHORIZATION}\r\nContent-Length: "
        ).encode()

    async def _dial(self) -> _Connection:
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(_Connection, self.host, self.port)
        return connection

    # --- operations ------------------------------------------------------------------------------------------------

    async def create_queue(self, name: str, **attributes: str) -> str:
        """The QueueUrl. A cluster that has just begun may not know all its regions: repeated as SDKs do after a 503."""
        for _ in range(CREATE_TRIES_MAX - 1):
            try:
                return await self._create_queue(name, attributes)
            except CallError as error:
                if error.args[0] != SERVICE_UNAVAILABLE:
                    raise
            await asyncio.sleep(CREATE_AGAIN_SECONDS)
        return await self._create_queue(name, attributes)

    async def _create_queue(self, name: str, attributes: Json) -> str:
        answer = await self.call("CreateQueue", {"QueueName": name, "Attributes": attributes})
        return str(answer["QueueUrl"])

    async def send(self, url: str, body: str) -> Json:
        return await self.call("SendMessage", {"QueueUrl": url, "MessageBody": body})

    async def send_batch(self, url: str, bodies: list[str]) -> Json:
        return await self.call("SendMessageBatch", send_batch_body(url, bodies))

    async def receive(self, url: str, count: int = 1, wait_s: int = 0) -> list[Json]:
        answer = await self.call(
            "ReceiveMessage", {"QueueUrl": url, "MaxNumberOfMessages": count, "WaitTimeSeconds": wait_s}
        )
        return answer.get("Messages") or []

    async def delete(self, url: str, handle: str) -> None:
        await self.call("DeleteMessage", {"QueueUrl": url, "ReceiptHandle": handle})

    async def delete_batch(self, url: str, handles: list[str]) -> Json:
        entries = [{"Id": str(index), "ReceiptHandle": handle} for index, handle in enumerate(handles)]
        return await self.call("DeleteMessageBatch", {"QueueUrl": url, "Entries": entries})


def send_batch_body(url: str, bodies: list[str]) -> Json:
    entries = [{"Id": str(index), "MessageBody": body} for index, body in enumerate(bodies)]
    return {"QueueUrl": url, "Entries": entries}
