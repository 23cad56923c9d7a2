"""What this node gives other nodes to copy: committed entries, and snapshots.

Model: entries are read on the loop, few at a time; a snapshot by a reader and a thread of its own, in chunks. The next
part is read when the peer has taken the last. Invariant: however slow the peer, nothing waits for it but its own part.
"""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor

from aiohttp import web

from shadow_nodes.core.store import LogEntry, Store
from shadow_nodes.driver import Driver
from shadow_nodes.protocol.audit import LogPage, encode_page
from shadow_nodes.protocol.commands import ShardKey
from shadow_nodes.protocol.limits import APPEND_BYTES_MAX, SNAPSHOT_CHUNK_BYTES
from shadow_nodes.replica_stream import SnapshotEnd, SnapshotHead, SnapshotRows, pack, pack_log

SNAPSHOTS_MAX = 4
"""At a time; a further request is told 503, and the copier asks again when its owner does."""
REST_PER_READ = 1.0
"""A snapshot rests this many times as long as each chunk took: its thread keeps the interpreter lock from the loop."""
CHUNK_TAKEN_SECONDS_MAX = 30.0
"""A peer that does not take a chunk for this long is given up: a snapshot keeps SQLite's log from being reused."""
DIGITS_MAX = 18
"""Of a number in a question: what is stored has 63 bits."""


class ReplicaRoutes:
    def __init__(self, driver: Driver, store: Store) -> None:
        self._driver = driver
        self._store = store
        self.snapshots = 0

    def add_to(self, app: web.Application) -> None:
        app.router.add_get("/replica/{queue}/{shard}/log", self._log)
        app.router.add_get("/replica/{queue}/{shard}/snapshot", self._snapshot)
        app.router.add_get("/replica/{queue}/{shard}/operations", self._operations)

    def _shard(self, request: web.Request) -> ShardKey:
        shard = f"{request.match_info['queue']}/{request.match_info['shard']}"
        if shard not in self._driver.core.replicas:
            raise web.HTTPNotFound(text=f"shard {shard} is not here\n")
        return shard

    async def _log(self, request: web.Request) -> web.StreamResponse:
        """200 with entries, 204 where there are no more, 410 where the log no longer reaches back so far."""
        shard = self._shard(request)
        after_seq = _number(request, "after", "")
        entries = self._read(shard, after_seq)
        if entries is None:
            raise web.HTTPGone(text=f"shard {shard}: the log begins later\n")
        if not entries:
            return web.Response(status=204)
        response = web.StreamResponse()
        response.content_type = "application/octet-stream"
        await response.prepare(request)
        left_bytes = APPEND_BYTES_MAX
        while entries:
            part = pack_log(entries)
            await _write(response, part)
            left_bytes -= len(part)
            entries = self._read(shard, entries[-1].seq) if left_bytes > 0 else None
        await _write(response, pack_log([]))
        await response.write_eof()
        return response

    def _read(self, shard: ShardKey, after_seq: int) -> list[LogEntry] | None:
        found: list[list[LogEntry] | None] = []
        self._driver.guard(lambda: found.append(self._driver.core.log_for(shard, after_seq)))
        if not found:
            raise ConnectionResetError("this node stops")
        return found[0]

    async def _operations(self, request: web.Request) -> web.Response:
        """A page of the operation log (protocol/audit.py), for managers: after a seq, or since a time."""
        shard = self._shard(request)
        after_seq, since_ms = _number(request, "after", "0"), _number(request, "since_ms", "0")
        found: list[LogPage | None] = []
        core = self._driver.core
        self._driver.guard(lambda: found.append(core.page_for(shard, after_seq, since_ms or None)))
        if not found or found[0] is None:
            raise web.HTTPServiceUnavailable(text=f"shard {shard} cannot be read just now\n")
        return web.Response(body=encode_page(found[0]), content_type="application/msgpack")

    async def _snapshot(self, request: web.Request) -> web.StreamResponse:
        shard = self._shard(request)
        if self.snapshots >= SNAPSHOTS_MAX:
            raise web.HTTPServiceUnavailable(text=f"{SNAPSHOTS_MAX} snapshots are being copied already\n")
        self.snapshots += 1
        thread = ThreadPoolExecutor(1, "snapshot")
        reader = _SnapshotReader(self._store, shard)
        try:
            return await self._stream(request, thread, reader)
        finally:
            # the reader is closed by its own thread, after whatever that is doing; nobody waits for it here
            thread.submit(reader.close)
            thread.shutdown(wait=False)
            self.snapshots -= 1

    async def _stream(
        self, request: web.Request, thread: ThreadPoolExecutor, reader: _SnapshotReader
    ) -> web.StreamResponse:
        response = web.StreamResponse()
        response.content_type = "application/octet-stream"
        part = await self._next_part(thread, reader)
        await response.prepare(request)
        while part is not None:
            await _write(response, part)
            part = await self._next_part(thread, reader)
        await response.write_eof()
        return response

    async def _next_part(self, thread: ThreadPoolExecutor, reader: _SnapshotReader) -> bytes | None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            part = await loop.run_in_executor(thread, reader.next_part)
            await asyncio.sleep((loop.time() - began) * REST_PER_READ)
            return part
        except KeyError:
            raise web.HTTPNotFound(text="the shard is not in the store (yet, or any more)\n") from None
        except Exception as error:
            self._driver.fail(error)
            raise


def _number(request: web.Request, name: str, default: str) -> int:
    """A seq or a time that was asked for; not left to the core, whose every error ends the node."""
    text = request.query.get(name, default)
    if not (text.isascii() and text.isdigit() and len(text) <= DIGITS_MAX):
        raise web.HTTPBadRequest(text=f"{name}: must be a whole number of at most {DIGITS_MAX} digits\n")
    return int(text)


async def _write(response: web.StreamResponse, part: bytes) -> None:
    """Raises ConnectionResetError."""
    try:
        async with asyncio.timeout(CHUNK_TAKEN_SECONDS_MAX):
            await response.write(part)
    except TimeoutError as error:
        raise ConnectionResetError("the peer takes nothing any more") from error


class _SnapshotReader:
    """Walks a snapshot; used by one thread only."""

    def __init__(self, store: Store, shard: ShardKey) -> None:
        self._store = store
        self._shard = shard
        self._parts: Generator[bytes] | None = None

    def next_part(self) -> bytes | None:
        """None after the end. Raises CorruptError, OSError."""
        if self._parts is None:
            self._parts = self._walk()
        return next(self._parts, None)

    def _walk(self) -> Generator[bytes]:
        record, chunks = self._store.snapshot(self._shard, SNAPSHOT_CHUNK_BYTES)
        yield pack(SnapshotHead(self._shard, record.checkpoint))
        rows = 0
        for chunk in chunks:
            rows += len(chunk)
            yield pack(SnapshotRows(chunk))
        yield pack(SnapshotEnd(rows))

    def close(self) -> None:
        """With the parts goes the last hold on the store's walk, which then closes its connection."""
        if self._parts is not None:
            self._parts.close()
