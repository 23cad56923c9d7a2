"""The watch over etcd: one stream after the other, joined without gaps by a WatchCursor.

Model: attach (open a stream; take a Snapshot, or resume where the cursor stands), deliver until the stream ends, attach
again.
Invariant: the Snapshot is read after the stream is open and listening, on the same server process's connection, so that
every change after the Snapshot's revision reaches the stream; a stream cannot outlive the process that serves it.
A stream's blocking reads have a thread of their own: at most one response is taken ahead of the consumer, so a slow
consumer slows the stream down (etcd then catches it up from its store) and costs no memory here.
"""

from __future__ import annotations

import asyncio
import logging
import queue
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import grpc
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_random_exponential

from distribution_manager.coordination.etcd3_protobuf import etcdrpc
from distribution_manager.coordination.etcd_connection import Connection, Connections, key_text, kv_range
from distribution_manager.coordination.watch_cursor import HistoryDiffersError, WatchCursor
from distribution_manager.core.transactions import Change, Snapshot
from shadow_nodes.protocol.errors import ShadowQError

log = logging.getLogger(__name__)

RETRY_WAIT_MAX_S = 1.0
REATTACH_WAIT_S = 0.02
"""Between the end of a stream and the next, so that streams that end at once do not make a busy loop."""
CREATED_TIMEOUT_S = 2.0
"""A stream that etcd has not confirmed by then is given up."""

ReadSnapshot = Callable[[], Awaitable[Snapshot]]


class StreamEndedError(ShadowQError):
    """Any end of a stream; ``compacted`` where what it asked for is no longer kept."""

    def __init__(self, said: str, *, compacted: bool = False) -> None:
        super().__init__(said)
        self.compacted = compacted


class WatchStream:
    """One gRPC stream with one watch on it."""

    def __init__(self, connection: Connection, prefix: str, start_revision: int, metadata: Any) -> None:
        self._connection = connection
        self._prefix = prefix
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="coordination watch")
        self._requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
        key = prefix.encode()
        create = etcdrpc.WatchCreateRequest(key=key, range_end=prefix_end(key), start_revision=start_revision)
        self._requests.put(etcdrpc.WatchRequest(create_request=create))
        stub = etcdrpc.WatchStub(connection.client.channel)
        try:
            self._call = stub.Watch(self._until_closed(), metadata=metadata)
        except ValueError as error:  # the channel is closed
            self._thread.shutdown(wait=False)
            raise StreamEndedError("coordination is closed") from error
        self._closed = False
        connection.streams.add(self.close)

    def _until_closed(self) -> Iterator[Any]:
        """The request side; that it stays open keeps the stream open."""
        while (request := self._requests.get()) is not None:
            yield request

    async def next(self) -> Any:
        """The next response. Raises StreamEndedError."""
        if self._closed:
            raise StreamEndedError("the stream was closed")
        response = await asyncio.get_running_loop().run_in_executor(self._thread, self._take)
        if response.compact_revision:
            raise StreamEndedError(f"compacted at {response.compact_revision}", compacted=True)
        if response.canceled:
            raise StreamEndedError(f"etcd ended the watch: {response.cancel_reason or 'no reason given'}")
        return response

    def _take(self) -> Any:
        try:
            return next(self._call)
        except StopIteration:
            raise StreamEndedError("etcd ended the stream") from None
        except grpc.RpcError as error:
            raise StreamEndedError(f"{error.code().name}: {error.details()}") from error

    def changes(self, response: Any) -> list[Change]:
        skip = len(self._prefix)
        return [
            Change(
                key=key_text(event.kv.key)[skip:],
                value=None if event.type == event.DELETE else event.kv.value,
                mod_revision=event.kv.mod_revision,
            )
            for event in response.events
        ]

    def close(self) -> None:
        self._closed = True
        self._connection.streams.discard(self.close)
        self._call.cancel()
        self._requests.put(None)
        self._thread.shutdown(wait=False)


class EtcdWatch:
    """One watch() call's life."""

    def __init__(self, connections: Connections, read_snapshot: ReadSnapshot, closed: asyncio.Event) -> None:
        self._connections = connections
        self._read_snapshot = read_snapshot
        self._closed = closed
        self._cursor = WatchCursor()
        self._stream: WatchStream | None = None

    async def run(self) -> AsyncGenerator[Snapshot | list[Change], None]:
        try:
            while not self._closed.is_set():
                stream, snapshot = await self._attach_patiently()
                if stream is None:
                    return
                if snapshot is not None:
                    yield snapshot
                while (changes := await self._next_changes(stream)) is not None:
                    if changes:
                        yield changes
                self._detach()
                await self._sleep(REATTACH_WAIT_S)
        finally:
            self._detach()

    async def _next_changes(self, stream: WatchStream) -> list[Change] | None:
        """None: attach again."""
        try:
            return self._cursor.accept(stream.changes(await stream.next()))
        except HistoryDiffersError as error:
            log.warning("watch: %s; reading everything again", error)
            self._cursor.forget()
        except StreamEndedError as error:
            if not self._closed.is_set():
                log.info("watch interrupted: %s", error)
            if error.compacted:
                self._cursor.forget()
        return None

    async def _attach_patiently(self) -> tuple[WatchStream | None, Snapshot | None]:
        """Tries until it succeeds, however long that takes; (None, None) when coordination was closed."""

        def stop(_: RetryCallState) -> bool:
            return self._closed.is_set()

        retrying = AsyncRetrying(
            retry=retry_if_exception_type((ShadowQError, HistoryDiffersError)),
            wait=wait_random_exponential(multiplier=0.05, max=RETRY_WAIT_MAX_S),
            stop=stop,
            sleep=self._sleep,
            before_sleep=_log_sometimes,
            reraise=True,
        )
        try:
            return await retrying(self._attach)
        except (ShadowQError, HistoryDiffersError):
            return None, None

    async def _attach(self) -> tuple[WatchStream, Snapshot | None]:
        self._detach()
        connections, cursor = self._connections, self._cursor
        metadata = await connections.metadata()
        connection = connections.current()
        stream = self._stream = WatchStream(connection, connections.settings.prefix, cursor.resume_revision, metadata)
        created = await self._created(stream, connection)
        try:
            if cursor.resume_revision:
                cursor.resume(await self._revision())
                connections.counters.watch_resumptions += 1
                return stream, None
        except HistoryDiffersError:
            cursor.forget()
            raise
        snapshot = await self._read_snapshot()
        if snapshot.revision < created.header.revision:
            raise HistoryDiffersError("the store's revision went back while it was read")
        cursor.begin(snapshot)
        connections.counters.watch_snapshots += 1
        return stream, snapshot

    async def _created(self, stream: WatchStream, connection: Connection) -> Any:
        try:
            response = await asyncio.wait_for(stream.next(), CREATED_TIMEOUT_S)
        except TimeoutError:
            self._connections.suspect(connection)
            raise StreamEndedError(f"etcd at {connection.endpoint} did not confirm the watch in time") from None
        except StreamEndedError as error:
            if error.compacted:
                self._cursor.forget()
            else:
                self._connections.forget_token()  # refusals of a watch come as text only; a new token costs little
                self._connections.suspect(connection)
            raise
        assert response.created, "etcd confirms a watch before anything else"
        return response

    async def _revision(self) -> int:
        """The store's revision, linearizably: of a Range over nothing."""
        request = etcdrpc.RangeRequest(key=self._connections.settings.prefix.encode(), keys_only=True, limit=1)
        response = await self._connections.read(kv_range, request, self._connections.settings.call_timeout_s)
        return int(response.header.revision)

    def _detach(self) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    async def _sleep(self, seconds: float) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._closed.wait(), seconds)


def _log_sometimes(state: RetryCallState) -> None:
    """The third failure, then every hundredth: an outage must be seen in the log, and must not fill it."""
    if state.attempt_number % 100 == 3 and state.outcome is not None:
        log.warning("watch: cannot attach, still trying: %s", state.outcome.exception())


def prefix_end(prefix: bytes) -> bytes:
    """The end of the range of all keys that begin with the prefix. The last byte is never 0xff: keys are UTF-8."""
    return prefix[:-1] + bytes([prefix[-1] + 1])
