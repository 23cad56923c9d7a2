"""A Backend in one process: a real state machine per queue, entries of one operation each, a clock that tests move."""

from __future__ import annotations

import itertools

import msgspec

from distribution_manager.core.attributes import SHADOW_FACTOR, SHADOW_FACTOR_DEFAULT, differing_attribute, settings_of
from distribution_manager.core.metadata import QueueMetadata, encode_record
from distribution_manager.core.moves import (
    MoveTask,
    MoveTasks,
    NoSuchMoveError,
    Procedure,
    cancelled,
    change_move,
    moves_key,
    start_move,
)
from distribution_manager.core.transactions import KeyValue, Outcome
from distribution_manager.sqs.backend import ChangedMeanwhile, Executed, NameTaken, QueueGone
from shadow_nodes.core.machine.machine import Machine
from shadow_nodes.protocol.commands import (
    Accept,
    Command,
    Configure,
    Entry,
    Operation,
    Result,
    Seal,
    Session,
    Settle,
    Summary,
)

LIFE = 0x123456789ABCDEF


class FakeBackend:
    def __init__(self) -> None:
        self.now_ms = 1_700_000_000_000
        self.queues: dict[str, QueueMetadata] = {}
        self.machines: dict[str, Machine] = {}
        self.hidden: set[str] = set()
        """Names that the cache does not have yet."""
        self.stale: dict[str, QueueMetadata] = {}
        """Names for which the cache still has a deleted queue."""
        self.waits_ms: list[int] = []
        self.moves: dict[str, MoveTasks] = {}
        self.failure: Exception | None = None
        self._ids = itertools.count(1)
        self._counters = itertools.count(1)

    # --- the interface

    def find_queue(self, name: str) -> QueueMetadata | None:
        return self.stale.get(name) or (None if name in self.hidden else self.queues.get(name))

    async def look_up_queue(self, name: str) -> QueueMetadata | None:
        return self.queues.get(name)

    def regions(self) -> list[str]:
        return ["a", "b", "c", "d"]

    def list_queues(self) -> list[QueueMetadata]:
        return [self.queues[name] for name in sorted(self.queues)]

    async def create_queue(
        self, name: str, attributes: dict[str, str], tags: dict[str, str], shadow_factor: int | None
    ) -> QueueMetadata:
        held = self.queues.get(name)
        if held is not None:
            differing = differing_attribute(held, attributes, shadow_factor)
            if differing is not None:
                raise NameTaken(differing)
            return held
        factor = SHADOW_FACTOR_DEFAULT if shadow_factor is None else shadow_factor
        queue = QueueMetadata(
            queue_id=f"{next(self._ids):016x}",
            name=name,
            attributes=attributes,
            tags=tags,
            created_ms=self.now_ms,
            modified_ms=self.now_ms,
            shadow_factor=factor,
        )
        self.queues[name] = queue
        self.machines[queue.queue_id] = Machine()
        self._apply(queue.queue_id, Configure(settings_of(queue)))
        return queue

    async def delete_queue(self, queue: QueueMetadata, *, key: str = "") -> None:
        if self.machines.pop(queue.queue_id, None) is None:
            raise QueueGone
        del self.queues[queue.name]

    async def change_queue(
        self,
        queue: QueueMetadata,
        attributes: dict[str, str | None] | None = None,
        tags: dict[str, str | None] | None = None,
        provided: dict[str, str | None] | None = None,
        *,
        key: str = "",
    ) -> QueueMetadata:
        held = self.queues.get(queue.name)
        if held is None:
            raise QueueGone
        if any(held.attributes.get(name) != value for name, value in (provided or {}).items()):
            raise ChangedMeanwhile
        merged = {**held.attributes, **(attributes or {})}
        factor = merged.pop(SHADOW_FACTOR, None)
        changed = QueueMetadata(
            queue_id=held.queue_id,
            name=held.name,
            attributes={name: value for name, value in merged.items() if value is not None},
            tags={key: value for key, value in {**held.tags, **(tags or {})}.items() if value is not None},
            created_ms=held.created_ms,
            modified_ms=self.now_ms,
            version=held.version + 1,
            shadow_factor=held.shadow_factor if factor is None else int(factor),
        )
        self.queues[held.name] = changed
        self._apply(held.queue_id, Configure(settings_of(changed)))
        return changed

    async def execute(self, queue: QueueMetadata, command: Command, *, wait_ms: int = 0, key: str = "") -> Executed:
        if self.failure is not None:
            raise self.failure
        if queue.queue_id not in self.machines:
            raise QueueGone
        self.waits_ms.append(wait_ms)
        counter, result = self._apply(queue.queue_id, command)
        self._carry_letters(queue)
        return Executed(LIFE, counter, result)

    async def summarize(self, queue: QueueMetadata) -> Summary:
        if queue.queue_id not in self.machines:
            raise QueueGone
        return self.machines[queue.queue_id].summary(self.now_ms)

    def seal(self, queue: QueueMetadata) -> None:
        self._apply(queue.queue_id, Seal())

    async def start_move(self, queue: QueueMetadata, destination: str, rate: int) -> MoveTask:
        summary = await self.summarize(queue)
        task = MoveTask(
            task=f"{next(self._ids):016x}",
            destination=destination,
            rate=rate,
            started_ms=self.now_ms,
            to_move=summary.ready,
        )
        self._change_moves(start_move(queue.queue_id, task), queue)
        return task

    async def cancel_move(self, queue: QueueMetadata, task: str) -> MoveTask:
        before = self.moves.get(queue.queue_id, MoveTasks()).find(task)
        if before is None:
            raise NoSuchMoveError(task)
        self._change_moves(change_move(queue.queue_id, task, cancelled), queue)
        return before

    async def list_moves(self, queue: QueueMetadata) -> tuple[MoveTask, ...]:
        return self.moves.get(queue.queue_id, MoveTasks()).tasks

    # --- inside

    def _change_moves(self, procedure: Procedure, queue: QueueMetadata) -> None:
        """Answers a procedure as etcd would, and keeps what it writes."""
        held = self.moves.get(queue.queue_id)
        key = moves_key(queue.queue_id)
        found = {} if held is None else {key: KeyValue(key, encode_record(held), 1)}
        try:
            next(procedure)
            procedure.send(Outcome(True, 1, found))
            procedure.send(Outcome(True, 2, {}))
        except StopIteration as stop:
            self.moves[queue.queue_id] = stop.value

    def _apply(self, queue_id: str, command: Command) -> tuple[int, Result | None]:
        machine, counter = self.machines[queue_id], next(self._counters)
        entry = Entry(
            1,
            machine.applied.seq + 1,
            self.now_ms,
            [Session(LIFE, counter)],
            [Operation(0, counter, command)],
        )
        return counter, machine.apply(entry)[0]

    def _carry_letters(self, queue: QueueMetadata) -> None:
        """What owners do between shards: dead letters go where they are addressed, then leave the outbox."""
        letters = self.machines[queue.queue_id].outbox(0, 100)
        for letter in letters:
            sourced = msgspec.structs.replace(letter, source=letter.source or queue.name)
            self._apply(self.queues[letter.target].queue_id, Accept(queue.shard(), [sourced]))
        if letters:
            self._apply(queue.queue_id, Settle(letters[-1].number))
