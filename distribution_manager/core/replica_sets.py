"""What a shard's log knows of its replica set, against what etcd says: an etcd restored from a backup says less.

Model: every epoch's first entry, and one after every change, tells the set as etcd had it then (``told``). So a set
that the log tells of has been in force, and a record that says less (``put_right`` differs from it) was set back.
Invariant, with the rules in membership.py and takeover.py: as long as a set is in force, or an etcd may be restored to
it, each of its quorums has a log that tells of it or of a later one; see ARCHITECTURE.md, "A restored etcd".
Source: Ongaro & Ousterhout 2014, section 6 (a server uses the latest configuration in its log).
"""

from __future__ import annotations

import msgspec

from distribution_manager.core.metadata import Replica, ShardRecord
from distribution_manager.core.replication import quorum
from shadow_nodes.protocol.commands import ReplicaSet


def told(record: ShardRecord) -> ReplicaSet:
    """What the log is to tell of a record."""
    members = [(replica.node, replica.incarnation) for replica in record.replicas]
    return ReplicaSet(record.version, members, list(record.outside))


def members_of(known: ReplicaSet) -> tuple[Replica, ...]:
    return tuple(Replica(node=node, incarnation=incarnation) for node, incarnation in known.members)


def put_right(record: ShardRecord, known: ReplicaSet) -> ShardRecord:
    """The record with what is ``known`` and it lacks; the record itself where it lacks nothing."""
    if known.version < record.version:
        return record
    replicas = members_of(known)
    nodes = [replica.node for replica in replicas]
    others = {*record.outside, *known.outside, *(replica.node for replica in record.replicas)}
    outside = others.difference(nodes)
    if replicas == record.replicas and outside == set(record.outside):
        return record
    return msgspec.structs.replace(
        record,
        replicas=replicas,
        version=known.version,
        primary=record.primary if record.primary in nodes else nodes[0],
        learner="" if record.learner in nodes else record.learner,
        outside=tuple(sorted(outside)),
    )


def always_meet(one: tuple[Replica, ...], other: tuple[Replica, ...]) -> bool:
    """Whether each quorum of the one shares a member with each quorum of the other."""
    return quorum(len(one)) + quorum(len(other)) > len({*one, *other})
