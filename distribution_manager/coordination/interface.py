"""What managers need of coordination, whatever carries it: etcd in production, memory in tests.

Model: the cluster's keys in one linearizable store with revisions (core/transactions.py), a watch over all of them, and
one lease per process to which keys can be bound. Keys are relative to the cluster's prefix.
Invariant: every transaction ends in exactly one of three ways: an Outcome (it happened as told),
CoordinationUnavailable or another RejectedError (it has not happened and will not), or OutcomeUnknownError (read again
before deciding anything).
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from typing import Protocol

from distribution_manager.core.transactions import Change, KeyValue, Outcome, Put, Remove, Snapshot, Transaction
from shadow_nodes.protocol.errors import RejectedError

TRANSACTION_OPERATIONS_MAX = 128
"""etcd's own default (``--max-txn-ops``), for the comparisons and for changes and reads together."""
TRANSACTION_BYTES_MAX = 1_000_000
"""Keys and values of one transaction; etcd refuses requests of more than 1.5 MiB (``--max-request-bytes``)."""

CLUSTER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


class CoordinationUnavailable(RejectedError):
    """Coordination cannot be reached, has no leader or no quorum. What was asked has not happened. Worth repeating."""


@dataclass
class Counters:
    """For metrics. ``last_success_s``: monotonic seconds of the last call that was answered; None before the first."""

    calls: int = 0
    errors: int = 0
    unknown_outcomes: int = 0
    watch_snapshots: int = 0
    watch_resumptions: int = 0
    sessions: int = 0
    last_success_s: float | None = None


class Coordination(Protocol):
    """All methods belong to one event loop. Nothing here blocks it."""

    @property
    def healthy(self) -> bool:
        """Whether the last call that ended was answered. The session's keep-alives keep this fresh."""

    @property
    def counters(self) -> Counters: ...

    @property
    def session(self) -> int | None:
        """The id of the lease that leased puts are bound to now; None while there is none."""

    def on_session(self, callback: Callable[[int], None]) -> None:
        """Calls back with the lease id now if there is a session, and after every new one: put your leased keys then.

        A new session means that the keys of the former one are gone or about to go. The callback runs on the event loop
        and must not block; what it wants to await it starts as a task.
        """

    async def start(self) -> None:
        """Starts keeping a session. Does not wait for coordination to be reachable."""

    async def close(self) -> None:
        """Ends watches, gives the session back (its keys go at once, where coordination can be reached) and
        disconnects."""

    async def transact(self, transaction: Transaction) -> Outcome:
        """Raises OutcomeUnknownError, CoordinationUnavailable, another RejectedError where it can never succeed, or
        ValueError where it breaks a bound above or changes a key twice. A cancelled call's outcome is unknown."""

    async def get(self, key: str) -> KeyValue | None:
        """Linearizable. Raises CoordinationUnavailable."""

    async def list_prefix(self, prefix: str) -> Snapshot:
        """Linearizable, all of one revision, in the order of keys. Raises CoordinationUnavailable."""

    def watch(self) -> AsyncGenerator[Snapshot | list[Change], None]:
        """A Snapshot of all keys, then every Change after it, in the order of revisions, without gaps or repeats.

        One list holds all changes of one or more whole transactions. Waits through unavailability. Where changes are
        lost for good (compaction, a store that lost or got back its data), yields a new Snapshot that replaces
        everything.
        Ends when coordination is closed; to leave earlier, ``aclose()`` it.
        """


def check_cluster_name(cluster: str) -> None:
    if not CLUSTER_NAME.fullmatch(cluster):
        raise ValueError(f"cluster: {cluster!r} is not a name of 1 to 63 letters, digits, '.', '_' or '-'")


def check_transaction(transaction: Transaction) -> None:
    """Raises ValueError for what etcd would refuse whatever its keys hold, so that every implementation refuses the
    same."""
    compares = sum(1 if compare.value is None else 2 for compare in transaction.compares)
    operations = max(compares, len(transaction.changes) + len(transaction.reads))
    if operations > TRANSACTION_OPERATIONS_MAX:
        raise ValueError(f"a transaction takes {TRANSACTION_OPERATIONS_MAX} operations at most, not {operations}")
    changed = [change.key for change in transaction.changes]
    if len(set(changed)) < len(changed):
        raise ValueError(f"a transaction changes a key once at most: {sorted(changed)}")
    if sum(change_bytes(change) for change in transaction.changes) > TRANSACTION_BYTES_MAX:
        raise ValueError(f"a transaction carries {TRANSACTION_BYTES_MAX} bytes at most")


def change_bytes(change: Put | Remove) -> int:
    return len(change.key) + (len(change.value) if isinstance(change, Put) else 0)
