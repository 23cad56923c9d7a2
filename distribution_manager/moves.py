"""Drives message move tasks: the manager that owns a dead-letter queue moves its messages, as fast as the task allows.

Model: what is to be done is in etcd (core/moves.py), so that after a failover the next owner goes on with it. Each step
is a replicated ``Move`` command, which puts messages into the queue's outbox; the owner carries them from there, once.
Invariant: a task ends as COMPLETED only when its last letter has arrived. Its count may lag by what a dead manager had
not yet written down; no message is lost or moved twice by that.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import msgspec

from distribution_manager.backend import CoreBackend
from distribution_manager.core.metadata import QueueMetadata
from distribution_manager.core.moves import CANCELLED, CANCELLING, COMPLETED, FAILED, MoveTask
from distribution_manager.core.owner import Phase
from distribution_manager.driver import Driver
from distribution_manager.sqs.backend import QueueGone
from shadow_nodes.protocol.commands import Move, Moved
from shadow_nodes.protocol.errors import RejectedError

SCAN_SECONDS = 0.25
NUDGE_SECONDS = 3.0
"""A task whose queue another manager owns is asked for this often: should that manager be gone, the question itself
makes somebody the owner."""
BATCH_MAX = 100
OUTBOX_MAX = 1_000
"""No more is moved while this many letters wait to be carried."""
RECORD_SECONDS = 1.0
"""How often the count is written down."""
PAUSE_SECONDS_MIN = 0.02
PAUSE_SECONDS_MAX = 1.0
STUCK_SECONDS_MAX = 60.0
"""Letters that nobody takes for this long: their queue is gone."""

QUEUE_MISSING = "AWS.SimpleQueueService.NonExistentQueue"
SOURCE_UNKNOWN = "CouldNotDetermineMessageSource"

log = logging.getLogger(__name__)


class MoveRunner:
    def __init__(self, driver: Driver, backend: CoreBackend) -> None:
        self._core = driver.core
        self._backend = backend
        self._loop = asyncio.get_running_loop()
        self._driven: dict[str, asyncio.Task[None]] = {}
        self._nudged_s: dict[str, float] = {}

    async def run(self) -> None:
        """Until cancelled."""
        try:
            while True:
                self._scan()
                await asyncio.sleep(SCAN_SECONDS)
        finally:
            for task in list(self._driven.values()):
                task.cancel()
            await asyncio.gather(*self._driven.values(), return_exceptions=True)

    def _scan(self) -> None:
        directory = self._core.directory
        for queue_id, tasks in list(directory.moves.items()):
            if queue_id in self._driven:
                continue
            queue, task = directory.queues.get(queue_id), tasks.active()
            if queue is None and queue_id in directory.graves:
                self._begin(queue_id, self._backend.forget_moves(queue_id))
            elif queue is not None and task is not None:
                if self._owns(queue):
                    self._begin(queue_id, _Mover(self, self._backend, queue, task).run())
                elif self._loop.time() - self._nudged_s.get(queue_id, 0) > NUDGE_SECONDS:
                    self._nudged_s[queue_id] = self._loop.time()
                    self._begin(queue_id, self._backend.summarize(queue))

    def _begin(self, queue_id: str, work: Any) -> None:
        task = self._driven[queue_id] = self._loop.create_task(work)
        task.add_done_callback(lambda done: self._ended(queue_id, done))

    def _ended(self, queue_id: str, task: asyncio.Task[None]) -> None:
        self._driven.pop(queue_id, None)
        error = None if task.cancelled() else task.exception()
        if isinstance(error, RejectedError):
            log.info("the message move task of queue %s waits: %s", queue_id, error)
        elif error is not None:
            log.error("the message move task of queue %s failed here", queue_id, exc_info=error)

    def _owns(self, queue: QueueMetadata) -> bool:
        owner = self._core.owners.get(queue.shard())
        return owner is not None and owner.phase is Phase.SERVING

    def owned_task(self, queue: QueueMetadata, task_id: str) -> MoveTask | None:
        """The task as it is now; None where it is not for this manager to go on with it."""
        tasks = self._core.directory.moves.get(queue.queue_id)
        task = None if tasks is None else tasks.find(task_id)
        return task if task is not None and task.active and self._owns(queue) else None

    def exists(self, queue_name: str) -> bool:
        return self._core.directory.queue(queue_name) is not None


class _Mover:
    """One task, for as long as this manager owns its queue."""

    def __init__(self, runner: MoveRunner, backend: CoreBackend, queue: QueueMetadata, task: MoveTask) -> None:
        self._runner = runner
        self._backend = backend
        self._queue = queue
        self._task = task
        self._moved = task.moved
        self._written = task.moved
        self._written_s = 0.0
        self._outbox_before = 0
        self._outbox_changed_s = 0.0
        self._fruitless = 0
        self._clock = asyncio.get_running_loop().time

    async def run(self) -> None:
        """Raises Unavailable: whoever owns the queue then tries again."""
        self._outbox_changed_s = self._clock()
        pause_s = PAUSE_SECONDS_MIN
        while (task := self._runner.owned_task(self._queue, self._task.task)) is not None:
            self._task = task
            try:
                ended, progressed = await self._step()
            except QueueGone:
                return
            if ended:
                return
            await self._write_count()
            pause_s = PAUSE_SECONDS_MIN if progressed else min(2 * pause_s, PAUSE_SECONDS_MAX)
            await asyncio.sleep(max(pause_s, self._rate_pause_s() if progressed else 0.0))

    async def _step(self) -> tuple[bool, bool]:
        """(has ended, has moved something)"""
        task = self._task
        if task.status == CANCELLING:
            await self._end(CANCELLED)
            return True, False
        if task.destination and not self._runner.exists(task.destination):
            await self._end(FAILED, QUEUE_MISSING)
            return True, False
        summary = await self._backend.summarize(self._queue)
        if summary.outbox != self._outbox_before:
            self._outbox_before, self._outbox_changed_s = summary.outbox, self._clock()
        elif summary.outbox and self._clock() - self._outbox_changed_s > STUCK_SECONDS_MAX:
            await self._end(FAILED, QUEUE_MISSING)
            return True, False
        if summary.outbox > OUTBOX_MAX:
            return False, False
        executed = await self._backend.execute(self._queue, Move(task.task, self._batch(), task.destination))
        if not isinstance(executed.result, Moved):
            raise QueueGone(self._queue.name)
        self._moved += executed.result.count
        if executed.result.count or executed.result.remaining or summary.outbox:
            self._fruitless = 0
            return False, executed.result.count > 0
        return await self._looks_empty(), False

    async def _looks_empty(self) -> bool:
        """Twice in a row, since a letter may have come back, or a message arrived, between question and command."""
        self._fruitless += 1
        if self._fruitless < 2:
            return False
        summary = await self._backend.summarize(self._queue)
        if summary.ready and not self._task.destination:
            await self._end(FAILED, SOURCE_UNKNOWN)
        else:
            await self._end(COMPLETED)
        return True

    def _batch(self) -> int:
        """At most a fifth of a second's worth."""
        return min(BATCH_MAX, max(1, self._task.rate // 5)) if self._task.rate else BATCH_MAX

    def _rate_pause_s(self) -> float:
        return self._batch() / self._task.rate if self._task.rate else 0.0

    async def _write_count(self) -> None:
        if self._moved != self._written and self._clock() - self._written_s >= RECORD_SECONDS:
            await self._write("", "")

    async def _end(self, status: str, failure: str = "") -> None:
        await self._write(status, failure)
        log.info("message move task %s of queue %s is %s", self._task.task, self._queue.name, status)

    async def _write(self, status: str, failure: str) -> None:
        """``status``: the one it ends with; "" while it goes on, be it running or being cancelled."""
        moved = self._moved

        def change(task: MoveTask) -> MoveTask:
            return msgspec.structs.replace(
                task, status=status or task.status, moved=max(task.moved, moved), failure=failure
            )

        await self._backend.change_move(self._queue, self._task.task, change)
        self._written, self._written_s = moved, self._clock()
