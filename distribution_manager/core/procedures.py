"""Creating, changing and deleting queues: what they ask of etcd, step by step, without waiting for it themselves.

Model: a procedure is a generator: it yields a Transaction, is sent the Outcome, and returns what came of it. The driver
repeats a whole procedure where an outcome was unknown: each begins by finding out what is so.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from types import MappingProxyType

import msgspec

from distribution_manager.core.attributes import differing_attribute
from distribution_manager.core.metadata import (
    Grave,
    Owner,
    QueueMetadata,
    Replica,
    ShardRecord,
    decode_record,
    encode_record,
    grave_key,
    meta_key,
    queue_key,
    record_key,
)
from distribution_manager.core.transactions import ABSENT, Compare, Outcome, Put, Remove, Transaction
from shadow_nodes.protocol.errors import RejectedError

CHANGE_ATTEMPTS_MAX = 16
"""How often a change of metadata is tried again because somebody else changed it meanwhile."""


class AttributesDifferError(RejectedError):
    """The queue exists with another value of the attribute that ``args[0]`` names."""


class NoSuchQueueError(RejectedError):
    """There is no queue of that name, or not any more."""


class ChangedMeanwhileError(RejectedError):
    """An attribute is not what the change was made from; ``args[0]`` names it."""


class BusyError(RejectedError):
    """Others change the same thing all the time."""


class Created(msgspec.Struct, frozen=True):
    """``record`` is there where this very transaction created the queue, with its creator as owner."""

    metadata: QueueMetadata
    record: ShardRecord | None


def create_queue(
    wanted: QueueMetadata, replicas: tuple[Replica, ...], owner: Owner, attempt: int, shadow_factor: int | None = None
) -> Generator[Transaction, Outcome, Created]:
    """Creates the queue, with its shard and lock, in one transaction; or finds the one that is there.

    ``shadow_factor``: the one that was asked for, None where none was: only then may one that is there have another.
    Raises AttributesDifferError, BusyError.
    """
    name_key = queue_key(wanted.name)
    record = ShardRecord(epoch=1, attempt=attempt, owner=owner, primary=replicas[0].node, replicas=replicas)
    outcome = yield Transaction(
        [Compare(name_key, ABSENT), Compare(meta_key(wanted.queue_id), ABSENT)],
        [
            Put(name_key, wanted.queue_id.encode()),
            Put(meta_key(wanted.queue_id), encode_record(wanted)),
            *(Put(record_key(wanted.shard(number)), encode_record(record)) for number in range(wanted.shards)),
        ],
        [name_key, meta_key(wanted.queue_id), record_key(wanted.shard())],
    )
    if outcome.succeeded:
        return Created(wanted, record)
    found = yield from look_up(wanted.name)
    if found is None:
        raise BusyError(f"queue {wanted.name} is being created and deleted by others")
    differing = differing_attribute(found, wanted.attributes, shadow_factor)
    if differing is not None:
        raise AttributesDifferError(differing)
    return Created(found, None)


def look_up(name: str) -> Generator[Transaction, Outcome, QueueMetadata | None]:
    """The queue's metadata, linearizably; None where there is no such queue."""
    name_key = queue_key(name)
    outcome = yield Transaction([], [], [name_key])
    item = outcome.found.get(name_key)
    if item is None:
        return None
    queue_id = item.value.decode()
    key = meta_key(queue_id)
    outcome = yield Transaction([], [], [key, record_key(f"{queue_id}/0")])
    meta = outcome.found.get(key)
    return None if meta is None else decode_record(QueueMetadata, key, meta.value)


def change_queue(
    queue_id: str,
    attributes: dict[str, str | None],
    tags: dict[str, str | None],
    shadow_factor: int | None,
    now_ms: int,
    *,
    provided: Mapping[str, str | None] = MappingProxyType({}),
) -> Generator[Transaction, Outcome, QueueMetadata]:
    """Sets (or, with None, takes away) attributes and tags, if those in ``provided`` are (None: not) there as given.

    Raises NoSuchQueueError, ChangedMeanwhileError, BusyError.
    """
    key = meta_key(queue_id)
    outcome = yield Transaction([], [], [key])
    for _ in range(CHANGE_ATTEMPTS_MAX):
        item = outcome.found.get(key)
        if item is None:
            raise NoSuchQueueError(queue_id)
        before = decode_record(QueueMetadata, key, item.value)
        for name, value in provided.items():
            if before.attributes.get(name) != value:
                raise ChangedMeanwhileError(name)
        after = msgspec.structs.replace(
            before,
            attributes=_changed(before.attributes, attributes),
            tags=_changed(before.tags, tags),
            shadow_factor=before.shadow_factor if shadow_factor is None else shadow_factor,
            modified_ms=now_ms,
            version=before.version + 1,
        )
        outcome = yield Transaction([Compare(key, item.mod_revision)], [Put(key, encode_record(after))], [key])
        if outcome.succeeded:
            return after
    raise BusyError(f"queue {before.name} is being changed by others")


def _changed(before: dict[str, str], changes: dict[str, str | None]) -> dict[str, str]:
    merged = {**before, **changes}
    return {name: value for name, value in merged.items() if value is not None}


def delete_queue(metadata: QueueMetadata, now_ms: int) -> Generator[Transaction, Outcome, None]:
    """Takes the (sealed) queue out of etcd and leaves a tombstone. Raises NoSuchQueueError, BusyError."""
    name_key, key = queue_key(metadata.name), meta_key(metadata.queue_id)
    records = [record_key(metadata.shard(number)) for number in range(metadata.shards)]
    for _ in range(CHANGE_ATTEMPTS_MAX):
        outcome = yield Transaction([], [], [name_key, key, *records])
        item = outcome.found.get(name_key)
        if item is None or item.value.decode() != metadata.queue_id:
            raise NoSuchQueueError(metadata.name)
        nodes: set[str] = set()
        for record in records:
            if record in outcome.found:
                shard = decode_record(ShardRecord, record, outcome.found[record].value)
                nodes.update(replica.node for replica in shard.replicas)
                nodes.update(shard.outside)
        grave = Grave(name=metadata.name, deleted_ms=now_ms, shards=metadata.shards, replicas=tuple(sorted(nodes)))
        outcome = yield Transaction(
            [Compare(found.key, found.mod_revision) for found in outcome.found.values()],
            [
                Remove(name_key),
                Remove(key),
                *(Remove(record) for record in records),
                Put(grave_key(metadata.queue_id), encode_record(grave)),
            ],
            [grave_key(metadata.queue_id)],
        )
        if outcome.succeeded:
            return
    raise BusyError(f"queue {metadata.name} is being changed by others")
