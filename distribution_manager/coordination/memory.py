"""etcd's twin in memory: the store itself, pure and synchronous, driven by tests and by the deterministic simulation.

Model: as etcd's: a map of keys with mod_revisions, a history of changes that a watch reads and compaction cuts, leases
that run out by a clock that the caller moves.
Invariant: a transaction that changes anything raises the revision by exactly one; the history holds every change after
``compacted``, in order.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field

from distribution_manager.coordination.interface import CoordinationUnavailable, check_transaction
from distribution_manager.core.transactions import (
    ABSENT,
    Change,
    Compare,
    KeyValue,
    Outcome,
    Put,
    Remove,
    Snapshot,
    Transaction,
)
from shadow_nodes.protocol.errors import OutcomeUnknownError

FIRST_REVISION = 1
"""Of an empty store, as etcd's."""


@dataclass
class _Lease:
    ttl_ms: int
    expires_ms: int
    keys: set[str] = field(default_factory=set)


@dataclass
class Backup:
    """A store's whole state at one time."""

    revision: int
    compacted: int
    items: dict[str, KeyValue]
    history: list[Change]
    leases: dict[int, _Lease]


class MemoryCluster:
    """``available``: False makes every call raise CoordinationUnavailable, and watches silent; set it with
    set_available.

    ``requests_to_lose``, ``replies_to_lose``: so many of the next transactions raise OutcomeUnknownError, not having
    happened or having happened. ``expiry_delay_ms``: leases expire that much late (etcd promises no more than "not
    before").
    """

    def __init__(self) -> None:
        self.revision = FIRST_REVISION
        self.compacted = 0
        self.available = True
        self.requests_to_lose = 0
        self.replies_to_lose = 0
        self.expiry_delay_ms = 0
        self.generation = 0
        """Raised when the store lost or got back data; what a watch knows of an earlier generation is worth nothing."""
        self.listeners: list[Callable[[], None]] = []
        """Called after everything that a watch or a session may want to look at."""
        self._items: dict[str, KeyValue] = {}
        self._history: list[Change] = []
        self._leases: dict[int, _Lease] = {}
        self._lease_of: dict[str, int] = {}
        self._last_lease = 0
        self._now_ms = 0

    # --- calls ----------------------------------------------------------------------------------------------

    def transact(self, transaction: Transaction, lease: int | None = None) -> Outcome:
        """``lease``: the session's, for leased puts. Raises as Coordination.transact does."""
        check_transaction(transaction)
        self._require_available()
        if self.requests_to_lose:
            self.requests_to_lose -= 1
            raise OutcomeUnknownError("the request was lost")
        succeeded = all(self._holds(compare) for compare in transaction.compares)
        if succeeded:
            if any(isinstance(change, Put) and change.leased for change in transaction.changes):
                self._require_lease(lease)
            self._apply(transaction.changes, lease or 0)
        found = {key: self._items[key] for key in transaction.reads if key in self._items}
        outcome = Outcome(succeeded, self.revision, found)
        if self.replies_to_lose:
            self.replies_to_lose -= 1
            raise OutcomeUnknownError("the reply was lost")
        return outcome

    def get(self, key: str) -> KeyValue | None:
        self._require_available()
        return self._items.get(key)

    def list_prefix(self, prefix: str) -> Snapshot:
        self._require_available()
        return Snapshot(self.revision, [self._items[key] for key in sorted(self._items) if key.startswith(prefix)])

    def changes_after(self, revision: int) -> list[Change] | None:
        """None: compacted. Raises CoordinationUnavailable."""
        self._require_available()
        if revision < self.compacted:
            return None
        return [change for change in self._history if change.mod_revision > revision]

    # --- leases ---------------------------------------------------------------------------------------------

    def grant(self, ttl_ms: int, now_ms: int) -> int:
        self._require_available()
        self._last_lease += 1
        self._leases[self._last_lease] = _Lease(ttl_ms, now_ms + ttl_ms)
        return self._last_lease

    def keep_alive(self, lease: int, now_ms: int) -> bool:
        """False: there is no such lease (any more)."""
        self._require_available()
        if lease not in self._leases:
            return False
        self._leases[lease].expires_ms = now_ms + self._leases[lease].ttl_ms
        return True

    def revoke(self, lease: int) -> None:
        self._require_available()
        self.expire(lease)

    def expire(self, lease: int) -> None:
        """Ends a lease now, early or not; its keys go in one revision."""
        ended = self._leases.pop(lease, None)
        if ended is not None:
            self._apply([Remove(key) for key in sorted(ended.keys)], 0)
            self._notify()

    def tick(self, now_ms: int) -> None:
        """Moves the clock that leases run by. An unavailable cluster expires nothing, as an etcd without a leader."""
        self._now_ms = max(self._now_ms, now_ms)
        if self.available:
            ended = [i for i, lease in self._leases.items() if lease.expires_ms + self.expiry_delay_ms <= self._now_ms]
            for lease in ended:
                self.expire(lease)

    def has_lease(self, lease: int) -> bool:
        return lease in self._leases

    # --- faults ---------------------------------------------------------------------------------------------

    def set_available(self, available: bool, now_ms: int = 0) -> None:
        """When it becomes available again, leases get their full time again, as after an etcd election."""
        if available and not self.available:
            self._now_ms = max(self._now_ms, now_ms)
            for lease in self._leases.values():
                lease.expires_ms = max(lease.expires_ms, self._now_ms + lease.ttl_ms)
        self.available = available
        self._notify()

    def compact(self, revision: int | None = None) -> None:
        """Forgets changes up to and including ``revision`` (default: all). Watches that have not read them get a
        Snapshot."""
        self.compacted = max(self.compacted, self.revision if revision is None else revision)
        self._history = [change for change in self._history if change.mod_revision > self.compacted]
        self._notify()

    def backup(self) -> Backup:
        return copy.deepcopy(Backup(self.revision, self.compacted, self._items, self._history, self._leases))

    def restore(self, backup: Backup | None) -> None:
        """Goes back to a backup; None: everything is lost."""
        old = copy.deepcopy(backup) if backup else Backup(FIRST_REVISION, 0, {}, [], {})
        self.revision, self.compacted = old.revision, old.compacted
        self._items, self._history, self._leases = old.items, old.history, old.leases
        self._lease_of = {key: number for number, lease in old.leases.items() for key in lease.keys}
        self.generation += 1
        self._notify()

    # --- inside ---------------------------------------------------------------------------------------------

    def _apply(self, changes: list[Put | Remove], lease: int) -> None:
        effective = [change for change in changes if isinstance(change, Put) or change.key in self._items]
        if not effective:
            return
        self.revision += 1
        for change in effective:
            self._unbind(change.key)
            if isinstance(change, Remove):
                del self._items[change.key]
                self._history.append(Change(change.key, None, self.revision))
                continue
            self._items[change.key] = KeyValue(change.key, change.value, self.revision)
            self._history.append(Change(change.key, change.value, self.revision))
            if change.leased:
                self._leases[lease].keys.add(change.key)
                self._lease_of[change.key] = lease
        self._notify()

    def _unbind(self, key: str) -> None:
        lease = self._leases.get(self._lease_of.pop(key, 0))
        if lease is not None:
            lease.keys.discard(key)

    def _holds(self, compare: Compare) -> bool:
        item = self._items.get(compare.key)
        if item is None:
            return compare.mod_revision == ABSENT and compare.value is None
        return item.mod_revision == compare.mod_revision and compare.value in (None, item.value)

    def _require_available(self) -> None:
        if not self.available:
            raise CoordinationUnavailable("coordination is unavailable")

    def _require_lease(self, lease: int | None) -> None:
        if lease is None or lease not in self._leases:
            raise CoordinationUnavailable(f"there is no session lease {lease}")

    def _notify(self) -> None:
        for listener in list(self.listeners):
            listener()


class MemoryWatch:
    """A watch that is asked: step() gives what is due. ``interrupted``: gives nothing meanwhile, and goes on
    afterwards."""

    def __init__(self, cluster: MemoryCluster) -> None:
        self.interrupted = False
        self._cluster = cluster
        self._generation = -1
        self._delivered = 0

    def step(self) -> Snapshot | list[Change] | None:
        """None: nothing new, or nothing to be had."""
        cluster = self._cluster
        if self.interrupted or not cluster.available:
            return None
        changes = cluster.changes_after(self._delivered) if self._generation == cluster.generation else None
        if changes is None:
            snapshot = cluster.list_prefix("")
            self._generation, self._delivered = cluster.generation, snapshot.revision
            return snapshot
        if not changes:
            return None
        self._delivered = changes[-1].mod_revision
        return changes
