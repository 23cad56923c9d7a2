"""``GET /admin/log``: a queue's operation log as a stream of JSON lines.

``queue``; ``from``, ``to`` (seqs, inclusive); ``since_ms``, ``until_ms`` (Unix time); ``follow=1``; ``bodies=1``;
``after_index``: leaves out the first operations of the entry ``from``, for whoever goes on with a stream that was cut.
The first line (type "log") says what there is to be read, the last (type "end") where to go on; "notice" lines are for
people. Empty lines say that the stream lives.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec
from aiohttp import web

from distribution_manager.core.manager import ManagerCore
from distribution_manager.core.metadata import QueueMetadata
from distribution_manager.operator.log_reader import LogError, LogReader, MistakeError
from distribution_manager.operator.log_records import records
from shadow_nodes.peer_http import PeerHttp

Write = Callable[[Any], Awaitable[None]]
DIGITS_MAX = 18
"""Of a seq or a time: what nodes can be asked for has 63 bits."""


class Range(msgspec.Struct, frozen=True):
    """What is to be read of a log: seqs, inclusive, up to a time (Unix milliseconds)."""

    first: int
    last: int
    """The last that there is, or that was asked for."""
    until_ms: float
    begins: int
    """The first entry that is kept."""
    lacking: bool
    """Whether earlier ones were asked for."""


async def locate(reader: LogReader, query: Mapping[str, str]) -> Range:
    """Raises LogError; MistakeError where the query makes no sense."""
    numbers: dict[str, int] = {}
    for name in ("from", "to", "since_ms", "until_ms", "after_index"):
        text = query.get(name, "")
        if text and not (text.isascii() and text.isdigit() and len(text) <= DIGITS_MAX):
            raise MistakeError(f"{name}: {text!r} is not a whole number")
        if text:
            numbers[name] = int(text)
    asked, last = numbers.get("from", 0), numbers.get("to")
    extent = await reader.extent(max(0, asked - 1), numbers.get("since_ms", 0))
    return Range(
        first=max(extent.after_seq + 1, asked),
        last=extent.end_seq if last is None else min(extent.end_seq, last),
        until_ms=numbers.get("until_ms", math.inf),
        begins=extent.begins_seq + 1,
        lacking=0 < asked <= extent.begins_seq,
    )


class LogApi:
    def __init__(self, core: ManagerCore, peers: PeerHttp) -> None:
        self._core = core
        self._peers = peers

    async def handle(self, request: web.Request) -> web.StreamResponse:
        queue = self._core.directory.queue(request.query.get("queue", ""))
        if queue is None:
            return refusal(404, f"there is no queue {request.query.get('queue', '')!r}")
        reader = LogReader(self._core, self._peers, queue.shard())
        try:
            wanted = await locate(reader, request.query)
        except LogError as error:
            return refusal(error.status, str(error))
        response = web.StreamResponse()
        response.content_type = "application/x-ndjson"
        await response.prepare(request)
        with contextlib.suppress(ConnectionResetError):  # whoever asked has gone
            await self._stream(request.query, queue, reader, wanted, line_writer(response))
            await response.write_eof()
        return response

    async def _stream(
        self, query: Mapping[str, str], queue: QueueMetadata, reader: LogReader, wanted: Range, write: Write
    ) -> None:
        follow, after_index = query.get("follow") == "1", int(query.get("after_index", "-1"))
        await write(
            {"type": "log", "queue": queue.name, "begins": wanted.begins, "ends": wanted.last, "from": wanted.first}
        )
        if wanted.lacking:
            await write(notice(f"the log begins at {wanted.begins}: what came before is no longer kept"))
        seq, asked_last = wanted.first - 1, int(query.get("to") or 0)
        try:
            async for logged in reader.entries(seq, None if follow else wanted.last):
                if logged is None:
                    await write(None)
                    continue
                if logged.entry.now_ms > wanted.until_ms:
                    break
                for record in records(logged, fifo=queue.fifo, bodies=query.get("bodies") == "1"):
                    if record["seq"] > wanted.first or record["index"] > after_index:
                        await write(record)
                seq = logged.entry.seq
                if 0 < asked_last <= seq:
                    break
        except LogError as error:
            await write({"type": "failed", "text": str(error), "next": seq + 1})
        else:
            await write({"type": "end", "next": seq + 1})


def line_writer(response: web.StreamResponse) -> Write:
    """Writes a value as a line of JSON; None as an empty one. Raises ConnectionResetError."""

    async def write(value: Any) -> None:
        await response.write((b"" if value is None else msgspec.json.encode(value)) + b"\n")

    return write


def notice(text: str) -> dict[str, str]:
    return {"type": "notice", "text": text}


def refusal(status: int, error: str) -> web.Response:
    return web.json_response({"error": error}, status=status)
