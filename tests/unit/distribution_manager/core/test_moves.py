"""Message move tasks as etcd keeps them: one active at a time, ten remembered, an ended one never changed."""

from __future__ import annotations

from collections.abc import Generator
from typing import TypeVar

import msgspec
import pytest

from distribution_manager.coordination.memory import MemoryCluster
from distribution_manager.core import moves
from distribution_manager.core.moves import COMPLETED, TASKS_KEPT_MAX, MoveTask
from distribution_manager.core.transactions import Outcome, Put, Transaction

T = TypeVar("T")
QUEUE = f"{5:016x}"


@pytest.fixture
def cluster() -> MemoryCluster:
    return MemoryCluster()


def run(cluster: MemoryCluster, procedure: Generator[Transaction, Outcome, T]) -> T:
    try:
        transaction = next(procedure)
        while True:
            transaction = procedure.send(cluster.transact(transaction))
    except StopIteration as stop:
        value: T = stop.value
        return value


def completed(task: MoveTask) -> MoveTask:
    return msgspec.structs.replace(task, status=COMPLETED, moved=3)


def test_one_task_at_a_time(cluster: MemoryCluster) -> None:
    assert run(cluster, moves.read_moves(QUEUE)).tasks == ()
    first = MoveTask(task="1", rate=5)
    assert run(cluster, moves.start_move(QUEUE, first)).active() == first
    assert run(cluster, moves.start_move(QUEUE, first)).tasks == (first,), "repeated, as its outcome was unknown"
    with pytest.raises(moves.MoveRunningError):
        run(cluster, moves.start_move(QUEUE, MoveTask(task="2")))
    run(cluster, moves.change_move(QUEUE, "1", moves.cancelled))
    with pytest.raises(moves.MoveRunningError):
        run(cluster, moves.start_move(QUEUE, MoveTask(task="2")))
    run(cluster, moves.change_move(QUEUE, "1", completed))
    assert run(cluster, moves.start_move(QUEUE, MoveTask(task="2"))).active() == MoveTask(task="2")


def test_an_ended_task_does_not_change(cluster: MemoryCluster) -> None:
    run(cluster, moves.start_move(QUEUE, MoveTask(task="1")))
    run(cluster, moves.change_move(QUEUE, "1", completed))
    after = run(cluster, moves.change_move(QUEUE, "1", moves.cancelled))
    assert after.tasks == (completed(MoveTask(task="1")),)
    with pytest.raises(moves.NoSuchMoveError):
        run(cluster, moves.change_move(QUEUE, "2", moves.cancelled))


def test_the_most_recent_are_remembered(cluster: MemoryCluster) -> None:
    for number in range(TASKS_KEPT_MAX + 3):
        run(cluster, moves.start_move(QUEUE, MoveTask(task=str(number))))
        run(cluster, moves.change_move(QUEUE, str(number), completed))
    tasks = run(cluster, moves.read_moves(QUEUE)).tasks
    assert [int(task.task) for task in tasks] == list(range(TASKS_KEPT_MAX + 2, 2, -1))


class RacedCluster(MemoryCluster):
    """Before our first write another manager's comes: nothing of its is lost."""

    raced = False

    def transact(self, transaction: Transaction) -> Outcome:
        if not self.raced and any(isinstance(change, Put) for change in transaction.changes):
            self.raced = True
            run(self, moves.change_move(QUEUE, "1", moves.cancelled))
        return super().transact(transaction)


def test_a_race_is_run_again() -> None:
    cluster = RacedCluster()
    cluster.raced = True
    run(cluster, moves.start_move(QUEUE, MoveTask(task="1")))
    cluster.raced = False
    (task,) = run(cluster, moves.change_move(QUEUE, "1", lambda task: msgspec.structs.replace(task, moved=1))).tasks
    assert (task.moved, task.status) == (1, moves.CANCELLING)


class LostCluster(MemoryCluster):
    """Others win every race."""

    def transact(self, transaction: Transaction) -> Outcome:
        return Outcome(False, 1, {})


def test_others_that_never_stop() -> None:
    with pytest.raises(moves.BusyError):
        run(LostCluster(), moves.start_move(QUEUE, MoveTask(task="1")))
