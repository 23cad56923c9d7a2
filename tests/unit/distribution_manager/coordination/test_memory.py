"""The twin's own levers: the clock, leases early and late, compaction, lost data, lost requests and replies."""

from __future__ import annotations

import pytest

from distribution_manager.coordination.interface import CoordinationUnavailable
from distribution_manager.coordination.memory import MemoryCluster, MemoryWatch
from distribution_manager.coordination.memory_coordination import MemoryCoordination
from distribution_manager.core.transactions import Change, Put, Remove, Snapshot, Transaction
from shadow_nodes.protocol.errors import OutcomeUnknownError

LEASED = Transaction([], [Put("leased", b"", leased=True)])


def put(key: str, value: bytes = b"") -> Transaction:
    return Transaction([], [Put(key, value)])


def test_a_lease_runs_out_by_the_callers_clock() -> None:
    cluster = MemoryCluster()
    lease = cluster.grant(5_000, now_ms=1_000)
    cluster.transact(LEASED, lease)
    cluster.tick(5_999)
    assert cluster.keep_alive(lease, 5_999)
    cluster.tick(10_998)
    assert cluster.get("leased")
    cluster.tick(10_999)
    assert cluster.get("leased") is None
    assert not cluster.keep_alive(lease, 11_000)
    with pytest.raises(CoordinationUnavailable):
        cluster.transact(LEASED, lease)


def test_a_lease_may_expire_late_or_early() -> None:
    cluster = MemoryCluster()
    lease = cluster.grant(1_000, now_ms=0)
    cluster.expiry_delay_ms = 500
    cluster.tick(1_499)
    assert cluster.has_lease(lease)
    cluster.expire(lease)
    assert not cluster.has_lease(lease)


def test_leases_get_their_full_time_again_after_an_outage() -> None:
    cluster = MemoryCluster()
    lease = cluster.grant(1_000, now_ms=0)
    cluster.set_available(False)
    cluster.tick(9_000)
    cluster.set_available(True, now_ms=9_000)
    cluster.tick(9_999)
    assert cluster.has_lease(lease)
    cluster.tick(10_000)
    assert not cluster.has_lease(lease)


def test_a_key_follows_its_latest_lease() -> None:
    cluster = MemoryCluster()
    old, new = cluster.grant(1_000, 0), cluster.grant(1_000, 0)
    cluster.transact(LEASED, old)
    cluster.transact(LEASED, new)
    cluster.expire(old)
    assert cluster.get("leased")
    cluster.expire(new)
    assert cluster.get("leased") is None


def test_unavailable_means_not_happened() -> None:
    cluster = MemoryCluster()
    cluster.set_available(False)
    with pytest.raises(CoordinationUnavailable):
        cluster.transact(put("a"))
    cluster.set_available(True)
    assert cluster.get("a") is None


def test_lost_requests_and_replies_look_the_same() -> None:
    cluster = MemoryCluster()
    cluster.requests_to_lose = 1
    with pytest.raises(OutcomeUnknownError):
        cluster.transact(put("a"))
    assert cluster.get("a") is None
    cluster.replies_to_lose = 1
    with pytest.raises(OutcomeUnknownError):
        cluster.transact(put("a"))
    assert cluster.get("a")


def test_an_interrupted_watch_goes_on_where_it_was_unless_compacted() -> None:
    cluster = MemoryCluster()
    watch = MemoryWatch(cluster)
    assert watch.step() == Snapshot(1, [])
    watch.interrupted = True
    cluster.transact(put("a"))
    cluster.transact(Transaction([], [Remove("a")]))
    assert watch.step() is None
    watch.interrupted = False
    assert watch.step() == [Change("a", b"", 2), Change("a", None, 3)]
    assert watch.step() is None
    cluster.compact()
    assert watch.step() is None, "it had read everything"
    watch.interrupted = True
    cluster.transact(put("b"))
    cluster.compact()
    watch.interrupted = False
    snapshot = watch.step()
    assert isinstance(snapshot, Snapshot)
    assert [item.key for item in snapshot.items] == ["b"]


def test_a_restored_backup_gives_watches_a_snapshot_even_when_it_caught_up() -> None:
    cluster = MemoryCluster()
    lease = cluster.grant(1_000, 0)
    cluster.transact(LEASED, lease)
    backup = cluster.backup()
    watch = MemoryWatch(cluster)
    cluster.transact(put("lost"))
    watch.step()
    cluster.restore(backup)
    cluster.transact(put("other"))
    snapshot = watch.step()
    assert isinstance(snapshot, Snapshot)
    assert [item.key for item in snapshot.items] == ["leased", "other"]
    cluster.expire(lease)
    assert cluster.get("leased") is None
    cluster.restore(None)
    assert watch.step() == Snapshot(1, [])


async def test_a_lost_session_is_granted_again_when_possible() -> None:
    cluster = MemoryCluster()
    coordination = MemoryCoordination(cluster)
    told: list[int] = []
    coordination.on_session(told.append)
    cluster.set_available(False)
    await coordination.start()
    assert coordination.session is None
    with pytest.raises(CoordinationUnavailable):
        await coordination.transact(LEASED)
    assert not coordination.healthy
    cluster.set_available(True)
    first = coordination.session
    assert first is not None
    await coordination.transact(LEASED)
    cluster.expire(first)
    assert coordination.session not in (None, first)
    assert await coordination.get("leased") is None
    assert told == [first, coordination.session]
    await coordination.close()
