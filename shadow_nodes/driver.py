"""Runs a NodeCore on an event loop: input steps in, sends go out, one batch is written at a time.

Model: whatever steps in wakes a turn at the end of the loop turn. A turn sends what may go at once; unless a write is
under way it then takes a batch, writes it in one transaction, sends its answers. While a write is under way in the
writer's thread, further input gathers for the next batch: group commit.
Invariants: no answer of a batch is sent before its write has returned. A batch for which the disk has no room is tried
again until it has; nothing overtakes it. After any other error of core or store nothing is sent any more:
``fatal`` is told, once, and is to end the process.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from shadow_nodes.core.machine import Machine
from shadow_nodes.core.node import LinkId, NodeBatch, NodeCore, Now, Pull, Reading, Send
from shadow_nodes.core.store import ShardWrite, Store
from shadow_nodes.metrics import NodeMetrics
from shadow_nodes.protocol.errors import NoRoomError, ProtocolError
from shadow_nodes.protocol.frames import FrameWriter
from shadow_nodes.protocol.limits import HEARTBEAT_INTERVAL_MS
from shadow_nodes.protocol.messages import Hello, ToManager, ToNode

INLINE_WRITE_SECONDS_MAX = 0.003
"""Writes run on the loop while their smoothed time is below this: that saves two hops between threads, but a slow disk
must not freeze the loop, whose heartbeats others judge."""
INLINE_AGAIN_SECONDS = 0.0015
INLINE_WRITE_BYTES_MAX = 256 * 1024
"""A larger batch, or one with a checkpoint or a snapshot, goes to the thread and says nothing about the disk."""
SMOOTHING = 0.1
"""The weight of the newest write in the smoothed time."""

ROOM_RETRY_SECONDS = 0.25
"""A batch for which there was no room on the disk is written again after this."""

assert INLINE_AGAIN_SECONDS < INLINE_WRITE_SECONDS_MAX
assert INLINE_WRITE_SECONDS_MAX * 1000 * 10 < HEARTBEAT_INTERVAL_MS


log = logging.getLogger(__name__)


def now() -> Now:
    return Now(time.monotonic_ns() // 1_000_000, time.time_ns() // 1_000_000)


class WritePace:
    """Decides where the next write runs."""

    def __init__(self) -> None:
        self.inline = True
        self.smoothed_seconds = 0.0

    def observe(self, seconds: float) -> None:
        self.smoothed_seconds += SMOOTHING * (seconds - self.smoothed_seconds)
        bound = INLINE_WRITE_SECONDS_MAX if self.inline else INLINE_AGAIN_SECONDS
        self.inline = self.smoothed_seconds < bound


class Driver:
    """Everything here is called from the loop's thread; only ``store.write`` and ``Reading.read`` run in others."""

    def __init__(
        self,
        core: NodeCore,
        store: Store,
        metrics: NodeMetrics,
        on_pull: Callable[[Pull], None],
        on_fatal: Callable[[BaseException], None],
    ) -> None:
        self.core = core
        self.pace = WritePace()
        self.copying = 0
        """Snapshots being staged: they hold the store's write lock at times; the loop must not wait."""
        self._store = store
        self._metrics = metrics
        self._on_pull = on_pull
        self._on_fatal = on_fatal
        self._loop = asyncio.get_running_loop()
        self._links: dict[LinkId, FrameWriter[ToManager]] = {}
        self._writer = ThreadPoolExecutor(1, "writer")
        self._reader = ThreadPoolExecutor(1, "reader")
        self._woken = False
        self._writing: asyncio.Future[float] | None = None
        self._waiting_for_room: asyncio.TimerHandle | None = None
        self._stopped = False
        self._ticking = self._loop.call_later(HEARTBEAT_INTERVAL_MS / 1000, self._tick)

    # --- input -----------------------------------------------------------------------------------------------------

    def connected(self, link: LinkId, hello: Hello, writer: FrameWriter[ToManager]) -> None:
        """Raises ProtocolError where the manager may not stay."""
        self.guard_input(self.core.connected, link, hello, now())
        self._links[link] = writer
        self.wake()

    def disconnected(self, link: LinkId) -> None:
        if self._links.pop(link, None) is not None:
            self.guard(self.core.disconnected, link)
            self.wake()

    def step(self, link: LinkId, messages: list[ToNode]) -> None:
        """Raises ProtocolError: close the link."""
        self._metrics.frames_in += 1
        try:
            self.guard_input(self.core.receive, link, messages, now())
        finally:
            self.wake()

    def guard(self, function: Callable[..., object], *args: object) -> None:
        """Calls core or store; any error is fatal."""
        if not self._stopped:
            try:
                function(*args)
            except Exception as error:
                self.fail(error)

    def guard_input(self, function: Callable[..., object], *args: object) -> None:
        """The same for what came from a peer, who may be wrong: raises ProtocolError."""
        if not self._stopped:
            try:
                function(*args)
            except ProtocolError:
                raise
            except Exception as error:
                self.fail(error)

    def fail(self, error: BaseException) -> None:
        """The store, or the state in memory, is in doubt: nothing leaves this node any more."""
        if not self._stopped:
            self._stopped = True
            self._ticking.cancel()
            self._on_fatal(error)

    def wake(self) -> None:
        """Something stepped in: there may be something to send or to write at the end of the loop turn."""
        if not self._woken:
            self._woken = True
            self._loop.call_soon(self._turn)

    def _tick(self) -> None:
        self._ticking = self._loop.call_later(HEARTBEAT_INTERVAL_MS / 1000, self._tick)
        self.guard(self.core.tick, now())
        self.wake()

    # --- output ----------------------------------------------------------------------------------------------------

    def _turn(self) -> None:
        self._woken = False
        if self._stopped:
            return
        sends = self.core.take_sends()
        if sends:
            self._send(sends)
        if self._writing is None and self._waiting_for_room is None:
            self.guard(self._begin_batch)

    def _begin_batch(self) -> None:
        for pull in {pull.shard: pull for pull in self.core.take_pulls()}.values():
            self._on_pull(pull)
        self._write(self.core.take_batch())

    def _write(self, batch: NodeBatch) -> None:
        self._waiting_for_room = None
        if not batch.writes:
            self._send(batch.sends)
        elif self.copying or not self.pace.inline or _is_large(batch.writes):
            self._writing = self._loop.run_in_executor(self._writer, self._timed_write, batch.writes)
            self._writing.add_done_callback(lambda done: self._written_in_thread(batch, done))
        else:
            try:
                seconds = self._timed_write(batch.writes)
            except NoRoomError:
                self._no_room(batch)
            else:
                self._written(batch, seconds, inline=True)

    def _no_room(self, batch: NodeBatch) -> None:
        """Nothing of the batch has happened; it stays the next to be written, and nothing else is taken on."""
        if not self.core.out_of_room:
            log.error("the disk is full: this node takes nothing more until there is room")
        self.core.out_of_room = True
        self._waiting_for_room = self._loop.call_later(ROOM_RETRY_SECONDS, self.guard, self._write, batch)

    def _timed_write(self, writes: list[ShardWrite]) -> float:
        start = time.perf_counter()
        self._store.write(writes)
        return time.perf_counter() - start

    def _written_in_thread(self, batch: NodeBatch, done: asyncio.Future[float]) -> None:
        self._writing = None
        error = done.exception()
        if isinstance(error, NoRoomError) and not self._stopped:
            self._no_room(batch)
        elif error is not None:
            self.fail(error)
        elif not self._stopped:
            self.guard(lambda: self._written(batch, done.result(), inline=False))
            self._turn()

    def _written(self, batch: NodeBatch, seconds: float, *, inline: bool) -> None:
        if not _is_large(batch.writes) and not self.copying:
            self.pace.observe(seconds)
        if self.core.out_of_room:
            log.warning("the disk has room again")
            self.core.out_of_room = False
            self.wake()
        self._metrics.written(batch.writes, seconds, inline=inline)
        self._send(batch.sends)
        self.core.written(batch)
        for reading in self.core.take_readings():
            self._read(reading)
        if not inline:
            self.wake()

    def _read(self, reading: Reading) -> None:
        """In a thread: a deep queue takes seconds, in which the loop must not be silent."""
        done = self._loop.run_in_executor(self._reader, reading.read)
        done.add_done_callback(lambda done: self._have_read(reading, done))

    def _have_read(self, reading: Reading, done: asyncio.Future[Machine]) -> None:
        error = None if done.cancelled() else done.exception()
        if self._stopped or not self.core.awaited(reading):
            return
        if error is not None:
            self.fail(error)
        else:
            self.guard(self.core.loaded, reading, done.result())
            self.wake()

    def _send(self, sends: list[Send]) -> None:
        """One frame per link."""
        by_link: dict[LinkId, list[ToManager]] = {}
        counts = self._metrics.sends
        for link, message in sends:
            counts[type(message)] += 1
            if link in by_link:
                by_link[link].append(message)
            else:
                by_link[link] = [message]
        for link, messages in by_link.items():
            writer = self._links.get(link)
            if writer is not None:
                writer.send(messages)
                self._metrics.frames_out += 1

    # --- the end ---------------------------------------------------------------------------------------------------

    async def settled(self) -> None:
        """Until the write under way has ended: whoever brings much is to be no quicker than the disk."""
        if self._writing is not None:
            await asyncio.wait([self._writing])

    @property
    def links(self) -> int:
        return len(self._links)

    async def stop(self) -> None:
        """Drops what is not written, lets a write under way end, and leaves the store to be closed."""
        self._stopped = True
        self._ticking.cancel()
        if self._waiting_for_room is not None:
            self._waiting_for_room.cancel()
        for writer in list(self._links.values()):
            writer.abort("this node stops")
        self._reader.shutdown(wait=False, cancel_futures=True)  # closing the store ends a reading
        if self._writing is not None:
            await asyncio.wait([self._writing])
        await self._loop.run_in_executor(None, self._writer.shutdown)


def _is_large(writes: list[ShardWrite]) -> bool:
    size_bytes = 0
    for write in writes:
        if write.checkpoint is not None or write.install is not None:
            return True
        for entry in write.entries:
            size_bytes += len(entry.data)
    return size_bytes > INLINE_WRITE_BYTES_MAX
