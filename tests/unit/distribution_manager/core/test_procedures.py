from __future__ import annotations

from collections.abc import Generator
from typing import TypeVar

import pytest

from distribution_manager.coordination.memory import MemoryCluster
from distribution_manager.core import procedures
from distribution_manager.core.metadata import Owner, QueueMetadata, Replica
from distribution_manager.core.transactions import Outcome, Transaction

T = TypeVar("T")
ME = Owner(manager="manager-a", life=7)
REPLICAS = tuple(Replica(node=f"node-{letter}", incarnation="1") for letter in "abc")
QUEUE = QueueMetadata(queue_id=f"{5:016x}", name="orders", attributes={"VisibilityTimeout": "40"})


def run(cluster: MemoryCluster, procedure: Generator[Transaction, Outcome, T]) -> T:
    try:
        transaction = next(procedure)
        while True:
            transaction = procedure.send(cluster.transact(transaction))
    except StopIteration as stop:
        value: T = stop.value
        return value


@pytest.fixture
def cluster() -> MemoryCluster:
    return MemoryCluster()


def test_a_created_queue_is_owned_and_found_again(cluster: MemoryCluster) -> None:
    created = run(cluster, procedures.create_queue(QUEUE, REPLICAS, ME, 99))
    assert created.record is not None
    assert (created.record.epoch, created.record.attempt, created.record.owner) == (1, 99, ME)
    again = QueueMetadata(queue_id=f"{6:016x}", name="orders", attributes={"VisibilityTimeout": "40"})
    found = run(cluster, procedures.create_queue(again, REPLICAS, ME, 100))
    assert found.record is None
    assert found.metadata.queue_id == QUEUE.queue_id
    assert run(cluster, procedures.look_up("orders")) == QUEUE
    assert run(cluster, procedures.look_up("nothing")) is None


def test_a_differing_attribute_is_named(cluster: MemoryCluster) -> None:
    run(cluster, procedures.create_queue(QUEUE, REPLICAS, ME, 1))
    other = QueueMetadata(queue_id=f"{6:016x}", name="orders", attributes={"VisibilityTimeout": "41"})
    with pytest.raises(procedures.AttributesDifferError, match="VisibilityTimeout"):
        run(cluster, procedures.create_queue(other, REPLICAS, ME, 1))


def test_changes_merge_and_count(cluster: MemoryCluster) -> None:
    run(cluster, procedures.create_queue(QUEUE, REPLICAS, ME, 1))
    changes: dict[str, str | None] = {"DelaySeconds": "3", "VisibilityTimeout": None}
    after = run(cluster, procedures.change_queue(QUEUE.queue_id, changes, {"team": "blue"}, None, 50))
    assert after.attributes == {"DelaySeconds": "3"}
    assert (after.tags, after.version, after.modified_ms) == ({"team": "blue"}, 2, 50)


def test_a_change_is_made_upon_what_others_changed_meanwhile(cluster: MemoryCluster) -> None:
    run(cluster, procedures.create_queue(QUEUE, REPLICAS, ME, 1))
    slow = procedures.change_queue(QUEUE.queue_id, {"DelaySeconds": "1"}, {}, None, 1)
    read = cluster.transact(next(slow))
    run(cluster, procedures.change_queue(QUEUE.queue_id, {}, {"team": "red"}, None, 2))
    refused = cluster.transact(slow.send(read))
    assert not refused.succeeded
    accepted = cluster.transact(slow.send(refused))
    with pytest.raises(StopIteration) as stop:
        slow.send(accepted)
    assert stop.value.value.tags == {"team": "red"}
    assert stop.value.value.version == 3


def test_a_deleted_queue_leaves_a_grave_only(cluster: MemoryCluster) -> None:
    run(cluster, procedures.create_queue(QUEUE, REPLICAS, ME, 1))
    run(cluster, procedures.delete_queue(QUEUE, 77))
    kept = cluster.transact(Transaction([], [], [f"graves/{QUEUE.queue_id}", "queues/orders"])).found
    assert list(kept) == [f"graves/{QUEUE.queue_id}"]
    assert b"node-b" in kept[f"graves/{QUEUE.queue_id}"].value
    with pytest.raises(procedures.NoSuchQueueError):
        run(cluster, procedures.delete_queue(QUEUE, 78))


def test_a_namesake_is_not_deleted(cluster: MemoryCluster) -> None:
    run(cluster, procedures.create_queue(QUEUE, REPLICAS, ME, 1))
    run(cluster, procedures.delete_queue(QUEUE, 77))
    successor = QueueMetadata(queue_id=f"{6:016x}", name="orders")
    run(cluster, procedures.create_queue(successor, REPLICAS, ME, 1))
    with pytest.raises(procedures.NoSuchQueueError):
        run(cluster, procedures.delete_queue(QUEUE, 78))
    assert run(cluster, procedures.look_up("orders")) == successor
