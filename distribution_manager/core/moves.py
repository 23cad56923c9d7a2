"""Message move tasks: what etcd knows of them, and how it is changed.

    moves/<queue id>       -> MoveTasks: the most recent ones of a dead-letter queue, the newest first

Model: all tasks of a queue share one key, whose comparison makes each change whole: two cannot be started at once, and
the driver of a task and those who cancel it never undo each other. The messages themselves move through the
replicated outbox (``commands.Move``); what is stored here decides only whether it goes on, and what is told of it.
Invariant: at most one task of a queue is active; an ended one never changes again.
"""

from __future__ import annotations

from collections.abc import Callable, Generator

import msgspec

from distribution_manager.core.metadata import Record, decode_record, encode_record
from distribution_manager.core.transactions import ABSENT, Compare, Outcome, Put, Transaction
from shadow_nodes.protocol.errors import RejectedError

TASKS_KEPT_MAX = 10
"""SQS lists ten."""
CHANGE_ATTEMPTS_MAX = 16

RUNNING = "RUNNING"
CANCELLING = "CANCELLING"
CANCELLED = "CANCELLED"
COMPLETED = "COMPLETED"
FAILED = "FAILED"
ACTIVE = frozenset({RUNNING, CANCELLING})


class MoveTask(Record, frozen=True):
    """``destination``: a queue's name; "" sends each message back to the queue it was dead-lettered from.

    ``rate``: messages per second; 0 for as many as there can be. ``to_move``: how many there were when it began.
    """

    task: str
    destination: str = ""
    rate: int = 0
    started_ms: int = 0
    to_move: int = 0
    moved: int = 0
    status: str = RUNNING
    failure: str = ""

    @property
    def active(self) -> bool:
        return self.status in ACTIVE


class MoveTasks(Record, frozen=True):
    tasks: tuple[MoveTask, ...] = ()

    def active(self) -> MoveTask | None:
        return next((task for task in self.tasks if task.active), None)

    def find(self, task_id: str) -> MoveTask | None:
        return next((task for task in self.tasks if task.task == task_id), None)


class MoveRunningError(RejectedError):
    """The queue has an active task already."""


class NoSuchMoveError(RejectedError):
    """The queue has no such task, or no longer knows of it."""


class BusyError(RejectedError):
    """Others change the same tasks all the time."""


def moves_key(queue_id: str) -> str:
    return f"moves/{queue_id}"


def decode_moves(key: str, value: bytes) -> MoveTasks:
    """Raises CorruptError."""
    return decode_record(MoveTasks, key, value)


Procedure = Generator[Transaction, Outcome, MoveTasks]


def read_moves(queue_id: str) -> Procedure:
    key = moves_key(queue_id)
    outcome = yield Transaction([], [], [key])
    found = outcome.found.get(key)
    return MoveTasks() if found is None else decode_moves(key, found.value)


def start_move(queue_id: str, task: MoveTask) -> Procedure:
    """Raises MoveRunningError, BusyError. May be repeated: a task that is there is not started again."""

    def start(tasks: MoveTasks) -> MoveTasks:
        if tasks.find(task.task) is not None:
            return tasks
        if tasks.active() is not None:
            raise MoveRunningError
        return MoveTasks(tasks=(task, *tasks.tasks)[:TASKS_KEPT_MAX])

    return _change(queue_id, start)


def change_move(queue_id: str, task_id: str, change: Callable[[MoveTask], MoveTask]) -> Procedure:
    """``change`` is applied to the task where it is active. Raises NoSuchMoveError, BusyError."""

    def applied(tasks: MoveTasks) -> MoveTasks:
        if tasks.find(task_id) is None:
            raise NoSuchMoveError(task_id)
        return MoveTasks(
            tasks=tuple(change(task) if task.task == task_id and task.active else task for task in tasks.tasks)
        )

    return _change(queue_id, applied)


def cancelled(task: MoveTask) -> MoveTask:
    return msgspec.structs.replace(task, status=CANCELLING)


def _change(queue_id: str, change: Callable[[MoveTasks], MoveTasks]) -> Procedure:
    key = moves_key(queue_id)
    for _ in range(CHANGE_ATTEMPTS_MAX):
        outcome = yield Transaction([], [], [key])
        found = outcome.found.get(key)
        before = MoveTasks() if found is None else decode_moves(key, found.value)
        after = change(before)
        if after == before:
            return after
        revision = ABSENT if found is None else found.mod_revision
        outcome = yield Transaction([Compare(key, revision)], [Put(key, encode_record(after))], [key])
        if outcome.succeeded:
            return after
    raise BusyError("the queue's move tasks are being changed by others")
