"""At most so many promotions for load at a time, in the whole cluster.

Model: a permit is a key of etcd, promotions/<n>, put under its holder's lease if absent, removed when the promotion has
come about or was given up; a holder that dies frees it by its lease. Whose permits there are is read in the directory.
Invariant: who holds one has seen it under its own name, so no outcome needs to be known: a permit of this process that
nobody here needs, say after an unknown outcome, is removed by ``sweep``.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from typing import Protocol

from distribution_manager.core.directory import Directory
from distribution_manager.core.metadata import Owner, Permit, encode_record, permit_key
from distribution_manager.core.request import Now
from distribution_manager.core.transactions import ABSENT, Compare, Outcome, Put, Remove, Transaction
from shadow_nodes.protocol.commands import ShardKey

PERMIT_RETRY_MS = 1_000
"""A permit that was not to be had, or whose outcome is unknown, is asked for again after this."""


class Office(Protocol):
    now: Now
    me: Owner
    directory: Directory

    def transact(self, transaction: Transaction, done: Callable[[Outcome | None], None]) -> None: ...


class Permits:
    """``count``: how many there are in the cluster."""

    def __init__(self, office: Office, count: int) -> None:
        self._office = office
        self._count = count
        self._asked_ms = -PERMIT_RETRY_MS
        self._asking = False

    def holds(self, shard: ShardKey) -> bool:
        return any(permit.shard == shard for _, permit, _ in self._mine())

    def ask(self, shard: ShardKey) -> None:
        """Asks for one, if one seems to be free; to be called until ``holds``. One is asked for at a time."""
        now_ms = self._office.now.monotonic_ms
        taken = self._office.directory.permits
        free = next((key for key in map(permit_key, range(self._count)) if key not in taken), None)
        if free is None or self._asking or now_ms - self._asked_ms < PERMIT_RETRY_MS:
            return
        self._asking, self._asked_ms = True, now_ms
        me = self._office.me
        permit = Permit(manager=me.manager, life=me.life, shard=shard)
        self._office.transact(
            Transaction([Compare(free, ABSENT)], [Put(free, encode_record(permit), leased=True)], [free]),
            self._answered,
        )

    def _answered(self, outcome: Outcome | None) -> None:
        self._asking = False
        if outcome is not None and outcome.succeeded:
            self._asked_ms -= PERMIT_RETRY_MS

    def sweep(self, needed: Container[ShardKey]) -> None:
        """Gives back the permits of this process whose shards are not ``needed``."""
        if self._asking:
            return
        for key, permit, revision in self._mine():
            if permit.shard not in needed:
                self._asking = True
                self._office.transact(Transaction([Compare(key, revision)], [Remove(key)], [key]), self._given_back)
                return

    def _given_back(self, outcome: Outcome | None) -> None:
        """Whatever came of it, the watch tells: what is still there is swept again."""
        self._asking = False
        self._asked_ms = self._office.now.monotonic_ms - PERMIT_RETRY_MS

    def _mine(self) -> list[tuple[str, Permit, int]]:
        me = self._office.me
        permits = self._office.directory.permits.items()
        return [(key, item, revision) for key, (item, revision) in permits if Owner(item.manager, item.life) == me]
